/* The Jobs page: asks for the list, draws it, keeps the opened job and the focus where they are. */
// @ts-nocheck
import { convscope, ns } from "./namespace.js";

const { make, icon, duration, ask, UNFINISHED } = convscope;
const PER_PAGE = 50;
const STATES = ["queued", "running", "done", "failed", "cancelled"];

let root = null,
    poller = null,
    rows = new Map(),
    parts = {},
    listed = null,
    said = "",
    detail = null;

const query = () => new URLSearchParams(location.search);
const opened = () => Number(query().get("job") || 0);

convscope.drawJobs = function (path, _search, work, kinds) {
    const now = document.getElementById("jobs-root");
    if (convscope.pagePath(path) !== "/jobs" || !now) {
        if (poller) poller.stop();
        root = null;
        return ns.no_update;
    }
    if (now !== root) mount(now, kinds);
    parts.work = work;
    fillControls();
    if (detail && detail.job !== opened()) detail = null;
    poller.now();
    return ns.no_update;
};

function mount(element, kinds) {
    root = element;
    rows = new Map();
    listed = null;
    const select = (name, label, options) =>
        make(
            "div",
            { class: "control" },
            make("label", { for: `jobs-${name}` }, label),
            make(
                "select",
                {
                    id: `jobs-${name}`,
                    class: "form-select form-select-sm",
                    onchange: (event) => convscope.address({ [name]: event.target.value, page: "", job: "" }),
                },
                make("option", { value: "" }, "All"),
                Object.entries(options).map(([value, text]) => make("option", { value }, text)),
            ),
        );
    parts = {
        count: make("p", {}),
        note: make("div", { role: "status" }),
        body: make("div", { class: "job-list" }),
        pager: make("div", {}),
    };
    root.replaceChildren(
        make(
            "div",
            { class: "heading" },
            make("div", { class: "title" }, make("h1", {}, "Jobs"), parts.count),
        ),
        make(
            "div",
            { class: "controls", role: "group", "aria-label": "What is shown" },
            select(
                "state",
                "State",
                Object.fromEntries(STATES.map((s) => [s, s[0].toUpperCase() + s.slice(1)])),
            ),
            select("kind", "Kind", kinds),
        ),
        parts.note,
        parts.body,
        parts.pager,
    );
    if (poller) poller.stop();
    poller = convscope.every(refresh);
}

function fillControls() {
    for (const name of ["state", "kind"]) {
        const control = document.getElementById(`jobs-${name}`);
        control.value = query().get(name) || "";
        if (control.selectedIndex < 0) control.value = "";
    }
}

async function refresh() {
    const mine = root;
    const page = Math.max(1, Number(query().get("page")) || 1);
    const filters = new URLSearchParams({ limit: PER_PAGE, offset: (page - 1) * PER_PAGE });
    for (const name of ["state", "kind"]) if (query().get(name)) filters.set(name, query().get(name));
    try {
        listed = await ask(`/api/jobs?${filters}`);
        if (opened()) detail = await ask(`/api/jobs/${opened()}?limit=200`);
        said = "";
    } catch (error) {
        said = error.message;
    }
    if (root !== mine || !root.isConnected) return false;
    draw(page);
    const shown = listed ? listed.jobs : [];
    return [...shown, ...(detail ? [detail] : [])].some((job) => UNFINISHED.includes(job.state));
}

