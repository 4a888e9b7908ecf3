/* The selected attack at the slider's epsilon: its images, made of the original and the perturbation, its
   classes, and the marker of the curve. Words and numbers come from pages/attack_step.py. */
import { attackedPixels } from "./attacked.js";
import { address, make } from "./base.js";
import { draw, loadMap, loadPicture } from "./heat.js";
import { convscope } from "./namespace.js";

/**
 * Draws an image of the size of another one from a function of RGBA positions, with values in [0, 1].
 * @param {HTMLCanvasElement} canvas @param {ImageData} like @param {(i: number) => number} value
 */
const drawPixels = (canvas, like, value) =>
    draw(
        canvas,
        like.width,
        Uint8ClampedArray.from(like.data, (_, i) => (i % 4 === 3 ? 255 : Math.round(255 * value(i)))),
    );

/** @param {AttackStep["top"][number]} top */
const bar = ({ name, share, words, marked }) =>
    make(
        "div",
        { class: marked ? "bar marked" : "bar" },
        make("div", { class: "bar-name", title: name }, make("span", {}, name)),
        make(
            "div",
            { class: "bar-track" },
            make("div", { class: "bar-fill", style: `width:${100 * share}%` }),
        ),
        make("div", { class: "bar-value" }, words),
    );

/** @param {Element} section @param {AttackValues} values @param {AttackStep} step */
function drawWords(section, values, step) {
    const best = step.top[0];
    const [, change, after] = section.querySelectorAll("figcaption");
    const lines = (/** @type {string} */ name, /** @type {string} */ more) => [
        make("b", {}, name),
        make("span", { class: "num" }, more),
    ];
    change.replaceChildren(...lines(...step.change));
    after.replaceChildren(...lines(best.name, best.words));
    after.classList.toggle("changed", step.changed);
    section.querySelector("output")?.replaceChildren(step.words);
    const marker = /** @type {HTMLElement | null} */ (section.querySelector(".marker"));
    if (marker) marker.style.left = `${step.place}%`;
    const slider = section.querySelector("input[type=range]");
    if (slider) slider.ariaValueText = `${step.words}: ${best.name}, ${best.words}`;
    const bars = values.known ? step.top.map(bar) : [];
    section.querySelector(".top-five")?.replaceChildren(...bars);
}

/** @type {ShownStep | null} */
let wanted = null;

/* Show a step. Where the step before is of the same attack, the slider was moved: the address keeps that. */
convscope.showStep = async (position, values, before) => {
    const section = document.querySelector(`.attack-step[data-attack="${values?.attack}"]`);
    const step = values?.steps[Number(position)];
    if (!section || !step) return before; // the slider is not yet that of this attack
    const now = { attack: values.attack, at: Number(position) };
    wanted = now;
    drawWords(section, values, step);
    const moved = before?.attack === now.attack && before.at !== now.at;
    if (moved) address({ at: step.epsilon }, true);
    const trouble = section.querySelector(".attack-trouble");
    trouble?.replaceChildren();
    const canvases = section.querySelectorAll("canvas");
    try {
        const [picture, change] = await Promise.all([
            loadPicture(values.before),
            values.signs ? loadPicture(values.signs) : loadMap(values.change),
        ]);
        if (wanted !== now) return now;
        const after = attackedPixels(picture, change, step.reached, values.eight_bit);
        const was = (/** @type {number} */ i) => picture.data[i] / 255;
        drawPixels(canvases[0], picture, was);
        drawPixels(canvases[1], picture, (i) => 0.5 + step.factor * (after[i] - was(i)));
        drawPixels(canvases[2], picture, (i) => after[i]);
    } catch (error) {
        canvases.forEach((canvas) => (canvas.width = 224)); // clears it
        const { message } = /** @type {Error} */ (error);
        trouble?.replaceChildren(make("p", { class: "problem" }, message));
    }
    return now;
};

/* Bring the card of the selected attack into view. */
convscope.showChosen = () => {
    const list = document.querySelector(".attack-list");
    const here = /** @type {HTMLElement | null} */ (list?.querySelector(".here"));
    if (list && here) list.scrollLeft = here.offsetLeft - list.clientWidth / 2 + here.clientWidth / 2;
};
