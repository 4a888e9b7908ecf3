/* The SQL page: the editor, fields for the statement's parameters, what it can read, examples and saved queries. The
   address holds the question; what comes back is drawn by sqlresult.js (see pages/sql.py). */
// @ts-nocheck
import { convscope, ns } from "./namespace.js";
import { mountEditor, withoutText } from "./sql_editor.js";

const { make, icon, ask, go } = convscope;

const OFFERS = {
    layer: "SELECT layer FROM layers WHERE model = $model ORDER BY position",
    label: "SELECT DISTINCT label FROM images WHERE image_set = $images AND label IS NOT NULL ORDER BY label",
    model: "SELECT DISTINCT model FROM runs ORDER BY model",
    images: "SELECT DISTINCT image_set FROM images ORDER BY image_set",
};
OFFERS.first = OFFERS.second = OFFERS.label;

let root = null,
    editor = null,
    constants = null,
    tables = [],
    saved = [],
    parts = {},
    standing = {},
    side = "tables",
    shown = null;

const query = () => new URLSearchParams(location.search);
const names = (sql) => [
    ...new Set([...withoutText(sql).matchAll(/\$([A-Za-z_]\w*)/g)].map((found) => found[1])),
];

convscope.drawSQL = function (path, _search, given) {
    const now = document.getElementById("sql-head");
    if (convscope.pagePath(path) !== "/sql" || !now) {
        leave();
        return ns.no_update;
    }
    constants = given;
    if (now !== root) mount(now);
    show();
    return ns.no_update;
};

function leave() {
    if (!root) return;
    convscope.leaveSQL();
    if (editor) editor.destroy();
    root = editor = shown = null;
}

function mount(element) {
    leave();
    root = element;
    const button = (words, symbol, kind, does, title) =>
        make(
            "button",
            { type: "button", class: `btn btn-sm ${kind}`, onclick: does, title },
            icon(symbol),
            make("span", {}, words),
        );
    parts = {
        editor: make(
            "div",
            { class: "sql-editor" },
            make("textarea", {
                class: "sql-plain",
                rows: 12,
                spellcheck: "false",
                "aria-label": "SQL statement",
            }),
        ),
        fields: make("div", { class: "sql-fields", role: "group", "aria-label": "Values of the parameters" }),
        problem: make("p", { class: "problem", role: "alert" }),
        side: make("div", { class: "sql-side-body", role: "tabpanel", tabindex: 0 }),
        run: button("Run", "play-fill", "btn-primary", () => run(), "Ctrl+Enter"),
        cancel: button("Cancel", "x-lg", "btn-quiet", () => convscope.cancelSQL()),
    };
    parts.cancel.hidden = true;
    parts.tabs = Object.fromEntries(
        ["examples", "tables", "saved"].map((name) => [
            name,
            make(
                "button",
                {
                    type: "button",
                    class: "segment",
                    role: "tab",
                    onclick: () => {
                        side = name;
                        drawSide();
                    },
                },
                { examples: "Examples", tables: "Tables", saved: "Saved" }[name],
            ),
        ]),
    );
    root.replaceChildren(
        make(
            "div",
            { class: "heading" },
            make(
                "div",
                { class: "title" },
                make("h1", {}, "SQL"),
                make("p", {}, "One question over activations, images, predictions, attacks, maps and jobs."),
            ),
        ),
        make(
            "div",
            { class: "sql-top" },
            make(
                "section",
                { class: "sql-ask", "aria-label": "The statement" },
                parts.editor,
                parts.fields,
                parts.problem,
                make(
                    "div",
                    { class: "sql-buttons" },
                    parts.run,
                    parts.cancel,
                    button(
                        "Explain",
                        "diagram-2",
                        "btn-quiet",
                        () => run({ explain: "1" }),
                        "How DuckDB would answer it",
                    ),
                    button("Save…", "bookmark", "btn-quiet", saveDialog),
                    make(
                        "button",
                        { type: "button", class: "btn btn-sm btn-quiet sql-link", "data-copy": "" },
                        icon("link-45deg"),
                        make("span", {}, "Copy link"),
                    ),
                ),
            ),
            make(
                "aside",
                { class: "sql-side", "aria-label": "Examples, tables and saved queries" },
                make("div", { class: "segments", role: "tablist" }, Object.values(parts.tabs)),
                parts.side,
            ),
        ),
    );
    parts.editor.firstChild.addEventListener("input", edited);
    parts.editor.addEventListener("keydown", (event) => {
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
            event.preventDefault();
            run();
        }
    });
    standing = {};
    side = query().get("q") ? "examples" : "tables"; // a page without a question shows its examples below
    drawSide();
    startEditor(root);
    readTables(root);
    readSaved();
}

