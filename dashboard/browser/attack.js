/* The Attack page: the request, the list of attacks as they arrive, and the one that is looked at
   (see pages/attack.py). Its pictures and curve are in step.js, what is inside in inside.js. */
// @ts-nocheck
import { convscope, ns } from "./namespace.js";

const { make, icon, ask, UNFINISHED } = convscope;
// names of the address that choose what is looked at, not what is computed
const LOOKS = ["attack", "at", "n", "seed", "label", "verdict", "where"];
const FOLLOWING = { comparison: "comparisons", ablation: "ablations", transfer: "predictions" };

let root = null,
    page = null,
    constants = null,
    parts = {},
    form = null,
    poller = null;
let job = null,
    looked = null,
    said = "",
    runsNext = false,
    whole = 0,
    told = "",
    following = new Map();

convscope.drawAttack = function (given, fixed) {
    const now = document.getElementById("attack-root");
    if (!now) return "";
    constants = fixed;
    if (!given) {
        now.replaceChildren();
        root = null;
        return "";
    }
    const another = !page || JSON.stringify(page.request) !== JSON.stringify(given.request);
    page = given;
    if (now !== root) mount(now);
    parts.about.textContent = `${page.image_set} · ${page.images.toLocaleString("en")} images`;
    form.fill(page);
    const problems = Object.values(page.problems);
    parts.problems.replaceChildren(...problems.map((sentence) => make("p", { class: "problem" }, sentence)));
    if (another) {
        job = null;
        looked = null;
        said = "";
    }
    draw();
    if (runsNext && isCurrent()) start();
    else poller.now();
    return "";
};

const isCurrent = () => convscope.isCurrent(page, LOOKS);
/* The attacks of the request: what was stored, whichever job made it, and what its own job has made since. */
const attacks = () => convscope.merged(page, page ? page.stored : [], job ? job.attacks : []);

/* The attack that is looked at: the one that the address names, else the first. */
const chosen = () =>
    Number(new URLSearchParams(location.search).get("attack")) ||
    (attacks().length ? attacks()[0].attack : 0);

function mount(element) {
    root = element;
    whole = 0;
    form = convscope.requestForm({
        prefix: "attack",
        methods: constants.methods,
        standard: "fgsm",
        label: "Aim",
        target: { prediction: "Leave the prediction", label: "Leave the label", index: "Reach a class…" },
        reads: (name, values) => {
            if (name === "epsilon") return values.mode === "fixed";
            if (values.mode === "fixed")
                return !["grid", "ratio", "parts", "step", "cap", "minimum", "scan"].includes(name);
            if (values.levels === "8-bit") return !["grid", "ratio", "parts"].includes(name);
            if (name === "step") return values.grid === "linear";
            return !(["ratio", "parts"].includes(name) && values.grid === "linear");
        },
        presses: () => {
            if (isCurrent()) start();
            else runsNext = true;
        },
        say: (sentence) => {
            said = sentence;
            draw();
        },
        guess: () => attacks().length && attacks()[0].class_after,
    });
    parts = {
        about: make("p", {}),
        tools: make("div", { class: "tools tools-place" }),
        problems: make("div", { role: "alert" }),
        progress: make("div", { class: "job-line", role: "status" }),
    };
    root.replaceChildren(
        make(
            "div",
            { class: "heading" },
            make("div", { class: "title" }, make("h1", {}, "Attack"), parts.about),
            parts.tools,
        ),
        form.element,
        parts.problems,
        parts.progress,
    );
    if (poller) poller.stop();
    poller = convscope.every(refresh);
}

// ---- jobs

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
        job = { ...made, item_list: job ? job.item_list : [], attacks: attacks() };
        looked = null;
    } catch (error) {
        said = error.message;
    }
    form.run.disabled = false;
    draw();
    poller.now();
}

/* Ask for something about the attack that is looked at. */
async function follow(kind, body) {
    try {
        following.set(
            kind,
            await ask("/api/jobs", {
                method: "POST",
                body: { kind, attacks: [whole], queue: "interactive", ...body },
            }),
        );
        said = "";
        if (following.get(kind).state === "done") following.delete(kind);
    } catch (error) {
        said = error.message;
    }
    draw();
    poller.now();
}

async function act(path, method) {
    try {
        await ask(path, { method });
        said = "";
    } catch (error) {
        said = error.message;
    }
    looked = null;
    poller.now();
}

