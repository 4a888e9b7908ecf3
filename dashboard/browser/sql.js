/** The SQL page: its editor, and which part of the address is the question (see pages/sql.py). */
import { hit, pagePath } from "./base.js";
import { convscope, ns } from "./namespace.js";
import { mountEditor } from "./sql_editor.js";

const SHOWN = ["view", "x", "y", "kind", "colour"]; // how the result is shown, in the address

/** @type {HTMLTextAreaElement | null} */
let area = null;
/** @type {Awaited<ReturnType<typeof mountEditor>> | null} */
let editor = null;

const run = () => document.getElementById("sql-run")?.click();

/* Shows the statement that the page or the editor has written; opens the editor when the page is new. */
convscope.editSQL = async (text, words) => {
    await new Promise(requestAnimationFrame); // the page is drawn by then
    const now = document.getElementById("sql-statement");
    if (!(now instanceof HTMLTextAreaElement)) return;
    if (now === area) {
        editor?.write(text ?? "");
        return;
    }
    editor?.destroy();
    editor = null;
    area = now;
    const cards = document.getElementById("sql-cards");
    const changes = { childList: true, subtree: true, attributeFilter: ["data-src"] };
    if (cards) new MutationObserver(loadImages).observe(cards, changes);
    try {
        const mounted = await mountEditor(now, words, run);
        if (now === area) editor = mounted;
        else mounted.destroy();
    } catch (error) {
        console.warn("The SQL editor could not be loaded; the plain text area remains.", error);
    }
};

/**
 * What determines the rows; `again` counts how often the same statement is run again.
 * @param {string} search @param {number} again
 */
export function questionOf(search, again) {
    const query = new URLSearchParams(search);
    SHOWN.forEach((name) => query.delete(name));
    return { search: query.toString(), again };
}

/* The question of the address, if it is another one; with it what shows whether something is running. */
convscope.askSQL = (path, search, again, before) => {
    const question = questionOf(search ?? "", again);
    const same = JSON.stringify(question) === JSON.stringify(before);
    if (same || pagePath(path) !== "/sql") return [1, 2, 3, 4].map(() => ns.no_update);
    const idle = !new URLSearchParams(question.search).get("q")?.trim();
    return [question, idle, idle, 0];
};

/* Scrolls to a result below the screen, as on a phone. */
convscope.settleSQL = (answer) => {
    const result = document.getElementById("sql-result");
    if (answer && result && result.getBoundingClientRect().top > innerHeight - 80) result.scrollIntoView();
    return ns.no_update;
};

/** Loads images of the gallery when they come into view: Dash's images cannot be lazy. */
function loadImages() {
    const images = document.querySelectorAll("#sql-cards img");
    for (const image of /** @type {NodeListOf<HTMLImageElement>} */ (images)) {
        const source = image.dataset.src ?? "";
        if (image.getAttribute("src") === source) continue;
        image.classList.remove("gone");
        image.onerror = () => image.classList.add("gone");
        image.loading = "lazy";
        image.src = source;
    }
}

globalThis.document?.addEventListener("click", (event) => {
    const name = hit(event, "[data-insert]")?.dataset.insert;
    if (!name || !area) return;
    if (editor) editor.insert(name);
    else {
        area.setRangeText(name);
        area.dispatchEvent(new Event("input", { bubbles: true }));
    }
});

globalThis.document?.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && hit(event, ".sql-plain")) run();
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const tabs = step && hit(event, ".sql-page [role=tablist]")?.querySelectorAll("[role=tab]:enabled");
    if (!step || !tabs) return;
    const list = /** @type {HTMLElement[]} */ ([...tabs]);
    const next = list.at((list.findIndex((tab) => tab === event.target) + step) % list.length);
    next?.focus();
    next?.click();
});
