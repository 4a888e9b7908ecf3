/* From a map's numbers to colours, in the browser: the same rule as heat.py, and a test compares the two. */
// @ts-nocheck
import { convscope } from "./namespace.js";

/* A float32 array as NumPy writes it: magic, version, length of the header, a Python dictionary, numbers. */
function parseNpy(buffer) {
    const view = new DataView(buffer);
    const wide = view.getUint8(6) > 1;
    const length = wide ? view.getUint32(8, true) : view.getUint16(8, true);
    const start = (wide ? 12 : 10) + length;
    const header = new TextDecoder().decode(new Uint8Array(buffer, wide ? 12 : 10, length));
    const shape = /'shape': \((\d+), (\d+)\)/.exec(header);
    if (!shape || !header.includes("'<f4'") || header.includes("True"))
        throw new Error("expected float32 rows and columns");
    return { height: Number(shape[1]), width: Number(shape[2]), data: new Float32Array(buffer.slice(start)) };
}

/* Loaded arrays and pictures by address: a map's number never changes its meaning. The oldest go first. */
const kept = new Map();
const MOST_KEPT = 600;
function load(address, read) {
    if (!kept.has(address)) {
        const found = fetch(address).then(async (answer) => {
            if (!answer.ok) {
                const said = await answer.json().catch(() => null);
                throw new Error((said && said.error) || `${address} answered ${answer.status}`);
            }
            return read(answer);
        });
        found.catch(() => kept.delete(address));
        kept.set(address, found);
        if (kept.size > MOST_KEPT) kept.delete(kept.keys().next().value);
    }
    return kept.get(address);
}

convscope.loadMap = (address) => load(address, async (answer) => parseNpy(await answer.arrayBuffer()));

convscope.loadPicture = (address) =>
    load(address, async (answer) => {
        const bitmap = await createImageBitmap(await answer.blob(), { colorSpaceConversion: "none" });
        const canvas = document.createElement("canvas");
        canvas.width = bitmap.width;
        canvas.height = bitmap.height;
        const context = canvas.getContext("2d", { willReadFrequently: true });
        context.drawImage(bitmap, 0, 0);
        return context.getImageData(0, 0, bitmap.width, bitmap.height);
    });

/* The clip-th percentile of the magnitudes, linear between neighbours as NumPy's. Sorting is done once a map. */
convscope.highest = function (map, clip) {
    if (!map.sorted) map.sorted = map.data.map(Math.abs).sort();
    const place = (clip / 100) * (map.sorted.length - 1);
    const below = Math.floor(place);
    const above = Math.min(below + 1, map.sorted.length - 1);
    return map.sorted[below] + (map.sorted[above] - map.sorted[below]) * (place - below);
};

/* Draw a map over its picture. `strength` 1 is the map alone; left of `wipe` (0 to 1) the picture stays bare. */
convscope.paint = function (canvas, map, picture, { table, diverging, high, strength, wipe }) {
    const { width, height, data } = map;
    if (canvas.width !== width) canvas.width = width;
    if (canvas.height !== height) canvas.height = height;
    const context = canvas.getContext("2d");
    const out = context.createImageData(width, height);
    const pixels = out.data;
    const edge = Math.round(wipe * width);
    for (let at = 0; at < data.length; at++) {
        const bare = at % width < edge;
        let share = high > 0 ? (diverging ? data[at] : Math.abs(data[at])) / high : 0;
        if (diverging) share = (share + 1) / 2;
        const colour = table[Math.floor(Math.min(1, Math.max(0, share)) * 255 + 0.5)];
        for (let part = 0; part < 3; part++) {
            const below = picture ? picture.data[4 * at + part] : 0;
            pixels[4 * at + part] = bare
                ? below
                : Math.floor(below * (1 - strength) + colour[part] * strength + 0.5);
        }
        pixels[4 * at + 3] = 255;
    }
    context.putImageData(out, 0, 0);
};

convscope.paintBar = function (canvas, table) {
    canvas.width = 256;
    canvas.height = 1;
    const context = canvas.getContext("2d");
    const out = context.createImageData(256, 1);
    table.forEach((colour, at) => out.data.set([...colour, 255], 4 * at));
    context.putImageData(out, 0, 0);
};
