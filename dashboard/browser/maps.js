/* The grid of maps: cells as they arrive, their order, how they are painted, and the value under the pointer.
   What it shows is told by saliency.js; how, by the address. */
// @ts-nocheck
import { convscope } from "./namespace.js";

const { make, icon, number, percent, UNFINISHED } = convscope;

// what is shown of the maps, with what the address leaves out
const DISPLAY = {
    view: "overlay",
    strength: 0.65,
    wipe: 0,
    colours: "auto",
    scale: "own",
    clip: 99.5,
    order: "",
    model_order: "",
};
const OPTIONS = {
    view: { overlay: "Over the picture", map: "Map alone", error: "Standard error" },
    colours: {
        auto: "By kind of map",
        inferno: "Inferno",
        viridis: "Viridis",
        magma: "Magma",
        cividis: "Cividis",
        grey: "Grey (magnitude)",
        rdbu: "Red and blue (sign)",
    },
    scale: { own: "Each its own", model: "Shared in a column", all: "Shared by all" },
    order: {
        "": "As chosen",
        deletion: "Deletion, best first",
        insertion: "Insertion, best first",
        agreement: "Agreement, best first",
        confidence: "Confidence",
    },
    model_order: { "": "As chosen", deletion: "Deletion, best first", insertion: "Insertion, best first" },
};

const cells = new Map();
let page = null,
    constants = null,
    parts = null,
    job = null,
    known = [];

const display = () => {
    const query = new URLSearchParams(location.search);
    const found = {};
    for (const [name, standard] of Object.entries(DISPLAY)) {
        const text = query.get(name);
        const wrong = OPTIONS[name] && !(text in OPTIONS[name]);
        const value = typeof standard === "number" && text !== null ? Number(text) : text;
        found[name] =
            text === null || wrong || (typeof standard === "number" && !Number.isFinite(value))
                ? standard
                : value;
    }
    found.strength = Math.min(1, Math.max(0, found.strength));
    found.wipe = Math.min(1, Math.max(0, found.wipe));
    found.clip = Math.min(100, Math.max(50, found.clip));
    return found;
};

// ---- cells

const cellKey = (image, model) => `${image} ${model}`;

function drawGrid() {
    const grid = parts.grid;
    const columns = page.request ? page.request.models : page.chosen;
    grid.style.setProperty("--columns", columns.length);
    grid.classList.toggle("single", columns.length === 1);
    const shape = JSON.stringify([columns, page.rows.map((row) => row.id)]);
    if (grid.dataset.shape !== shape) {
        grid.dataset.shape = shape;
        cells.clear();
        grid.replaceChildren(
            columns.length > 1
                ? make(
                      "div",
                      { class: "map-heads", "aria-hidden": "true" },
                      make("span", {}),
                      ...columns.map((model) => make("b", { "data-model": model }, model)),
                  )
                : "",
            ...page.rows.map((row) =>
                make(
                    "section",
                    { class: "map-row", "data-image": row.id, "aria-label": `image ${row.id}` },
                    make(
                        "a",
                        { class: "map-image", href: row.href },
                        make("img", { src: row.thumbnail, alt: "", loading: "lazy" }),
                        make("span", { class: "name" }, row.label || "no label"),
                        make("span", { class: "num quiet" }, `image ${row.id}`),
                    ),
                    ...columns.map((model) => {
                        const element = make("div", { class: "map-cell", "data-model": model });
                        cells.set(cellKey(row.id, model), { element, row, model, state: null });
                        return element;
                    }),
                ),
            ),
        );
    }
    const maps = new Map(known.map((map) => [cellKey(map.image_id, map.model), map]));
    const items = new Map(
        (job ? job.item_list : []).map((item) => [cellKey(item.image_id, item.model), item]),
    );
    let next = true;
    for (const [key, cell] of cells) {
        const map = maps.get(key),
            item = items.get(key);
        let state = "idle";
        if (map) state = `map ${map.map}`;
        else if (item && item.error) state = `failed ${item.error}`;
        else if (job && UNFINISHED.includes(job.state)) {
            state = job.state === "running" && next ? "computing" : "waiting";
            next = false;
        }
        const scores = map ? `${map.deletion_auc} ${map.insertion_auc}` : "";
        if (cell.state === state && cell.scores === scores) continue;
        if (cell.state !== state) fillCell(cell, state, map, item);
        cell.state = state;
        cell.scores = scores;
        if (map) {
            cell.map = map;
            cell.caption.replaceChildren(...caption(map, cell.row));
        }
    }
    arrange();
    repaint();
}

