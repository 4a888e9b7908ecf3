/* One attack: what became of it, original + perturbation = attacked at any epsilon that was looked at, and the curve
   of confidence against epsilon. FGSM's images are made here, from the picture and the signs, by the rule of
   workers/attacks/search.py: a test compares the two. */
// @ts-nocheck
import { convscope } from "./namespace.js";

const { make, svg, icon, number, percent } = convscope;

/* An epsilon as it is read: `0.003`. */
convscope.epsilonWords = (epsilon) => (epsilon === 0 ? "0" : String(Number(epsilon.toPrecision(3))));
const inLevels = (epsilon) => `${Number((epsilon * 255).toFixed(2))}/255`;
const both = (epsilon) => `${convscope.epsilonWords(epsilon)} (${inLevels(epsilon)})`;
const named = (name, index) => `${name || "class"} (${index})`;
const succeeds = (attack, step) =>
    (step.top[0].class_index === attack.class_index) === (attack.relative_to === "target");

/* What became of the attack: a title, sentences, and a kind for its colour. */
function verdict(attack) {
    const ends = `from ${both(Math.max(attack.step, attack.minimum))} up to ${both(attack.cap)}`;
    const grid =
        attack.grid === "fixed"
            ? `one epsilon, ${both(attack.cap)}`
            : attack.grid === "geometric"
              ? `each epsilon ${attack.ratio} times the one before, ${ends}; then the gap below the first success in ${attack.parts} parts`
              : `steps of ${convscope.epsilonWords(attack.step)} ${ends}`;
    const aim = {
        prediction: "to leave the prediction",
        label: `to leave the label, ${named(attack.class_name, attack.class_index)}`,
        target: `to reach ${named(attack.class_name, attack.class_index)}`,
    }[attack.relative_to];
    const how = `${attack.method.toUpperCase()} ${aim}; ${grid}${attack.eight_bit ? ", on 8-bit levels" : ""}; ${attack.checked} epsilons looked at.`;
    if (attack.outcome === "no_gradient") {
        return {
            kind: "impossible",
            symbol: "slash-circle",
            title: "No perturbation possible",
            lines: [
                `The gradient of the loss is zero at every pixel (norm ${attack.gradient_norm}): FGSM has no direction. This says nothing of robustness.`,
                how,
            ],
        };
    }
    if (attack.outcome === "resisted") {
        return {
            kind: "resisted",
            symbol: "shield-check",
            title: `Resisted up to ε ${both(attack.attacked_epsilon)}`,
            lines: [
                `Still ${named(attack.name_after, attack.class_after)}, ${percent(attack.probability_after)}. A larger epsilon might succeed: this image is censored at the cap.`,
                how,
            ],
        };
    }
    if (attack.epsilon === 0) {
        const why =
            attack.relative_to === "label"
                ? `The model says ${named(attack.name_before, attack.class_before)}, the label is ${named(attack.class_name, attack.class_index)}`
                : `The model says ${named(attack.name_before, attack.class_before)} already`;
        return { kind: "already", symbol: "x-circle", title: "No change is needed", lines: [`${why}.`, how] };
    }
    const bound =
        attack.grid === "fixed"
            ? "One epsilon alone was tried: a smaller one may succeed too."
            : attack.at_most
              ? "The lowest epsilon of the grid succeeds: the smallest is at most that."
              : attack.last_failure === null
                ? "Which smaller epsilons failed was not recorded."
                : attack.eight_bit && (attack.epsilon - attack.last_failure) * 255 < 1.5
                  ? `${both(attack.last_failure)} fails; no 8-bit level lies between the two.`
                  : `${both(attack.last_failure)} fails; between the two nothing was looked at: ${percent((attack.epsilon - attack.last_failure) / attack.epsilon)} of epsilon.`;
    const at = attack.at_most && attack.grid !== "fixed" ? "ε ≤" : "ε";
    return {
        kind: "flipped",
        symbol: "lightning-charge-fill",
        title: `${attack.name_before || attack.class_before} becomes ${attack.name_after || attack.class_after} at ${at} ${both(attack.epsilon)}`,
        lines: [bound, how],
    };
}

