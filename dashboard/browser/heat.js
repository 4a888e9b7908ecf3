/* From a map's values to colors, in the browser: the rule of pictures/heat.py, and tests compare the two. */

/**
 * A float32 array of two dimensions from an NPY file: magic, version, length of the header, header, numbers.
 * @param {ArrayBuffer} buffer @returns {MapValues}
 */
export function parseNpy(buffer) {
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

/** Arrays and images by address; a map's number never changes its meaning. The oldest are dropped first. */
const MAX_KEPT = 600;
/** @type {Map<string, Promise<any>>} */
const kept = new Map();

/**
 * @template T @param {string} address @param {(answer: Response) => Promise<T>} read @returns {Promise<T>}
 */
function load(address, read) {
    const known = kept.get(address);
    if (known) return known;
    const found = fetch(address).then(async (answer) => {
        if (answer.ok) return read(answer);
        const content = await answer.json().catch(() => null);
        throw new Error(content?.error ?? `${address} answered ${answer.status}`);
    });
    found.catch(() => kept.delete(address));
    kept.set(address, found);
    if (kept.size > MAX_KEPT) kept.delete([...kept.keys()][0]);
    return found;
}

/** @param {string} address */
export const loadMap = (address) => load(address, async (answer) => parseNpy(await answer.arrayBuffer()));

/** @param {string} address */
export const loadPicture = (address) =>
    load(address, async (answer) => {
        const bitmap = await createImageBitmap(await answer.blob(), { colorSpaceConversion: "none" });
        const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
        const context = /** @type {OffscreenCanvasRenderingContext2D} */ (
            canvas.getContext("2d", { willReadFrequently: true })
        );
        context.drawImage(bitmap, 0, 0);
        return context.getImageData(0, 0, bitmap.width, bitmap.height);
    });

/**
 * The clip-th percentile of the magnitudes, linear between neighbors as NumPy's. A map is sorted once.
 * @param {MapValues} map @param {number} clip from 0 to 100
 */
export function highest(map, clip) {
    const sorted = (map.sorted ??= map.data.map(Math.abs).sort());
    const place = (clip / 100) * (sorted.length - 1);
    const below = Math.floor(place);
    const above = Math.min(below + 1, sorted.length - 1);
    return sorted[below] + (sorted[above] - sorted[below]) * (place - below);
}

/**
 * RGBA bytes of a map over its image. `strength` 1 is the map alone; left of `wipe` it is bare.
 * @param {MapValues} map @param {ImageData | null} image @param {Paint} how
 */
export function pixels({ width, data }, image, { table, diverging, high, strength, wipe }) {
    const found = new Uint8ClampedArray(4 * data.length);
    const edge = Math.round(wipe * width);
    for (let at = 0; at < data.length; at++) {
        const bare = at % width < edge;
        let share = high > 0 ? (diverging ? data[at] : Math.abs(data[at])) / high : 0;
        if (diverging) share = (share + 1) / 2;
        const color = table[Math.floor(Math.min(1, Math.max(0, share)) * 255 + 0.5)];
        for (let part = 0; part < 3; part++) {
            const below = image ? image.data[4 * at + part] : 0;
            found[4 * at + part] = bare
                ? below
                : Math.floor(below * (1 - strength) + color[part] * strength + 0.5);
        }
        found[4 * at + 3] = 255;
    }
    return found;
}

/** @param {HTMLCanvasElement} canvas @param {Color[]} table */
export const paintBar = (canvas, table) =>
    draw(canvas, 256, new Uint8ClampedArray(table.flatMap((color) => [...color, 255])));

/**
 * Paints RGBA bytes.
 * @param {HTMLCanvasElement} canvas @param {number} width @param {Uint8ClampedArray<ArrayBuffer>} bytes
 */
export function draw(canvas, width, bytes) {
    const image = new ImageData(bytes, width);
    if (canvas.width !== width) canvas.width = width;
    if (canvas.height !== image.height) canvas.height = image.height;
    canvas.getContext("2d")?.putImageData(image, 0, 0);
}
