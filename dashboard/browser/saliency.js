/* The Saliency page: the request's controls, the job's progress, and the grid of maps (see pages/saliency.py).
   The maps themselves are in maps.js, the large view in large.js. */
// @ts-nocheck
import { convscope } from "./namespace.js";

const { make, icon, ask, UNFINISHED } = convscope;
const { DISPLAY, OPTIONS, display, arrange, repaint } = convscope.maps;

let root = null,
    page = null,
    constants = null,
    parts = {},
    job = null,
    scoring = null;
let poller = null,
    form = null,
    said = "",
    looked = null,
    sought = null,
    runsNext = false;

convscope.drawSaliency = function (given, fixed) {
    const now = document.getElementById("saliency-root");
    if (!now) return "";
    constants = fixed;
    if (!given) {
        now.replaceChildren();
        root = null;
        return "";
    }
    const another =
        !page || page.steps !== given.steps || JSON.stringify(page.request) !== JSON.stringify(given.request);
    page = given;
    if (now !== root) mount(now);
    fill();
    if (another) {
        job = null;
        scoring = null;
        said = "";
        looked = null;
        sought = null;
        parts.grid.dataset.shape = "";
    }
    drawMaps();
    drawProgress();
    if (runsNext && isCurrent()) start();
    else poller.now();
    return "";
};

const drawMaps = () => convscope.maps.draw({ page, constants, parts, job, maps: maps() });

/* The maps of the request: what was stored when the page was opened, whichever job made it, and what its own job
   has made since; with the newest curves. */
function maps() {
    const fresh = new Map(((scoring && scoring.maps) || []).map((map) => [map.map, map]));
    return convscope
        .merged(page, page ? page.stored : [], job ? job.maps : [])
        .map((map) => fresh.get(map.map) || map);
}

const isCurrent = () => convscope.isCurrent(page, Object.keys(DISPLAY));

// ---- controls

function mount(element) {
    root = element;
    const control = (name, label, ...content) =>
        convscope.control(`saliency-${name}`, label, `${name}-control`, ...content);
    const shown = (name, label) =>
        control(
            name,
            label,
            convscope.selectBox(`saliency-${name}`, OPTIONS[name], (event) => show(name, event.target.value)),
        );
    const slider = (name, label, min, max, step) =>
        control(
            name,
            label,
            make(
                "div",
                { class: "slide" },
                make("input", {
                    type: "range",
                    id: `saliency-${name}`,
                    class: "form-range",
                    min,
                    max,
                    step,
                    oninput: (event) => show(name, Number(event.target.value)),
                }),
                make("output", { id: `saliency-${name}-value`, class: "num", for: `saliency-${name}` }),
            ),
        );
    form = convscope.requestForm({
        prefix: "saliency",
        methods: constants.methods,
        standard: "smoothgrad",
        label: "Class to explain",
        target: { prediction: "The prediction", label: "The label", index: "Another class…" },
        presses: run,
        say,
        guess: () => maps().length && maps()[0].predicted_class,
    });
    parts = {
        about: make("p", {}),
        tools: make("div", { class: "tools tools-place" }),
        problems: make("div", { role: "alert" }),
        progress: make("div", { class: "job-line", role: "status" }),
        legend: make("p", { class: "legend" }),
        grid: make("div", { class: "maps" }),
    };
    root.replaceChildren(
        make(
            "div",
            { class: "heading" },
            make("div", { class: "title" }, make("h1", {}, "Saliency"), parts.about),
            parts.tools,
        ),
        form.element,
        parts.problems,
        parts.progress,
        make(
            "div",
            { class: "controls display", role: "group", "aria-label": "How maps are shown" },
            shown("view", "Show"),
            slider("strength", "Strength", 0, 1, 0.01),
            slider("wipe", "Original | map", 0, 1, 0.01),
            shown("colours", "Colour map"),
            shown("scale", "Scale"),
            slider("clip", "Clip at percentile", 80, 100, 0.1),
            shown("order", "Order"),
            shown("model_order", "Sort models"),
            make(
                "button",
                {
                    type: "button",
                    class: "btn btn-sm btn-quiet as-reports",
                    onclick: asInReports,
                    title: "The map alone, its magnitudes white on black, clipped at the 99th percentile",
                },
                "As in reports",
            ),
        ),
        parts.legend,
        parts.grid,
    );
    if (poller) poller.stop();
    poller = convscope.every(refresh);
}

