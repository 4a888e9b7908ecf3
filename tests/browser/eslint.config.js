import { readFileSync } from "node:fs";

import js from "@eslint/js";
import globals from "globals";

const PENDING = readFileSync(new URL("pending", import.meta.url), "utf8")
    .trim()
    .split("\n");

export default [
    { ignores: ["**/node_modules/", "dashboard/browser/vendor/", ...PENDING] },
    js.configs.recommended,
    {
        languageOptions: { ecmaVersion: 2023, sourceType: "module", globals: globals.browser },
        rules: {
            eqeqeq: "error",
            "max-len": ["error", { code: 110, ignoreUrls: true }],
            "no-var": "error",
            "prefer-const": "error",
            "no-shadow": "error",
            "no-unused-vars": ["error", { caughtErrors: "none" }],
        },
    },
    { files: ["tests/browser/**"], languageOptions: { globals: globals.node } },
];
