/* The browser's part of the dialog "Add images" (dashboard/pages/images_add.py): holds the files that a user
   drops or chooses, and sends them. */
import { hit } from "./base.js";
import { convscope, ns } from "./namespace.js";
import { chosen, dropped, upload } from "./upload.js";

const REPORT_MILLISECONDS = 200;

/** @type {NamedFile[]} */
let files = [];
let picks = 0;
/** @type {NamedFile[]} every label table that was chosen; its number is its place */
const tables = [];
/** @type {ReturnType<typeof upload> | null} */
let sending = null;

/** Reports what was chosen. @param {string} what @param {NamedFile[]} found */
function take(what, found) {
    picks += 1;
    const size = found.reduce((sum, { file }) => sum + file.size, 0);
    const name = found[0]?.name ?? "";
    if (what === "labels") tables.push(...found);
    else files = found;
    const labels = { number: tables.length - 1, name, size };
    const data = what === "labels" ? { labels } : { files: { count: found.length, bytes: size, name } };
    ns.set_props("add-chosen", { data: { number: picks, ...data } });
}

document.addEventListener("click", (event) => {
    const button = hit(event, "[data-pick]");
    if (!button) return;
    const { pick = "", accept = "" } = button.dataset;
    const input = document.createElement("input");
    Object.assign(input, { type: "file", accept, hidden: true, multiple: pick !== "labels" });
    input.webkitdirectory = pick === "folder";
    input.addEventListener("cancel", () => input.remove());
    input.addEventListener("change", () => {
        take(pick, chosen(/** @type {FileList} */ (input.files)));
        input.remove();
    });
    document.body.append(input);
    input.click();
});

for (const type of /** @type {const} */ (["dragenter", "dragover", "dragleave", "drop"])) {
    document.addEventListener(type, async (event) => {
        const zone = hit(event, ".drop-zone");
        if (!zone) return;
        event.preventDefault();
        zone.classList.toggle("over", type === "dragenter" || type === "dragover");
        if (type === "drop" && event.dataTransfer) take("files", await dropped(event.dataTransfer));
    });
}

window.addEventListener("beforeunload", (event) => {
    if (sending) event.preventDefault();
});

convscope.sendFiles = (order) => {
    const words = (/** @type {number} */ size) =>
        (size / order.unit_bytes).toFixed(order.unit_bytes > 1 ? 1 : 0);
    let reported = 0;
    const report = (/** @type {number} */ sent, /** @type {number} */ total) => {
        if (performance.now() - reported < REPORT_MILLISECONDS && sent < total) return;
        reported = performance.now();
        ns.set_props("add-bar", { value: total ? (100 * sent) / total : 0 });
        ns.set_props("add-words", { children: `${words(sent)} of ${words(total)} ${order.unit}` });
    };
    sending = upload(files, order.labels === null ? null : tables[order.labels], report, order.upload);
    sending.done.then((data) => {
        sending = null;
        ns.set_props("add-sent", { data });
    });
};

/* Reports that a button was pressed, not that it appeared. */
convscope.pressed = (clicks) => (clicks ? Date.now() : ns.no_update);

convscope.stopSending = () => sending?.stop();

/* A name for the set, unless the user has typed one. */
convscope.proposeName = (proposed, name) => name || proposed;

/* Focuses an element once it is shown. */
convscope.focusOn = ({ id }) => requestAnimationFrame(() => document.getElementById(id)?.focus());