/* Put what the address says into the controls. */
function fill() {
    parts.about.textContent = `${page.image_set} · ${page.images.toLocaleString("en")} images`;
    form.fill(page);
    const problems = Object.values(page.problems);
    parts.problems.replaceChildren(...problems.map((sentence) => make("p", { class: "problem" }, sentence)));
    fillDisplay();
}

function fillDisplay() {
    const chosen = display();
    for (const name of ["view", "colours", "scale", "order", "model_order", "strength", "wipe", "clip"]) {
        const control = document.getElementById(`saliency-${name}`);
        if (control !== document.activeElement || control.type !== "range") control.value = chosen[name];
        const value = document.getElementById(`saliency-${name}-value`);
        if (value)
            value.textContent =
                name === "clip" ? chosen[name].toFixed(1) : `${Math.round(100 * chosen[name])} %`;
    }
    document.querySelector(".strength-control").hidden = chosen.view !== "overlay";
    const scored = maps().some((map) => map.deletion_auc !== null);
    document.querySelector(".model_order-control").hidden = page.chosen.length < 2 || !scored;
}

function show(name, value) {
    convscope.address({ [name]: value === DISPLAY[name] ? "" : value }, true);
    fillDisplay();
    if (name === "order" || name === "model_order") arrange();
    else repaint();
}

/* Grey pictures as papers print them. */
function asInReports() {
    convscope.address({ view: "map", colours: "grey", clip: 99, wipe: "" }, true);
    fillDisplay();
    repaint();
}

function say(sentence) {
    said = sentence;
    drawProgress();
}

// ---- the job

function run() {
    if (isCurrent()) start();
    else runsNext = true; // what was just typed is on its way
}

async function start() {
    runsNext = false;
    if (!page.request) return;
    form.run.disabled = true;
    try {
        const made = await ask("/api/jobs", { method: "POST", body: page.request });
        page.job = made.job;
        said = made.notice.includes("broker is away")
            ? `${made.notice[0].toUpperCase()}${made.notice.slice(1)}.`
            : "";
        if (UNFINISHED.includes(made.state)) sought = made.job;
        job = { ...made, item_list: job ? job.item_list : [], maps: job ? job.maps : [] };
    } catch (error) {
        said = error.message;
    }
    form.run.disabled = false;
    drawProgress();
    poller.now();
}

async function act(path, method) {
    try {
        await ask(path, { method });
        said = "";
    } catch (error) {
        said = error.message;
    }
    poller.now();
}

const goesOn = (one) => Boolean(one && UNFINISHED.includes(one.state));
/* Whether curves of what is shown may be on their way, which nobody has looked for yet. */
const seeking = () =>
    !goesOn(job) && !scoring && sought !== subject() && maps().some((map) => map.deletion_auc === null);
const unread = () => Boolean(scoring && !scoring.maps);
const subject = () => (job ? job.job : "stored");

