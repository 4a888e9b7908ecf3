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
    layerAddress(
        tapped: { layer: string } | null,
        previous: number | null,
        next: number | null,
        options: Entry[] | null,
        chosen: { layer: string } | null,
        search: string | null,
    ): unknown;
    // add_images.js
    sendFiles(order: {
        upload: string | null;
        labels: number | null;
        unit: string;
        unit_bytes: number;
    }): void;
    pressed(clicks: number | null): unknown;
    stopSending(): void;
    proposeName(proposed: string, name: string): string;
    focusOn(asked: { id: string }): void;
    // combobox.js
    drawClasses(given: { options: Entry[]; chosen: string } | null): string;
    drawLayers(chosen: { layer: string } | null, options: Entry[] | null): string;
    // drawing.js; `drawn` is the model and the digest of its weights, as in the ids of the nodes
    drawingStyle(theme: string, sheet: CytoscapeRule[]): CytoscapeRule[];
    lightUp(chosen: { layer: string } | null, drawn: string[] | null): string;
    // form.js; values of the controls, then what the server put there
    changedControls(...values: any[]): unknown;
    writeAddress(changes: Record<string, string> | null): unknown;
    // grid.js
    paintGrid(data: PatchGrid | null): string;
    paintChannels(data: DrivenChannels | null): string;
    // jobs.js
    jobColumns(columns: GridColumn[]): GridColumn[];
    whileVisible(tick: number): unknown;
    // maps.js; values of the controls, then their defaults
    showMaps(...given: any[]): unknown;
    showLarge(view: string, strength: string, wipe: string, array: string, page: string): string;
    // sql.js; `askSQL` returns the question, whether nothing runs, twice, and a clock at 0
    editSQL(text: string | null, words: Word[]): Promise<void>;
    askSQL(path: string | null, search: string | null, again: number, before: object | null): unknown[];
    settleSQL(answer: object | null): unknown;
    // step.js
    showStep(position: string | number, values: AttackValues | null, before: ShownStep | null): unknown;
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

/** A component of Dash as JSON. */
interface Component {
    type: string;
    props: { children?: Child | Child[] } & Record<string, unknown>;
}

type Child = Component | string | number | null | undefined;

/** A column of dash-ag-grid. */
type GridColumn = { colId?: string } & Record<string, unknown>;

/** A map as an array; its magnitudes are `sorted` when they are needed. */
interface MapValues {
    height: number;
    width: number;
    data: Float32Array;
    sorted?: Float32Array;
}

type Color = [number, number, number];

interface Paint {
    table: Color[];
    diverging: boolean;
    high: number;
    strength: number;
    wipe: number;
}

/** `view`: overlay, map or error; `scale`: own, model (one per column) or all; `high`: an end from outside. */
interface MapDisplay {
    view: string;
    strength: number;
    wipe: number;
    colours: string;
    scale: string;
    clip: number;
    high?: number;
}

/** Color tables, and the names of those for signed and other maps. */
interface ColorTables {
    tables: Record<string, Color[]>;
    diverging: string;
    plain: string;
}

/** A canvas and its map, or why that is `missing`; `high` is the end of its scale. */
interface LoadedMap {
    canvas: HTMLCanvasElement;
    address: string;
    column: string;
    high: number;
    array?: MapValues;
    picture?: ImageData | null;
    missing?: string;
}

/** What a canvas shows; `key` changes when it must be painted again. */
interface PaintedMap {
    array: MapValues;
    name: string;
    high: number;
    address: string;
    key: string;
}

/** An attack and its steps, see pages/attack_step.py; `known`: the outputs at each epsilon are stored. */
interface AttackValues {
    attack: number;
    before: string;
    signs: string | null;
    change: string;
    eight_bit: boolean;
    known: boolean;
    steps: AttackStep[];
}

interface AttackStep {
    epsilon: number;
    words: string;
    /** percent of the axis */
    place: number;
    changed: boolean;
    top: { name: string; share: number; words: string; marked: boolean }[];
    /** epsilon of the composed image */
    reached: number;
    /** by which the perturbation is amplified */
    factor: number;
    change: [string, string];
}

interface ShownStep {
    attack: number;
    at: number;
}

/** What the SQL editor completes; a column has its `table`. */
type Word = import("./vendor/codemirror.js").Completion & { table?: string };

/** A file with its path as the user sees it. */
interface NamedFile {
    name: string;
    file: Blob;
}

/** A file's number in its upload. */
type NumberedFile = NamedFile & { number: number };

/** The key of what was sent, and the number of the label table in it. */
interface Sent {
    upload: string;
    labels: number | null;
}

interface SendingFailed {
    error: string;
    status: number;
    stopped: boolean;
}

type ReportBytes = (bytes: number) => void;

/** Sends a piece; status 0 if there was no answer. */
type PutPiece = (
    path: string,
    piece: Blob,
    sent: ReportBytes,
    signal: AbortSignal,
) => Promise<{ status: number; content: { received?: number; error?: string } | null }>;

/** An entry of a combobox. */
interface Entry {
    value: string;
    label: string;
    description: string;
    search?: string;
    disabled?: boolean;
}
