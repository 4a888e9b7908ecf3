/* The painter of maps. An element with `data-display` (JSON, see Display) contains canvases that say what to
   paint, and parts of a legend, as dashboard/pages/map_display.py makes them:

       <canvas data-array="/api/maps/5.npy" data-error="…npy" data-input="…png" data-signed data-column>
       data-legend="low", "bar", "high", "note" (why nothing is shown), "words" (see wordsOf)

   Whenever an element, an array or a display changes, what differs is painted again. */
import { address, ask, hit, make } from "./base.js";
import { draw, highest, loadMap, loadPicture, paintBar, pixels } from "./heat.js";
import { convscope, ns } from "./namespace.js";
import { hideTip, showTip } from "./tip.js";

/** @type {Promise<ColorTables> | null} */
let tables = null;
/** What canvases show. @type {WeakMap<Element, PaintedMap>} */
const painted = new WeakMap();
/** The newest turn of each display: an older one that loads longer ends. @type {WeakMap<Element, number>} */
const turns = new WeakMap();

/**
 * The upper end of each map's scale, from the end that each would have alone.
 * @param {{ column: string, high: number }[]} ends @param {string} scale
 */
export const sharedEnds = (ends, scale) =>
    ends.map(({ column, high }) => {
        const sharing = ends.filter((one) => scale === "all" || (scale === "model" && one.column === column));
        return Math.max(high, ...sharing.map((one) => one.high));
    });

/**
 * Name of the color table of a map.
 * @param {MapDisplay} display @param {boolean} signed @param {Omit<ColorTables, "tables">} colors
 */
export const tableOf = ({ colours, view }, signed, colors) =>
    colours !== "auto" ? colours : signed && view !== "error" ? colors.diverging : colors.plain;

/**
 * The words of a legend: what is shown, on which scale, and the rest.
 * @param {Record<string, string>} words by view and scale; `rest` is always shown @param {MapDisplay} display
 */
export const wordsOf = (words, { view, scale, high }) =>
    [words[view], words[high === undefined ? scale : "shared"], words.rest].filter(Boolean).join("; ");

/** A value with four significant digits. @param {number} value */
export const number = (value) =>
    value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5)
        ? value.toExponential(2)
        : String(Number(value.toPrecision(4)));

/** @param {HTMLElement} root @returns {MapDisplay} */
const displayOf = (root) => JSON.parse(root.dataset.display ?? "{}");

/** @param {HTMLElement} root */
async function repaint(root) {
    const turn = (turns.get(root) ?? 0) + 1;
    turns.set(root, turn);
    const display = displayOf(root);
    const canvases = /** @type {HTMLCanvasElement[]} */ ([...root.querySelectorAll("canvas[data-array]")]);
    tables ??= ask("/choices/colours.json");
    tables.catch(() => (tables = null));
    const [colors, ...loaded] = await Promise.all([tables, ...canvases.map((one) => load(one, display))]);
    if (turns.get(root) !== turn) return;
    const found = loaded.filter((one) => one.array);
    const highs = sharedEnds(found, display.scale);
    found.forEach(({ canvas, address: from, array, picture = null }, at) => {
        if (!array) return;
        const name = tableOf(display, canvas.dataset.signed !== undefined, colors);
        const how = {
            table: colors.tables[name],
            diverging: name === colors.diverging,
            high: display.high ?? highs[at],
            strength: display.view === "overlay" ? display.strength : 1,
            wipe: display.wipe,
        };
        const key = [from, name, how.high, how.strength, how.wipe].join(" ");
        if (painted.get(canvas)?.key === key) return;
        draw(canvas, array.width, pixels(array, picture, how));
        painted.set(canvas, { array, name, high: how.high, address: from, key });
        canvas.dataset.painted = `${name} ${how.high}`;
    });
    for (const one of loaded) one.canvas.toggleAttribute("data-missing", !one.array);
    drawLegend(root, display, colors, loaded);
}

/** @param {HTMLCanvasElement} canvas @param {MapDisplay} display @returns {Promise<LoadedMap>} */
async function load(canvas, display) {
    const { array, error, input, column = "", unknown = "" } = canvas.dataset;
    const from = (display.view === "error" ? error : array) ?? "";
    const found = { canvas, address: from, column, high: 0 };
    if (!from) return { ...found, missing: unknown };
    try {
        const [values, picture] = await Promise.all([loadMap(from), input ? loadPicture(input) : null]);
        return { ...found, high: highest(values, display.clip), array: values, picture };
    } catch (failure) {
        return { ...found, missing: /** @type {Error} */ (failure).message };
    }
}

