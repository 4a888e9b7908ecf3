/* The Attack page: the request, the list of attacks as they arrive, and the one that is looked at
   (see pages/attack.py). Its pictures and curve are in step.js, what is inside in inside.js. */
// @ts-nocheck
import { convscope } from "./namespace.js";

const { make, icon, percent, ask, UNFINISHED } = convscope;
// names of the address that choose what is looked at, not what is computed
const LOOKS = ["attack", "at", "n", "seed", "label", "verdict", "where"];
const FOLLOWING = { comparison: "comparisons", ablation: "ablations", transfer: "judgements" };

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
    whole = null,
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
    whole = null;
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
        list: make("ul", { class: "attack-list", "aria-label": "Attacks" }),
        detail: make("div", { class: "attack-detail" }),
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
        parts.list,
        parts.detail,
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
                body: { kind, attacks: [whole.attack], queue: "interactive", ...body },
            }),
        );
        said = "";
        if (following.get(kind).state === "done") {
            following.delete(kind);
            whole = null;
        }
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
            if (found.state === "done") {
                following.delete(kind);
                whole = null;
            }
        }
        if (chosen() && (!whole || whole.attack !== chosen())) await open(chosen());
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
    const before = whole && whole.attack;
    whole = await ask(`/api/attacks/${number}`);
    if (before === number) return;
    const listed = await ask("/api/jobs?" + new URLSearchParams({ images: whole.image_set, limit: 30 }));
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
    drawList();
    drawTools();
    const shown = whole && whole.attack === chosen() ? whole : null;
    if (!shown) {
        if (!chosen()) {
            parts.detail.replaceChildren();
            parts.detail.dataset.shown = "";
        }
        return;
    }
    const busy = [...following].map(([kind, one]) => (UNFINISHED.includes(one.state) ? kind : ""));
    const key = JSON.stringify([
        shown.attack,
        shown.comparisons.map((one) => one.created),
        (convscope.shownComparison(shown) || {}).created,
        shown.transfers,
        shown.ablations,
        busy,
    ]);
    if (parts.detail.dataset.shown === key) return;
    parts.detail.dataset.shown = key;
    const again =
        document.activeElement && parts.detail.contains(document.activeElement)
            ? document.activeElement.id
            : "";
    const context = { page, constants, follow, busy, redraw: draw };
    parts.detail.replaceChildren(
        convscope.attackStep(shown, context),
        convscope.attackMaps(shown, context),
        convscope.attackInside(shown, context),
    );
    if (again && document.getElementById(again)) document.getElementById(again).focus();
}

const address = (changes) => {
    const query = new URLSearchParams(location.search);
    query.delete("at");
    Object.entries(changes).forEach(([name, value]) => query.set(name, value));
    return convscope.local("/attack?") + query.toString().replaceAll("%2C", ",");
};

/* A card for each image and model, as the attacks arrive; alone it would say what stands below it. */
function drawList() {
    const found = new Map(attacks().map((one) => [`${one.image_id} ${one.model}`, one]));
    const items = job ? job.item_list : [];
    const key = JSON.stringify([
        items.map((item) => item.state + item.result),
        page.rows.map((row) => row.id),
        page.chosen,
        chosen(),
        job && job.state,
        attacks().length,
    ]);
    if (parts.list.dataset.shown === key) return;
    parts.list.dataset.shown = key;
    if (items.length < 2 && page.rows.length * page.chosen.length < 2) {
        parts.list.replaceChildren();
        return;
    }
    const errors = new Map(
        items.filter((item) => item.error).map((item) => [`${item.image_id} ${item.model}`, item.error]),
    );
    const cards = page.rows.flatMap((row) =>
        page.chosen.map((model) => {
            const one = found.get(`${row.id} ${model}`),
                error = errors.get(`${row.id} ${model}`);
            const inside = [
                make("img", { src: row.thumbnail, alt: "", loading: "lazy", width: 72, height: 72 }),
                make(
                    "span",
                    { class: "attack-words" },
                    make(
                        "b",
                        {},
                        one
                            ? outcome(one)
                            : error
                              ? "failed"
                              : job && UNFINISHED.includes(job.state)
                                ? "waiting"
                                : page.problems.ledger
                                  ? "not known"
                                  : "not attacked",
                    ),
                    make(
                        "small",
                        { class: "name" },
                        one
                            ? one.name_after && one.outcome === "flipped"
                                ? `${one.name_before} → ${one.name_after}`
                                : one.name_before
                            : error || row.label || "no label",
                    ),
                    make(
                        "small",
                        { class: "quiet num" },
                        `image ${row.id}${page.chosen.length > 1 ? ` · ${model}` : ""}`,
                    ),
                ),
            ];
            const here = one && one.attack === chosen();
            return make(
                "li",
                {
                    class: `attack-card ${one ? one.outcome : error ? "failed" : "none"}${here ? " here" : ""}`,
                },
                one
                    ? make(
                          "a",
                          { href: address({ attack: one.attack }), "aria-current": here ? "true" : null },
                          inside,
                      )
                    : make("div", { title: error || null }, inside),
            );
        }),
    );
    parts.list.replaceChildren(...cards);
    if (job && job.items > constants.most) {
        parts.list.append(
            make(
                "li",
                { class: "quiet" },
                `The first ${cards.length} of ${job.items.toLocaleString("en")}: the Robustness page has all.`,
            ),
        );
    }
    const here = parts.list.querySelector(".here");
    if (here) parts.list.scrollLeft = here.offsetLeft - parts.list.clientWidth / 2 + here.clientWidth / 2;
}

const outcome = (one) => {
    if (one.outcome === "flipped" && one.at_most && one.grid !== "fixed")
        return `ε ≤ ${convscope.epsilonWords(one.epsilon)}`;
    if (one.outcome === "resisted") return "resisted";
    if (one.outcome === "no_gradient") return "no gradient";
    if (one.epsilon === 0) return one.relative_to === "target" ? "there already" : "wrong already";
    return `ε ${convscope.epsilonWords(one.epsilon)}`;
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

convscope.attackState = () => ({ page, job, whole, constants, percent });
