/* The selected attack at the slider's epsilon: its images, made of the original and the perturbation, its
   classes, and the marker of the curve. Words and numbers come from pages/attack_step.py. */
import { attackedPixels } from "./attacked.js";
import { address, make } from "./base.js";
import { loadMap, loadPicture } from "./heat.js";
import { convscope } from "./namespace.js";

/** @typedef {{ name: string, share: number, words: string, marked: boolean }} Top */
/**
 * @typedef {object} Step
 * @property {number} epsilon
 * @property {string} words
 * @property {number} place percent of the axis
 * @property {boolean} changed
 * @property {Top[]} top
 * @property {number} reached epsilon of the composed image
 * @property {number} factor by which the perturbation is amplified
 * @property {[string, string]} change
 */
/**
 * @typedef {object} Values
 * @property {number} attack
 * @property {string} before address of the original
 * @property {string | null} signs
 * @property {string} change
 * @property {boolean} eight_bit
 * @property {boolean} known whether the outputs at each epsilon are stored
 * @property {Step[]} steps
 */

/**
 * @param {HTMLCanvasElement} canvas
 * @param {ImageData} like
 * @param {(i: number) => number} value of an RGBA position, in [0, 1]
 */
function drawPixels(canvas, like, value) {
    canvas.width = like.width;
    canvas.height = like.height;
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    const out = context.createImageData(like.width, like.height);
    for (let i = 0; i < out.data.length; i++) out.data[i] = i % 4 === 3 ? 255 : Math.round(255 * value(i));
    context.putImageData(out, 0, 0);
}

/** @param {Element} section @param {Values} values @param {Step} step */
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
    /** @type {HTMLElement | null} */ (section.querySelector(".marker"))?.style.setProperty(
        "left",
        `${step.place}%`,
    );
    section
        .querySelector("input[type=range]")
        ?.setAttribute("aria-valuetext", `${step.words}: ${best.name}, ${best.words}`);
    section
        .querySelector(".top-five")
        ?.replaceChildren(
            ...(values.known ? step.top : []).map((one) =>
                make(
                    "div",
                    { class: `bar${one.marked ? " marked" : ""}` },
                    make("div", { class: "bar-name", title: one.name }, make("span", {}, one.name)),
                    make(
                        "div",
                        { class: "bar-track" },
                        make("div", { class: "bar-fill", style: `width:${100 * one.share}%` }),
                    ),
                    make("div", { class: "bar-value" }, one.words),
                ),
            ),
        );
}

/** @typedef {{ attack: number, at: number }} Shown */
/** @type {Shown | null} */
let wanted = null;

/**
 * Show a step. Where the step before is of the same attack, the slider was moved: the address keeps that.
 * @param {number | string} position
 * @param {Values | null} values
 * @param {Shown | null} before
 */
convscope.showStep = async function (position, values, before) {
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