function png(attack) {
    if (attack.png_class === null || attack.epsilon === 0) return null;
    const said = `${named(attack.png_name, attack.png_class)}, ${percent(attack.png_probability)}`;
    if (attack.png_succeeds)
        return make(
            "p",
            {},
            icon("check2"),
            ` Saved as an 8-bit PNG and read again: ${said}. It still succeeds.`,
        );
    if (attack.outcome !== "flipped") return null;
    const query = new URLSearchParams(location.search);
    query.set("ids", attack.image_id);
    query.set("p_levels", "8-bit");
    query.delete("attack");
    return make(
        "p",
        {},
        icon("exclamation-triangle"),
        ` Saved as an 8-bit PNG and read again: ${said}. The change does not survive rounding to n/255. `,
        make("a", { href: convscope.local(`/attack?${query}`) }, "Attack on 8-bit levels instead"),
    );
}

convscope.attackStep = function (attack) {
    const told = verdict(attack);
    const row = make("div", { class: "equation" });
    const section = make(
        "section",
        { class: "attack-step", "aria-label": "The attack" },
        make(
            "div",
            { class: `attack-verdict ${told.kind}`, role: "status" },
            make("div", { class: "message-icon" }, icon(told.symbol)),
            make(
                "div",
                {},
                make("h2", {}, told.title),
                told.lines.map((line) => make("p", {}, line)),
                png(attack),
                make(
                    "p",
                    { class: "links" },
                    make(
                        "a",
                        {
                            href:
                                convscope.local("/image?") +
                                new URLSearchParams({
                                    model: attack.model,
                                    images: attack.image_set,
                                    id: attack.image_id,
                                }),
                        },
                        `image ${attack.image_id}`,
                    ),
                    make(
                        "a",
                        {
                            href:
                                convscope.local("/saliency?") +
                                new URLSearchParams({
                                    model: attack.model,
                                    images: attack.image_set,
                                    ids: attack.image_id,
                                }),
                        },
                        "its saliency",
                    ),
                    make(
                        "span",
                        { class: "quiet" },
                        `${attack.model} · attack ${attack.attack} · gradient norm ${number(attack.gradient_norm)}`,
                    ),
                ),
            ),
        ),
        row,
    );
    const steps = attack.steps || [];
    if (!attack.png) {
        row.append(
            figure(
                "Original",
                make("img", { src: attack.input_png, alt: `Image ${attack.image_id} as the model sees it` }),
                [named(attack.name_before, attack.class_before), percent(attack.probability_before)],
            ),
        );
        return section;
    }
    const places = {
        before: canvas("the image as the model sees it"),
        change: canvas("the perturbation"),
        after: canvas("the attacked image"),
    };
    const words = {
        before: make("figcaption", {}),
        change: make("figcaption", {}),
        after: make("figcaption", {}),
    };
    const frame = (title, name) => make("figure", {}, make("h3", {}, title), places[name], words[name]);
    row.append(
        frame("Original", "before"),
        sign("+"),
        frame("Perturbation", "change"),
        sign("="),
        frame("Attacked", "after"),
    );
    const top = make("div", { class: "bars top-five" });
    const shownAt = make("output", { class: "num", for: "attack-epsilon" });
    const marker = svg("line", { class: "marker", y1: 0, y2: 100 });
    const asked = new URLSearchParams(location.search).get("at");
    const first = steps.findIndex((step) => Math.abs(step.epsilon - attack.attacked_epsilon) < 1e-9);
    const wanted =
        asked === null ? -1 : steps.findIndex((step) => Math.abs(step.epsilon - Number(asked)) < 1e-9);
    let at = wanted >= 0 ? wanted : Math.max(0, first);
    const slider = make("input", {
        id: "attack-epsilon",
        type: "range",
        class: "form-range",
        min: 0,
        max: Math.max(0, steps.length - 1),
        step: 1,
        value: String(at),
        "aria-label": "Epsilon",
        oninput: (event) => {
            at = Number(event.target.value);
            show();
            convscope.address({ at: steps[at].epsilon }, true);
        },
    });
    const lines = make(
        "div",
        { class: "curve-card card-plain" },
        make("div", { class: "bar-line" }, make("h2", {}, "Confidence against epsilon"), shownAt),
        steps.length > 1
            ? plot(attack, steps, marker)
            : make(
                  "p",
                  { class: "quiet" },
                  attack.steps ? "One step alone." : "The file with the steps is gone: run it again.",
              ),
        slider,
        further(attack, steps),
    );
    section.append(
        make(
            "div",
            { class: "two" },
            lines,
            make("div", { class: "card-plain" }, make("h2", {}, "Top five"), top),
        ),
        make(
            "div",
            { class: "tools attack-downloads" },
            file(attack.png, "Attacked, PNG"),
            file(attack.input_png, "Original, PNG"),
            attack.signs_png ? file(attack.signs_png, "Signs, PNG") : file(attack.change_npy, "Change, NPY"),
            make(
                "a",
                {
                    class: "btn btn-sm btn-quiet",
                    href: convscope.local(`/download/attack-steps.csv?attack=${attack.attack}`),
                    download: "",
                },
                icon("download"),
                "Curve, CSV",
            ),
            make(
                "a",
                { class: "btn btn-sm btn-quiet", href: attack.url, target: "_blank" },
                icon("braces"),
                "JSON",
            ),
        ),
    );

    let pictures = null;
    async function load() {
        try {
            const [before, change] = await Promise.all([
                convscope.loadPicture(attack.input_png),
                attack.signs_png
                    ? convscope.loadPicture(attack.signs_png)
                    : convscope.loadMap(attack.change_npy),
            ]);
            pictures = { before, change };
            show();
        } catch (error) {
            row.append(make("p", { class: "problem" }, error.message));
        }
    }

    function show() {
        const step = steps[at];
        const epsilon = step ? step.epsilon : attack.attacked_epsilon;
        const best = step
            ? step.top[0]
            : {
                  class_index: attack.class_after,
                  name: attack.name_after,
                  probability: attack.probability_after,
              };
        caption(
            words.before,
            named(attack.name_before, attack.class_before),
            percent(attack.probability_before),
        );
        caption(words.after, named(best.name, best.class_index), percent(best.probability));
        words.after.classList.toggle("changed", Boolean(step && succeeds(attack, step)));
        shownAt.textContent = `ε ${both(epsilon)}`;
        slider.setAttribute(
            "aria-valuetext",
            `epsilon ${both(epsilon)}: ${best.name || best.class_index}, ${percent(best.probability)}`,
        );
        if (steps.length > 1) {
            const x = 100 * (step.epsilon / steps[steps.length - 1].epsilon);
            marker.setAttribute("x1", x);
            marker.setAttribute("x2", x);
        }
        top.replaceChildren(
            ...(step ? step.top : []).map((one) =>
                make(
                    "div",
                    { class: `bar${one.class_index === attack.class_index ? " marked" : ""}` },
                    make(
                        "div",
                        { class: "bar-name", title: one.name },
                        make("span", {}, named(one.name, one.class_index)),
                    ),
                    make(
                        "div",
                        { class: "bar-track" },
                        make("div", { class: "bar-fill", style: `width:${100 * one.probability}%` }),
                    ),
                    make("div", { class: "bar-value" }, percent(one.probability)),
                ),
            ),
        );
        if (!pictures) return;
        // PGD's change is known at one epsilon alone
        const reached = attack.signs_png ? epsilon : epsilon === 0 ? 0 : attack.attacked_epsilon;
        const after = convscope.attackedPixels(pictures.before, pictures.change, reached, attack.eight_bit);
        const factor = reached ? 0.5 / reached : 1;
        caption(
            words.change,
            attack.signs_png || at === first || !step ? `ε ${both(epsilon)}` : `shown at ε ${both(reached)}`,
            reached ? `drawn × ${number(factor)}` : "none",
        );
        drawPixels(places.before, pictures.before, (i) => pictures.before.data[i] / 255);
        drawPixels(
            places.change,
            pictures.before,
            (i) => 0.5 + factor * (after[i] - pictures.before.data[i] / 255),
        );
        drawPixels(places.after, pictures.before, (i) => after[i]);
    }
    show();
    load();
    return section;
};

