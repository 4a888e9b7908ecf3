"""The elements of the dialog "Add images": one section for each group of steps, of which one is shown."""

from typing import Any

import dash_bootstrap_components as dbc
from dash import dcc, html

from dashboard.components.elements import Component, attributes, icon, labelled, select
from dashboard.state.ids import make_id
from workers.requests.image_sets import LABELS_SUFFIXES

NOTHING_CHOSEN = "Drop images, a folder, or a zip or tar archive here"
WORDS = {
    "class_level": ("Class level", "Folder that is the class: 1 outermost, -1 innermost, 0 none."),
    "split_from": ("Split from", "none, a folder level, or a column."),
    "label_column": ("Label column", "Column of a table or shard."),
    "image_column": ("Image column", "Column that names the image."),
    "class_names": ("Class names", "imagenet-1k for ImageNet's numbers."),
}


def add_id(name: str) -> str:
    """Id of an element of the dialog."""
    return make_id("add", name)


def dialog(roots: list[str]) -> Component:
    """The dialog, closed, and what outlives its being closed. `roots`: folders of the server that may be imported."""
    return html.Div(
        [
            dbc.Modal(
                [
                    dbc.ModalHeader(html.H2("Add images", id=add_id("title"))),
                    dbc.ModalBody(
                        [
                            html.Div(_choosing(roots), id=add_id("choosing")),
                            html.Div(_moving(), id=add_id("moving"), className="set-body", hidden=True),
                            html.Div(_looking(), id=add_id("looking"), className="set-body", hidden=True),
                            html.Div(_ending(), id=add_id("ending"), className="set-body", hidden=True),
                            html.P(id=add_id("said"), role="status", className="visually-hidden"),
                        ]
                    ),
                ],
                id=add_id("dialog"),
                labelledby=add_id("title"),
                class_name="set-dialog",
                backdrop="static",
                fade=False,
                scrollable=True,
            ),
            dcc.Interval(id=add_id("poll"), interval=1000, disabled=True),
            *[
                dcc.Store(id=add_id(name))
                for name in ("state", "opened", "index_set", "chosen", "proposed", "send", "sent", "focus")
            ],
        ]
    )  # fmt: skip


def _choosing(roots: list[str]) -> Component:
    zone = html.Div(
        [
            icon("cloud-arrow-up"),
            html.P(NOTHING_CHOSEN, id=add_id("files")),
            html.Div(
                [
                    _picker("files", "files_choose", "file-earmark-image", "Choose files"),
                    _picker("folder", "folder_choose", "folder", "Choose a folder"),
                ],
                className="tools",
            ),
        ],
        className="drop-zone",
        role="group",
        **attributes(aria_label="Files to add"),
    )
    root = roots[0] if roots else ""
    folder = _field(
        "folder",
        "Or a folder on the server",
        f"Below {', '.join(roots)}; it is read in place.",
        placeholder=f"{root}/…",
    )
    table = _field(
        "labels_path",
        "Labels file on the server",
        "Optional, for a folder on the server.",
        placeholder=f"{root}/labels.csv",
    )
    return dbc.Form(
        [
            zone,
            html.Div(folder, hidden=not roots),
            _labels("labels"),
            html.Div(table, hidden=not roots),
            _field(
                "name",
                "Image set",
                "Lowercase letters, digits, dots, dashes. New images are added to a set that exists already.",
                placeholder="my-images",
                list=add_id("sets"),
                maxlength=100,
            ),
            html.Datalist(id=add_id("sets")),
            html.P(
                "Classes come from folders (cat/1.jpg is a cat), from a table beside the images, or from a labels "
                "file. Preview shows the result before anything is imported.",
                className="quiet",
            ),
            html.Div(id=add_id("choosing_problem")),
            html.Div(
                [_button("begin", "Add", primary=True, type="submit"), _button("preview", "Preview")],
                className="set-actions",
            ),
        ],
        id=add_id("form"),
        prevent_default_on_submit=True,
        class_name="set-form",
    )


def _moving() -> list[Component]:
    return [
        html.P(
            [
                html.Span(id=add_id("doing")),
                html.A(id=add_id("job_link"), href=""),
            ]
        ),
        html.Div(
            [
                dbc.Progress(id=add_id("bar"), value=0, class_name="job-track"),
                html.Span(id=add_id("words"), className="num"),
            ],
            className="job-bar running",
        ),
        html.Div(id=add_id("trouble")),
        html.Div(id=add_id("moving_problem")),
        html.Div(_button("cancel", "Cancel"), className="set-actions"),
    ]


