import assert from "node:assert/strict";
import { test } from "node:test";

import { changedSearch, pagePath } from "../../dashboard/browser/base.js";

test("a value that is empty leaves the address, the others keep their order", () => {
    assert.equal(changedSearch("?model=a&images=b&page=3", { page: "", model: "c" }), "?model=c&images=b");
    assert.equal(changedSearch("?page=3", { page: null }), "");
    assert.equal(changedSearch("", { k: 0 }), "?k=0");
});

test("commas of lists stay readable", () => {
    assert.equal(changedSearch("?ids=1%2C2", { at: "0.5" }), "?ids=1,2&at=0.5");
    assert.equal(changedSearch("", { label: "a&b" }), "?label=a%26b");
});

test("the path of a page is what follows the prefix", () => {
    assert.equal(pagePath("/lab/jobs", "/lab"), "/jobs");
    assert.equal(pagePath("/lab", "/lab"), "/");
    assert.equal(pagePath("/laboratory", "/lab"), null);
    assert.equal(pagePath("/jobs", ""), "/jobs");
    assert.equal(pagePath(null, ""), null);
});
