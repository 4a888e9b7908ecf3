/* The large view of one map: the map, what it was computed with, its curves, and what can be taken away. */
// @ts-nocheck
import { convscope } from "./namespace.js";

const { make, svg, icon, number, percent, duration, ask } = convscope;

convscope.openMap = async function (map) {
    const state = convscope.saliencyState();
    const cell = [...state.cells.values()].find((one) => one.map && one.map.map === map);
    if (!cell) return;
    const dialog = make("dialog", { class: "large-map", "aria-label": `Map ${map}` });
    const shown = { ...state.display };
    const canvas = make("canvas", { role: "img", "aria-label": `Map ${map}` });
    const bar = make("canvas", { class: "colour-bar wide", "aria-hidden": "true" });
    const ends = make("div", { class: "ends num" });
    const curves = make("div", { class: "curves" });
    const note = make("p", { class: "quiet" });
    const place = { array: null, canvas };
    const stage = make("div", { class: "large-stage" }, canvas);
    const value = make("div", { class: "value-tip", role: "tooltip", hidden: true });
    convscope.saliencyState().hover(stage, place);

    async function paint() {
        const address = state.arrayAddress(cell.map, shown);
        note.textContent = "";
        if (!address) {
            note.textContent = "This method takes no samples, so there is no standard error.";
            return;
        }
        const [array, picture] = await Promise.all([
            convscope.loadMap(address),
            convscope.loadPicture(cell.map.input_png),
        ]);
        place.array = array;
        const name = state.colourName(cell.map, shown);
        // where a scale is shared, the map keeps the one that it has on the page
        const ofErrors = (view) => view === "error";
        const shared = shown.scale !== "own" && ofErrors(shown.view) === ofErrors(state.display.view);
        const high = shared ? cell.high : convscope.highest(array, shown.clip);
        place.high = high;
        convscope.paint(canvas, array, picture, {
            table: state.constants.colours[name],
            diverging: name === state.constants.diverging,
            high,
            strength: shown.view === "overlay" ? shown.strength : 1,
            wipe: shown.wipe,
        });
        convscope.paintBar(bar, state.constants.colours[name]);
        ends.replaceChildren(
            make("span", {}, name === state.constants.diverging ? `−${number(high)}` : "0"),
            make("span", {}, shared ? "shared scale" : "its own scale"),
            make("span", {}, number(high)),
        );
    }

    const range = (name, label) =>
        make(
            "label",
            { class: "slide" },
            make("span", {}, label),
            make("input", {
                type: "range",
                class: "form-range",
                min: 0,
                max: 1,
                step: 0.01,
                value: String(shown[name]),
                oninput: (event) => {
                    shown[name] = Number(event.target.value);
                    paint();
                },
            }),
        );
    const views = make(
        "div",
        { class: "segments", role: "group", "aria-label": "What is shown" },
        [
            ["overlay", "Over the picture"],
            ["map", "Map"],
            ["error", "Standard error"],
        ].map(([value, text]) =>
            make(
                "button",
                {
                    type: "button",
                    class: `segment${shown.view === value ? " on" : ""}`,
                    "aria-pressed": String(shown.view === value),
                    onclick: (event) => {
                        shown.view = value;
                        views.querySelectorAll("button").forEach((one) => {
                            one.classList.toggle("on", one === event.currentTarget);
                            one.setAttribute("aria-pressed", String(one === event.currentTarget));
                        });
                        paint();
                    },
                },
                text,
            ),
        ),
    );
    const found = cell.map;
    const facts = {
        method: state.constants.methods[found.method].title,
        model: found.model,
        "class explained": `${found.target_name || ""} (${found.target_class}), ${percent(found.target_probability)}`,
        prediction: `${found.predicted_name || ""} (${found.predicted_class}), ${percent(found.predicted_probability)}`,
        ...found.parameters,
        samples:
            found.seed === null
                ? null
                : `${found.samples} drawn of ${found.parameters.samples || found.samples}`,
        precision: found.dtype,
        dtype: null,
        "agreement of halves": found.agreement === null ? null : found.agreement.toFixed(3),
        "mean standard error": found.standard_error === null ? null : number(found.standard_error),
        values: `${number(found.lowest)} to ${number(found.highest)}`,
        computed: `in ${duration(found.seconds)} on ${found.device}`,
        agreement: found.parameters.agreement > 0 ? `stop at ${found.parameters.agreement}` : null,
    };
    const link = (href, text) =>
        make("a", { class: "btn btn-sm btn-quiet", href, download: "" }, icon("download"), text);
    // the server draws maps; a picture of standard errors is the one on the screen
    const pngOf = () =>
        shown.view === "error"
            ? canvas.toDataURL("image/png")
            : `${found.png}?` +
              new URLSearchParams({
                  colours: state.colourName(found, shown),
                  strength: shown.view === "overlay" ? shown.strength : 1,
                  ...(shown.scale !== "own" && place.high !== undefined
                      ? { high: place.high }
                      : { clip: shown.clip }),
              });
    const png = link(pngOf(), "PNG");
    png.addEventListener("click", () => {
        png.href = pngOf();
        png.download = `map-${found.map}${shown.view === "error" ? "-standard-error" : ""}.png`;
    });
    const close = make(
        "button",
        {
            type: "button",
            class: "btn btn-quiet close-large",
            "aria-label": "Close",
            onclick: () => dialog.close(),
        },
        icon("x-lg"),
    );
    dialog.append(
        value,
        make(
            "div",
            { class: "large-head" },
            make(
                "div",
                {},
                make(
                    "h2",
                    {},
                    cell.row.label || "No label",
                    make("span", { class: "quiet" }, ` image ${found.image_id}`),
                ),
                make("p", { class: "quiet" }, `map ${found.map} · ${found.model}`),
            ),
            close,
        ),
        make(
            "div",
            { class: "large-body" },
            make(
                "div",
                { class: "large-left" },
                stage,
                bar,
                ends,
                note,
                views,
                range("strength", "Strength"),
                range("wipe", "Original | map"),
            ),
            make(
                "div",
                { class: "large-right" },
                make(
                    "dl",
                    { class: "job-parameters" },
                    Object.entries(facts)
                        .filter(([, value]) => value !== null && value !== undefined)
                        .map(([name, value]) =>
                            make(
                                "div",
                                {},
                                make("dt", {}, name.replaceAll("_", " ")),
                                make("dd", {}, String(value)),
                            ),
                        ),
                ),
                curves,
                make(
                    "div",
                    { class: "tools" },
                    png,
                    link(found.npy, "NPY"),
                    found.standard_error_npy ? link(found.standard_error_npy, "Standard error, NPY") : null,
                    make(
                        "a",
                        { class: "btn btn-sm btn-quiet", href: found.url, target: "_blank" },
                        icon("braces"),
                        "JSON",
                    ),
                ),
            ),
        ),
    );
    document.body.append(dialog);
    dialog.addEventListener("close", () => {
        dialog.remove();
        cell.element.querySelector(".map-open").focus();
    });
    dialog.addEventListener("click", (event) => {
        if (event.target === dialog) dialog.close();
    });
    dialog.showModal();
    close.focus();
    try {
        await paint();
        const whole = await ask(`/api/maps/${found.map}?` + new URLSearchParams({ steps: state.page.steps }));
        if (whole.deletion)
            curves.replaceChildren(
                make("p", { class: "quiet" }, `Deletion and insertion in ${whole.steps} steps`),
                plot("Deletion", whole.deletion, whole.deletion_auc),
                plot("Insertion", whole.insertion, whole.insertion_auc),
            );
    } catch (error) {
        note.textContent = error.message;
    }
};

/* Probability against the share of pixels, both from 0 to 1. */
function plot(title, values, area) {
    const [width, height] = [200, 110];
    const points = values.map(
        (value, at) => `${(at / (values.length - 1)) * width},${height - value * height}`,
    );
    const words = `${title}: area ${area.toFixed(3)}`;
    return make(
        "figure",
        { class: "curve" },
        svg(
            "svg",
            {
                viewBox: `-1 -1 ${width + 2} ${height + 2}`,
                role: "img",
                "aria-label": words,
                preserveAspectRatio: "none",
            },
            svg("rect", { width, height, class: "frame" }),
            svg("polygon", { points: `0,${height} ${points.join(" ")} ${width},${height}`, class: "area" }),
            svg("polyline", { points: points.join(" "), class: "line" }),
        ),
        make(
            "figcaption",
            {},
            make("span", {}, title),
            make("span", { class: "num" }, `area ${area.toFixed(3)}`),
        ),
    );
}
