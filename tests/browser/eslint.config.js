import js from "@eslint/js";
import globals from "globals";

export default [
    { ignores: ["**/node_modules/", "dashboard/browser/vendor/"] },
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
