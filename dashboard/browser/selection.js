/* Images that a user selects on the Images page, across pages, filters and views of a set, and the links
   from there to their maps and attacks. The selection lives in this window alone. */
import { hit, local, pagePath } from "./base.js";
import { convscope } from "./namespace.js";
import { recall, remember } from "./store.js";

/** @typedef {{ path: string | null, search: string, images: string, ids: string }} Request */

const HOLD_MILLISECONDS = 500;
const MAX_SELECTED = 5000;
const CHOOSING = "convscope-choosing";
/** What a request says about its images; the rest of it is kept while others are chosen. */
const OF_IMAGES = ["ids", "n", "seed", "label", "verdict", "where", "attack", "at"];

/** `0,1,4-7` for numbers. @param {Iterable<number>} ids */
export function shortIds(ids) {
    /** @type {[number, number][]} */
    const runs = [];
    for (const id of [...ids].sort((one, other) => one - other)) {
        const last = runs.at(-1);
        if (last && id === last[1] + 1) last[1] = id;
        else runs.push([id, id]);
    }
    return runs.map(([low, high]) => (low === high ? `${low}` : `${low}-${high}`)).join(",");
}

/** The numbers in `0,1,4-7`; none for another text. @param {string} text */
export function longIds(text) {
    if (!/^[\d,\s-]+$/.test(text)) return [];
    const ids = text.split(",").flatMap((part) => {
        const [low, high = low] = part.split("-").map(Number);
        const count = Math.min(MAX_SELECTED, Math.max(0, high - low + 1));
        return Array.from({ length: count }, (_, at) => low + at);
    });
    return ids.slice(0, MAX_SELECTED);
}

/**
 * The search of a page for selected images, with what else the page was asked for.
 * @param {string} request @param {{ model: string, images: string, ids: string }} given
 */
export function searchFor(request, { model, images, ids }) {
    const query = new URLSearchParams(request);
    OF_IMAGES.forEach((name) => query.delete(name));
    if (!query.has("models") && model) query.set("model", model);
    query.set("images", images);
    query.set("ids", ids);
    return "?" + query.toString().replaceAll("%2C", ",");
}

const load = (/** @type {string} */ key) => JSON.parse(recall(key, "sessionStorage") ?? "null");
const store = (/** @type {string} */ key, /** @type {unknown} */ value) =>
    remember(key, JSON.stringify(value), "sessionStorage");

const place = () => /** @type {HTMLElement | null} */ (document.querySelector("#images-body [data-images]"));
const boxes = () =>
    /** @type {HTMLElement[]} */ ([...document.querySelectorAll("#images-body [data-image]")]);
const number = (/** @type {HTMLElement} */ box) => Number(box.dataset.image);
const storage = (/** @type {string} */ images) => `convscope-selected:${local("")}${images}`;
const selected = () => new Set(/** @type {number[]} */ (load(storage(place()?.dataset.images ?? "")) ?? []));
const keep = (/** @type {Set<number>} */ ids) => store(storage(place()?.dataset.images ?? ""), [...ids]);

/* Before a page is left for this one: its images are selected here, and the rest of its request is kept. */
const chooseFrom = (/** @type {Request} */ given) => {
    store(storage(given.images), longIds(given.ids));
    store(CHOOSING, given);
};

function show() {
    const bar = document.getElementById("images-selection");
    const set = place();
    if (!bar) return;
    const ids = set ? selected() : new Set();
    for (const box of boxes()) {
        const on = ids.has(number(box));
        box.setAttribute("aria-checked", String(on));
        box.closest(".selectable")?.classList.toggle("selected", on);
    }
    document.getElementById("images-body")?.classList.toggle("selecting", ids.size > 0);
    bar.hidden = ids.size === 0;
    const count = document.getElementById("images-selected");
    if (count) count.textContent = ids.size ? `${ids.size.toLocaleString("en")} selected` : "";
    const all = document.getElementById("images-all");
    if (all) all.hidden = boxes().every((box) => ids.has(number(box)));
    if (!set) return;
    const { images = "", model = "" } = set.dataset;
    /** @type {Request | undefined} */
    const before = load(CHOOSING);
    for (const link of /** @type {NodeListOf<HTMLAnchorElement>} */ (bar.querySelectorAll("a[data-path]"))) {
        const path = link.dataset.path ?? "";
        const request = before?.path === pagePath(path) && before?.images === images ? before.search : "";
        link.href = path + searchFor(request, { model, images, ids: shortIds(ids) });
    }
}

convscope.markSelected = () => {
    requestAnimationFrame(show);
    return "";
};

/** @param {HTMLElement[]} some @param {boolean} on */
function choose(some, on) {
    const ids = selected();
    some.forEach((box) => ids[on ? "add" : "delete"](number(box)));
    keep(ids);
    show();
}

/** @type {HTMLElement | null} */
let before = null;
/** One box, or `ranged`: all from the one before. @param {HTMLElement} box @param {boolean} ranged */
function toggle(box, ranged) {
    const all = boxes();
    const from = ranged && before ? all.indexOf(before) : -1;
    const to = all.indexOf(box);
    before = box;
    const range = from >= 0 ? all.slice(Math.min(from, to), Math.max(from, to) + 1) : [box];
    choose(range, box.getAttribute("aria-checked") !== "true");
}

/** @type {ReturnType<typeof setTimeout> | undefined} */
let holding;
let held = false;
function letGo() {
    clearTimeout(holding);
    holding = undefined;
}

function listen() {
    document.addEventListener("click", (event) => {
        const box = hit(event, "#images-body [data-image]");
        if (box) toggle(box, event.shiftKey);
        else if (hit(event, "#images-all")) choose(boxes(), true);
        else if (hit(event, "#images-clear")) {
            keep(new Set());
            show();
            boxes()[0]?.focus();
        }
        const link = hit(event, "a[data-choose]");
        if (!link) return;
        const { choose: images = "", ids = "" } = link.dataset;
        chooseFrom({ path: pagePath(location.pathname), search: location.search, images, ids });
    });
    // a finger that rests on an image selects it; what would follow (its link, the browser's menu) does not
    document.addEventListener("pointerdown", (event) => {
        letGo();
        held = false;
        const item = event.pointerType === "touch" && hit(event, "#images-body .selectable");
        if (!item || hit(event, "[data-image]")) return;
        holding = setTimeout(() => {
            held = true;
            const box = /** @type {HTMLElement | null} */ (item.querySelector("[data-image]"));
            if (box) toggle(box, false);
        }, HOLD_MILLISECONDS);
    });
    for (const name of ["pointerup", "pointercancel", "scroll"]) {
        document.addEventListener(name, letGo, { passive: true, capture: true });
    }
    document.addEventListener("contextmenu", (event) => {
        if ((holding || held) && hit(event, "#images-body .selectable")) event.preventDefault();
    });
    document.addEventListener(
        "click",
        (event) => {
            if (!held) return;
            held = false;
            if (!hit(event, "#images-body .selectable")) return;
            event.preventDefault();
            event.stopPropagation();
        },
        true,
    );
}
if (globalThis.document) listen();
