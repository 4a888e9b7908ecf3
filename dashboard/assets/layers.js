/* The list of a model's layers: a field to type into, and below it the layers that hold what was typed.

   Every layer that is listed holds the typed text as it stands, so the first one is what Enter opens. Written by hand:
   Dash's list takes each word of "block 2 > dwconv" by itself, filters a moment after the keys, and Enter then opens
   the first of what was listed before. */
(function () {
    "use strict";
    const ns = (window.dash_clientside = window.dash_clientside || {});
    const convscope = (ns.convscope = ns.convscope || {});
    const { make } = convscope;

    let field = null, list = null, layers = [], chosen = null, shown = [], at = -1;

    /* How a name is compared: "stage 4 > block 2", "stage4.block2" and "Stage 4 block 2" are one text. */
    const plain = (text) => text.toLowerCase().replace(/[\s.>]+/g, "");

    convscope.drawLayers = function (given, options) {
        const root = document.getElementById("patches-layers");
        if (!root) return "";
        layers = options || [];
        chosen = given ? given.layer : null;
        if (!field || !root.contains(field)) build(root);
        if (document.activeElement !== field) field.value = nameOf(chosen);
        else if (!list.hidden) filter();
        return "";
    };

    const nameOf = (layer) => (layers.find((one) => one.value === layer) || { label: "" }).label;

    function build(root) {
        list = make("ul", { id: "patches-layer-list", class: "layer-list", role: "listbox", "aria-label": "Layers", hidden: true,
            onpointerdown: (event) => event.preventDefault(), // the field keeps the focus
            onclick: (event) => { const item = event.target.closest("[role=option]"); if (item) open(shown[Number(item.dataset.at)]); } });
        field = make("input", { id: "patches-layer", type: "search", class: "form-control form-control-sm", role: "combobox", autocomplete: "off",
            spellcheck: "false", "aria-expanded": "false", "aria-controls": list.id, "aria-autocomplete": "list", placeholder: "Search layers…",
            onfocus: () => field.select(), onclick: () => show(""), oninput: () => show(field.value), onkeydown: press, onblur: hide });
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

    function filter(text = field.value === nameOf(chosen) ? "" : field.value) {
        const wanted = plain(text);
        shown = layers.filter((one) => plain(one.label).includes(wanted) || plain(one.value).includes(wanted));
        list.replaceChildren(...(shown.length ? shown.map((one, place) => make("li", { id: `patches-layer-${place}`, role: "option", "data-at": place,
            class: `layer-option${one.disabled ? " unindexed" : ""}`, "aria-disabled": one.disabled ? "true" : null },
        make("span", {}, one.label), make("small", {}, one.disabled ? `not indexed · ${one.description}` : one.description)))
            : [make("li", { class: "layer-option quiet", role: "presentation" }, "No layer of this model is called so.")]));
        const here = wanted ? -1 : shown.findIndex((one) => one.value === chosen);
        mark(here >= 0 ? here : shown.findIndex((one) => !one.disabled));
    }

    function mark(place) {
        at = place;
        list.querySelectorAll("[role=option]").forEach((item, number) => item.setAttribute("aria-selected", String(number === at)));
        const item = list.children[at];
        if (at < 0 || !item) { field.removeAttribute("aria-activedescendant"); return; }
        field.setAttribute("aria-activedescendant", item.id);
        item.scrollIntoView({ block: "nearest" });
    }

    function press(event) {
        const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10 };
        if (event.key === "Escape" && !list.hidden) { event.preventDefault(); hide(); field.select(); }
        else if (event.key === "Enter") { event.preventDefault(); if (list.hidden) show(""); else if (at >= 0) open(shown[at]); }
        else if (event.key in steps) { event.preventDefault(); if (list.hidden) show(""); else move(steps[event.key]); }
    }

    /* To the next layer that can be opened, and no further than the last. */
    function move(step) {
        const open = shown.map((one, place) => (one.disabled ? -1 : place)).filter((place) => place >= 0);
        if (open.length) mark(open[Math.min(open.length - 1, Math.max(0, open.indexOf(at) + step))]);
    }

    function open(layer) {
        if (!layer || layer.disabled) return;
        const another = layer.value !== chosen;
        chosen = layer.value;
        hide();
        field.select(); // what is typed next is another name
        if (another) convscope.address({ layer: layer.value, page: "", channels: "" });
    }
})();
