/** Types that several lines need; no browser loads this file. */

/** What Dash and its components put on the page. */
interface DashClientside {
    no_update: unknown;
    callback_context: {
        triggered: { prop_id: string; value: unknown }[];
        inputs_list: ({ id: any; value?: unknown } | { id: any; value?: unknown }[])[];
    };
    set_props(id: string | object, props: Record<string, unknown>): void;
    convscope?: Callbacks;
}

interface Window {
    /** Components that draw the cells of dash-ag-grid. */
    dashAgGridComponentFunctions?: Record<string, (props: any) => unknown>;
    React: { createElement(tag: string, props: object, ...children: unknown[]): unknown };
    dash_clientside: DashClientside;
    DashRenderer: new () => unknown;
}

/** Clientside callbacks; their parameters are the inputs and states of the Python that registers them. */
interface Callbacks {
    // address.js
    patchesAddress(
        tapped: { layer: string } | null,
        previous: number | null,
        next: number | null,
        channels: string,
        sort: string,
        k: number,
        crop: string,
        tile: string,
        options: { value: string; disabled?: boolean }[] | null,
        chosen: { layer: string; shown: AddressValues } | null,
        search: string | null,
    ): unknown;
    // drawing.js; `drawn` is the model and the digest of its weights, as in the ids of the nodes
    drawingStyle(theme: string, sheet: CytoscapeRule[]): CytoscapeRule[];
    lightUp(chosen: { layer: string } | null, drawn: string[] | null): string;
    // grid.js
    paintGrid(data: PatchGrid | null): string;
    paintChannels(data: DrivenChannels | null): string;
    // shell.js
    poll(
        ticks: number,
        status: object,
        work: object,
        notices: Record<"away" | "logged_out", unknown>,
    ): unknown;
    subject(path: string | null, search: string | null, before: Subject | null): unknown;
    showHere(filled: { model: string; images: string; run: boolean } | null): void;
    theme(clicks: number | null): string | undefined;
    [name: string]: any;
}

type AddressValues = Record<string, string | number | null | undefined>;

/** What of an address concerns more than one page. */
interface Subject {
    path: string;
    model: string;
    images: string;
}

interface CytoscapeRule {
    selector: string;
    style: Record<string, unknown>;
}

/** See components/grid.py. */
interface PatchGrid {
    tile: string;
    k: number;
    image: string;
    rows: PatchRow[];
}

interface PatchRow {
    channel: string;
    dead: boolean;
    href: string;
    lines: string[];
    picture: string;
    fine: string;
    cells: Patch[];
}

/** Names and values of what is known; the first pair is the heading. */
interface Patch {
    image: number;
    facts: [string, string][];
}

/** See pages/image.py. */
interface DrivenChannels {
    empty: string;
    groups: {
        label: string;
        count: string;
        href: string;
        more: number;
        chips: [channel: string, rank: number, activation: string][];
    }[];
}