async function refresh() {
    const mine = page;
    if (!root || !root.isConnected) return false;
    try {
        if (page.job !== null && (!looked || !job || UNFINISHED.includes(job.state))) {
            const found = await ask(`/api/jobs/${page.job}?limit=${constants.most}`);
            if (page !== mine && page.job !== found.job) return true;
            job = found;
            looked = true;
        }
        for (const [kind, one] of following) {
            const found = await ask(`/api/jobs/${one.job}?limit=1`);
            following.set(kind, found);
            if (found.state === "done") following.delete(kind);
        }
        if (chosen() && whole !== chosen()) await open(chosen());
        if (said === "Convscope does not answer.") said = "";
    } catch (error) {
        said = error.message;
    }
    if (!root || !root.isConnected) return false;
    draw();
    return (
        Boolean(job && UNFINISHED.includes(job.state)) ||
        said === "Convscope does not answer." ||
        [...following.values()].some((one) => UNFINISHED.includes(one.state))
    );
}

async function open(number) {
    const listed = await ask("/api/jobs?" + new URLSearchParams({ images: page.image_set, limit: 30 }));
    whole = number;
    following = new Map(
        listed.jobs
            .filter(
                (one) =>
                    one.kind in FOLLOWING &&
                    one.parameters.attacks === String(number) &&
                    UNFINISHED.includes(one.state),
            )
            .map((one) => [one.kind, one]),
    );
}

// ---- what is shown

function draw() {
    const lines = [];
    // what the page was told already is said once
    if (said && !Object.values(page.problems).includes(`${said}.`))
        lines.push(make("p", { class: "problem" }, said));
    lines.push(...convscope.jobLine(job, "attacks", act));
    for (const [kind, one] of following) lines.push(...convscope.jobLine(one, FOLLOWING[kind], act));
    const left = page.rows.length * page.chosen.length - attacks().length;
    if (!job && page.job === null && page.request && !said && left > 0) {
        const asked = attacks().length
            ? `${left} of ${attacks().length + left} are not attacked yet`
            : `Not attacked yet: ${page.rows.length} ${page.rows.length === 1 ? "image" : "images"} by ` +
              `${page.chosen.length} ${page.chosen.length === 1 ? "model" : "models"}`;
        lines.push(make("p", { class: "quiet" }, `${asked}. Press Run.`));
    }
    convscope.drawJobLines(parts.progress, lines);
    drawTools();
    tell();
}

/* Have the server show what is new. */
function tell() {
    const now = JSON.stringify([
        job && [job.job, job.state, job.items_done, job.items_failed],
        [...following].map(([kind, one]) => [kind, one.job, one.state]),
    ]);
    if (now === told) return;
    told = now;
    ns.set_props("attack-news", { data: now });
}

document.addEventListener("click", (event) => {
    const button =
        event.target.closest && event.target.closest("#attack-compute, #attack-ablate, #attack-transfer");
    if (!button) return;
    if (button.id === "attack-compute") {
        const parameters = Object.fromEntries(
            constants.maps.map(({ name }) => [name, Number(document.getElementById(`maps-${name}`).value)]),
        );
        ns.set_props("attack-asked", { data: Object.values(parameters).join(" ") });
        follow("comparison", { parameters });
    } else if (button.id === "attack-ablate") follow("ablation", {});
    else follow("transfer", { judges: button.dataset.judges.split(",") });
});

/* Bring the card of the selected attack into view. */
convscope.showChosen = function () {
    const list = document.querySelector(".attack-list"),
        here = list && list.querySelector(".here");
    if (here) list.scrollLeft = here.offsetLeft - list.clientWidth / 2 + here.clientWidth / 2;
};

convscope.paintMaps = function (_panel, { colours, diverging }) {
    document.querySelectorAll("canvas[data-map]").forEach(async (canvas) => {
        const { map, colours: name, high } = canvas.dataset;
        convscope.paint(canvas, await convscope.loadMap(map), null, {
            table: colours[name],
            diverging: name === diverging,
            high: Number(high),
            strength: 1,
            wipe: 0,
        });
    });
};

function drawTools() {
    const made = attacks();
    const key = `${job && job.job} ${made.length} ${location.search}`;
    if (parts.tools.dataset.key === key) return;
    parts.tools.dataset.key = key;
    parts.tools.replaceChildren(
        ...(made.length
            ? [
                  make(
                      "a",
                      {
                          class: "btn btn-sm btn-quiet",
                          href:
                              convscope.local("/robustness?") +
                              new URLSearchParams({ model: page.chosen[0], images: page.image_set }),
                      },
                      icon("graph-down"),
                      "Robustness",
                  ),
                  make(
                      "a",
                      {
                          class: "btn btn-sm btn-quiet",
                          href: convscope.local("/download/attacks.csv") + location.search,
                          download: "",
                      },
                      icon("download"),
                      "CSV",
                  ),
              ]
            : []),
    );
}