function fillCell(cell, state, map, item) {
    cell.element.className = `map-cell ${state.split(" ")[0]}`;
    cell.map = null;
    if (map) {
        const words = `${map.model}, image ${map.image_id}: ${map.target_name || `class ${map.target_class}`}`;
        cell.canvas = make("canvas", {
            width: map.width,
            height: map.height,
            role: "img",
            "aria-label": `Map of ${words}`,
        });
        cell.caption = make("figcaption", {});
        const open = make(
            "button",
            {
                type: "button",
                class: "map-open",
                "aria-label": `Open the map of ${words}`,
                onclick: () => {
                    document.getElementById("tip").hidden = true;
                    convscope.openMap(map.map);
                },
            },
            cell.canvas,
        );
        hover(open, cell);
        cell.element.replaceChildren(make("figure", {}, open, cell.caption));
    } else {
        const words = {
            waiting: "waiting",
            computing: "computing…",
            idle: "",
            failed: item ? item.error : "",
        }[state.split(" ")[0]];
        cell.element.replaceChildren(make("div", { class: "map-blank" }, make("span", {}, words)));
    }
}

function caption(map, row) {
    const label = row.classes[map.model];
    const right = label === undefined ? "" : map.predicted_class === label ? "right" : "wrong";
    const lines = [
        make(
            "div",
            { class: "map-line" },
            make(
                "span",
                { class: "name", title: map.predicted_name },
                map.predicted_name || `class ${map.predicted_class}`,
            ),
            right
                ? make(
                      "span",
                      { class: `verdict-mark ${right}`, title: `${right}: the label is ${row.label}` },
                      icon(right === "right" ? "check-lg" : "x-lg"),
                  )
                : null,
            make("span", { class: "num quiet" }, percent(map.predicted_probability)),
        ),
    ];
    if (map.target_class !== map.predicted_class) {
        lines.push(
            make(
                "div",
                { class: "map-line" },
                make(
                    "span",
                    { class: "name quiet", title: map.target_name },
                    `for ${map.target_name || map.target_class}`,
                ),
                make("span", { class: "num quiet" }, percent(map.target_probability)),
            ),
        );
    }
    if (map.parameters.layer) {
        lines.push(
            make(
                "div",
                { class: "map-line" },
                make(
                    "span",
                    { class: "name quiet", title: map.parameters.layer },
                    `at ${map.parameters.layer}`,
                ),
            ),
        );
    }
    if (map.lowest === 0 && map.highest === 0) lines.push(make("div", { class: "map-line" }, zeroWords(map)));
    if (map.deletion_auc !== null) {
        lines.push(
            make(
                "div",
                {
                    class: "map-line num quiet",
                    title: `Areas below the curves of ${map.steps} steps: deletion (lower is better), insertion (higher is better)`,
                },
                make("span", {}, `del ${map.deletion_auc.toFixed(3)}`),
                make("span", {}, `ins ${map.insertion_auc.toFixed(3)}`),
            ),
        );
    }
    return lines;
}

const zeroWords = (map) =>
    map.parameters.layer === undefined
        ? "The map is zero everywhere."
        : "Zero everywhere: nothing at this layer speaks for the class.";

function arrange() {
    const { order, model_order: modelOrder } = display();
    const rows = [...parts.grid.querySelectorAll(".map-row")];
    const value = (element) => {
        const image = Number(element.dataset.image);
        return mean((cell) => cell.row.id === image, order);
    };
    // the lower, the further to the front
    const mean = (wanted, how) => {
        const found = [...cells.values()].filter((cell) => cell.map && wanted(cell)).map((cell) => cell.map);
        const of = {
            deletion: (map) => map.deletion_auc,
            insertion: (map) => (map.insertion_auc === null ? null : -map.insertion_auc),
            agreement: (map) => (map.agreement === null ? null : -map.agreement),
            confidence: (map) => -map.predicted_probability,
        }[how];
        const values = found.map(of).filter((one) => one !== null);
        return values.length ? values.reduce((sum, one) => sum + one, 0) / values.length : Infinity;
    };
    const places = new Map(page.rows.map((row, at) => [row.id, at]));
    const place = (element) => places.get(Number(element.dataset.image));
    const sorted = [...rows].sort((a, b) => (order ? value(a) - value(b) : 0) || place(a) - place(b));
    if (sorted.some((element, at) => element !== rows[at])) parts.grid.append(...sorted);
    const columns = [...new Set([...cells.values()].map((cell) => cell.model))];
    const means = new Map(
        columns.map((model) => [model, modelOrder ? mean((cell) => cell.model === model, modelOrder) : 0]),
    );
    const inOrder = [...columns].sort(
        (a, b) => means.get(a) - means.get(b) || columns.indexOf(a) - columns.indexOf(b),
    );
    parts.grid.querySelectorAll(".map-row, .map-heads").forEach((line) => {
        const byModel = new Map(
            [...line.querySelectorAll("[data-model]")].map((element) => [element.dataset.model, element]),
        );
        if (inOrder.some((model, at) => [...byModel.keys()][at] !== model))
            line.append(...inOrder.map((model) => byModel.get(model)));
    });
}

// ---- painting

const colourName = (map, chosen) =>
    chosen.colours === "auto"
        ? map.signed && chosen.view !== "error"
            ? constants.diverging
            : "inferno"
        : chosen.colours;
const arrayAddress = (map, chosen) => (chosen.view === "error" ? map.standard_error_npy : map.npy);

