/* Controls write the address. A control that shows what the server put there writes nothing, so showing an
   address never changes it. */
import { changedSearch, go, hit, pagePath } from "./base.js";
import { convscope, ns } from "./namespace.js";

/** @typedef {Record<string, string | number | null | undefined>} Values */
/** @typedef {{ value: string, disabled?: boolean }} Option */

/** Values that an address leaves out: a test compares them with dashboard/state/address.py. */
const DEFAULTS = { k: "10", sort: "index", crop: "field", tile: "fit" };
const IMAGE_DEFAULTS = { sort: "id", view: "grid", verdict: "any" };
/** Parts of an address that mean nothing for another model or image set. */
const OF_MODEL = ["layer", "channels", "channel", "models", "attack", "predicted", "page"];
const OF_IMAGES = ["id", "label", "search", "ids", "attack", "predicted", "page"];

const asText = (/** @type {unknown} */ value) =>
    value === null || value === undefined ? "" : String(value).trim();
const without = (/** @type {string[]} */ names) => Object.fromEntries(names.map((name) => [name, ""]));

/**
 * Those of the `values` that differ from what the server put into the controls; a default is written as "".
 * @param {Values} values
 * @param {Values} shown
 * @param {Record<string, string>} defaults
 * @returns {Record<string, string> | null} null if nothing differs
 */
export function differing(values, shown, defaults) {
    const found = Object.entries(values)
        .map(([name, value]) => [name, asText(value)])
        .filter(([name, text]) => asText(shown[name]) !== text)
        .map(([name, text]) => [name, text === defaults[name] ? "" : text]);
    return found.length ? Object.fromEntries(found) : null;
}

/**
 * The indexed layer before or after one.
 * @param {Option[]} options
 * @param {string} here
 * @param {1 | -1} step
 */
export function layerBeside(options, here, step) {
    const list = options.filter((one) => one.value === here || !one.disabled).map((one) => one.value);
    return list[list.indexOf(here) + step];
}

/**
 * Names of the page's controls that triggered the callback.
 * @param {string} page
 */
const triggered = (page) =>
    ns.callback_context.triggered.map((one) => one.prop_id.split(".")[0].replace(`${page}-`, ""));

/**
 * @template {object} T
 * @param {T} values
 * @param {string[]} names
 */
const only = (values, names) =>
    Object.fromEntries(Object.entries(values).filter(([name]) => names.includes(name)));

/** The layer of the last click, which on a busy machine the address does not know yet. */
let asked = "";

/** The address has followed the clicks. */
export function addressFollowed() {
    asked = "";
}

convscope.patchesAddress = (
    /** @type {{ layer: string } | null} */ tapped,
    /** @type {number | null} */ previous,
    /** @type {number | null} */ next,
    /** @type {string} */ channels,
    /** @type {string} */ sort,
    /** @type {number} */ k,
    /** @type {string} */ crop,
    /** @type {string} */ tile,
    /** @type {Option[] | null} */ options,
    /** @type {{ layer: string, shown: Values } | null} */ chosen,
    /** @type {string | null} */ search,
) => {
    const names = triggered("patches");
    if (!chosen) return ns.no_update;
    const changes = differing(only({ channels, sort, k, crop, tile }, names), chosen.shown, DEFAULTS) ?? {};
    const here = asked || new URLSearchParams(search ?? "").get("layer") || chosen.layer;
    let layer;
    if (names.includes("drawing")) layer = options?.find((one) => one.value === tapped?.layer)?.value;
    // a button that has just been drawn triggers, too
    if (names.includes("previous") && previous) layer = layerBeside(options ?? [], here, -1);
    if (names.includes("next") && next) layer = layerBeside(options ?? [], here, 1);
    // an address without a layer shows the first: naming it is no change
    if (layer && layer !== chosen.layer) Object.assign(changes, { layer, channels: "" });
    if (!Object.keys(changes).length) return ns.no_update;
    asked = changes.layer ?? "";
    return changedSearch(search ?? "", { ...changes, page: "" });
};

convscope.imagesAddress = (
    /** @type {string} */ text,
    /** @type {string} */ verdict,
    /** @type {string} */ sort,
    /** @type {string} */ view,
    /** @type {Values | null} */ shown,
    /** @type {string | null} */ search,
) => {
    const values = only({ search: text, verdict, sort, view }, triggered("images"));
    const changes = shown && differing(values, shown, IMAGE_DEFAULTS);
    return changes ? changedSearch(search ?? "", { ...changes, page: "" }) : ns.no_update;
};

convscope.pick = (
    /** @type {string | null} */ model,
    /** @type {string | null} */ images,
    /** @type {{ model: string, images: string } | null} */ filled,
    /** @type {string | null} */ search,
) => {
    if (!filled) return ns.no_update;
    const changes = {
        ...(model && model !== filled.model ? { ...without(OF_MODEL), model } : {}),
        ...(images && images !== filled.images ? { ...without(OF_IMAGES), images } : {}),
    };
    return Object.keys(changes).length ? changedSearch(search ?? "", changes) : ns.no_update;
};

/* Links inside the site change the page without loading it again. */
globalThis.document?.addEventListener("click", (event) => {
    const link = /** @type {HTMLAnchorElement | null} */ (hit(event, "a[href]"));
    if (!link || event.defaultPrevented || event.button !== 0) return;
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    if (link.target || link.hasAttribute("download") || link.origin !== location.origin || link.hash) return;
    const pages = document.querySelector(".app")?.getAttribute("data-pages")?.split(" ") ?? [];
    if (!pages.includes(pagePath(link.pathname) ?? "")) return;
    event.preventDefault();
    if (link.pathname + link.search === location.pathname + location.search) return;
    go(link.href);
    // a link that opens something beside itself says in which windows it does
    if (!link.dataset.stay || !matchMedia(link.dataset.stay).matches) scrollTo(0, 0);
});