def _looking() -> list[Component]:
    path = _field("relabels_path", "Labels file on the server", "Optional, for a folder on the server.")
    return [
        html.Div(id=add_id("layout"), className="set-body"),
        html.Details(
            [
                html.Summary("Choose split, class and label"),
                html.Div(_labels("relabels"), id=add_id("relabels_of_files")),
                html.Div(path, id=add_id("relabels_of_folder"), hidden=True),
                html.Div(
                    [_field(name, label, words) for name, (label, words) in WORDS.items()], className="layout-words"
                ),
            ],
            id=add_id("details"),
        ),
        html.Div(id=add_id("looking_problem")),
        html.Div(
            [
                _button("import", "Import", primary=True),
                _button("again", "Preview again"),
                _button("restart", "Add other images"),
            ],
            className="set-actions",
        ),
    ]  # fmt: skip


def _ending() -> list[Component]:
    return [
        html.Div(id=add_id("ended"), className="set-body"),
        html.Div(id=add_id("ending_problem")),
        html.Div(
            [
                dbc.Form(
                    [
                        labelled("Index with", select(add_id("model"), []), control_id=add_id("model")),
                        html.Button(
                            [icon("play-fill"), " Index"],
                            id=add_id("index"),
                            type="submit",
                            className="btn btn-sm btn-primary",
                        ),
                    ],
                    id=add_id("index_form"),
                    prevent_default_on_submit=True,
                    class_name="inline-index",
                ),
                html.P(
                    "An index finds the top-activating patches of each channel of the model.",
                    className="quiet",
                ),
            ],
            id=add_id("indexing"),
            className="set-body",
        ),
        html.Div(
            [
                html.A(
                    [icon("grid-3x3-gap"), " Show the patches"],
                    id=add_id("show_patches"),
                    href="",
                    className="btn btn-sm btn-primary",
                ),
                html.A(
                    [icon("images"), " Show the images"],
                    id=add_id("show_images"),
                    href="",
                    className="btn btn-sm btn-outline-secondary",
                ),
                _button("more", "Add other images", small=True),
            ],
            className="set-actions",
        ),
    ]


def _button(name: str, words: str, *, primary: bool = False, small: bool = False, **more: Any) -> Component:
    classes = f"btn {'btn-sm ' if small else ''}{'btn-primary' if primary else 'btn-outline-secondary'}"
    return html.Button(words, id=add_id(name), className=classes, **({"type": "button"} | more))


def _picker(what: str, name: str, symbol: str, words: str, **more: Any) -> Component:
    """A button that opens the browser's file dialog (`browser/add_images.js`)."""
    return html.Button(
        [icon(symbol), f" {words}"],
        id=add_id(name),
        type="button",
        className="btn btn-sm btn-outline-secondary",
        **attributes(data_pick=what),
        **more,
    )


def _field(name: str, label: str, words: str, **more: Any) -> Component:
    control = dbc.Input(id=add_id(name), type="text", size="sm", autocomplete="off", **more)
    return html.Div([labelled(label, control, control_id=add_id(name)), html.Small(words, className="quiet")])


def _labels(name: str) -> Component:
    """The choice of a label table to send with the images."""
    return html.Div(
        [
            html.Span("Labels file", id=add_id(f"{name}_title"), className="label"),
            html.Div(
                [
                    _picker(
                        "labels",
                        f"{name}_choose",
                        "table",
                        "Choose a labels file",
                        **attributes(data_accept=",".join(LABELS_SUFFIXES)),
                    ),
                    html.Span(id=add_id(f"{name}_name"), className="chosen"),
                    html.Button(
                        icon("x-lg"),
                        id=add_id(f"{name}_remove"),
                        type="button",
                        className="btn btn-sm btn-quiet",
                        hidden=True,
                        **attributes(aria_label="Remove the labels file"),
                    ),
                ],
                className="labels-file",
            ),
            html.Small(
                "Optional: a table (CSV, TSV, JSON, JSON lines, Parquet) with one row per image.", className="quiet"
            ),
        ],
        className="control",
        role="group",
        **attributes(aria_labelledby=add_id(f"{name}_title")),
    )  # fmt: skip