function draw(page) {
    const words = convscope.workWords(parts.work);
    const trouble =
        words && words[0] === "off" ? `${words[1][0].toUpperCase()}${words[1].slice(1)}: ${words[2]}.` : "";
    note([said, trouble].filter(Boolean));
    if (!listed) return;
    parts.count.textContent = listed.total === 1 ? "1 job" : `${listed.total.toLocaleString("en")} jobs`;
    const shown = [...listed.jobs];
    if (detail && !shown.some((job) => job.job === detail.job)) shown.unshift(detail);
    if (!shown.length) {
        rows = new Map();
        parts.body.replaceChildren(empty());
        parts.pager.replaceChildren();
        return;
    }
    const before = rows;
    rows = new Map();
    shown.forEach((job) => rows.set(job.job, update(before.get(job.job), job)));
    const elements = [...rows.values()].map((row) => row.element);
    if (
        parts.body.childElementCount !== elements.length ||
        elements.some((element, at) => parts.body.children[at] !== element)
    ) {
        keepFocus(() => parts.body.replaceChildren(...elements));
    }
    const pages = Math.max(1, Math.ceil(listed.total / PER_PAGE));
    const link = (to, text) =>
        make(
            "a",
            {
                class: `btn btn-sm btn-quiet${to < 1 || to > pages ? " disabled" : ""}`,
                href: to < 1 || to > pages ? null : address({ page: to === 1 ? "" : to }),
            },
            text,
        );
    parts.pager.replaceChildren(
        ...(pages > 1
            ? [
                  make(
                      "nav",
                      { class: "pager", "aria-label": "Pages of the list" },
                      link(page - 1, "Previous"),
                      make("span", { class: "num" }, `${page} of ${pages}`),
                      link(page + 1, "Next"),
                  ),
              ]
            : []),
    );
}

function address(changes) {
    const next = query();
    Object.entries(changes).forEach(([name, value]) =>
        value === "" ? next.delete(name) : next.set(name, value),
    );
    return convscope.local("/jobs") + (next.toString() ? "?" + next : "");
}

function note(sentences) {
    const text = sentences.join(" ");
    if (parts.note.textContent === text) return;
    parts.note.replaceChildren(...sentences.map((sentence) => make("p", { class: "problem" }, sentence)));
}

const empty = () =>
    make(
        "div",
        { class: "message empty", role: "status" },
        make("div", { class: "message-icon" }, icon("inboxes")),
        make(
            "div",
            {},
            make("h2", {}, query().get("state") || query().get("kind") ? "No such job" : "No job yet"),
            make(
                "p",
                {},
                "Maps and attacks are computed by jobs. Ask for some on the ",
                make("a", { href: convscope.local("/saliency") }, "Saliency page"),
                " or the ",
                make("a", { href: convscope.local("/attack") }, "Attack page"),
                ", or in a terminal:",
            ),
            make(
                "pre",
                { class: "command", tabindex: 0 },
                "convscope saliency --model efficientnet-lite0 --images samples --ids 0-9",
            ),
        ),
    );

/* One job. What did not change is left alone, so that the focus and what is unfolded stay. */
function update(row, job) {
    const open = job.job === opened();
    const whole = open && detail && detail.job === job.job ? detail : null;
    const key = JSON.stringify([
        job.state,
        job.progress,
        job.attempts,
        job.error,
        job.worker,
        job.cancel_requested,
        job.silent,
        job.note,
        open,
        whole && whole.item_list,
        Math.round(job.age / 10),
        job.seconds_left,
    ]);
    if (row && row.key === key) return row;
    const fresh = row || {
        element: make("article", { class: "job-card", "data-job": job.job }),
        unfolded: new Set(),
    };
    fresh.key = key;
    keepFocus(() => {
        fresh.element.className = `job-card ${job.state}${open ? " open" : ""}`;
        fresh.element.replaceChildren(head(job, open), ...(open ? [inside(whole || job, fresh)] : []));
    });
    return fresh;
}

function keepFocus(change) {
    const focused = document.activeElement && document.activeElement.id;
    change();
    if (!focused || document.activeElement.id === focused) return;
    const again = document.getElementById(focused);
    if (again) again.focus({ preventScroll: true });
}