/* RGBA positions of pixels in [0, 1], moved along signs (255 up, 128 not, 1 down) or by a change (3 H by W), and clipped. */
convscope.attackedPixels = function (before, change, epsilon, eightBit) {
    const after = new Float32Array(before.data.length);
    const plane = before.width * before.height;
    const float = new Float32Array(3);
    for (let i = 0; i < before.data.length; i++) {
        if (i % 4 === 3) continue;
        const pixel = before.data[i] / 255;
        if (change.height === 3 * before.height) {
            after[i] = Math.min(
                1,
                Math.max(0, pixel + (epsilon ? change.data[(i % 4) * plane + (i >> 2)] : 0)),
            );
            continue;
        }
        const sign = (change.data[i] - 128) / 127;
        if (eightBit) {
            after[i] = Math.min(255, Math.max(0, before.data[i] + Math.round(epsilon * 255) * sign)) / 255;
        } else {
            float[0] = pixel; // as float32, and so is the product
            float[1] = epsilon;
            float[2] = float[1] * sign;
            after[i] = Math.min(1, Math.max(0, float[0] + float[2]));
        }
    }
    return after;
};

/* A search ends at the first success: the way to see what comes after it. */
function further(attack, steps) {
    if (attack.full_scan || attack.outcome !== "flipped" || steps.length < 2 || attack.grid === "fixed")
        return null;
    const query = new URLSearchParams(location.search);
    query.set("ids", attack.image_id);
    query.set("p_scan", "full");
    query.set(
        "p_cap",
        Math.min(
            attack.cap,
            Math.max((attack.grid === "geometric" ? 4 : 100) * attack.step, 4 * attack.epsilon),
        ),
    );
    ["attack", "at"].forEach((name) => query.delete(name));
    return make(
        "p",
        { class: "quiet" },
        "The search ended at the first success. ",
        make("a", { href: convscope.local(`/attack?${query}`) }, "Scan further"),
    );
}