/** @type {(root: HTMLElement, display: MapDisplay, colors: ColorTables, maps: LoadedMap[]) => void} */
const drawLegend = (root, display, colors, maps) => {
    const shown = maps.filter((one) => one.array).map((one) => painted.get(one.canvas));
    const names = [...new Set(shown.map((one) => one?.name ?? ""))];
    const highs = [...new Set(shown.map((one) => one?.high))];
    const top = highs.length === 1 ? number(highs[0] ?? 0) : `${display.clip.toFixed(1)}th percentile`;
    for (const part of /** @type {NodeListOf<HTMLElement>} */ (root.querySelectorAll("[data-legend]"))) {
        let text = "";
        if (part.dataset.legend === "note") text = maps.find((one) => one.missing)?.missing ?? "";
        else if (part.dataset.legend === "words")
            text = shown.length ? wordsOf(JSON.parse(part.dataset.words ?? "{}"), display) : "";
        else if (names.length === 1)
            text = part.dataset.legend === "low" ? (names[0] === colors.diverging ? `−${top}` : "0") : top;
        part.hidden = !text;
        if (part instanceof HTMLCanvasElement && text) paintBar(part, colors.tables[names[0]]);
        else if (part.textContent !== text) part.textContent = text;
    }
};

// ---- displays that controls set

/* Controls of a page's display, in the order of the address; what is shown needs no request to the server. */
convscope.showMaps = (...given) => {
    const defaults = given.pop();
    const names = Object.keys(defaults);
    if (given.some((value) => value === null || value === undefined)) return ns.no_update;
    const values = Object.fromEntries(
        names.map((name, at) => [name, typeof defaults[name] === "number" ? Number(given[at]) : given[at]]),
    );
    const written = names.map((name) => [name, values[name] === defaults[name] ? "" : values[name]]);
    address(Object.fromEntries(written), true);
    const percent = (/** @type {number} */ share) => `${Math.round(100 * share)} %`;
    const { strength, wipe, clip } = values;
    const words = [percent(strength), percent(wipe), clip.toFixed(1)];
    return [JSON.stringify(values), values.view !== "overlay", ...words];
};

/* One map alone: with a scale that maps share on the page, it keeps the one that it has there. */
convscope.showLarge = (view, strength, wipe, array, page) => {
    /** @type {MapDisplay} */
    const display = JSON.parse(page);
    const same = [...document.querySelectorAll("canvas[data-painted]")].map((one) => painted.get(one));
    const shared = display.scale !== "own" && (view === "error") === (display.view === "error");
    const high = shared ? same.find((one) => one?.address.startsWith(array))?.high : undefined;
    const { clip, colours } = display;
    const values = {
        view,
        strength: Number(strength),
        wipe: Number(wipe),
        colours,
        clip,
        high,
        scale: "own",
    };
    return JSON.stringify(values);
};

// ---- the pointer

/** @param {PointerEvent} event */
function showValue(event) {
    const canvas = hit(event, "canvas[data-painted]");
    const shown = canvas && painted.get(canvas);
    if (!canvas || !shown) return;
    const { width, height, data } = shown.array;
    const area = canvas.getBoundingClientRect();
    const place = (/** @type {number} */ share, /** @type {number} */ size) =>
        Math.min(size - 1, Math.max(0, Math.floor(share * size)));
    const x = place((event.clientX - area.left) / area.width, width);
    const y = place((event.clientY - area.top) / area.height, height);
    const value = make("b", {}, number(data[y * width + x]));
    const { clientX, clientY } = event;
    const pointer = { left: clientX, right: clientX, top: clientY - 2, bottom: clientY + 10 };
    showTip("value-tip num", [value, ` at row ${y}, column ${x}`], pointer);
}

/** @param {Event} event */
function hideValue(event) {
    // a finger leaves when it is lifted: in the large view, what it pointed at stays
    const stays =
        event instanceof PointerEvent && event.pointerType === "touch" && !hit(event, "[data-opens]");
    if (!stays && hit(event, "canvas[data-painted]")) hideTip();
}

/* An image of what is shown: the server draws maps, the browser standard errors. */
function nameImage(/** @type {Event} */ event) {
    const link = /** @type {HTMLAnchorElement | null} */ (hit(event, "a[data-png]"));
    const root = /** @type {HTMLElement | null} */ (document.querySelector(link?.dataset.png ?? "x-none"));
    const canvas = root?.querySelector("canvas");
    const shown = canvas && painted.get(canvas);
    if (!link || !root || !shown) return;
    const { view, strength } = displayOf(root);
    const given = { colours: shown.name, strength: view === "overlay" ? strength : 1, high: shown.high };
    const query = new URLSearchParams(Object.entries(given).map(([name, value]) => [name, String(value)]));
    link.href = view === "error" ? canvas.toDataURL() : `${link.pathname}?${query}`;
}

if (globalThis.document) {
    let waiting = false;
    const paintAll = () => {
        waiting = false;
        for (const root of document.querySelectorAll("[data-display]"))
            void repaint(/** @type {HTMLElement} */ (root));
    };
    new MutationObserver(() => {
        if (!waiting) requestAnimationFrame(paintAll);
        waiting = true;
    }).observe(document.documentElement, {
        childList: true,
        subtree: true,
        attributeFilter: ["data-display", "data-array", "data-words"],
    });
    document.addEventListener("pointermove", showValue);
    document.addEventListener("pointerdown", showValue);
    document.addEventListener("pointerout", hideValue);
    document.addEventListener("click", nameImage, true);
    document.addEventListener("click", (event) => {
        const opener = hit(event, "[data-opens]");
        if (!opener) return;
        hideValue(event);
        ns.set_props(opener.dataset.opens ?? "", {
            data: { value: opener.dataset.value, at: event.timeStamp },
        });
    });
}
