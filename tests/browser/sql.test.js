import assert from "node:assert/strict";
import { test } from "node:test";

import { questionOf } from "../../dashboard/browser/sql.js";
import { completions } from "../../dashboard/browser/sql_editor.js";

const WORDS = [
    { label: "image_id", table: "images", detail: "images", boost: 0 },
    { label: "width", table: "images", detail: "images", boost: 0 },
    { label: "image_id", table: "patches", detail: "patches", boost: 0 },
    { label: "rank", table: "patches", detail: "patches", boost: 0 },
    { label: "images", detail: "atlas", boost: 10 },
    { label: "SELECT", boost: -20 },
];

const labels = (/** @type {string} */ before, /** @type {string} */ statement) =>
    completions(before, statement, WORDS).map((word) => word.label);

test("after an alias and a dot come the columns of its table alone", () => {
    const statement = "SELECT p. FROM images i JOIN patches AS p USING (image_id)";
    assert.deepEqual(labels("SELECT p.", statement), ["image_id", "rank"]);
    assert.deepEqual(labels("SELECT patches.", statement), ["image_id", "rank"]);
    assert.deepEqual(labels("SELECT unknown.", statement), ["image_id", "width", "rank"]);
});

test("columns of the statement's tables come first, each name once, and text is no table", () => {
    const found = completions("SELECT ", "SELECT -- from images\n 'from images' FROM patches", WORDS);
    assert.deepEqual(
        found.map(({ label, boost, detail }) => [label, boost, detail]),
        [
            ["image_id", 20, "patches"],
            ["width", 0, "images"],
            ["rank", 20, "patches"],
            ["images", 10, "atlas"],
            ["SELECT", -20, undefined],
        ],
    );
});

test("how a result is shown is no part of the question", () => {
    const asked = questionOf("?q=SELECT+1&p.n=2&view=chart&x=a&y=b&kind=bar&colour=c&limit=5", 1);
    assert.deepEqual(asked, { search: "q=SELECT+1&p.n=2&limit=5", again: 1 });
});
