import assert from "node:assert/strict";
import { test } from "node:test";

import { columnsFor, element } from "../../dashboard/browser/jobs.js";

const create = (tag, props, ...children) => [tag, props, ...children];

test("a cell that Python drew becomes elements with the same attributes and text", () => {
    const drawn = {
        namespace: "dash_html_components",
        type: "Div",
        props: {
            className: "job-state",
            children: [{ type: "Span", props: { "aria-hidden": "true" } }, "running", null],
        },
    };
    assert.deepEqual(element(drawn, create), [
        "div",
        { className: "job-state" },
        ["span", { "aria-hidden": "true" }, undefined],
        "running",
        null,
    ]);
    assert.deepEqual(element({ type: "B", props: { children: 0 } }, create), ["b", {}, 0]);
    assert.equal(element(null, create), null);
});

test("a wide window shows the columns, a narrow one the card", () => {
    const columns = [{ field: "name" }, { field: "state" }, { colId: "card" }];
    const shown = (narrow) => columnsFor(columns, narrow).map((column) => !column.hide);
    assert.deepEqual(shown(false), [true, true, false]);
    assert.deepEqual(shown(true), [false, false, true]);
});
