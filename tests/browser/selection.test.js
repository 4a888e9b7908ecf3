import assert from "node:assert/strict";
import { test } from "node:test";

import { longIds, searchFor, shortIds } from "../../dashboard/browser/selection.js";

test("numbers are written as ranges and read again", () => {
    assert.equal(shortIds(new Set([7, 0, 1, 4, 5, 6])), "0-1,4-7");
    assert.deepEqual(longIds("0-1,4-7"), [0, 1, 4, 5, 6, 7]);
    assert.equal(shortIds([]), "");
});

test("a text that holds no numbers selects nothing, a huge range no more than 5,000", () => {
    assert.deepEqual(longIds("all"), []);
    assert.deepEqual(longIds(""), []);
    assert.deepEqual(longIds("9-3"), []);
    assert.equal(longIds("0-9999999").length, 5000);
    assert.equal(longIds("0-4000,9000-20000").length, 5000);
});

test("the rest of a request is kept, what it says about its images is not", () => {
    const given = { model: "m", images: "set", ids: "1,3-4" };
    assert.equal(searchFor("", given), "?model=m&images=set&ids=1,3-4");
    assert.equal(
        searchFor("?models=a,b&method=gradcam&ids=9&n=3&seed=1&attack=5", given),
        "?models=a,b&method=gradcam&images=set&ids=1,3-4",
    );
});
