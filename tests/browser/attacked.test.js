import assert from "node:assert/strict";
import { test } from "node:test";

import { attackedPixels } from "../../dashboard/browser/attacked.js";

/** An image of two pixels, RGBA. */
const before = { width: 2, height: 1, data: new Uint8ClampedArray([0, 100, 255, 255, 10, 20, 30, 255]) };
/** Signs: down, unchanged, up; up, down, unchanged. */
const signs = { height: 1, data: new Uint8ClampedArray([1, 128, 255, 255, 255, 1, 128, 255]) };

const near = (found, expected) =>
    expected.forEach((value, i) =>
        assert.ok(Math.abs(found[i] - value) < 1e-6, `${i}: ${found[i]}, ${value}`),
    );

test("epsilon 0 changes nothing, whatever the perturbation", () => {
    const expected = [...before.data].map((value, i) => (i % 4 === 3 ? 0 : Math.fround(value / 255)));
    const change = { height: 3, data: new Float32Array(6).fill(0.5) };
    for (const eightBit of [false, true])
        assert.deepEqual([...attackedPixels(before, signs, 0, eightBit)], expected);
    assert.deepEqual([...attackedPixels(before, change, 0, false)], expected);
});

test("signs move pixels by epsilon within [0, 1]", () => {
    const found = attackedPixels(before, signs, 0.1, false);
    near(found, [0, 100 / 255, 1, 0, 10 / 255 + 0.1, 0, 30 / 255, 0]);
});

test("on 8-bit levels every pixel stays a whole level", () => {
    const found = attackedPixels(before, signs, 12.4 / 255, true);
    near(found, [0, 100 / 255, 1, 0, 22 / 255, 8 / 255, 30 / 255, 0]);
});

test("a stored perturbation is read from its three planes and clipped", () => {
    const change = { height: 3, data: new Float32Array([0.1, 0.2, -0.1, 0.3, 0.5, -0.2]) };
    const found = attackedPixels(before, change, 0.5, false);
    near(found, [0.1, 100 / 255 - 0.1, 1, 0, 10 / 255 + 0.2, 20 / 255 + 0.3, 0, 0]);
});
