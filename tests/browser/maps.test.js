import assert from "node:assert/strict";
import { test } from "node:test";

import { changedByHand } from "../../dashboard/browser/form.js";
import { number, sharedEnds, tableOf, wordsOf } from "../../dashboard/browser/maps.js";

const COLORS = { diverging: "rdbu", plain: "inferno" };

test("a scale ends at the largest of the maps that share it", () => {
    const ends = [
        { column: "a", high: 1 },
        { column: "b", high: 5 },
        { column: "a", high: 3 },
    ];
    assert.deepEqual(sharedEnds(ends, "own"), [1, 5, 3]);
    assert.deepEqual(sharedEnds(ends, "model"), [3, 5, 3]);
    assert.deepEqual(sharedEnds(ends, "all"), [5, 5, 5]);
});

test("signed maps have the diverging table, but not their standard errors", () => {
    assert.equal(tableOf({ colours: "auto", view: "map" }, true, COLORS), "rdbu");
    assert.equal(tableOf({ colours: "auto", view: "error" }, true, COLORS), "inferno");
    assert.equal(tableOf({ colours: "auto", view: "map" }, false, COLORS), "inferno");
    assert.equal(tableOf({ colours: "grey", view: "map" }, true, COLORS), "grey");
});

test("a legend names what is shown, its scale, and the rest", () => {
    const words = { map: "gradient", error: "standard error", own: "own", shared: "shared", rest: "float32" };
    assert.equal(wordsOf(words, { view: "map", scale: "own" }), "gradient; own; float32");
    assert.equal(wordsOf(words, { view: "error", scale: "own", high: 2 }), "standard error; shared; float32");
});

test("values have four significant digits", () => {
    assert.deepEqual([0, 0.00012345, 1.23456, 123456, -0.5].map(number), [
        "0",
        "1.23e-4",
        "1.235",
        "1.23e+5",
        "-0.5",
    ]);
});

test("what the server filled in is not a change, nor is a space or another order of models", () => {
    const filled = { ids: "0,3", models: ["a", "b"], p_samples: "25" };
    const controls = [
        { id: "saliency-ids", value: " 0,3 " },
        { id: "saliency-models", value: ["b", "a"] },
        { id: { page: "saliency", parameter: "samples" }, value: 25 },
    ];
    assert.deepEqual(changedByHand(controls, filled), {});
    controls[2].value = "8";
    controls[1].value = [];
    assert.deepEqual(changedByHand(controls, filled), { models: [], p_samples: "8" });
});

test("a control that the server did not fill yet is left alone", () => {
    assert.deepEqual(changedByHand([{ id: { parameter: "sigma" }, value: "1" }], { ids: "" }), {});
});
