/* What a statement gives: asked for once, drawn as a table, a chart or pictures, and taken away as a file (see sql.js). */
// @ts-nocheck
import { convscope, ns } from "./namespace.js";

const { make, icon, ask } = convscope;

const STANDARD_ROWS = 1000,
    MOST_ROWS = 20000,
    MOST_COLOURS = 12;
const VIEWS = { table: "Table", chart: "Chart", gallery: "Gallery" };
const KINDS = { bar: "Bars", line: "Line", scatter: "Points", histogram: "Histogram" };
// Wong, "Points of view: Color blindness", Nature Methods 8, 2011
const PALETTE = [
    "#0f766e",
    "#d55e00",
    "#0072b2",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#009e73",
    "#999999",
    "#b59f00",
    "#7b5ea7",
    "#8c564b",
    "#444444",
];
const NUMBERS = /^(U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|FLOAT|DOUBLE|DECIMAL.*)$/;
const HIDDEN = ["run", "image_set", "image_id", "y", "x", "attack", "map", "model", "layer", "channel"];

let result = null,
    question = "",
    key = null,
    asking = null,
    page = null,
    drawn = {};

const query = () => new URLSearchParams(location.search);
const element = (name) => document.getElementById(`sql-${name}`);
const isNumber = (column) => NUMBERS.test(column.type);
const placeOf = (name) => result.columns.findIndex((column) => column.name === name);
const columnNames = () => result.columns.map((column) => column.name);
const numberNames = () => result.columns.filter(isNumber).map((column) => column.name);

/* `wanted` is the question as a query string; `told` how the page hears of it (starts, running, fail). */
convscope.showSQL = function (wanted, told) {
    page = told;
    if (!wanted) {
        stop();
        key = result = null;
        drawBlank();
        return;
    }
    question = wanted.toString();
    wanted.set("limit", query().get("limit") || STANDARD_ROWS);
    wanted.set("images", query().get("images") || "");
    wanted.set("cards", "1");
    if (wanted.toString() === key) {
        if (result) drawResult();
        return;
    }
    key = wanted.toString();
    fetchResult();
};

convscope.againSQL = () => {
    if (key) fetchResult();
};
convscope.cancelSQL = () => {
    if (asking) asking.stop.abort();
};
convscope.leaveSQL = function () {
    stop();
    key = result = null;
};

function stop() {
    if (!asking) return;
    asking.left = true;
    asking.stop.abort();
    clearInterval(asking.clock);
    asking = null;
}

async function fetchResult() {
    stop();
    const mine = (asking = { stop: new AbortController(), left: false, begun: performance.now() });
    result = null;
    page.running(true);
    page.fail("");
    const seconds = () => ((performance.now() - mine.begun) / 1000).toFixed(0);
    mine.clock = setInterval(() => {
        const place = element("result");
        if (place && seconds() >= 1) place.replaceChildren(running(seconds()));
    }, 500);
    element("result").setAttribute("aria-busy", "true");
    let found = null,
        sentence = "";
    try {
        found = await ask(`/api/sql?${key}`, { signal: mine.stop.signal });
    } catch (error) {
        sentence = mine.stop.signal.aborted ? `Cancelled after ${seconds()} s.` : error.message;
    }
    clearInterval(mine.clock);
    if (mine.left || !element("result")) return;
    asking = null;
    page.running(false);
    element("result").removeAttribute("aria-busy");
    if (found) {
        result = found;
        drawResult();
        if (element("result").getBoundingClientRect().top > window.innerHeight - 80)
            element("result").scrollIntoView({ block: "start" });
    } else {
        hidePanels();
        element("result").replaceChildren(
            make("p", { class: "sql-failed problem", role: "alert" }, sentence),
        );
    }
}

const running = (seconds) =>
    make(
        "p",
        { class: "sql-status", role: "status" },
        make("span", { class: "lamp busy", "aria-hidden": "true" }),
        ` Running… ${seconds} s`,
    );

function hidePanels() {
    Object.keys(VIEWS).forEach((view) => {
        element(`panel_${view}`).hidden = true;
    });
}

