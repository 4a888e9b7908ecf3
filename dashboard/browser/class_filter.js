/* The class filter of the Images page. */
// @ts-nocheck
import { convscope } from "./namespace.js";

const draw = convscope.combobox({
    id: "images-label",
    label: "Classes",
    placeholder: "All classes",
    most: 300,
    none: "No image of this set has such a class.",
    all: { value: "", label: "All classes", description: "" },
    taken: (label) => convscope.address({ label, page: "" }),
});

convscope.drawClasses = function (given) {
    const root = document.getElementById("images-classes");
    if (root && given) draw(root, given.options, given.chosen);
    return "";
};
