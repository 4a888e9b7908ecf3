import assert from "node:assert/strict";
import { test } from "node:test";

import { matching } from "../../dashboard/browser/combobox.js";

const entry = (value, label, search = "") => ({ value, label, search, description: "" });
const LAYERS = [
    entry("stage1.block10.dwconv", "stage 1 > block 10 > dwconv"),
    entry("stage1.block1.dwconv", "stage 1 > block 1 > dwconv"),
    entry("stage1.block1", "stage 1 > block 1"),
];
const found = (text) => matching(LAYERS, text).map((one) => one.value);

test("spaces, dots, signs and capitals do not matter", () => {
    for (const text of ["Stage 1 block 1 dwconv", "stage1.block1.dwconv", "stage1>block1>dwconv"]) {
        assert.deepEqual(found(text), ["stage1.block1.dwconv"]);
    }
});

test("the entry with that name comes first, then those that begin with it, in their order", () => {
    assert.deepEqual(found("stage1.block1"), [
        "stage1.block1",
        "stage1.block10.dwconv",
        "stage1.block1.dwconv",
    ]);
    assert.deepEqual(found("dwconv"), ["stage1.block10.dwconv", "stage1.block1.dwconv"]);
});

test("nothing typed lists all, and what nothing contains lists nothing", () => {
    assert.deepEqual(matching(LAYERS, " "), LAYERS);
    assert.deepEqual(found("pwconv"), []);
});

test("other names of an entry are found, too", () => {
    const classes = [entry("n01440764", "tench", "tench, Tinca tinca"), entry("n01443537", "goldfish")];
    assert.deepEqual(matching(classes, "tinca").length, 1);
});
