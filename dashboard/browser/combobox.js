/* A field to type a name into, and below it the entries that hold what was typed.

   Every entry that is listed holds the typed text as it stands, so the first one is what Enter takes; where none does,
   Enter takes nothing. Written by hand: Dash's list takes each word by itself, filters a moment after the keys, and
   Enter then takes the first of what was listed before. */
// @ts-nocheck
import { convscope } from "./namespace.js";

const { make } = convscope;

/* How a name is compared: "stage 4 > block 2", "stage4.block2" and "Stage 4 block 2" are one text. */
const plain = (text) =>
    text
        .normalize("NFKC")
        .toLowerCase()
        .replace(/[\s.>]+/g, "");

/* `id` of the field; `label` of the list; `placeholder`; `none` is said where nothing fits; `most` entries are listed
   at once; `all` is the entry that an emptied field stands for, or null; `taken` hears the value of another entry.
   Gives `draw(root, options, chosen)`; options are { value, label, description, disabled }. */
convscope.combobox = function ({ id, label, placeholder, none, most = Infinity, all = null, taken }) {
    let field = null,
        list = null,
        entries = [],
        chosen = null,
        shown = [],
        at = -1;

    function draw(root, options, value) {
        entries = [...(all ? [all] : []), ...options];
        chosen = value;
        if (!field || !root.contains(field)) build(root);
        if (!list.hidden && document.activeElement === field) filterAgain();
        else if (field.value !== nameOf(chosen)) field.value = nameOf(chosen); // the same again would lose the selection
    }

    const nameOf = (value) =>
        all && value === all.value ? "" : (entries.find((one) => one.value === value) || { label: "" }).label;

    function build(root) {
        list = make("ul", {
            id: `${id}-list`,
            class: "layer-list",
            role: "listbox",
            "aria-label": label,
            hidden: true,
            onpointerdown: (event) => event.preventDefault(), // the field keeps the focus
            onclick: (event) => {
                const item = event.target.closest("[role=option]");
                if (item) take(shown[Number(item.dataset.at)]);
            },
        });
        field = make("input", {
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
    }

    function show(text) {
        list.hidden = false;
        field.setAttribute("aria-expanded", "true");
        filter(text);
    }

    function hide() {
        list.hidden = true;
        field.setAttribute("aria-expanded", "false");
        field.removeAttribute("aria-activedescendant");
        field.value = nameOf(chosen);
    }

    /* 0 where an entry is called what was typed, 1 where its name begins so, 2 where it holds that, else 3. */
    function rank(one, wanted) {
        const names = [plain(one.label), plain(one.value)];
        if (names.includes(wanted)) return 0;
        if (names.some((name) => name.startsWith(wanted))) return 1;
        return [...names, plain(one.search || "")].some((name) => name.includes(wanted)) ? 2 : 3;
    }

    function filter(text = field.value === nameOf(chosen) ? "" : field.value) {
        const wanted = plain(text);
        const ranked = wanted
            ? entries.map((one) => [rank(one, wanted), one]).filter(([place]) => place < 3)
            : entries.map((one) => [0, one]);
        const fitting = ranked.sort(([one], [other]) => one - other).map(([, one]) => one); // keeps the order of equals
        shown = fitting.slice(0, most);
        list.replaceChildren(
            ...shown.map((one, place) =>
                make(
                    "li",
                    {
                        id: `${id}-${place}`,
                        role: "option",
                        "data-at": place,
                        class: `layer-option${one.disabled ? " unindexed" : ""}`,
                        "aria-disabled": one.disabled ? "true" : null,
                    },
                    make("span", {}, one.label),
                    make("small", {}, one.description),
                ),
            ),
            ...(shown.length
                ? []
                : [make("li", { class: "layer-option quiet", role: "presentation" }, none)]),
            ...(fitting.length > shown.length
                ? [
                      make(
                          "li",
                          { class: "layer-option quiet", role: "presentation" },
                          `${(fitting.length - shown.length).toLocaleString("en")} more: type to find them.`,
                      ),
                  ]
                : []),
        );
        const emptied = all && field.value === "" && chosen !== all.value;
        const here = wanted || emptied ? -1 : shown.findIndex((one) => one.value === chosen);
        mark(here >= 0 ? here : shown.findIndex((one) => !one.disabled));
    }

    /* The options came again under an open list: the entry that the arrow keys had reached stays marked. */
    function filterAgain() {
        const reached = shown[at] && shown[at].value;
        filter();
        const place = shown.findIndex((one) => one.value === reached && !one.disabled);
        if (place >= 0) mark(place);
    }

    function mark(place) {
        at = place;
        list.querySelectorAll("[role=option]").forEach((item, number) =>
            item.setAttribute("aria-selected", String(number === at)),
        );
        const item = list.children[at];
        if (at < 0 || !item) {
            field.removeAttribute("aria-activedescendant");
            return;
        }
        field.setAttribute("aria-activedescendant", item.id);
        item.scrollIntoView({ block: "nearest" });
    }

    function press(event) {
        const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10 };
        if (event.key === "Escape" && !list.hidden) {
            event.preventDefault();
            hide();
            field.select();
        } else if (event.key === "Enter") {
            event.preventDefault();
            if (list.hidden) show("");
            else if (at >= 0) take(shown[at]);
        } else if (event.key in steps) {
            event.preventDefault();
            if (list.hidden) show("");
            else move(steps[event.key]);
        }
    }

    /* To the next entry that can be taken, and no further than the last. */
    function move(step) {
        const open = shown.map((one, place) => (one.disabled ? -1 : place)).filter((place) => place >= 0);
        if (open.length) mark(open[Math.min(open.length - 1, Math.max(0, open.indexOf(at) + step))]);
    }

    function take(entry) {
        if (!entry || entry.disabled) return;
        const another = entry.value !== chosen;
        chosen = entry.value;
        hide();
        field.select(); // what is typed next is another name
        if (another) taken(entry.value);
    }

    return draw;
};
