/** The editor of the SQL page: CodeMirror over a text area, which remains if CodeMirror cannot be loaded. */

const DELAY = 200; // milliseconds without typing before the page reads the statement

const textOf = (/** @type {import("./vendor/codemirror.js").EditorState} */ state) => state.doc.toString();

/** The statement without strings, quoted names and comments. */
const withoutText = (/** @type {string} */ sql) =>
    sql.replace(/'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|\/\*[\s\S]*?\*\//g, " ");

/**
 * Completions for the word that follows `before`: after `name.` the columns of that table or alias, else all
 * words, with columns of the statement's tables first.
 * @param {string} before the text up to the word @param {string} statement @param {Word[]} words
 */
export function completions(before, statement, words) {
    /** @type {Record<string, string>} */
    const named = {};
    const sources = /\b(?:from|join)\s+(\w+)(?:\s+(?:as\s+)?(\w+))?/gi;
    for (const [, table, alias = table] of withoutText(statement).matchAll(sources)) {
        named[table] = named[alias] = table;
    }
    const used = Object.values(named);
    const qualifier = /(\w+)\.$/.exec(before)?.[1];
    const only = qualifier && named[qualifier];
    /** @type {Map<string, Word>} */
    const found = new Map();
    for (const word of words) {
        if (only ? word.table !== only : qualifier && !word.table) continue;
        const boost = word.table && used.includes(word.table) ? 20 : word.boost;
        if (found.has(word.label) && boost !== 20) continue;
        found.set(word.label, { ...word, boost });
    }
    return [...found.values()];
}

/**
 * Puts CodeMirror in front of `area` and keeps the area's value equal to the editor's text.
 * @param {HTMLTextAreaElement} area @param {Word[]} words what is completed @param {() => void} run
 */
export async function mountEditor(area, words, run) {
    const cm = await import("./vendor/codemirror.js");
    const { tags } = cm;
    let timer = 0;
    let sent = area.value; // what the page last knew
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
        return { from, options: completions(before, textOf(context.state), words), validFor: /^\w*$/ };
    }
    /** Passes the text on to the area, as if it had been typed there. */
    function flush() {
        clearTimeout(timer);
        const text = textOf(view.state);
        if (text === sent) return;
        sent = text;
        Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value")?.set?.call(area, text);
        area.dispatchEvent(new Event("input", { bubbles: true }));
    }
    const view = new cm.EditorView({
        doc: area.value,
        extensions: [
            cm.keymap.of([{ key: "Mod-Enter", run: () => (flush(), run(), true) }]),
            cm.basicSetup,
            cm.EditorView.lineWrapping,
            cm.placeholder("SELECT … FROM …    Ctrl+Enter runs it"),
            cm.EditorView.contentAttributes.of({ "aria-label": "SQL statement" }),
            duckdb.extension,
            cm.syntaxHighlighting(colors),
            cm.autocompletion({ override: [complete] }),
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
        /** @param {string} text the statement, unless it is what was written here last */
        write(text) {
            if (text === sent) return;
            sent = text;
            view.dispatch({ changes: { from: 0, to: view.state.doc.length, insert: text } });
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