/* What the address asks: into the editor and the fields, and to the server where it is another question. */
function show() {
    const given = query();
    const sql = given.get("q") || "";
    if (shown !== sql) {
        shown = sql;
        if (statement() !== sql) write(sql);
    }
    standing = Object.fromEntries(
        [...given].filter(([name]) => name.startsWith("p.")).map(([name, value]) => [name.slice(2), value]),
    );
    edited();
    root.querySelector(".sql-link").dataset.copy = location.href;
    root.querySelector(".sql-link").hidden = !sql;
    convscope.showSQL(sql.trim() ? asked(sql) : null, {
        starts: () => constants.examples.map(exampleButton),
        running,
        fail,
    });
}

/* The query string of a statement with its values, for every route that takes one. */
function asked(sql) {
    const found = new URLSearchParams();
    const explains = query().get("explain") && !/^\s*explain\b/i.test(sql);
    found.set("q", explains ? `EXPLAIN ${sql}` : sql);
    names(sql).forEach((name) => found.set(`p.${name}`, valueOf(name)));
    return found;
}

const statement = () => parts.editor.firstChild.value;
function write(sql) {
    parts.editor.firstChild.value = sql;
    if (editor) editor.write(sql);
}

/* `$model` and `$images` are the pickers' unless somebody said otherwise. */
const picked = (name) => ({ model: query().get("model"), images: query().get("images") })[name] || "";
const valueOf = (name) => (name in standing ? standing[name] : picked(name));

function edited() {
    const wanted = names(statement());
    const here = [...parts.fields.querySelectorAll("input")].map((input) => input.name);
    if (wanted.join() !== here.join()) {
        const kept =
            document.activeElement && parts.fields.contains(document.activeElement)
                ? document.activeElement.name
                : null;
        parts.fields.replaceChildren(...wanted.map(field));
        if (kept) parts.fields.querySelector(`[name="${kept}"]`)?.focus();
    }
    parts.fields.querySelectorAll("input").forEach((input) => {
        if (input !== document.activeElement || !input.value) input.value = valueOf(input.name);
    });
}

function field(name) {
    const id = `sql-value-${name}`;
    const list = OFFERS[name] ? make("datalist", { id: `${id}-offers` }) : null;
    const input = make("input", {
        id,
        name,
        class: "form-control form-control-sm",
        autocomplete: "off",
        spellcheck: "false",
        list: list ? list.id : null,
        value: valueOf(name),
        placeholder: "value",
        oninput: () => {
            standing[name] = input.value;
        },
        onkeydown: (event) => {
            if (event.key === "Enter") {
                event.preventDefault();
                run();
            }
        },
        onfocus: () => offer(name, list),
    });
    return make("div", { class: "control" }, make("label", { for: id }, `$${name}`), input, list);
}

/* What a parameter of this name may be, in the order of its list. */
async function offers(name) {
    const wanted = new URLSearchParams({ q: OFFERS[name] });
    names(OFFERS[name]).forEach((one) => wanted.set(`p.${one}`, valueOf(one)));
    return (await ask(`/api/sql?${wanted}`)).rows.map(([value]) => value);
}

async function offer(name, list) {
    const about = `${valueOf("model")} ${valueOf("images")}`;
    if (!list || list.dataset.about === about) return;
    list.dataset.about = about;
    try {
        list.replaceChildren(...(await offers(name)).map((value) => make("option", { value })));
    } catch (error) {
        list.dataset.about = ""; // a field without offers is still a field; the next focus asks again
    }
}

/* Running is changing the address; the same address again is asked again. */
function run(more) {
    const sql = statement().trim();
    if (!sql) {
        fail("Write a statement first, or pick an example.");
        return;
    }
    goTo(
        sql,
        Object.fromEntries(
            names(sql).map((name) => [
                name,
                parts.fields.querySelector(`[name="${name}"]`)?.value ?? valueOf(name),
            ]),
        ),
        more,
    );
}