function head(job, open) {
    const done = job.items_done + job.items_failed;
    const state =
        job.cancel_requested && job.state === "running"
            ? "cancelling"
            : job.silent
              ? "worker silent"
              : job.state;
    const whole = ["import", "index"].includes(job.kind); // one item: its share tells
    let words = whole
        ? ["failed", "cancelled"].includes(job.state)
            ? "no result"
            : `${Math.floor(100 * job.progress)} %`
        : `${done.toLocaleString("en")} of ${job.items.toLocaleString("en")}`;
    if (job.items_failed) words += `, ${job.items_failed} failed`;
    const pace = job.item_seconds ? `${duration(job.item_seconds)} each` : "";
    const left =
        job.state === "running" && job.seconds_left !== null ? `${duration(job.seconds_left)} left` : "";
    const facts = [[pace, left].filter(Boolean).join(" · ") || job.note || ""];
    const who = job.worker ? `${job.worker}${job.attempts > 1 ? `, attempt ${job.attempts}` : ""}` : "";
    const toggle = make(
        "a",
        {
            id: `job-${job.job}`,
            class: "job-name",
            href: address({ job: open ? "" : job.job }),
            "aria-expanded": String(open),
        },
        make("span", { class: "num job-number" }, `#${job.job}`),
        make(
            "span",
            {},
            make("b", {}, job.title),
            make("small", {}, job.models.join(", ") || job.parameters.source || ""),
        ),
    );
    return make(
        "div",
        { class: "job-head" },
        toggle,
        make(
            "div",
            { class: "job-what" },
            make("span", {}, job.image_set),
            make("small", {}, job.parameters.method ? job.parameters.method.replaceAll("_", " ") : job.queue),
        ),
        make("div", { class: "job-state" }, lamp(job), state),
        convscope.bar(job.progress, words, job.state),
        make("div", { class: "job-facts num" }, facts[0], make("small", {}, who)),
        make(
            "div",
            { class: "job-age num", title: new Date(job.created).toLocaleString() },
            `${duration(job.age)} ago`,
        ),
        make("div", { class: "job-actions" }, actions(job)),
    );
}

function lamp(job) {
    const kinds = { queued: "waiting", running: "busy", done: "on", failed: "off", cancelled: "idle" };
    return make("span", { class: `lamp ${job.silent ? "off" : kinds[job.state]}`, "aria-hidden": "true" });
}

function shows(job) {
    return [icon(job.link.icon), job.link.text];
}

function actions(job) {
    const found = [];
    if (job.page) {
        found.push(
            make(
                "a",
                { id: `job-${job.job}-page`, class: "btn btn-sm btn-quiet", href: job.page },
                ...shows(job),
            ),
        );
    }
    const button = (name, words, symbol, path, method) =>
        make(
            "button",
            {
                id: `job-${job.job}-${name}`,
                type: "button",
                class: "btn btn-sm btn-quiet",
                "aria-label": `${words} job ${job.job}`,
                onclick: (event) => act(event.currentTarget, path, method),
            },
            icon(symbol),
            words,
        );
    if (UNFINISHED.includes(job.state) && !job.cancel_requested) {
        found.push(button("cancel", "Cancel", "x-lg", `/api/jobs/${job.job}`, "DELETE"));
    }
    if (["failed", "cancelled"].includes(job.state)) {
        found.push(button("retry", "Retry", "arrow-clockwise", `/api/jobs/${job.job}/retry`, "POST"));
    }
    return found;
}

async function act(control, path, method) {
    control.disabled = true;
    try {
        await ask(path, { method });
        said = "";
    } catch (error) {
        said = error.message;
        note([said]);
    }
    poller.now();
}