function drawBlank() {
    hidePanels();
    element("result").removeAttribute("aria-busy");
    page.running(false);
    element("result").replaceChildren(
        make(
            "section",
            { class: "sql-blank" },
            make("h2", {}, "Pick a question, or write one"),
            make("div", { class: "sql-starts" }, page.starts()),
        ),
    );
}

function drawResult() {
    hidePanels();
    if (result.plan) {
        element("result").replaceChildren(
            status(),
            make(
                "pre",
                { class: "command sql-plan", tabindex: 0 },
                result.rows.map((row) => String(row[row.length - 1])).join("\n"),
            ),
        );
        return;
    }
    const views = {
        table: true,
        chart: result.columns.some(isNumber) && result.rows.length > 0,
        gallery: result.pictures && result.rows.length > 0,
    };
    const wanted = query().get("view") || "table";
    const view = views[wanted] ? wanted : "table";
    element("result").replaceChildren(status(), tabs(view, views), ...remark(wanted, view));
    element(`panel_${view}`).hidden = false;
    if (view === "table") drawTable();
    if (view === "chart") drawChart();
    if (view === "gallery") drawGallery();
}

function remark(wanted, view) {
    if (wanted === view || !VIEWS[wanted] || !result.rows.length) return [];
    const why = wanted === "gallery" ? "no column image_id, attack or map" : "no column of numbers";
    return [make("p", { class: "quiet" }, `${VIEWS[wanted]}: this result has ${why}.`)];
}

function status() {
    const rows = result.rows.length;
    const count = `${result.more ? "the first " : ""}${rows.toLocaleString("en")} ${rows === 1 ? "row" : "rows"}`;
    const time =
        result.seconds < 0.1 ? `${(1000 * result.seconds).toFixed(1)} ms` : `${result.seconds.toFixed(2)} s`;
    const more =
        result.more && rows < MOST_ROWS
            ? make(
                  "button",
                  {
                      type: "button",
                      class: "btn btn-sm btn-quiet",
                      onclick: () => convscope.address({ limit: MOST_ROWS }),
                  },
                  `Show up to ${MOST_ROWS.toLocaleString("en")}`,
              )
            : null;
    return make(
        "div",
        { class: "sql-status-line" },
        make(
            "p",
            { class: "sql-status num", role: "status" },
            result.plan ? "plan" : `${count} · ${result.columns.length} columns · ${time}`,
        ),
        more,
        result.plan
            ? null
            : make(
                  "div",
                  { class: "tools", role: "group", "aria-label": "Download all rows" },
                  ["csv", "json", "parquet"].map((form) =>
                      make(
                          "a",
                          {
                              class: "btn btn-sm btn-quiet",
                              href: convscope.local(`/download/sql.${form}?${question}`),
                              download: "",
                              title: `All rows as ${form}`,
                          },
                          icon("download"),
                          { csv: "CSV", json: "JSON", parquet: "Parquet" }[form],
                      ),
                  ),
              ),
    );
}

function tabs(view, views) {
    const list = make("div", {
        class: "segments sql-tabs",
        role: "tablist",
        "aria-label": "How the result is shown",
    });
    const buttons = Object.entries(VIEWS).map(([name, words]) =>
        make(
            "button",
            {
                type: "button",
                id: `sql-tab_${name}`,
                role: "tab",
                class: `segment${name === view ? " on" : ""}`,
                "aria-selected": String(name === view),
                "aria-controls": `sql-panel_${name}`,
                tabindex: name === view ? 0 : -1,
                disabled: !views[name],
                onclick: () => choose(name),
            },
            words,
        ),
    );
    list.append(...buttons);
    list.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!step) return;
        const open = buttons.filter((button) => !button.disabled);
        open[(open.indexOf(document.activeElement) + step + open.length) % open.length].click();
    });
    return list;
}

function choose(view) {
    convscope.address({ view: view === "table" ? "" : view });
    requestAnimationFrame(() => document.getElementById(`sql-tab_${view}`)?.focus());
}

/* A float32 has seven digits, a double twelve worth reading. */
function shortened(value, type) {
    if (typeof value !== "number" || Number.isInteger(value)) return value;
    return Number(value.toPrecision(type === "FLOAT" ? 7 : 12));
}

