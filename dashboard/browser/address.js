/* Controls write the address. A control that shows what the server put there writes nothing, so that showing
   an address never changes it. */
// @ts-nocheck
import { convscope, ns } from "./namespace.js";

const DEFAULTS = { k: "10", sort: "index", crop: "field", tile: "fit" };
const IMAGE_DEFAULTS = { sort: "id", view: "grid", verdict: "any" };
const asText = (value) => (value === null || value === undefined ? "" : String(value).trim());

/* The query with those `changes` that differ from what the server has put into the controls. */
function changed(search, changes, shown, defaults) {
    const query = new URLSearchParams(search || "");
    let differs = false;
    for (const [name, value] of Object.entries(changes)) {
        const text = asText(value);
        if (asText(shown[name]) === text) continue;
        differs = true;
        if (text === "" || text === defaults[name]) query.delete(name);
        else query.set(name, text);
    }
    return differs ? query : null;
}

function toSearch(query) {
    const text = query.toString();
    return text ? "?" + text : "";
}

function triggered() {
    return ns.callback_context.triggered.map((item) => item.prop_id.split(".")[0]);
}

convscope.patchesAddress = function (
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
) {
    if (!chosen) return ns.no_update;
    const values = { channels, sort, k, crop, tile };
    const changes = {};
    for (const id of triggered()) {
        const name = id.replace("patches-", "");
        if (name === "drawing") {
            if (tapped && (options || []).some((option) => option.value === tapped.layer)) {
                changes.layer = tapped.layer;
            }
        } else if (name === "previous" || name === "next") {
            if (!(name === "previous" ? previous : next)) continue;
            // from the address, which on a slow line is ahead of what is shown; or from the click before, of which
            // on a busy machine the address knows nothing yet
            const here = convscope.asked || new URLSearchParams(search || "").get("layer") || chosen.layer;
            const list = (options || [])
                .filter((option) => option.value === here || !option.disabled)
                .map((option) => option.value);
            const at = list.indexOf(here) + (name === "next" ? 1 : -1);
            if (at >= 0 && at < list.length) changes.layer = list[at];
        } else if (name in values) {
            changes[name] = values[name];
        }
    }
    // an address without a layer shows the first: naming it is no change
    if (changes.layer === chosen.layer) delete changes.layer;
    const query = changed(search, changes, chosen.shown, DEFAULTS);
    if (!query) return ns.no_update;
    query.delete("page");
    if ("layer" in changes) query.delete("channels");
    convscope.asked = changes.layer;
    return toSearch(query);
};

convscope.imagesAddress = function (text, verdict, sort, view, shown, search) {
    if (!shown) return ns.no_update;
    const values = { search: text, verdict, sort, view };
    const changes = {};
    for (const id of triggered()) {
        const name = id.replace("images-", "");
        if (name in values) changes[name] = values[name];
    }
    const query = changed(search, changes, shown, IMAGE_DEFAULTS);
    if (!query) return ns.no_update;
    query.delete("page");
    return toSearch(query);
};

convscope.pick = function (model, images, filled, search) {
    const query = new URLSearchParams(search || "");
    let differs = false;
    for (const [name, value] of [
        ["model", model],
        ["images", images],
    ]) {
        if (!filled || !value || value === filled[name]) continue;
        differs = true;
        query.set(name, value);
        query.delete("page");
        const gone =
            name === "model"
                ? ["layer", "channels", "channel", "models", "attack", "predicted"]
                : ["id", "label", "search", "ids", "attack", "predicted"];
        gone.forEach((part) => query.delete(part));
    }
    return differs ? toSearch(query) : ns.no_update;
};

/* Links inside the site change the page without loading it anew. */
document.addEventListener("click", function (event) {
    const link = event.target.closest && event.target.closest("a[href]");
    if (!link || event.defaultPrevented || event.button !== 0) return;
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    if (link.target || link.hasAttribute("download") || link.origin !== location.origin) return;
    const pages = document.querySelector(".app").dataset.pages.split(" ");
    if (!pages.includes(convscope.pagePath(link.pathname)) || link.hash) return;
    event.preventDefault();
    if (link.pathname + link.search === location.pathname + location.search) return;
    const moves = link.pathname !== location.pathname || link.search !== location.search;
    convscope.go(link.href);
    if (moves) window.scrollTo(0, 0);
});
