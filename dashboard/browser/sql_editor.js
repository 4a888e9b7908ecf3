/** The editor of the SQL page: CodeMirror over a text area, which remains if CodeMirror cannot be loaded. */

/** @typedef {import("./vendor/codemirror.js").Completion} Completion */
/** @typedef {{name: string, kind: string, comment: string}} Column */
/** @typedef {{name: string, place: string, comment: string, columns: Column[]}} Table */

const WORDS = (
    "SELECT FROM WHERE GROUP BY ORDER BY HAVING LIMIT OFFSET JOIN LEFT JOIN USING DISTINCT QUALIFY FILTER " +
    "OVER PARTITION BY WITH AS CASE WHEN THEN ELSE END AND OR NOT IN IS NULL LIKE ILIKE BETWEEN UNION ALL " +
    "DESC ASC NULLS LAST DESCRIBE SUMMARIZE EXPLAIN"
).split(" ");
const FUNCTIONS = (
    "count sum avg min max median stddev quantile_cont any_value arg_max arg_min round floor coalesce " +
    "nullif"
).split(" ");
const DELAY = 200; // milliseconds without typing before the page reads the statement

/** The statement without strings, quoted names and comments. */
export const withoutText = (/** @type {string} */ sql) =>
    sql.replace(/'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|\/\*[\s\S]*?\*\//g, " ");

/**
 * Completions for the word that follows `before`: columns of the table or alias before a dot, else columns
 * (those of the statement's tables first), tables, keywords and functions.
 * @param {string} before the text up to the cursor, without the word at the cursor
 * @param {string} statement
 * @param {Table[]} tables
 * @returns {Completion[]}
 */
export function completions(before, statement, tables) {
    /** @type {Record<string, string>} */
    const named = {};
    const sources = /\b(?:from|join)\s+(\w+)(?:\s+(?:as\s+)?(\w+))?/gi;
    for (const [, table, alias] of withoutText(statement).matchAll(sources)) {
        named[table] = table;
        if (alias) named[alias] = table;
    }
    const used = new Set(Object.values(named));
    const qualifier = /(\w+)\.$/.exec(before)?.[1];
    const only = qualifier && named[qualifier];
    /** @type {Map<string, Completion>} */
    const columns = new Map();
    for (const table of tables.filter((one) => !only || one.name === only)) {
        for (const { name, kind, comment } of table.columns) {
            const boost = used.has(table.name) ? 20 : 0;
            if ((columns.get(name)?.boost ?? -1) >= boost) continue;
            const info = `${kind.toLowerCase()}\n${comment}`;
            columns.set(name, { label: name, detail: table.name, info, type: "property", boost });
        }
    }
    if (qualifier) return [...columns.values()];
    return [
        ...columns.values(),
        ...tables.map(({ name, place, comment }) => ({
            label: name,
            detail: place,
            info: comment,
            type: "type",
            boost: 10,
        })),
        ...FUNCTIONS.map((label) => ({ label, type: "function", boost: -10 })),
        ...WORDS.map((label) => ({ label, type: "keyword", boost: -20 })),
    ];
}

/**
 * Puts CodeMirror in front of `area` and keeps the area's value equal to the editor's text.
 * @param {HTMLTextAreaElement} area
 * @param {{tables: () => Table[], run: () => void}} page the tables to complete; `run` runs the statement
 */
export async function mountEditor(area, { tables, run }) {
    const cm = await import("./vendor/codemirror.js");
    const { tags } = cm;
    let timer = 0;
    const colors = cm.HighlightStyle.define([
        { tag: tags.keyword, color: "var(--accent)", fontWeight: "600" },
        { tag: [tags.string, tags.typeName], color: "var(--code-string)" },
        { tag: [tags.number, tags.literal, tags.null], color: "var(--code-number)" },
        { tag: tags.comment, color: "var(--quiet)" },
    ]);
    const { keywords, types } = cm.PostgreSQL.spec;
    const duckdb = cm.SQLDialect.define({
        keywords: `${keywords} describe exclude pivot qualify replace summarize`,
        types,
        specialVar: "?$",
    });
    /** @param {import("./vendor/codemirror.js").CompletionContext} context */
    function complete(context) {
        const word = context.matchBefore(/\w*/);
        const from = word ? word.from : context.pos;
        const before = context.state.sliceDoc(0, from);
        if (!word?.text && !context.explicit && !before.endsWith(".")) return null;
        return {
            from,
            options: completions(before, context.state.doc.toString(), tables()),
            validFor: /^\w*$/,
        };
    }
    /** Passes the text on to the area, as if it had been typed there. */
    function flush() {
        clearTimeout(timer);
        const text = view.state.doc.toString();
        if (text === area.value) return;
        Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value")?.set?.call(area, text);
        area.dispatchEvent(new Event("input", { bubbles: true }));
    }
    const view = new cm.EditorView({
        doc: area.value,
        extensions: [
            cm.lineNumbers(),
            cm.history(),
            cm.bracketMatching(),
            cm.closeBrackets(),
            cm.search({ top: true }),
            cm.EditorView.lineWrapping,
            cm.placeholder("SELECT … FROM …    Ctrl+Enter runs it"),
            cm.EditorView.contentAttributes.of({ "aria-label": "SQL statement" }),
            duckdb.extension,
            cm.syntaxHighlighting(colors),
            cm.autocompletion({ override: [complete] }),
            cm.keymap.of([
                {
                    key: "Mod-Enter",
                    run: () => {
                        flush();
                        run();
                        return true;
                    },
                },
                ...cm.closeBracketsKeymap,
                ...cm.completionKeymap,
                ...cm.defaultKeymap,
                ...cm.historyKeymap,
                ...cm.searchKeymap,
            ]),
            cm.EditorView.updateListener.of((update) => {
                if (!update.docChanged) return;
                clearTimeout(timer);
                timer = window.setTimeout(flush, DELAY);
            }),
        ],
    });
    view.contentDOM.addEventListener("blur", flush); // before the click that took the focus
    const focused = document.activeElement === area;
    area.hidden = true;
    area.after(view.dom);
    if (focused) view.focus();
    return {
        /** @param {string} text replaces the statement */
        write(text) {
            const whole = { from: 0, to: view.state.doc.toString().length, insert: text };
            if (view.state.doc.toString() !== text) view.dispatch({ changes: whole });
        },
        /** @param {string} text replaces the selection */
        insert(text) {
            view.dispatch(view.state.replaceSelection(text));
            view.focus();
        },
        destroy() {
            clearTimeout(timer);
            view.destroy();
        },
    };
}