function goTo(sql, values, more) {
    const next = new URLSearchParams();
    for (const name of ["model", "images"]) if (query().get(name)) next.set(name, query().get(name));
    next.set("q", sql);
    for (const [name, value] of Object.entries(values))
        if (value !== picked(name)) next.set(`p.${name}`, value);
    const keep =
        sql === query().get("q")
            ? Object.fromEntries(
                  ["view", "x", "y", "kind", "colour", "limit"].map((name) => [name, query().get(name)]),
              )
            : {};
    for (const [name, value] of Object.entries({ ...keep, ...(more || {}) }))
        if (value) next.set(name, value);
    const length = next.toString().length;
    if (length > constants.most_address) {
        fail(
            `This statement is too long for an address: ${length.toLocaleString("en")} characters as one, at most ` +
                `${constants.most_address.toLocaleString("en")} go. Use convscope sql in a terminal, which takes longer ones.`,
        );
        return;
    }
    fail("");
    if (`?${next}` === location.search) {
        convscope.againSQL();
        return;
    }
    go(convscope.local(`/sql?${next}`));
}

/* An example's own values where this atlas has them, else others that it has. */
async function openExample(example) {
    const values = { ...example.values };
    let place = 0;
    for (const name of names(example.sql)) {
        if (!OFFERS[name] || ["model", "images"].includes(name)) continue;
        try {
            const there = await offers(name);
            if (there.length && !there.includes(values[name])) {
                values[name] = name === "layer" ? there[there.length >> 1] : there[place++ % there.length];
            }
        } catch (error) {
            fail(error.message);
        }
    }
    goTo(example.sql.trim(), values, {
        view: example.view === "table" ? "" : example.view,
        ...example.chart,
    });
}

function fail(sentence) {
    if (root) parts.problem.textContent = sentence;
}

function running(now) {
    if (!root) return;
    parts.cancel.hidden = !now;
    parts.run.disabled = now;
}

/* The editor, loaded when the page is first opened. */
async function startEditor(mine) {
    let found = null;
    try {
        found = await mountEditor(parts.editor.firstChild, { tables: () => tables, run: () => run() });
    } catch (error) {
        return; // the plain text area stays, and runs statements as well
    }
    if (root === mine) editor = found;
    else found.destroy();
}

/* Beside the editor: examples, tables with their columns, saved queries. */
async function readTables(mine) {
    let found = [];
    try {
        found = (await ask("/api/sql/tables")).tables;
    } catch (error) {
        fail(error.message);
    }
    if (root !== mine) return;
    tables = found;
    if (side === "tables") drawSide();
}

async function readSaved() {
    try {
        saved = (await ask("/api/queries")).queries;
    } catch (error) {
        fail(error.message);
    }
    if (root && side === "saved") drawSide();
}

function drawSide() {
    Object.entries(parts.tabs).forEach(([name, tab]) => {
        tab.classList.toggle("on", name === side);
        tab.setAttribute("aria-selected", String(name === side));
    });
    parts.side.replaceChildren(...{ examples: drawExamples, tables: drawTables, saved: drawSaved }[side]());
}

const SYMBOLS = { table: "table", chart: "bar-chart", gallery: "grid-3x3-gap" };
const exampleButton = (example) =>
    make(
        "button",
        { type: "button", class: "sql-item", onclick: () => openExample(example) },
        icon(SYMBOLS[example.view]),
        make("span", {}, example.title),
    );
const drawExamples = () => [
    make(
        "ul",
        { class: "sql-list" },
        constants.examples.map((example) => make("li", {}, exampleButton(example))),
    ),
];

function drawTables() {
    if (!tables.length) return [make("p", { class: "quiet" }, "…")];
    const groups = {
        view: "Views: what people ask most",
        atlas: "Atlas: what networks answer to",
        ledger: "Ledger: jobs and their results",
    };
    return Object.entries(groups).map(([place, title]) =>
        make(
            "section",
            {},
            make("h3", {}, title),
            tables
                .filter((table) => table.place === place)
                .map((table) =>
                    make(
                        "details",
                        { class: "sql-table" },
                        make(
                            "summary",
                            {},
                            make("code", {}, table.name),
                            table.rows === null
                                ? null
                                : make("small", { class: "num" }, table.rows.toLocaleString("en")),
                        ),
                        make(
                            "p",
                            {},
                            table.comment,
                            " ",
                            make(
                                "button",
                                {
                                    type: "button",
                                    class: "btn btn-sm btn-quiet",
                                    onclick: () => insert(table.name),
                                },
                                "Insert",
                            ),
                        ),
                        make(
                            "dl",
                            {},
                            table.columns.flatMap((column) => [
                                make(
                                    "dt",
                                    {},
                                    make(
                                        "button",
                                        {
                                            type: "button",
                                            title: `Insert ${column.name}`,
                                            onclick: () => insert(column.name),
                                        },
                                        column.name,
                                    ),
                                    make("small", {}, column.kind.toLowerCase()),
                                ),
                                make("dd", {}, column.comment),
                            ]),
                        ),
                    ),
                ),
        ),
    );
}

