/* The drawing of the network. Cytoscape draws it on a canvas, which knows no CSS (see
   components/drawing_style.py). */
import { hit } from "./base.js";
import { convscope } from "./namespace.js";

/** @typedef {HTMLElement & { _cyreg?: { cy: any } }} CytoscapeElement */

const holder = () => /** @type {CytoscapeElement | null} */ (document.getElementById("patches-drawing"));
const cytoscape = () => holder()?._cyreg?.cy;

/* The stylesheet with the values that the page's theme gives to `var(--…)`. */
convscope.drawingStyle = (_theme, sheet) => {
    const theme = getComputedStyle(document.documentElement);
    const valueOf = (/** @type {unknown} */ value) =>
        typeof value === "string"
            ? value.replace(/^var\((.+)\)$/, (_, name) => theme.getPropertyValue(name).trim())
            : value;
    return sheet.map(({ selector, style }) => ({
        selector,
        style: Object.fromEntries(Object.entries(style).map(([name, value]) => [name, valueOf(value)])),
    }));
};

/** The id of the chosen layer in the drawing. @type {string | null} */
let chosenId = null;

/* Marks the chosen layer by a class: a new stylesheet would restyle the whole drawing at every click. */
convscope.lightUp = (chosen, drawn) => {
    foldOnNarrowScreens();
    chosenId = chosen && drawn ? `${drawn[0]} ${drawn[1].slice(0, 8)} ${chosen.layer}` : null;
    if (drawn) requestAnimationFrame(() => light(60));
    return "";
};

/** @param {number} frames to wait for elements of a new model, which come with the next rendering */
function light(frames) {
    const cy = cytoscape();
    if (!cy) return;
    const node = chosenId === null ? null : cy.getElementById(chosenId);
    if (node && !node.length) {
        if (frames) requestAnimationFrame(() => light(frames - 1));
        return;
    }
    cy.nodes(".chosen").removeClass("chosen");
    node?.addClass("chosen");
    reveal();
}

/* Scrolls the drawing to the chosen layer, where it is not in sight. */
function reveal() {
    const cy = cytoscape();
    const box = document.querySelector(".drawing-scroll");
    const node = cy?.getElementById(chosenId ?? "");
    if (!box || !node?.length) return;
    const y = node.position("y") * cy.zoom();
    if (y < box.scrollTop + 30 || y > box.scrollTop + box.clientHeight - 30)
        box.scrollTo({ top: y - box.clientHeight / 2, behavior: "instant" });
}

/* A phone's screen is for the patches: the drawing waits folded below the list of layers. */
function foldOnNarrowScreens() {
    const panel = document.querySelector(".drawing-panel");
    if (!(panel instanceof HTMLDetailsElement) || panel.dataset.ready) return;
    panel.dataset.ready = "yes";
    panel.addEventListener("toggle", () => {
        const cy = cytoscape();
        if (!cy || !panel.open) return;
        cy.resize();
        cy.pan({ x: 0, y: 0 });
        reveal();
    });
    if (matchMedia("(max-width: 640px)").matches) panel.open = false;
}

let zoom = 1;
globalThis.document?.addEventListener("click", (event) => {
    const button = hit(event, "[data-zoom]");
    const cy = cytoscape();
    const place = holder();
    if (!button || !cy || !place) return;
    const width = place.offsetWidth / zoom;
    const height = place.offsetHeight / zoom;
    zoom = Math.min(2.5, Math.max(0.4, zoom * (button.dataset.zoom === "1" ? 1.25 : 0.8)));
    if (Math.abs(zoom - 1) < 0.02) zoom = 1;
    place.style.width = `${width * zoom}px`;
    place.style.height = `${height * zoom}px`;
    cy.resize();
    cy.zoom(zoom);
    cy.pan({ x: 0, y: 0 });
});
