/* The parts of CodeMirror that ../sql_editor.js uses. */
export { autocompletion } from "@codemirror/autocomplete";
export { PostgreSQL, SQLDialect } from "@codemirror/lang-sql";
export { HighlightStyle, syntaxHighlighting } from "@codemirror/language";
export { EditorView, keymap, placeholder } from "@codemirror/view";
export { tags } from "@lezer/highlight";
export { basicSetup } from "codemirror";
