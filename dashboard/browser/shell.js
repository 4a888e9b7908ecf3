/* The shell around every page: what only a browser knows of it (see dashboard/shell.py). */
import { addressFollowed } from "./address.js";
import { RequestError, ask, hit, pagePath } from "./base.js";
import { convscope, ns } from "./namespace.js";
import { recall, remember } from "./store.js";

const same = (/** @type {unknown} */ one, /** @type {unknown} */ other) =>
    JSON.stringify(one) === JSON.stringify(other);

/* One request at a time: Dash drops what a slow one answers once the timer has called again. */
let asked = /** @type {Promise<any> | null} */ (null);
const status = () => (asked ??= ask("/status.json").finally(() => (asked = null)));

/* The status and the work of the server where they have changed, and a notice if it does not answer: no
   callback of the server could show that one. */
convscope.poll = async (_ticks, knownStatus, knownWork, notices) => {
    if (document.hidden) return [ns.no_update, ns.no_update, ns.no_update];
    try {
        const { work, ...others } = await status();
        const news = (/** @type {object} */ now, /** @type {object} */ known) =>
            same(now, known) ? ns.no_update : now;
        return [news(others, knownStatus), news(work, knownWork), null];
    } catch (error) {
        const loggedOut = error instanceof RequestError && error.status === 401;
        return [ns.no_update, ns.no_update, loggedOut ? notices.logged_out : notices.away];
    }
};
/* What of the address concerns more than one page; a fault concerns only the view in which it happened. */
convscope.subject = (path, search, before) => {
    addressFollowed();
    const query = new URLSearchParams(search ?? "");
    const now = {
        path: pagePath(path) || "/",
        model: query.get("model") ?? "",
        images: query.get("images") ?? "",
    };
    return [same(now, before) ? ns.no_update : now, null];
};

convscope.showHere = (filled) => {
    if (filled?.run) nameTheRun({ model: filled.model, images: filled.images });
    // on a phone the links of the pages are wider than the screen: the one of this page stands in the middle
    requestAnimationFrame(() => {
        const here = document.querySelector(".shell nav .page-link-here");
        const links = here?.closest("nav");
        if (!here || !links) return;
        const middle = (/** @type {DOMRect} */ box) => box.left + box.width / 2;
        links.scrollLeft += middle(here.getBoundingClientRect()) - middle(links.getBoundingClientRect());
    });
};

/**
 * An address that leaves the run open gets its name as soon as there is one, as the server does on loading: a
 * better run that is published later then changes nothing on an open page.
 * @param {{ model: string, images: string }} run
 */
function nameTheRun(run) {
    const query = new URLSearchParams(location.search);
    const given = Object.entries(run).filter(([name]) => query.get(name));
    if (given.length === 2) return;
    if (given.some(([name, value]) => query.get(name) !== value)) return; // the address is ahead of the shell
    const named = new URLSearchParams(run);
    query.forEach((value, name) => value && named.set(name, value));
    history.replaceState({}, "", `${location.pathname}?${named}`);
    dispatchEvent(new PopStateEvent("popstate"));
}

convscope.theme = (clicks) => {
    const { dataset } = document.documentElement;
    if (!clicks) return dataset.bsTheme;
    dataset.bsTheme = dataset.bsTheme === "dark" ? "light" : "dark";
    remember("convscope-theme", dataset.bsTheme);
    return dataset.bsTheme;
};

/* A page is announced by its heading: it names the window, and gets the focus when its page was opened from
   another (the link that had the focus is gone). Until it has one, dashboard/router.py names the window. */
let announced = { path: globalThis.location?.pathname, heading: /** @type {Element | null} */ (null) };
function announce() {
    const heading = /** @type {HTMLElement | null} */ (document.querySelector("#content h1"));
    const given = document.getElementById("page")?.dataset.title;
    const title = heading ? `${heading.textContent} · Convscope` : given;
    if (title && document.title !== title) document.title = title;
    if (!heading) return;
    const opened = announced.path !== location.pathname;
    if (opened && heading === announced.heading) return; // the address is ahead of the page
    announced = { path: location.pathname, heading };
    if (!opened || (document.activeElement && document.activeElement !== document.body)) return;
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
}

/* The tour stays folded once a user has folded it. */
function foldTour() {
    const tour = document.getElementById("tour");
    if (!(tour instanceof HTMLDetailsElement) || tour.dataset.ready) return;
    tour.dataset.ready = "yes";
    if (recall("convscope-tour") === "folded") tour.open = false;
    tour.addEventListener("toggle", () => remember("convscope-tour", tour.open ? "open" : "folded"));
}

/**
 * Puts a text on the clipboard; plain http from another machine has none: the selection is copied.
 * @param {string} text
 */
async function copy(text) {
    try {
        await navigator.clipboard.writeText(text);
        return true;
    } catch (error) {
        const area = document.createElement("textarea");
        area.value = text;
        document.body.append(area);
        area.select();
        const copied = document.execCommand("copy");
        area.remove();
        return copied;
    }
}

if (globalThis.document) {
    new MutationObserver(() => {
        announce();
        foldTour();
    }).observe(document.documentElement, { childList: true, subtree: true });

    document.addEventListener("keydown", (event) => {
        if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
        const field = document.getElementById("patches-layer");
        if (!field || hit(event, "input, textarea, select")) return;
        event.preventDefault();
        field.focus();
        field.click();
    });

    document.addEventListener("click", async (event) => {
        const button = hit(event, "[data-copy]");
        const label = button?.querySelector("span");
        if (!button || !label) return;
        const copied = await copy(button.dataset.copy ?? "");
        const before = (button.dataset.label ??= label.textContent ?? "");
        label.textContent = copied ? "Copied" : "Copy failed";
        setTimeout(() => (label.textContent = before), 1600);
    });
}
