/* The list of a model's layers. */
// @ts-nocheck
import { convscope } from "./namespace.js";

const draw = convscope.combobox({
    id: "patches-layer",
    label: "Layers",
    placeholder: "Search layers…",
    none: "No layer of this model is called so.",
    taken: (layer) => convscope.address({ layer, page: "", channels: "" }),
});

convscope.drawLayers = function (given, options) {
    const root = document.getElementById("patches-layers");
    if (!root) return "";
    const listed = (options || []).map((one) =>
        one.disabled ? { ...one, description: `not indexed · ${one.description}` } : one,
    );
    draw(root, listed, given ? given.layer : null);
    return "";
};