function drawPixels(place, like, value) {
    place.width = like.width;
    place.height = like.height;
    const context = place.getContext("2d");
    const out = context.createImageData(like.width, like.height);
    for (let i = 0; i < out.data.length; i++)
        out.data[i] = i % 4 === 3 ? 255 : Math.round(255 * Math.min(1, Math.max(0, value(i))));
    context.putImageData(out, 0, 0);
}

const canvas = (words) => make("canvas", { width: 224, height: 224, role: "img", "aria-label": words });
const sign = (text) => make("div", { class: "operator", "aria-hidden": "true" }, text);
const figure = (title, picture, words) => {
    const below = make("figcaption", {});
    caption(below, ...words);
    return make("figure", {}, make("h3", {}, title), picture, below);
};
const caption = (place, name, more) =>
    place.replaceChildren(make("b", {}, name), make("span", { class: "num" }, more));
const file = (href, text) =>
    make("a", { class: "btn btn-sm btn-quiet", href, download: "" }, icon("download"), text);

/* Two lines: the class to leave or to reach, and the class that is named; runs of successes are shaded. */
function plot(attack, steps, marker) {
    const last = steps[steps.length - 1].epsilon;
    const x = (step) => 100 * (step.epsilon / last);
    const line = (value, kind) =>
        svg("polyline", {
            class: `line ${kind}`,
            points: steps.map((step) => `${x(step)},${100 - 100 * value(step)}`).join(" "),
        });
    const shades = [];
    steps.forEach((step, at) => {
        if (!succeeds(attack, step)) return;
        const from = at ? (x(steps[at - 1]) + x(step)) / 2 : 0;
        const to = at + 1 < steps.length ? (x(step) + x(steps[at + 1])) / 2 : 100;
        shades.push(
            svg("rect", { class: "success", x: from, y: 0, width: Math.max(0.4, to - from), height: 100 }),
        );
    });
    const what = attack.relative_to === "target" ? "reached" : "left";
    const words = `Confidence in ${named(attack.class_name, attack.class_index)}, the class to be ${what}, from epsilon 0 to ${convscope.epsilonWords(last)}`;
    return make(
        "div",
        { class: "plot" },
        make(
            "div",
            { class: "plot-y num", "aria-hidden": "true" },
            ["100 %", "50 %", "0 %"].map((text) => make("span", {}, text)),
        ),
        svg(
            "svg",
            { viewBox: "0 0 100 100", preserveAspectRatio: "none", role: "img", "aria-label": words },
            svg("rect", { width: 100, height: 100, class: "frame" }),
            svg("line", { x1: 0, x2: 100, y1: 50, y2: 50, class: "rule" }),
            shades,
            line((step) => step.top[0].probability, "named"),
            line((step) => step.reference_probability, "reference"),
            marker,
        ),
        make(
            "div",
            { class: "plot-x num" },
            make("span", {}, "0"),
            make("span", {}, "epsilon"),
            make("span", {}, both(last)),
        ),
        make(
            "div",
            { class: "keys" },
            make("span", { class: "key reference" }, named(attack.class_name, attack.class_index)),
            make("span", { class: "key named" }, "class that is named"),
            make("span", { class: "key success" }, attack.relative_to === "target" ? "reached" : "changed"),
        ),
    );
}