let painting = 0;
async function repaint() {
    const turn = ++painting;
    const chosen = display();
    const shown = [...cells.values()].filter((cell) => cell.map);
    const loaded = await Promise.all(
        shown.map(async (cell) => {
            const address = arrayAddress(cell.map, chosen);
            if (!address) return { cell, missing: "no standard error" };
            try {
                const [array, picture] = await Promise.all([
                    convscope.loadMap(address),
                    convscope.loadPicture(cell.map.input_png),
                ]);
                return { cell, array, picture, high: convscope.highest(array, chosen.clip) };
            } catch (error) {
                return { cell, missing: error.message };
            }
        }),
    );
    if (turn !== painting) return;
    const shared = (found) => {
        if (chosen.scale === "own") return found.high;
        const together = loaded.filter(
            (other) => other.array && (chosen.scale === "all" || other.cell.model === found.cell.model),
        );
        return Math.max(...together.map((other) => other.high));
    };
    for (const found of loaded) {
        const { cell, array, picture, missing } = found;
        cell.element.classList.toggle("missing", Boolean(missing));
        cell.element.dataset.missing = missing || "";
        if (missing) continue;
        const name = colourName(cell.map, chosen);
        const high = shared(found);
        cell.array = array;
        cell.high = high;
        convscope.paint(cell.canvas, array, picture, {
            table: constants.colours[name],
            diverging: name === constants.diverging,
            high,
            strength: chosen.view === "map" ? 1 : chosen.view === "error" ? 1 : chosen.strength,
            wipe: chosen.wipe,
        });
        cell.canvas.dataset.painted = `${name} ${high}`;
    }
    legend(
        chosen,
        loaded.filter((found) => found.array),
    );
}

function legend(chosen, loaded) {
    if (!loaded.length) {
        parts.legend.replaceChildren();
        return;
    }
    const names = new Set(loaded.map((found) => colourName(found.cell.map, chosen)));
    const name = names.size === 1 ? [...names][0] : null;
    const highs = new Set(loaded.map((found) => found.cell.high));
    const what = {
        own: "each map has its own scale, so their strengths cannot be compared",
        model: "one scale per model",
        all: "one scale for all maps",
    };
    const unit = chosen.view === "error" ? "standard error of the map" : page.unit;
    const bar = make("canvas", { class: "colour-bar", "aria-hidden": "true" });
    if (name) convscope.paintBar(bar, constants.colours[name]);
    const top = highs.size === 1 ? number([...highs][0]) : `${chosen.clip.toFixed(1)}th percentile`;
    const low = name === constants.diverging ? `−${top}` : "0";
    const dtypes = [...new Set(loaded.map((found) => found.cell.map.dtype))].join(" and ");
    parts.legend.replaceChildren(
        ...(name ? [make("span", { class: "num" }, low), bar, make("span", { class: "num" }, top)] : []),
        make("span", {}, `${unit}; ${what[chosen.scale]}; ${dtypes}`),
    );
}

// ---- values under the pointer

function hover(element, cell) {
    // a dialog lies over everything outside of it
    const tip = () => (element.closest("dialog") || document).querySelector("#tip, .value-tip");
    const tell = (event) => {
        const box = tip();
        if (!cell.array || !box) return;
        const area = cell.canvas.getBoundingClientRect();
        const x = Math.min(
            cell.array.width - 1,
            Math.max(0, Math.floor(((event.clientX - area.left) / area.width) * cell.array.width)),
        );
        const y = Math.min(
            cell.array.height - 1,
            Math.max(0, Math.floor(((event.clientY - area.top) / area.height) * cell.array.height)),
        );
        const value = cell.array.data[y * cell.array.width + x];
        box.className = "value-tip";
        box.replaceChildren(
            make("b", { class: "num" }, number(value)),
            make("span", { class: "num quiet" }, ` at row ${y}, column ${x}`),
        );
        box.hidden = false;
        const size = box.getBoundingClientRect();
        const left = Math.min(event.clientX + 14, innerWidth - size.width - 8);
        const top =
            event.clientY + 18 + size.height > innerHeight
                ? event.clientY - size.height - 10
                : event.clientY + 18;
        box.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
    };
    element.addEventListener("pointermove", tell);
    element.addEventListener("pointerdown", tell);
    element.addEventListener("pointerleave", (event) => {
        const box = tip();
        // a finger leaves when it is lifted; what it pointed at stays to be read
        if (box && (event.pointerType !== "touch" || box.id === "tip")) box.hidden = true;
    });
}

/* What is shown, told anew; `parts` has the elements `grid` and `legend`. */
function draw(given) {
    ({ page, constants, parts, job, maps: known } = given);
    drawGrid();
}

convscope.maps = { draw, arrange, repaint, display, DISPLAY, OPTIONS };
convscope.saliencyState = () => ({
    page,
    constants,
    job,
    display: display(),
    cells,
    colourName,
    arrayAddress,
    hover,
});
