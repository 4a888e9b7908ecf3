/* The form of a request in the browser: what was changed by hand reaches the server and the address; lists of
   suggestions are loaded when they are needed (see pages/request). */
import { address, ask, hit, make } from "./base.js";
import { convscope, ns } from "./namespace.js";

/** @typedef {{ id: string | { parameter: string }, value?: unknown }} Control */

/** The name of a control in the form: `ids` of `saliency-ids`, `p_samples` of a parameter. */
const nameOf = (/** @type {Control["id"]} */ id) =>
    typeof id === "string" ? id.slice(id.indexOf("-") + 1) : `p_${id.parameter}`;

const asText = (/** @type {unknown} */ value) =>
    Array.isArray(value) ? [...value].sort().join("\n") : String(value ?? "").trim();

/**
 * Values of controls that differ from what the server put there.
 * @param {Control[]} controls @param {Record<string, unknown>} filled
 */
export const changedByHand = (controls, filled) =>
    Object.fromEntries(
        controls
            .map(({ id, value }) => /** @type {const} */ ([nameOf(id), value ?? ""]))
            .filter(([name, value]) => name in filled && asText(value) !== asText(filled[name])),
    );

convscope.changedControls = (...values) => {
    const filled = values.at(-1);
    const changes = filled ? changedByHand(ns.callback_context.inputs_list.flat(), filled) : {};
    return Object.keys(changes).length ? { changes, search: location.search } : ns.no_update;
};

convscope.writeAddress = (changes) => {
    if (changes) address(changes);
    return ns.no_update;
};

/** Names by the address they are loaded from. @type {Map<string, Promise<any>>} */
const loaded = new Map();

/* A field with suggestions loads them when it gets the focus: a model may have twenty thousand classes. */
globalThis.document?.addEventListener("focusin", async (event) => {
    const field = /** @type {HTMLInputElement | null} */ (hit(event, "[data-suggestions] input[list]"));
    const list = field?.list;
    const form = /** @type {HTMLElement | null} */ (field?.closest("[data-suggestions]"));
    const path = list && JSON.parse(form?.dataset.suggestions ?? "{}")[list.id];
    if (!list || !path || list.dataset.of === path) return;
    if (!loaded.has(path)) loaded.set(path, ask(path));
    const found = await loaded.get(path)?.catch(() => null);
    if (!found) {
        loaded.delete(path);
        return;
    }
    list.dataset.of = path;
    const entries = found.classes
        ? found.classes.map((/** @type {string} */ name, /** @type {number} */ at) => [`${at}: ${name}`, ""])
        : found.labels.map((/** @type {any} */ one) => [one.name, `${one.images} images`]);
    list.replaceChildren(
        ...entries.map((/** @type {[string, string]} */ [value, text]) => make("option", { value }, text)),
    );
});

globalThis.document?.addEventListener(
    "click",
    (event) => {
        // what the browser shows is in the address, of which the server was not notified
        const link = /** @type {HTMLAnchorElement | null} */ (hit(event, "a[data-with-address]"));
        if (link) link.search = location.search;
    },
    true,
);

/* Buttons that are drawn again and again: the data of the pressed one, as for pages/job_progress.py. */
globalThis.document?.addEventListener("click", (event) => {
    const pressed = hit(event, "button[data-act]")?.dataset;
    if (!pressed) return;
    const data = { ...pressed, job: Number(pressed.job), at: Date.now() };
    ns.set_props(`${pressed.page}-pressed`, { data });
});
