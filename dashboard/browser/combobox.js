/* A field to type a name into, and the entries that contain what was typed: layers of a model, classes of a
   set.

   Written by hand: Dash's list matches each word of the text separately and filters a moment after the keys,
   so Enter can choose an entry of the list before. Here the first entry listed is what Enter chooses. */
import { address, hit, make } from "./base.js";
import { convscope } from "./namespace.js";

/** "stage 4 > block 2", "stage4.block2" and "Stage 4 block 2" are one text. */
const plain = (/** @type {string} */ text) =>
    text
        .normalize("NFKC")
        .toLowerCase()
        .replace(/[\s.>]+/g, "");

/**
 * The entries that contain a text: first those of that name, then those whose name begins with it, then
 * others.
 * @param {Entry[]} entries
 * @param {string} text
 */
export function matching(entries, text) {
    const wanted = plain(text);
    if (!wanted) return entries;
    const rank = (/** @type {Entry} */ one) => {
        const names = [plain(one.label), plain(one.value)];
        if (names.includes(wanted)) return 0;
        if (names.some((name) => name.startsWith(wanted))) return 1;
        return [...names, plain(one.search ?? "")].some((name) => name.includes(wanted)) ? 2 : 3;
    };
    const ranked = entries.map((entry) => ({ entry, rank: rank(entry) })).filter((one) => one.rank < 3);
    return ranked.sort((one, other) => one.rank - other.rank).map((one) => one.entry);
}

/**
 * The field and its list in an element that names them (see `components.combobox`). The first option may have
 * an empty value: it is what an emptied field means.
 * @param {HTMLElement} root
 * @returns {(options: Entry[], value: string) => void} a function that shows the options
 */
function combobox(root) {
    const { field: id = "", label, placeholder, none = "", name = "", most = "" } = root.dataset;
    /** @type {Entry[]} */
    let entries = [];
    /** @type {Entry[]} */
    let shown = [];
    let chosen = "";
    let at = -1;

    const list = make("ul", { id: `${id}-list`, class: "layer-list", role: "listbox", "aria-label": label });
    list.hidden = true;
    list.addEventListener("pointerdown", (event) => event.preventDefault()); // the field keeps the focus
    list.addEventListener("click", (event) => {
        const item = hit(event, "[role=option]");
        if (item) take(shown[Number(item.dataset.at)]);
    });
    const field = make("input", {
        id,
        type: "search",
        class: "form-control form-control-sm",
        role: "combobox",
        autocomplete: "off",
        spellcheck: "false",
        "aria-expanded": "false",
        "aria-controls": list.id,
        "aria-autocomplete": "list",
        placeholder,
        onfocus: () => field.select(),
        onclick: () => show(""),
        oninput: () => show(field.value),
        onkeydown: press,
        onblur: hide,
    });
    root.replaceChildren(field, list);

    const nameOf = (/** @type {string} */ value) =>
        (value && entries.find((one) => one.value === value)?.label) || "";

    /** @param {string} text */
    function show(text) {
        list.hidden = false;
        field.ariaExpanded = "true";
        filter(text);
    }

    function hide() {
        list.hidden = true;
        field.ariaExpanded = "false";
        field.removeAttribute("aria-activedescendant");
        field.value = nameOf(chosen);
    }

    const note = (/** @type {string} */ text) =>
        make("li", { class: "layer-option quiet", role: "presentation" }, text);

    function filter(text = field.value === nameOf(chosen) ? "" : field.value) {
        const fitting = matching(entries, text);
        shown = fitting.slice(0, Number(most));
        const items = shown.map((one, place) => {
            const words = [make("span", {}, one.label), make("small", {}, one.description)];
            const given = { id: `${id}-${place}`, role: "option", "data-at": place, class: "layer-option" };
            return make("li", { ...given, "aria-disabled": one.disabled ? "true" : null }, ...words);
        });
        const more = fitting.length - shown.length;
        list.replaceChildren(...items);
        if (!shown.length) list.append(note(none));
        if (more) list.append(note(`${more.toLocaleString("en")} more: type to find them.`));
        const emptied = entries[0]?.value === "" && field.value === "" && chosen !== "";
        const here = plain(text) || emptied ? -1 : shown.findIndex((one) => one.value === chosen);
        mark(here >= 0 ? here : shown.findIndex((one) => !one.disabled));
    }

    /** @param {number} place */
    function mark(place) {
        at = place;
        const items = list.querySelectorAll("[role=option]");
        items.forEach((item, number) => item.setAttribute("aria-selected", String(number === at)));
        field.removeAttribute("aria-activedescendant");
        if (at < 0) return;
        field.setAttribute("aria-activedescendant", items[at].id);
        items[at].scrollIntoView({ block: "nearest" });
    }

    /** @param {KeyboardEvent} event */
    function press(event) {
        const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10 }[event.key];
        if (event.key === "Escape" && !list.hidden) {
            hide();
            field.select();
        } else if (event.key !== "Enter" && !step) return;
        else if (list.hidden) show("");
        else if (event.key === "Enter") take(shown[at]);
        else move(step ?? 0);
        event.preventDefault();
    }

    /**
     * To another entry that can be chosen, and no further than the first or last.
     * @param {number} step
     */
    function move(step) {
        const open = [...shown.keys()].filter((place) => !shown[place].disabled);
        if (open.length) mark(open[Math.min(open.length - 1, Math.max(0, open.indexOf(at) + step))]);
    }

    /** @param {Entry | undefined} entry */
    function take(entry) {
        if (!entry || entry.disabled) return;
        const another = entry.value !== chosen;
        chosen = entry.value;
        hide();
        field.select(); // what is typed next is another name
        if (another) address({ [name]: chosen, page: "", ...(name === "layer" ? { channels: "" } : {}) });
    }

    return (options, value) => {
        entries = options;
        chosen = value;
        if (list.hidden || document.activeElement !== field) {
            // the same value again would lose the selection
            if (field.value !== nameOf(chosen)) field.value = nameOf(chosen);
            return;
        }
        // the options came again under an open list: the entry that the arrow keys had reached stays marked
        const reached = shown[at]?.value;
        filter();
        const place = shown.findIndex((one) => one.value === reached && !one.disabled);
        if (place >= 0) mark(place);
    };
}

/** @type {WeakMap<Element, ReturnType<typeof combobox>>} */
const drawn = new WeakMap();

/** @param {string} id @param {Entry[]} options @param {string} value */
function draw(id, options, value) {
    const root = document.getElementById(id);
    if (!root) return "";
    const fill = drawn.get(root) ?? combobox(root);
    drawn.set(root, fill);
    fill(options, value);
    return "";
}

convscope.drawClasses = (given) => draw("images-classes", given?.options ?? [], given?.chosen ?? "");
convscope.drawLayers = (chosen, options) => draw("patches-layers", options ?? [], chosen?.layer ?? "");