function inside(job, row) {
    const fold = (name, title, content) =>
        make(
            "details",
            {
                open: row.unfolded.has(name),
                ontoggle: (event) => row.unfolded[event.target.open ? "add" : "delete"](name),
            },
            make("summary", { id: `job-${job.job}-${name}` }, title),
            content,
        );
    const parameters = { ...job.parameters, ...(job.parameters.parameters || {}) };
    delete parameters.parameters;
    parameters.models = job.models.join(", ") || null;
    for (const name of ["upload", "before"]) delete parameters[name];
    for (const name of ["ids", "maps", "attacks"])
        if (parameters[name]) parameters[name] = shorten([parameters[name]].flat().join(", "));
    const time = (text) => (text ? new Date(text).toLocaleString() : null);
    const facts = {
        ...parameters,
        queue: job.queue,
        attempts: job.attempts,
        created: time(job.created),
        started: time(job.started),
        finished: time(job.finished),
        worker: job.worker,
    };
    return make(
        "div",
        { class: "job-inside" },
        job.error ? make("p", { class: "problem", role: "alert" }, job.error) : null,
        make(
            "dl",
            { class: "job-parameters" },
            Object.entries(facts)
                .filter(([, value]) => value !== null)
                .map(([name, value]) =>
                    make("div", {}, make("dt", {}, name.replaceAll("_", " ")), make("dd", {}, String(value))),
                ),
        ),
        job.traceback
            ? fold("traceback", "Traceback", make("pre", { class: "command", tabindex: 0 }, job.traceback))
            : null,
        job.image_import ? importReport(job.image_import, fold) : null,
        job.item_list && !["import", "index"].includes(job.kind)
            ? fold("items", `Items (${job.items.toLocaleString("en")})`, itemTable(job))
            : job.item_list
              ? null
              : make("p", { class: "quiet" }, "…"),
    );
}

/* What entered, and what was refused by name. */
function importReport(report, fold) {
    const count = (number, words) => (number ? `${number.toLocaleString("en")} ${words}` : "");
    if (report.layout && report.layout.preview) {
        return make(
            "div",
            { class: "import-report" },
            make("p", {}, "A preview: nothing was imported."),
            convscope.layoutReport(report.layout),
        );
    }
    const told = [
        `${convscope.count(report.added, "image")} added`,
        count(report.known, "already there"),
        count(report.labelled, "with a label"),
        count(report.duplicates, "with the same bytes as another"),
        count(report.changed, "with other content than before"),
        count(report.relabelled, "with another label now"),
        count(report.moved, "read from where they lie now"),
        count(report.renamed, "moved or renamed"),
        count(report.gone, "without a file any more"),
    ]
        .filter(Boolean)
        .join(", ");
    return make(
        "div",
        { class: "import-report" },
        make("p", {}, `${told}.`),
        convscope.layoutReport(report.layout),
        report.refused
            ? fold(
                  "refusals",
                  `Refused (${report.refused.toLocaleString("en")})`,
                  make("div", {}, convscope.refusals(report)),
              )
            : null,
    );
}

const shorten = (text) => (text.length > 160 ? text.slice(0, 157) + "…" : text);

function itemTable(job) {
    const maps = ["saliency", "faithfulness"].includes(job.kind);
    const head = ["", "Image", "Model", "State", "Seconds", maps ? "Map" : "Attack"];
    const bodies = job.item_list.map((item) =>
        make(
            "tr",
            {},
            make("td", { class: "num quiet" }, String(item.position)),
            make("td", { class: "num" }, String(item.image_id)),
            make("td", {}, item.model),
            make("td", {}, item.error ? make("span", { class: "problem" }, item.error) : item.state),
            make("td", { class: "num end" }, item.seconds === null ? "" : item.seconds.toFixed(1)),
            make(
                "td",
                { class: "num end" },
                item.result === null
                    ? ""
                    : maps
                      ? make(
                            "a",
                            { href: convscope.local(`/api/maps/${item.result}.png`), target: "_blank" },
                            String(item.result),
                        )
                      : make(
                            "a",
                            { href: convscope.local(`/attack?attack=${item.result}`) },
                            String(item.result),
                        ),
            ),
        ),
    );
    return make(
        "div",
        {},
        make(
            "div",
            { class: "table-scroll", tabindex: 0, role: "region", "aria-label": "Items" },
            make(
                "table",
                { class: "table-plain" },
                make(
                    "thead",
                    {},
                    make(
                        "tr",
                        {},
                        head.map((name) => make("th", { scope: "col" }, name)),
                    ),
                ),
                make("tbody", {}, bodies),
            ),
        ),
        job.items > job.item_list.length
            ? make(
                  "p",
                  { class: "quiet" },
                  `The first ${job.item_list.length}; /api/jobs/${job.job} has all.`,
              )
            : null,
    );
}
