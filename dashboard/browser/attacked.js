/* The attacked image at any epsilon, from the original and the perturbation. */

/** RGBA: @typedef {{ width: number, height: number, data: Uint8ClampedArray }} Pixels */
/** Signs, or 3 H by W: @typedef {{ height: number, data: Uint8ClampedArray | Float32Array }} Change */

/**
 * RGBA pixels in [0, 1], moved along signs (255 up, 128 unchanged, 1 down) or by a perturbation, and clipped.
 * `workers/attacks/steps.py` follows the same rule, and a test compares the two.
 * @param {Pixels} before
 * @param {Change} change
 * @param {number} epsilon
 * @param {boolean} eightBit
 */
export function attackedPixels(before, change, epsilon, eightBit) {
    const after = new Float32Array(before.data.length);
    const plane = before.width * before.height;
    const clip = (/** @type {number} */ value, high = 1) => Math.min(high, Math.max(0, value));
    for (let i = 0; i < before.data.length; i++) {
        if (i % 4 === 3) continue;
        const pixel = Math.fround(before.data[i] / 255); // the worker computes in float32
        const sign = (change.data[i] - 128) / 127;
        if (change.height === 3 * before.height)
            after[i] = clip(pixel + (epsilon ? change.data[(i % 4) * plane + (i >> 2)] : 0));
        else if (eightBit) after[i] = clip(before.data[i] + Math.round(epsilon * 255) * sign, 255) / 255;
        else after[i] = clip(pixel + Math.fround(Math.fround(epsilon) * sign));
    }
    return after;
}
