/* Controls write the address. A control that shows what the server put there writes nothing, so showing an
   address never changes it. */
import { changedSearch, go, hit, pagePath } from "./base.js";
import { convscope, ns } from "./namespace.js";

/** Values that an address leaves out: a test compares them with dashboard/state/address.py. */
const DEFAULTS = { k: "10", sort: "index", crop: "field", tile: "fit" };

const asText = (/** @type {unknown} */ value) =>
    value === null || value === undefined ? "" : String(value).trim();

/**
 * Those of the `values` that differ from what the server put into the controls; a default is written as "".
 * @param {AddressValues} values @param {AddressValues} shown @param {Record<string, string>} defaults
 * @returns {Record<string, string>}
 */
export const differing = (values, shown, defaults) =>
    Object.fromEntries(
        Object.entries(values)
            .map(([name, value]) => [name, asText(value)])
            .filter(([name, text]) => asText(shown[name]) !== text)
            .map(([name, text]) => [name, text === defaults[name] ? "" : text]),
    );

/**
 * The indexed layer before or after one.
 * @param {Pick<Entry, "value" | "disabled">[]} options
 * @param {string} here
 * @param {1 | -1} step
 */
export function layerBeside(options, here, step) {
    const list = options.filter((one) => one.value === here || !one.disabled).map((one) => one.value);
    return list[list.indexOf(here) + step];
}

/** The layer of the last click, which on a busy machine the address does not know yet. */
let asked = "";

/** The address has followed the clicks. */
export function addressFollowed() {
    asked = "";
}

/* The search of the Patches page after a click on the drawing or a button, or a choice of a control. */
convscope.patchesAddress = (
    tapped,
    previous,
    next,
    channels,
    sort,
    k,
    crop,
    tile,
    options,
    chosen,
    search,
) => {
    if (!chosen) return ns.no_update;
    const names = ns.callback_context.triggered.map((one) => one.prop_id.split(".")[0].split("-")[1]);
    const values = Object.entries({ channels, sort, k, crop, tile }).filter(([name]) => names.includes(name));
    const changes = differing(Object.fromEntries(values), chosen.shown, DEFAULTS);
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