function insert(name) {
    if (!editor) {
        parts.editor.firstChild.setRangeText(name);
        edited();
        return;
    }
    editor.insert(name);
}

function drawSaved() {
    if (!saved.length)
        return [
            make(
                "p",
                { class: "quiet" },
                "Nothing is saved yet. Save keeps the statement in the editor for everybody who uses this Convscope.",
            ),
        ];
    return [
        make(
            "ul",
            { class: "sql-list" },
            saved.map((one) =>
                make(
                    "li",
                    { class: "sql-saved" },
                    make(
                        "button",
                        {
                            type: "button",
                            class: "sql-item",
                            onclick: () =>
                                goTo(
                                    one.sql,
                                    Object.fromEntries(names(one.sql).map((name) => [name, valueOf(name)])),
                                ),
                        },
                        icon("bookmark"),
                        make(
                            "span",
                            {},
                            one.name,
                            one.description ? make("small", {}, one.description) : null,
                        ),
                    ),
                    forget(one),
                ),
            ),
        ),
    ];
}

/* Pressed once it asks, pressed twice it does. */
function forget(one) {
    const control = make(
        "button",
        {
            type: "button",
            class: "btn btn-sm btn-quiet",
            "aria-label": `Forget ${one.name}`,
            onclick: async () => {
                if (!control.classList.contains("sure")) {
                    control.classList.add("sure");
                    control.replaceChildren("Sure?");
                    setTimeout(() => {
                        control.classList.remove("sure");
                        control.replaceChildren("Forget");
                    }, 4000);
                    return;
                }
                try {
                    await ask(`/api/queries/${one.query}`, { method: "DELETE" });
                } catch (error) {
                    fail(error.message);
                }
                readSaved();
            },
        },
        "Forget",
    );
    return control;
}

function saveDialog() {
    const sql = statement().trim();
    if (!sql) {
        fail("Write a statement first, or pick an example.");
        return;
    }
    const name = make("input", {
        id: "sql-save-name",
        class: "form-control form-control-sm",
        maxlength: 200,
        required: true,
        autocomplete: "off",
    });
    const description = make("textarea", {
        id: "sql-save-description",
        class: "form-control form-control-sm",
        rows: 3,
        maxlength: 10000,
    });
    const said = make("p", { class: "problem", role: "alert" });
    const save = make("button", { type: "submit", class: "btn btn-sm btn-primary" }, "Save");
    const there = () => saved.some((one) => one.name === name.value.trim());
    name.addEventListener("input", () => {
        save.textContent = there() ? "Replace" : "Save";
        said.textContent = there()
            ? "There is a saved query of this name: Replace puts this statement in its place."
            : "";
    });
    const dialog = make(
        "dialog",
        { class: "sql-dialog", "aria-label": "Save this query", onclose: () => dialog.remove() },
        make(
            "form",
            {
                onsubmit: async (event) => {
                    event.preventDefault();
                    save.disabled = true;
                    try {
                        await ask("/api/queries", {
                            method: "POST",
                            body: {
                                name: name.value.trim(),
                                description: description.value.trim(),
                                sql,
                                replace: there(),
                            },
                        });
                        side = "saved";
                        await readSaved();
                        dialog.close();
                    } catch (error) {
                        said.textContent = error.message;
                    }
                    save.disabled = false;
                },
            },
            make("h2", {}, "Save this query"),
            make("div", { class: "control" }, make("label", { for: name.id }, "Name"), name),
            make(
                "div",
                { class: "control" },
                make("label", { for: description.id }, "What it tells (optional)"),
                description,
            ),
            said,
            make(
                "div",
                { class: "sql-buttons" },
                save,
                make(
                    "button",
                    { type: "button", class: "btn btn-sm btn-quiet", onclick: () => dialog.close() },
                    "Cancel",
                ),
            ),
        ),
    );
    document.body.append(dialog);
    dialog.showModal();
}