const asText = (value) =>
    value === null ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);

/* The grid keeps the order, the filter and the width of a column by its field's name: the same result columns have
   the same fields, others have new ones, so that nothing of another question is left. */
let shape = "",
    shapes = 0;
function fields() {
    const now = JSON.stringify(result.columns.map((column) => [column.name, column.type]));
    if (now !== shape) {
        shape = now;
        shapes += 1;
    }
    return result.columns.map((_column, at) => `r${shapes}c${at}`);
}

function drawTable() {
    if (drawn.table === result) return;
    drawn.table = result;
    const names = fields();
    // no data type: the grid would write "Invalid Number" for NaN, infinities and numbers too wide for JSON
    const columns = result.columns.map((column, at) => ({
        field: names[at],
        headerName: column.name,
        headerTooltip: `${column.name}: ${column.type.toLowerCase()}`,
        filter: isNumber(column) ? "agNumberColumnFilter" : "agTextColumnFilter",
        type: isNumber(column) ? "rightAligned" : undefined,
        maxWidth: 460,
        cellDataType: false,
    }));
    const rows = result.rows.map((row) =>
        Object.fromEntries(
            row.map((value, at) => [
                names[at],
                isNumber(result.columns[at]) ? shortened(value, result.columns[at].type) : asText(value),
            ]),
        ),
    );
    ns.set_props("sql-grid", { columnDefs: columns, rowData: rows, filterModel: {} });
}

/* What the chart is of: the address, else the first columns that can be drawn. */
function chosen() {
    const names = columnNames(),
        numbers = numberNames();
    const given = (name) => (names.includes(query().get(name)) ? query().get(name) : "");
    const x = given("x") || names[0];
    const y = given("y") || numbers.find((name) => name !== x) || numbers[0];
    const standard = numbers.includes(x) ? "scatter" : "bar";
    const kind = query().get("kind") in KINDS ? query().get("kind") : standard;
    return { x, y, kind, colour: given("colour") };
}

function drawChart() {
    const now = chosen();
    const select = (name, label, options, value) =>
        make(
            "div",
            { class: "control" },
            make("label", { for: `sql-${name}` }, label),
            make(
                "select",
                {
                    id: `sql-${name}`,
                    class: "form-select form-select-sm",
                    onchange: (event) => convscope.address({ [name]: event.target.value }),
                },
                options.map(([key_, words]) =>
                    make("option", { value: key_, selected: key_ === value }, words),
                ),
            ),
        );
    const same = (list) => list.map((name) => [name, name]);
    const held = document.activeElement && document.activeElement.id;
    element("axes").replaceChildren(
        select("kind", "Kind", Object.entries(KINDS), now.kind),
        select("x", "x", same(now.kind === "histogram" ? numberNames() : columnNames()), now.x),
        now.kind === "histogram" ? "" : select("y", "y", same(numberNames()), now.y),
        select("colour", "Colour", [["", "none"], ...same(columnNames())], now.colour),
    );
    if (held && element("axes").querySelector(`#${held}`)) element("axes").querySelector(`#${held}`).focus();
    ns.set_props("sql-figure", { figure: figure(now) });
}

