import assert from "node:assert/strict";
import { test } from "node:test";

import { facts, sentence } from "../../dashboard/browser/grid.js";

const PATCH = [2, "1.5", 7, "tench", 0, "n01440764", "fish/7.png", 3, 4, [0, 8, 16, 24], [5, 5, 5, 9]];

test("a patch is described by rank, activation, image, position and fields", () => {
    assert.equal(
        sentence(PATCH),
        "rank 2: tench, activation 1.5, class 0, WNID n01440764, image 7 · 7.png, " +
            "position row 3, column 4, field y 0–16, x 8–24 px, effective in the padding",
    );
});

test("what is not known is left out, and class 0 is a class", () => {
    const bare = [1, "0", 7, "", null, "", "7.png", 0, 0, null, null];
    assert.deepEqual(
        facts(bare).map(([name]) => name),
        ["no label", "activation", "image", "position"],
    );
});
