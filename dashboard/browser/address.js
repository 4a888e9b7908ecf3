/* Clicks write the address: on layers, and on links to pages of this site. */
import { changedSearch, go, hit, pagePath } from "./base.js";
import { convscope, ns } from "./namespace.js";

/**
 * The indexed layer before or after one.
 * @param {Pick<Entry, "value" | "disabled">[]} options @param {string} here @param {1 | -1} step
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

/* The search of the Patches page after a click on a layer of the drawing or on Previous or Next. */
convscope.layerAddress = (tapped, previous, next, options, chosen, search) => {
    if (!chosen) return ns.no_update;
    const names = ns.callback_context.triggered.map((one) => one.prop_id.split(".")[0]);
    const here = asked || new URLSearchParams(search ?? "").get("layer") || chosen.layer;
    let layer;
    if (names.includes("patches-drawing")) layer = options?.find((one) => one.value === tapped?.layer)?.value;
    // a button that has just been drawn triggers, too
    if (names.includes("patches-previous") && previous) layer = layerBeside(options ?? [], here, -1);
    if (names.includes("patches-next") && next) layer = layerBeside(options ?? [], here, 1);
    // an address without a layer shows the first: naming it is no change
    if (!layer || layer === chosen.layer) return ns.no_update;
    asked = layer;
    return changedSearch(search ?? "", { layer, channels: "", page: "" });
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
