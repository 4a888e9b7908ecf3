import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";

const FOLDER = new URL("../../dashboard/browser/", import.meta.url);

test("main.js loads every module that nothing else imports", () => {
    const names = readdirSync(FOLDER).filter((name) => name.endsWith(".js"));
    const imported = names.flatMap((name) =>
        [...readFileSync(new URL(name, FOLDER), "utf8").matchAll(/(?:from|import) "\.\/(.+?)"/g)].map(
            (found) => found[1],
        ),
    );
    assert.deepEqual(
        names.filter((name) => name !== "main.js" && !imported.includes(name)),
        [],
    );
});