/* One request a tick. */
async function refresh() {
    const mine = page;
    if (!root || !root.isConnected) return false;
    try {
        const wanted = page.job;
        if ((goesOn(scoring) || unread()) && !goesOn(job)) {
            const found = await ask(`/api/jobs/${scoring.job}?limit=${constants.most}`);
            if (page !== mine) return true;
            scoring = found;
        } else if (wanted !== null && (!looked || !job || goesOn(job))) {
            const found = await ask(`/api/jobs/${wanted}?limit=${constants.most}&steps=${page.steps}`);
            if (page !== mine && page.job !== wanted) return true;
            job = found;
            looked = true;
            if (goesOn(job)) sought = job.job; // new maps have no curves yet
        } else if (seeking()) {
            await findScoring();
        }
        if (said === "Convscope does not answer.") said = "";
    } catch (error) {
        said = error.message;
    }
    if (!root || !root.isConnected) return false;
    drawProgress();
    drawMaps();
    return (
        (page.job !== null && !looked) ||
        seeking() ||
        unread() ||
        goesOn(job) ||
        goesOn(scoring) ||
        said === "Convscope does not answer."
    );
}

/* Curves that are being computed since before this page was opened. */
async function findScoring() {
    sought = subject();
    const numbers = new Set(maps().map((map) => map.map));
    const found = await ask(
        "/api/jobs?" + new URLSearchParams({ kind: "faithfulness", images: page.image_set, limit: 20 }),
    );
    scoring =
        found.jobs.find(
            (one) =>
                UNFINISHED.includes(one.state) &&
                one.parameters.steps === page.steps &&
                one.parameters.maps.some((map) => numbers.has(map)),
        ) || null;
}

async function score() {
    try {
        scoring = await ask("/api/jobs", {
            method: "POST",
            body: {
                kind: "faithfulness",
                steps: page.steps,
                maps: maps()
                    .map((map) => map.map)
                    .sort((a, b) => a - b),
                queue: "interactive",
            },
        });
    } catch (error) {
        said = error.message;
    }
    drawProgress();
    poller.now();
}

function drawProgress() {
    const lines = [];
    if (said) lines.push(make("p", { class: "problem" }, said));
    lines.push(...convscope.jobLine(job, "maps", act), ...convscope.jobLine(scoring, "curves", act));
    const left = page ? page.rows.length * page.chosen.length - maps().length : 0;
    if (!job && page && page.job === null && page.request && !said && left > 0) {
        const asked = maps().length
            ? `${left} of ${maps().length + left} maps are not computed yet`
            : `Not computed yet: ${page.rows.length} ${page.rows.length === 1 ? "image" : "images"} by ` +
              `${page.chosen.length} ${page.chosen.length === 1 ? "model" : "models"}`;
        lines.push(make("p", { class: "quiet" }, `${asked}. Press Run.`));
    }
    convscope.drawJobLines(parts.progress, lines);
    drawTools();
}

function drawTools() {
    const made = maps();
    const key = `${job && job.job} ${made.length} ${scoring && scoring.state} ${made.every((map) => map.deletion_auc !== null)}`;
    if (parts.tools.dataset.key === key) return;
    parts.tools.dataset.key = key;
    if (!made.length) {
        parts.tools.replaceChildren();
        return;
    }
    fillDisplay(); // curves bring an order of their own
    const scored = made.every((map) => map.deletion_auc !== null);
    const busy = scoring && UNFINISHED.includes(scoring.state);
    parts.tools.replaceChildren(
        scored
            ? ""
            : make(
                  "button",
                  {
                      type: "button",
                      class: "btn btn-sm btn-quiet",
                      disabled: busy || goesOn(job),
                      title: "How fast the class goes when the pixels that the map ranks first are deleted, and comes when they are inserted",
                      onclick: score,
                  },
                  icon("graph-down"),
                  "Deletion and insertion",
              ),
        make(
            "a",
            {
                class: "btn btn-sm btn-quiet",
                href: convscope.local("/download/saliency.csv") + location.search,
                download: "",
            },
            icon("download"),
            "CSV",
        ),
        // the address has changed since this was drawn where colours or scale did
        make(
            "a",
            {
                class: "btn btn-sm btn-quiet",
                href: convscope.local("/download/saliency.png") + location.search,
                download: "",
                onclick: (event) => {
                    event.currentTarget.href = convscope.local("/download/saliency.png") + location.search;
                },
            },
            icon("image"),
            "Figure",
        ),
    );
}
