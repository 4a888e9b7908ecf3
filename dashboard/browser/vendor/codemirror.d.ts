/** The types of what ../sql_editor.js uses of codemirror.js; the packages' own are not installed for the checks. */
interface Extension {
    readonly extension: unknown;
}
interface Text {
    readonly length: number;
    toString(): string;
}
interface EditorState {
    readonly doc: Text;
    sliceDoc(from?: number, to?: number): string;
    replaceSelection(text: string): object;
}
interface Update {
    readonly docChanged: boolean;
}
export interface Completion {
    label: string;
    detail?: string;
    info?: string;
    type?: string;
    boost?: number;
}
export interface CompletionContext {
    readonly state: EditorState;
    readonly pos: number;
    readonly explicit: boolean;
    matchBefore(expression: RegExp): { from: number; to: number; text: string } | null;
}
type Source = (
    context: CompletionContext,
) => { from: number; options: Completion[]; validFor: RegExp } | null;
interface KeyBinding {
    key: string;
    run: () => boolean;
}

export class EditorView {
    constructor(config: { doc: string; extensions: unknown[] });
    static readonly lineWrapping: Extension;
    static readonly contentAttributes: { of(attributes: Record<string, string>): Extension };
    static readonly updateListener: { of(listener: (update: Update) => void): Extension };
    readonly state: EditorState;
    readonly dom: HTMLElement;
    readonly contentDOM: HTMLElement;
    dispatch(change: object): void;
    focus(): void;
    destroy(): void;
}
interface SQLDialectSpec {
    keywords?: string;
    types?: string;
    specialVar?: string;
}
export class SQLDialect {
    static define(spec: SQLDialectSpec): SQLDialect;
    readonly spec: SQLDialectSpec;
    readonly extension: Extension;
}
export const PostgreSQL: SQLDialect;
export const HighlightStyle: {
    define(rules: { tag: unknown; color?: string; fontWeight?: string }[]): unknown;
};
export const basicSetup: Extension;
export const keymap: { of(bindings: KeyBinding[]): Extension };
export const tags: Record<
    "comment" | "keyword" | "literal" | "null" | "number" | "special" | "string" | "typeName",
    unknown
>;
export function autocompletion(config: { override: Source[] }): Extension;
export function placeholder(text: string): Extension;
export function syntaxHighlighting(style: unknown): Extension;