function figure(now) {
    const [x, y, c] = [now.x, now.y, now.colour].map(placeOf);
    const style = getComputedStyle(document.documentElement);
    const token = (name) => style.getPropertyValue(name).trim();
    const value = (row, place) =>
        row[place] !== null && typeof row[place] === "object" ? asText(row[place]) : row[place];
    const groups = new Map();
    result.rows.forEach((row) => {
        const name = c < 0 ? "" : asText(row[c]) || "null";
        const group = groups.has(name) || groups.size < MOST_COLOURS - 1 ? name : "all others";
        if (!groups.has(group)) groups.set(group, []);
        groups.get(group).push(row);
    });
    const data = [...groups].map(([name, rows], place) => {
        const colour = c < 0 ? token("--accent") : PALETTE[place];
        const trace = {
            name,
            x: rows.map((row) => value(row, x)),
            marker: { color: colour, size: 7, opacity: now.kind === "scatter" ? 0.75 : 1 },
            line: { color: colour, width: 2 },
        };
        if (now.kind === "histogram")
            return { ...trace, type: "histogram", opacity: groups.size > 1 ? 0.6 : 1, line: undefined };
        trace.y = rows.map((row) => row[y]);
        if (now.kind === "bar") return { ...trace, type: "bar", line: undefined };
        return {
            ...trace,
            type: rows.length > 4000 ? "scattergl" : "scatter",
            mode: now.kind === "line" ? "lines+markers" : "markers",
        };
    });
    const axis = (title) => ({
        title: { text: title, standoff: 8 },
        gridcolor: token("--line"),
        zerolinecolor: token("--line-strong"),
        linecolor: token("--line-strong"),
        automargin: true,
    });
    return {
        data,
        layout: {
            paper_bgcolor: "rgba(0,0,0,0)",
            plot_bgcolor: "rgba(0,0,0,0)",
            font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: token("--text") },
            margin: { l: 56, r: 16, t: 12, b: 44 },
            xaxis: axis(now.x),
            yaxis: axis(now.kind === "histogram" ? "rows" : now.y),
            barmode: now.kind === "histogram" ? "overlay" : "group",
            showlegend: c >= 0,
            legend: { orientation: "h", y: 1.08, x: 0 },
            hovermode: "closest",
        },
    };
}

new MutationObserver(() => {
    if (result && element("panel_chart") && !element("panel_chart").hidden) drawChart();
}).observe(document.documentElement, { attributes: true, attributeFilter: ["data-bs-theme"] });

function drawGallery() {
    if (drawn.gallery === result) return;
    drawn.gallery = result;
    const cards = result.cards || [];
    const shown = cards.filter(Boolean).length;
    const lost = result.rows.slice(0, cards.length).length - shown;
    const note = [
        shown < result.rows.length && result.rows.length > cards.length
            ? `The first ${cards.length} rows.`
            : "",
        lost ? `${lost} ${lost === 1 ? "row names" : "rows name"} no picture that there is.` : "",
    ]
        .filter(Boolean)
        .join(" ");
    element("cards").replaceChildren(
        make("p", { class: "quiet" }, note),
        make(
            "ul",
            { class: "thumbnails sql-cards" },
            cards.map((card, at) => (card ? make("li", {}, cardOf(card, result.rows[at])) : null)),
        ),
    );
}

/* Whether a column says something of one row that it does not say of all. */
function differs(name) {
    const at = placeOf(name);
    return at >= 0 && result.rows.some((row) => row[at] !== result.rows[0][at]);
}

function cardOf(card, row) {
    const of = (name) => {
        const at = placeOf(name);
        return at < 0 || row[at] === null ? "" : asText(shortened(row[at], result.columns[at].type));
    };
    const facts = result.columns
        .map((column, at) => [column.name, row[at], column.type])
        .filter(([name]) => !HIDDEN.includes(name))
        .slice(0, 4);
    const place =
        differs("layer") || differs("channel")
            ? `${of("layer")}${of("channel") ? ` · ${of("channel")}` : ""}`
            : of("image_id")
              ? `image ${of("image_id")}`
              : "";
    const words = (value, type) =>
        typeof value === "number"
            ? Number.isInteger(value)
                ? value.toLocaleString("en")
                : convscope.number(shortened(value, type))
            : asText(value);
    const all = result.columns.map((column, at) => `${column.name}: ${asText(row[at])}`).join("\n");
    return make(
        "a",
        { href: card.href, title: all, target: card.kind === "map" ? "_blank" : null },
        make("img", {
            src: card.src,
            alt: `${card.kind} ${place}`,
            loading: "lazy",
            width: 128,
            height: 128,
            onerror: (event) => event.target.classList.add("gone"),
        }),
        make("span", { class: "caption" }, make("span", { class: "name" }, place)),
        facts.map(([name, value, type]) =>
            make(
                "span",
                { class: "caption" },
                make("span", { class: "name quiet" }, name),
                make("span", { class: "num" }, words(value, type)),
            ),
        ),
    );
}
