/* What pages that are not yet rendered by Python draw with. */
// @ts-nocheck
import { address, ask, go, local, make, pagePath } from "./base.js";
import { highest, loadMap, loadPicture, paint, paintBar } from "./heat.js";
import { convscope } from "./namespace.js";

Object.assign(convscope, { address, ask, go, local, make, pagePath });
Object.assign(convscope, { highest, loadMap, loadPicture, paint, paintBar });

/* An element of a drawing, likewise. */
convscope.svg = function (tag, attributes, ...children) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    Object.entries(attributes || {}).forEach(([name, value]) => {
        if (value !== null) element.setAttribute(name, value);
    });
    element.append(...children.flat());
    return element;
};

/* States of a job that still goes on. */
convscope.UNFINISHED = ["queued", "running"];

/* `1 image`, `1,000 images`, as `words.count` on the server. */
convscope.count = (number, noun) =>
    `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : /(s|x|ch|sh)$/.test(noun) ? "es" : "s"}`;

convscope.icon = (name) => convscope.make("i", { class: `bi bi-${name}`, "aria-hidden": "true" });

convscope.duration = function (seconds) {
    if (seconds === null || seconds === undefined) return "";
    if (seconds < 1) return "under 1 s";
    if (seconds < 90) return `${Math.round(seconds)} s`;
    if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
    if (seconds < 129600) return `${Math.round(seconds / 3600)} h`;
    return `${Math.round(seconds / 86400)} d`;
};

convscope.number = function (value) {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-3 || size >= 1e5)) return value.toExponential(2);
    return String(Number(value.toPrecision(4)));
};

convscope.percent = (share) => (share > 0 && share < 0.0005 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`);

/* Call `again` a second after it ended, while it gives true and somebody looks. One at a time per page. */
convscope.every = function (again) {
    let timer = null,
        stopped = false,
        running = false;
    async function tick() {
        timer = null;
        if (stopped || running) return;
        if (document.hidden) {
            timer = setTimeout(tick, 1000);
            return;
        }
        running = true;
        let more = false;
        try {
            more = await again();
        } finally {
            running = false;
        }
        if (more && !stopped) timer = setTimeout(tick, 1000);
    }
    tick();
    return {
        now() {
            clearTimeout(timer);
            stopped = false;
            tick();
        },
        stop() {
            stopped = true;
            clearTimeout(timer);
        },
    };
};

/* What an import left out, by name. */
convscope.refusals = function (report) {
    const { make } = convscope;
    return [
        make(
            "div",
            { class: "table-scroll refusals", tabindex: 0, role: "region", "aria-label": "Refused files" },
            make(
                "table",
                { class: "table-plain" },
                make(
                    "thead",
                    {},
                    make(
                        "tr",
                        {},
                        ["File", "Why"].map((name) => make("th", { scope: "col" }, name)),
                    ),
                ),
                make(
                    "tbody",
                    {},
                    report.refusals.map((one) =>
                        make("tr", {}, make("td", { class: "long" }, one.name), make("td", {}, one.reason)),
                    ),
                ),
            ),
        ),
        report.refused > report.refusals.length
            ? make("p", { class: "quiet" }, `The first ${report.refusals.length}.`)
            : null,
    ];
};

/* What an import took for split, class and label, and what it did not use. */
convscope.layoutReport = function (layout) {
    const { make } = convscope;
    if (!layout || !layout.sentence) return null;
    const listed = (title, rows, id) =>
        rows.length
            ? make(
                  "details",
                  { id, open: rows.length <= 5 },
                  make("summary", {}, title),
                  make(
                      "ul",
                      { class: "layout-list" },
                      rows.map((row) => make("li", {}, row)),
                  ),
              )
            : null;
    const unused = layout.unused.map((one) =>
        one.count === 1
            ? `${one.kind}: ${one.example}`
            : `${one.count.toLocaleString("en")} ${one.kind}: such as ${one.example}`,
    );
    const count = layout.unused.reduce((sum, one) => sum + one.count, 0);
    return make(
        "div",
        { class: "layout-report" },
        make("p", {}, `Layout: ${layout.sentence}.`),
        listed("Notes", layout.notes, null),
        listed(`Not used (${count.toLocaleString("en")})`, unused, null),
    );
};

/* Bar of a job with words beside it. */
convscope.bar = function (share, words, state) {
    const width = `${Math.round(1000 * Math.min(1, Math.max(0, share))) / 10}%`;
    return convscope.make(
        "div",
        { class: `job-bar ${state || ""}` },
        convscope.make(
            "div",
            {
                class: "job-track",
                role: "progressbar",
                "aria-valuenow": Math.round(100 * share),
                "aria-valuemin": 0,
                "aria-valuemax": 100,
                "aria-label": words,
            },
            convscope.make("div", { class: "job-fill", style: `width:${width}` }),
        ),
        convscope.make("span", { class: "num" }, words),
    );
};
