/* "Manage": describe, rename, index and delete the image set that is shown; what depends on it is named first. */
// @ts-nocheck
import { convscope } from "./namespace.js";

const { make, icon, ask } = convscope;

let dialog = null,
    body = null,
    set = "",
    found = null;

document.addEventListener("click", (event) => {
    const button = event.target.closest && event.target.closest('[data-sets="manage"]');
    if (button) open();
});

const address = (name) => `/api/image_sets/${encodeURIComponent(name)}`;

async function open() {
    const title = document.querySelector(".images-page [data-set]");
    set = title ? title.dataset.set : "";
    if (!dialog || !dialog.isConnected) build();
    dialog.showModal();
    if (!set) {
        body.replaceChildren(make("p", {}, "There is no image set to manage yet: add images first."));
        return;
    }
    body.replaceChildren(make("div", { class: "skeleton tall", role: "status", "aria-label": "Loading" }));
    try {
        found = await ask(address(set));
        draw();
    } catch (error) {
        body.replaceChildren(make("p", { class: "problem", role: "alert" }, error.message));
    }
}

function build() {
    body = make("div", { class: "set-body" });
    dialog = make(
        "dialog",
        { class: "set-dialog", "aria-labelledby": "manage-set-title" },
        make(
            "div",
            { class: "set-head" },
            make("h2", { id: "manage-set-title" }, "Manage image set"),
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
        body,
    );
    document.body.append(dialog);
}

const count = convscope.count;

function dependents() {
    const d = found.dependents;
    return [
        [d.images, count(d.images, "image")],
        [d.runs.length, `${count(d.runs.length, "run")} (${d.runs.join(", ")})`],
        [d.patches, count(d.patches, "patch")],
        [d.maps, count(d.maps, "saliency map")],
        [d.attacks, count(d.attacks, "attack")],
        [d.jobs, `${count(d.jobs, "job")} of the list`],
    ]
        .filter(([number]) => number)
        .map(([, words]) => words);
}

/* A part of the dialog with a form; `act` gives what to say, or throws a sentence. */
function section(id, title, content, words, act, danger) {
    const said = make("p", { class: "problem", role: "alert" });
    const button = make(
        "button",
        {
            id: `${id}-button`,
            type: "submit",
            class: `btn btn-sm ${danger ? "btn-danger" : "btn-outline-secondary"}`,
        },
        words,
    );
    return make(
        "form",
        {
            class: `set-section${danger ? " danger" : ""}`,
            onsubmit: async (event) => {
                event.preventDefault();
                button.disabled = true;
                said.className = "problem";
                said.textContent = "";
                try {
                    const done = await act();
                    said.className = "quiet";
                    said.textContent = done;
                } catch (error) {
                    said.textContent = error.message;
                }
                button.disabled = false;
            },
        },
        make("h3", {}, title),
        ...content,
        make("div", { class: "set-actions" }, button),
        said,
    );
}

function draw() {
    const d = found.dependents;
    const text = make("textarea", {
        id: "manage-description",
        class: "form-control form-control-sm",
        rows: 3,
        maxlength: 10000,
    });
    text.value = found.description;
    const name = make("input", {
        id: "manage-name",
        class: "form-control form-control-sm",
        value: set,
        maxlength: 100,
        autocomplete: "off",
    });
    const confirm = make("input", {
        id: "manage-confirm",
        class: "form-control form-control-sm",
        autocomplete: "off",
        placeholder: set,
    });
    const label = (id, words, control) =>
        make("div", { class: "control" }, make("label", { for: id }, words), control);
    const queries = d.queries.length
        ? `${count(d.queries.length, "saved query").replace("querys", "queries")} name it (${d.queries.join(", ")}) and stay as they are.`
        : "";
    body.replaceChildren(
        make("p", { class: "manage-what" }, make("b", {}, set), `: ${dependents().join(", ")}.`),
        section(
            "manage-describe",
            "Description",
            [label("manage-description", "What these images are", text)],
            "Save",
            async () => {
                found = await ask(address(set), { method: "POST", body: { description: text.value } });
                reload();
                return "Saved.";
            },
        ),
        section(
            "manage-index",
            "Index",
            [
                make(
                    "p",
                    { class: "quiet" },
                    d.runs.length ? `Indexed with ${d.runs.join(", ")}.` : "No model was run over it yet.",
                ),
            ],
            "Index with a model …",
            async () => {
                dialog.close();
                await convscope.indexSet(set);
                return "";
            },
        ),
        section(
            "manage-rename",
            "Rename",
            [
                label("manage-name", "New name", name),
                make(
                    "p",
                    { class: "quiet" },
                    `The name changes in the atlas and in all results. Links with the old name end. ${queries}`,
                ),
            ],
            "Rename",
            async () => {
                const before = set;
                if (name.value === before) throw new Error("That is its name already.");
                if (!/^[a-z0-9][a-z0-9._-]{0,99}$/.test(name.value)) {
                    throw new Error(
                        `Expected small letters, digits, dots, dashes and underscores, got “${name.value}”.`,
                    );
                }
                await ask(address(before), { method: "POST", body: { name: name.value } });
                dialog.close();
                convscope.address({ images: name.value });
                return "";
            },
        ),
        section(
            "manage-delete",
            "Delete",
            [
                make(
                    "p",
                    {},
                    `With it go: ${dependents().join(", ")}. Files of a folder that was read in place stay. ${queries}`,
                ),
                label("manage-confirm", `Type ${set} to confirm`, confirm),
            ],
            "Delete for ever",
            async () => {
                if (confirm.value !== set) {
                    confirm.focus();
                    throw new Error(`Expected ${set}, got “${confirm.value}”.`);
                }
                await ask(`${address(set)}?confirm=${encodeURIComponent(set)}`, { method: "DELETE" });
                dialog.close();
                convscope.address({ images: "", model: "" });
                return "";
            },
            true,
        ),
    );
}

/* The page shows the description, which no version of the atlas tells of. */
function reload() {
    const title = document.querySelector(".images-page [data-set]");
    if (!title) return;
    let shown = title.querySelector(".set-description");
    if (!shown) title.append((shown = make("p", { class: "set-description" })));
    shown.textContent = found.description;
}
