import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";

import { highest, parseNpy, pixels } from "../../dashboard/browser/heat.js";

/** What NumPy and the server's color rule make of a map of random values: JSON of bytes and numbers. */
const EXPECTED = JSON.parse(
    execFileSync(
        "python",
        [
            "-c",
            `
import base64, io, json
import numpy as np
from dashboard.pictures import heat
random = np.random.default_rng(3)
values = random.normal(size=(6, 5)).astype(np.float32)
pixel_rows = random.integers(0, 256, (6, 5, 3), np.uint8)
file = io.BytesIO()
np.save(file, values)
cases = []
for colours in heat.COLOUR_MAPS:
    for clip in (50.0, 99.5, 100.0):
        high = heat.highest(values, clip)
        mapped = heat.colourise(values, colours=colours, high=high)
        cases.append({"colours": colours, "clip": clip, "high": high,
                      "mixed": heat.overlay(pixel_rows, mapped, 0.65).ravel().tolist()})
print(json.dumps({"npy": base64.b64encode(file.getvalue()).decode(),
                  "pixel_rows": pixel_rows.reshape(-1, 3).tolist(), "tables": heat.COLOUR_MAPS,
                  "diverging": heat.DIVERGING, "cases": cases}))
`,
        ],
        { cwd: new URL("../..", import.meta.url), encoding: "utf8", maxBuffer: 1 << 24 },
    ),
);
const map = parseNpy(new Uint8Array(Buffer.from(EXPECTED.npy, "base64")).buffer);
const pixel_rows = { data: EXPECTED.pixel_rows.flatMap((color) => [...color, 255]) };
const rgb = (bytes) => [...bytes].filter((_, at) => at % 4 !== 3);

test("a map's values are read as NumPy wrote them", () => {
    assert.deepEqual([map.height, map.width, map.data.length], [6, 5, 30]);
    assert.throws(() => parseNpy(new Uint8Array(64).buffer), /expected float32 rows and columns/);
});

for (const { colours, clip, high, mixed } of EXPECTED.cases) {
    test(`${colours} clipped at ${clip} has the server's colors`, () => {
        assert.ok(Math.abs(highest(map, clip) - high) < 1e-6);
        const how = { table: EXPECTED.tables[colours], diverging: colours === EXPECTED.diverging, high };
        const found = rgb(pixels(map, pixel_rows, { ...how, strength: 0.65, wipe: 0 }));
        assert.ok(found.every((value, at) => Math.abs(value - mixed[at]) <= 1));
    });
}

test("left of the wipe is the bare image", () => {
    const how = { table: EXPECTED.tables.grey, diverging: false, high: 1, strength: 1 };
    const found = rgb(pixels(map, pixel_rows, { ...how, wipe: 0.4 }));
    const bare = rgb(pixel_rows.data);
    for (let row = 0; row < 6; row++)
        assert.deepEqual(found.slice(15 * row, 15 * row + 6), bare.slice(15 * row, 15 * row + 6));
    assert.deepEqual(rgb(pixels(map, pixel_rows, { ...how, wipe: 1 })), bare);
});

test("a constant map is not divided by its end, which is zero", () => {
    const zero = { height: 1, width: 2, data: new Float32Array(2) };
    const how = { high: highest(zero, 99), strength: 1, wipe: 0 };
    const gray = pixels(zero, null, { ...how, table: EXPECTED.tables.grey, diverging: false });
    assert.deepEqual(rgb(gray), [0, 0, 0, 0, 0, 0]);
    const signed = pixels(zero, null, { ...how, table: EXPECTED.tables.rdbu, diverging: true });
    assert.deepEqual(rgb(signed).slice(0, 3), EXPECTED.tables.rdbu[128]);
});
