/* "Add images": choose, send, import, index. What is under way goes on while the dialog is closed.

   choosing -> sending -> (looking -> looked ->) importing -> imported -> indexing -> indexed; an error leads back to where it can be mended */
// @ts-nocheck
import { convscope } from "./namespace.js";
import { UploadStopped, bytes, chosen, dropped, put, upload } from "./upload.js";

const { make, icon, ask, UNFINISHED } = convscope;
const TRANSPORT = {
    ask: (path, method, body) => ask(path, { method, body }),
    put: (path, ...more) => put(convscope.local(path), ...more),
    wait: (milliseconds) => new Promise((done) => setTimeout(done, milliseconds)),
};

const LABELS_SUFFIXES = [".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".parquet"];
const LABELS_HELP = "Optional: a table (CSV, TSV, JSON, JSON lines, parquet) with one row per image.";

let dialog = null,
    parts = {},
    state = fresh(),
    transfer = null,
    poller = null,
    known = null;

function fresh() {
    return {
        step: "choosing",
        files: [],
        name: "",
        folder: "",
        error: "",
        sent: 0,
        total: 0,
        job: null,
        report: null,
        model: "",
        upload: null,
        layout: null,
        words: {},
        labels: null,
        sentLabels: null,
        labelsNumber: null,
        labelsPath: "",
        saying: false,
    };
}

document.addEventListener("click", (event) => {
    const button = event.target.closest && event.target.closest('[data-sets="add"]');
    if (button) open();
});
window.addEventListener("beforeunload", (event) => {
    if (state.step === "sending") event.preventDefault();
});

async function open() {
    if (!dialog || !dialog.isConnected) build();
    if (["indexed", "failed"].includes(state.step)) state = fresh();
    draw();
    dialog.showModal();
    parts.body.querySelector("input, button, select")?.focus();
    try {
        known = await ask("/api/image_sets");
    } catch (error) {
        state.error = error.message;
    }
    draw();
}

function build() {
    parts = {
        body: make("div", { class: "set-body" }),
        said: make("p", { role: "status", class: "visually-hidden" }),
    };
    dialog = make(
        "dialog",
        { class: "set-dialog", "aria-labelledby": "add-images-title" },
        make(
            "div",
            { class: "set-head" },
            make("h2", { id: "add-images-title" }, "Add images"),
            make(
                "button",
                {
                    type: "button",
                    class: "btn btn-quiet",
                    "aria-label": "Close",
                    onclick: () => dialog.close(),
                },
                icon("x-lg"),
            ),
        ),
        parts.body,
        parts.said,
    );
    document.body.append(dialog);
}

const say = (sentence) => {
    if (parts.said.textContent !== sentence) parts.said.textContent = sentence;
};
const problem = () => (state.error ? make("p", { class: "problem", role: "alert" }, state.error) : null);

let drawn = "";
function draw() {
    if (!dialog) return;
    const key = JSON.stringify([
        state.step,
        state.error,
        state.files.length,
        state.labels && state.labels.name,
        known !== null,
        state.job && state.job.state,
    ]);
    const moving = { sending: drawSending, looking: drawJob, importing: drawJob, indexing: drawJob }[
        state.step
    ];
    if (key === drawn && parts.body.childElementCount) {
        if (moving) moving(true);
        return;
    }
    drawn = key;
    const kept = document.activeElement && document.activeElement.id;
    const content = moving
        ? moving(false)
        : state.step === "choosing"
          ? choosing()
          : state.step === "looked"
            ? looked()
            : ended();
    parts.body.replaceChildren(...content.filter(Boolean));
    if (kept && dialog.open) document.getElementById(kept)?.focus();
}

function choosing() {
    const take = (files) => {
        dropUpload();
        state.files = files;
        state.error = files.length ? "" : "There is no file in it.";
        propose();
        draw();
    };
    const picker = (id, folder) =>
        make("input", {
            id,
            type: "file",
            multiple: true,
            webkitdirectory: folder,
            class: "visually-hidden",
            tabindex: -1,
            "aria-hidden": "true",
            onchange: (event) => take(chosen(event.target.files)),
        });
    const choose = (id, words, symbol) =>
        make(
            "button",
            {
                id: `${id}-button`,
                type: "button",
                class: "btn btn-sm btn-outline-secondary",
                onclick: () => document.getElementById(id).click(),
            },
            icon(symbol),
            ` ${words}`,
        );
    const zone = make(
        "div",
        { class: "drop-zone", role: "group", "aria-label": "Files to add" },
        icon("cloud-arrow-up"),
        make(
            "p",
            {},
            state.files.length ? chosenWords() : "Drop pictures, a folder, or a zip or tar archive here",
        ),
        make(
            "div",
            { class: "tools" },
            choose("add-files", "Choose files", "file-earmark-image"),
            choose("add-folder", "Choose a folder", "folder"),
        ),
        picker("add-files", false),
        picker("add-folder", true),
    );
    const over = (event) => {
        event.preventDefault();
        zone.classList.add("over");
    };
    zone.addEventListener("dragenter", over);
    zone.addEventListener("dragover", over);
    zone.addEventListener("dragleave", () => zone.classList.remove("over"));
    zone.addEventListener("drop", async (event) => {
        event.preventDefault();
        zone.classList.remove("over");
        take(await dropped(event.dataTransfer));
    });
    const roots = known && known.folders.length ? known.folders : null;
    return [
        make(
            "form",
            {
                class: "set-form",
                novalidate: true,
                onsubmit: (event) => {
                    event.preventDefault();
                    begin();
                },
            },
            zone,
            roots
                ? field(
                      "add-path",
                      "Or a folder of the server",
                      {
                          value: state.folder,
                          placeholder: `${roots[0]}/…`,
                          oninput: (event) => {
                              state.folder = event.target.value;
                          },
                      },
                      `Below ${roots.join(", ")}; it is read in place.`,
                  )
                : null,
            labelsFile(),
            roots ? labelsPath(`${roots[0]}/labels.csv`) : null,
            field(
                "add-name",
                "Image set",
                {
                    value: state.name,
                    placeholder: "my-images",
                    list: "add-sets",
                    autocomplete: "off",
                    maxlength: 100,
                    oninput: (event) => {
                        state.name = event.target.value;
                    },
                },
                "Small letters, digits, dots, dashes. A name that is there already gets what is new.",
            ),
            make(
                "datalist",
                { id: "add-sets" },
                (known ? known.image_sets : []).map((one) => make("option", { value: one.image_set })),
            ),
            make(
                "p",
                { class: "quiet" },
                "Classes come from folders (cat/1.jpg is a cat), from a table beside the images, or from a labels file. Preview shows what is taken before anything is imported.",
            ),
            problem(),
            make(
                "div",
                { class: "set-actions" },
                make("button", { id: "add-begin", type: "submit", class: "btn btn-primary" }, "Add"),
                make(
                    "button",
                    {
                        id: "add-preview",
                        type: "button",
                        class: "btn btn-outline-secondary",
                        onclick: () => begin(true),
                    },
                    "Preview",
                ),
            ),
        ),
    ];
}

function field(id, label, attributes, help) {
    return make(
        "div",
        { class: "control" },
        make("label", { for: id }, label),
        make("input", {
            id,
            class: "form-control form-control-sm",
            type: "text",
            "aria-describedby": `${id}-help`,
            ...attributes,
        }),
        make("small", { id: `${id}-help`, class: "quiet" }, help),
    );
}

/* A table of labels to send with the images; it can be changed after a preview, and what was sent is kept. */
function labelsFile() {
    const take = (file) => {
        const known = !file || LABELS_SUFFIXES.some((suffix) => file.name.toLowerCase().endsWith(suffix));
        if (known) state.labels = file;
        state.error = known ? "" : `Labels file: expected ${LABELS_SUFFIXES.join(", ")}, got “${file.name}”.`;
        draw();
        document.getElementById("add-labels-button")?.focus();
    };
    const picker = make("input", {
        id: "add-labels",
        type: "file",
        accept: LABELS_SUFFIXES.join(","),
        class: "visually-hidden",
        tabindex: -1,
        "aria-hidden": "true",
        onchange: (event) => {
            if (event.target.files.length) take(event.target.files[0]);
        },
    });
    return make(
        "div",
        { class: "control", role: "group", "aria-labelledby": "add-labels-label" },
        make("span", { id: "add-labels-label", class: "label" }, "Labels file"),
        make(
            "div",
            { class: "labels-file" },
            make(
                "button",
                {
                    id: "add-labels-button",
                    type: "button",
                    class: "btn btn-sm btn-outline-secondary",
                    "aria-describedby": "add-labels-help",
                    onclick: () => picker.click(),
                },
                icon("table"),
                " Choose a labels file",
            ),
            state.labels
                ? make("span", { class: "chosen" }, `${state.labels.name}, ${bytes(state.labels.size)}`)
                : null,
            state.labels
                ? make(
                      "button",
                      {
                          type: "button",
                          class: "btn btn-sm btn-quiet",
                          "aria-label": "Remove the labels file",
                          onclick: () => take(null),
                      },
                      icon("x-lg"),
                  )
                : null,
        ),
        picker,
        make("small", { id: "add-labels-help", class: "quiet" }, LABELS_HELP),
    );
}

const labelsPath = (example) =>
    field(
        "add-labels-path",
        "Labels file of the server",
        {
            value: state.labelsPath,
            placeholder: example,
            autocomplete: "off",
            oninput: (event) => {
                state.labelsPath = event.target.value.trim();
            },
        },
        "Optional, for a folder of the server.",
    );

/* Take away what was sent and not imported. */
function dropUpload() {
    if (state.upload) ask(`/api/uploads/${state.upload}`, { method: "DELETE" }).catch(() => null);
    Object.assign(state, { upload: null, sentLabels: null, labelsNumber: null });
}

function chosenWords() {
    const size = bytes(state.files.reduce((sum, one) => sum + one.file.size, 0));
    const count =
        state.files.length === 1 ? state.files[0].name : `${state.files.length.toLocaleString("en")} files`;
    return `${count}, ${size}`;
}

/* A name for the set from what was chosen, where none was typed. */
function propose() {
    if (state.name || !state.files.length) return;
    const first = state.files[0].name;
    const stem = first.includes("/")
        ? first.split("/")[0]
        : state.files.length === 1
          ? first.replace(/(\.tar)?\.[A-Za-z0-9]+$/, "")
          : "";
    state.name = stem
        .toLowerCase()
        .replace(/[^a-z0-9._-]+/g, "-")
        .replace(/^[^a-z0-9]+/, "")
        .slice(0, 100);
}

async function begin(preview = false) {
    if (!/^[a-z0-9][a-z0-9._-]{0,99}$/.test(state.name)) {
        return fail(
            `Image set: expected small letters, digits, dots, dashes and underscores, got “${state.name}”.`,
            "add-name",
        );
    }
    if (!state.files.length && !state.folder)
        return fail("Choose files first, or a folder.", "add-files-button");
    if (state.files.length && state.labelsPath)
        return fail(
            "Labels file of the server: expected a folder of the server with it; for files from here, choose a labels file.",
            "add-labels-path",
        );
    if (!state.files.length && state.labels)
        return fail(
            "Labels file: expected images from here with it; for a folder of the server, name a labels file of the server.",
            "add-labels-button",
        );
    Object.assign(state, { error: "", layout: null, words: {}, saying: false });
    return send(preview);
}

/* Send what is not there yet, then ask for the import or for its preview. */
async function send(preview) {
    const there = state.upload !== null;
    const labels = state.labels !== state.sentLabels ? state.labels : null;
    if (!state.files.length || (there && !labels)) return request(preview);
    state.step = "sending";
    transfer = upload(
        state.files,
        labels && { name: labels.name, file: labels },
        (sent, total) => {
            Object.assign(state, { sent, total });
            draw();
        },
        TRANSPORT,
        state.upload,
    );
    draw();
    parts.body.querySelector("button")?.focus();
    try {
        const sent = await transfer.done;
        state.upload = sent.upload;
        if (labels) Object.assign(state, { sentLabels: labels, labelsNumber: sent.labels });
        await request(preview);
    } catch (error) {
        state.step = back("looking");
        state.error = error instanceof UploadStopped ? "" : error.message;
        forgetLost(error);
        say(
            state.error ||
                (there ? "The upload was cancelled." : "The upload was cancelled; nothing was kept."),
        );
        draw();
    }
    return undefined;
}

/* After a day an upload is gone: the next time all is sent again. */
const forgetLost = (error) => {
    if (error.status === 404) Object.assign(state, { upload: null, sentLabels: null, labelsNumber: null });
};

/* Ask for the import of what was sent or named, or for its preview. */
function request(preview) {
    const labels = state.upload ? (state.labels ? state.labelsNumber : null) : state.labelsPath || null;
    const body = {
        images: state.name,
        ...state.words,
        ...(preview ? { preview } : {}),
        ...(labels === null ? {} : { labels }),
    };
    return follow(preview ? "looking" : "importing", () =>
        state.upload
            ? ask(`/api/uploads/${state.upload}/import`, { method: "POST", body })
            : ask("/api/jobs", { method: "POST", body: { kind: "import", folder: state.folder, ...body } }),
    );
}

/* What would be imported, and the words by which a person says it otherwise. */
function looked() {
    const layout = state.layout;
    const counted = (counts, all, noun) => {
        const named = Object.entries(counts);
        const shown = named
            .slice(0, 8)
            .map(([name, count]) => `${name} (${count.toLocaleString("en")})`)
            .join(", ");
        return named.length
            ? make("p", {}, `${convscope.count(all, noun)}: ${shown}${all > 8 ? ", …" : ""}`)
            : null;
    };
    const word = (name, label, help, whole = false) =>
        field(
            `add-${name}`,
            label,
            {
                value: state.words[name] ?? "",
                autocomplete: "off",
                oninput: (event) => {
                    const typed = event.target.value.trim();
                    if (typed) state.words[name] = whole && /^-?\d+$/.test(typed) ? Number(typed) : typed;
                    else delete state.words[name];
                },
            },
            help,
        );
    const images = layout.images === null ? "Images" : convscope.count(layout.images, "image");
    return [
        make("p", {}, `${images} would enter `, make("b", {}, state.name), ". Nothing is imported yet."),
        convscope.layoutReport(layout),
        counted(layout.splits, Object.keys(layout.splits).length, "split"),
        counted(layout.labels, layout.classes, "class"),
        make(
            "details",
            {
                id: "add-words",
                open: state.saying || Object.keys(state.words).length > 0 || state.error !== "",
                ontoggle: (event) => {
                    state.saying = event.target.open;
                },
            },
            make("summary", {}, "Choose split, class and label"),
            state.upload ? labelsFile() : labelsPath(""),
            make(
                "div",
                { class: "layout-words" },
                word(
                    "class_level",
                    "Class level",
                    "Folder that is the class: 1 outermost, -1 innermost, 0 none.",
                    true,
                ),
                word("split_from", "Split from", "none, a folder level, or a column."),
                word("label_column", "Label column", "Column of a table or shard."),
                word("image_column", "Image column", "Column that names the image."),
                word("class_names", "Class names", "imagenet-1k for ImageNet's numbers."),
            ),
        ),
        problem(),
        make(
            "div",
            { class: "set-actions" },
            make(
                "button",
                { id: "add-import", type: "button", class: "btn btn-primary", onclick: () => send(false) },
                "Import",
            ),
            make(
                "button",
                {
                    id: "add-again",
                    type: "button",
                    class: "btn btn-outline-secondary",
                    onclick: () => send(true),
                },
                "Preview again",
            ),
            another(),
        ),
    ];
}

function fail(sentence, id) {
    state.error = sentence;
    draw();
    document.getElementById(id)?.focus();
}

function drawSending(again) {
    const words = `${bytes(state.sent)} of ${bytes(state.total)}`;
    const bar = convscope.bar(state.total ? state.sent / state.total : 0, words, "running");
    if (again) {
        parts.body.querySelector(".job-bar")?.replaceWith(bar);
        return [];
    }
    const what = state.upload
        ? state.labels.name
        : state.labels
          ? `${chosenWords()}, and ${state.labels.name}`
          : chosenWords();
    say(`Sending ${what}`);
    return [
        make("p", {}, `Sending ${what} for `, make("b", {}, state.name), ". Keep this page open."),
        bar,
        make(
            "div",
            { class: "set-actions" },
            make(
                "button",
                {
                    id: "add-cancel",
                    type: "button",
                    class: "btn btn-outline-secondary",
                    onclick: (event) => {
                        event.currentTarget.disabled = true;
                        transfer.stop();
                    },
                },
                "Cancel",
            ),
        ),
    ];
}

/* Hand in a request and watch its job. */
async function follow(step, request) {
    try {
        state.job = await request();
    } catch (error) {
        state.error = error.message;
        state.step = back(step);
        forgetLost(error);
        draw();
        return;
    }
    state.step = step;
    state.error = "";
    draw();
    if (poller) poller.stop();
    poller = convscope.every(async () => {
        const number = state.job.job;
        try {
            state.job = await ask(`/api/jobs/${number}`);
            state.error = "";
        } catch (error) {
            state.error = error.message;
            draw();
            return true;
        }
        if (UNFINISHED.includes(state.job.state)) {
            draw();
            return true;
        }
        finish();
        return false;
    });
}

function finish() {
    const job = state.job;
    if (job.state === "done") {
        if (state.step === "importing") Object.assign(state, { report: job.image_import, upload: null });
        if (state.step === "looking") state.layout = job.image_import.layout;
        state.step = { looking: "looked", importing: "imported" }[state.step] || "indexed";
    } else {
        state.error = job.error || `Job ${job.job} was cancelled.`;
        state.step = back(state.step);
    }
    say(
        state.error ||
            (state.step === "looked"
                ? `The preview of ${state.name} is here`
                : state.step === "imported"
                  ? `${state.name} is imported`
                  : `${state.name} is indexed`),
    );
    draw();
}

/* Where an error of a step leads: what was looked at can be asked for again. */
const back = (step) =>
    ["looking", "importing"].includes(step) ? (state.layout ? "looked" : "choosing") : "imported";

function drawJob(again) {
    const job = state.job;
    const what = { looking: "Looking at", importing: "Importing" }[state.step] || "Indexing";
    const words =
        job.note || (job.state === "queued" ? "waits for a worker" : `${Math.floor(100 * job.progress)} %`);
    const bar = convscope.bar(job.progress, words, job.state);
    if (again) {
        parts.body.querySelector(".job-bar")?.replaceWith(bar);
        return [];
    }
    const trouble = convscope.workWords(convscope.lastWork);
    say(`${what} ${state.name}`);
    return [
        make(
            "p",
            {},
            `${what} `,
            make("b", {}, state.name),
            ". It goes on without this page: ",
            make("a", { href: convscope.local(`/jobs?job=${job.job}`) }, `job ${job.job}`),
            ".",
        ),
        bar,
        trouble && trouble[0] === "off"
            ? make("p", { class: "problem" }, `${trouble[1]}: ${trouble[2]}.`)
            : null,
        problem(),
        make(
            "div",
            { class: "set-actions" },
            make(
                "button",
                {
                    id: "add-cancel",
                    type: "button",
                    class: "btn btn-outline-secondary",
                    onclick: (event) => {
                        event.currentTarget.disabled = true;
                        ask(`/api/jobs/${job.job}`, { method: "DELETE" }).catch(() => null);
                    },
                },
                "Cancel",
            ),
        ),
    ];
}

function ended() {
    const shows = (href, words, symbol) =>
        make(
            "a",
            { class: "btn btn-sm btn-primary", href, onclick: () => dialog.close() },
            icon(symbol),
            ` ${words}`,
        );
    const set = encodeURIComponent(state.name);
    if (state.step === "indexed") {
        return [
            make("p", {}, make("b", {}, state.name), ` is indexed with ${state.model}.`),
            make(
                "div",
                { class: "set-actions" },
                shows(
                    convscope.local(`/?model=${encodeURIComponent(state.model)}&images=${set}`),
                    "Show the patches",
                    "grid-3x3-gap",
                ),
                another(),
            ),
        ];
    }
    const report = state.report;
    const count = (number, words) => (number ? `${number.toLocaleString("en")} ${words}` : "");
    const told = report
        ? [
              `${convscope.count(report.added, "image")} entered`,
              count(report.known, "there already"),
              count(report.renamed, "moved or renamed"),
              count(report.labelled, "with a label"),
              count(report.refused, "refused"),
          ]
              .filter(Boolean)
              .join(", ")
        : "";
    const models = known ? known.models : [];
    state.model = state.model || (models[0] ? models[0].name : "");
    const select = make(
        "select",
        {
            id: "add-model",
            class: "form-select form-select-sm",
            onchange: (event) => {
                state.model = event.target.value;
            },
        },
        models.map((one) => make("option", { value: one.name, title: one.title }, one.name)),
    );
    select.value = state.model;
    const there = known && known.image_sets.find((one) => one.image_set === state.name);
    const what = told || (there ? convscope.count(there.images, "image") : "");
    return [
        make("p", {}, make("b", {}, state.name), what ? `: ${what}.` : ""),
        report ? convscope.layoutReport(report.layout) : null,
        report && report.refused
            ? make(
                  "details",
                  {},
                  make("summary", {}, `Refused files (${report.refused.toLocaleString("en")})`),
                  convscope.refusals(report),
              )
            : null,
        problem(),
        make(
            "form",
            {
                class: "inline-index",
                onsubmit: (event) => {
                    event.preventDefault();
                    index(false);
                },
            },
            make("div", { class: "control" }, make("label", { for: "add-model" }, "Index with"), select),
            make(
                "button",
                { id: "add-index", type: "submit", class: "btn btn-sm btn-primary" },
                icon("play-fill"),
                " Index",
            ),
        ),
        make(
            "p",
            { class: "quiet" },
            "An index finds, for each channel of the model, the patches that excite it most.",
        ),
        make(
            "div",
            { class: "set-actions" },
            make(
                "a",
                {
                    class: "btn btn-sm btn-outline-secondary",
                    href: convscope.local(`/images?images=${set}`),
                    onclick: () => dialog.close(),
                },
                icon("images"),
                " Show the images",
            ),
            another(),
        ),
    ];
}

const another = () =>
    make(
        "button",
        {
            type: "button",
            class: "btn btn-sm btn-outline-secondary",
            onclick: () => {
                dropUpload();
                state = fresh();
                draw();
            },
        },
        "Add more",
    );

/* Index a set; asked for from the other dialog too. */
function index(replace) {
    return follow("indexing", () =>
        ask("/api/jobs", {
            method: "POST",
            body: { kind: "index", model: state.model, images: state.name, ...(replace ? { replace } : {}) },
        }),
    );
}

convscope.indexSet = async function (name) {
    dropUpload();
    state = { ...fresh(), step: "imported", name, report: null };
    await open();
};
