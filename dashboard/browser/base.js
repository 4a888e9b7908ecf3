/* Elements, addresses and requests: what several modules need. */

/** The path that all addresses of this dashboard begin with; empty at the root of a site. */
const config = globalThis.document?.getElementById("_dash-config")?.textContent;
const PREFIX = config ? JSON.parse(config).requests_pathname_prefix.replace(/\/$/, "") : "";

/** A path of this dashboard as the browser requests it. @param {string} path */
export const local = (path) => PREFIX + path;

/**
 * The path of a page, from the path in the address bar; null for an address outside this dashboard.
 * @param {string | null | undefined} pathname
 */
export function pagePath(pathname, prefix = PREFIX) {
    if (pathname === null || pathname === undefined) return null;
    if (pathname !== prefix && !pathname.startsWith(prefix + "/")) return null;
    return pathname.slice(prefix.length) || "/";
}

/**
 * Create an element. Attributes named `on…` are listeners; null and false leave an attribute or child out.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, any>} attributes
 * @param {...(Node | string | number | null | undefined | (Node | string)[])} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
        if (value === null || value === undefined || value === false) continue;
        if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
        else if (name === "value" && "value" in element) element.value = value;
        else element.setAttribute(name, value === true ? "" : value);
    }
    for (const child of children.flat()) {
        if (child !== null && child !== undefined) element.append(/** @type {Node} */ (child));
    }
    return element;
}

/**
 * The nearest ancestor, or itself, that an event hit and that matches.
 * @param {Event} event @param {string} selector @returns {HTMLElement | null}
 */
export const hit = (event, selector) =>
    event.target instanceof Element ? event.target.closest(selector) : null;

/** An answer of the HTTP interface that is not a success; `status` is 0 where there was no answer. */
export class RequestError extends Error {
    /** @param {string} message @param {number} status */
    constructor(message, status) {
        super(message);
        this.status = status;
    }
}

/**
 * Request a path of the HTTP interface; the answer is its JSON.
 * @param {string} path @param {{ method?: string, body?: unknown }} [options] @returns {Promise<any>}
 * @throws {RequestError}
 */
export async function ask(path, { method, body } = {}) {
    /** @type {RequestInit} */
    const options = { cache: "no-store", method };
    if (body !== undefined) {
        options.headers = { "Content-Type": "application/json" };
        options.body = JSON.stringify(body);
    }
    let answer;
    try {
        answer = await fetch(local(path), options);
    } catch (error) {
        throw new RequestError("Convscope does not answer.", 0);
    }
    const content = await answer.json().catch(() => null); // an error page of a proxy is not JSON
    if (answer.ok) return content;
    throw new RequestError(content?.error ?? `${path} answered ${answer.status}.`, answer.status);
}

/**
 * Show an address of this site without loading the page again. Dash listens for `popstate`, as on Back and
 * Forward; an event that a script sends is recognized by `isTrusted`.
 * @param {string} href
 */
export function go(href) {
    history.pushState({}, "", href);
    dispatchEvent(new PopStateEvent("popstate"));
}

/**
 * A query string with some values changed; an empty value removes the name.
 * @param {string} search @param {AddressValues} changes
 */
export function changedSearch(search, changes) {
    const query = new URLSearchParams(search);
    for (const [name, value] of Object.entries(changes)) {
        if (value === "" || value === null || value === undefined) query.delete(name);
        else query.set(name, String(value));
    }
    const text = query.toString().replaceAll("%2C", ",");
    return text && "?" + text;
}

/**
 * Change values of the address. With `quietly` the address bar changes without an entry in the history, and
 * Dash does not hear of it: for values that only the browser reads.
 * @param {AddressValues} changes
 */
export function address(changes, quietly = false) {
    const target = location.pathname + changedSearch(location.search, changes);
    if (target === location.pathname + location.search) return;
    if (quietly) history.replaceState({}, "", target);
    else go(target);
}
