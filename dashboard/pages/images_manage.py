"""The dialog "Manage image set": describes, indexes, renames and deletes the set that the Images page shows.

Callbacks::

    Manage --(browser)--> open_dialog --> what depends on the set, forms
    Save --> save_description --> answer, description on the page
    Index with a model --> index --> dialog "Add images"
    Rename, Delete --> rename, delete --> answer, address
"""

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import dash_bootstrap_components as dbc
from dash import Dash, Input, Output, State, dcc, html, no_update
from dash.exceptions import PreventUpdate

from dashboard.api.image_sets import STATUS, description_text
from dashboard.components.callbacks import in_browser
from dashboard.components.elements import Component, labelled
from dashboard.components.formatting import count
from dashboard.pages.images_add import INDEX_SET
from dashboard.state.address import ImagesAddress
from dashboard.state.context import Record, current
from dashboard.state.ids import LOCATION, make_id
from dashboard.state.selections import resolve
from db.ledger.engine import LedgerError
from db.queries.set_changes import (
    MAX_DESCRIPTION,
    dependents_of,
    describe_set,
    descriptions,
    remove_image_set,
    rename_set,
)
from workers.requests.parameters import InvalidRequest

ERRORS: tuple[type[Exception], ...] = (*STATUS, InvalidRequest, LedgerError)


def _id(name: str) -> str:
    return make_id("manage", name)


def dialog() -> Component:
    """The dialog, closed."""
    description = dbc.Textarea(
        id=_id("description"), size="sm", rows=3, maxlength=MAX_DESCRIPTION, submit_on_enter=False
    )
    name = dbc.Input(id=_id("name"), size="sm", maxlength=100, autocomplete="off")
    confirmation = dbc.Input(id=_id("confirm"), size="sm", autocomplete="off")
    return dbc.Modal(
        [
            dbc.ModalHeader(html.H2("Manage image set", id=_id("title"))),
            dbc.ModalBody(
                [
                    html.P(id=_id("what"), className="manage-what"),
                    html.Div(
                        [
                            _section(
                                "describe",
                                "Description",
                                "Save",
                                labelled("What these images are", description, control_id=_id("description")),
                            ),
                            _section(
                                "index",
                                "Index",
                                "Index with a model …",
                                html.P(id=_id("indexed"), className="quiet"),
                            ),
                            _section(
                                "rename",
                                "Rename",
                                "Rename",
                                labelled("New name", name, control_id=_id("name")),
                                html.P(id=_id("renamed"), className="quiet"),
                            ),
                            _section(
                                "delete",
                                "Delete",
                                "Delete permanently",
                                html.P(id=_id("deleted")),
                                html.Div(
                                    [
                                        html.Label(id=_id("confirmed"), htmlFor=_id("confirm")),
                                        confirmation,
                                    ],
                                    className="control",
                                ),
                                danger=True,
                            ),
                        ],
                        id=_id("sections"),
                        className="set-body",
                        hidden=True,
                    ),
                    *[dcc.Store(id=_id(name)) for name in ("opened", "set", "focus")],
                ],
                class_name="set-body",
            ),
        ],
        id=_id("dialog"),
        labelledby=_id("title"),
        class_name="set-dialog",
        backdrop="static",
        fade=False,
        scrollable=True,
    )


def _section(name: str, title: str, words: str, *content: Component, danger: bool = False) -> Component:
    """A form with its title, its answer and its button."""
    button = html.Button(
        words,
        id=_id(f"{name}_button"),
        type="submit",
        className=f"btn btn-sm {'btn-danger' if danger else 'btn-outline-secondary'}",
    )
    return dbc.Form(
        [
            html.H3(title),
            *content,
            html.P(id=_id(f"{name}_said"), className="problem", role="alert"),
            html.Div(button, className="set-actions"),
        ],
        id=_id(name),
        prevent_default_on_submit=True,
        class_name=f"set-section{' danger' if danger else ''}",
    )


def register(app: Dash) -> None:
    """Register the dialog's callbacks."""
    opener = Input(make_id("images", "manage"), "n_clicks")
    in_browser(app, "pressed", Output(_id("opened"), "data"), opener, prevent_initial_call=True)
    app.callback(
        {
            "is_open": Output(_id("dialog"), "is_open"),
            "hidden": Output(_id("sections"), "hidden"),
            "image_set": Output(_id("set"), "data"),
            **{
                name: Output(_id(name), part)
                for name, part in (
                    ("what", "children"),
                    ("description", "value"),
                    ("indexed", "children"),
                    ("name", "value"),
                    ("renamed", "children"),
                    ("deleted", "children"),
                    ("confirmed", "children"),
                    ("confirm", "value"),
                )
            },
            "said": [
                Output(_id(f"{name}_said"), "children") for name in ("describe", "index", "rename", "delete")
            ],
        },
        Input(_id("opened"), "data"),
        State(LOCATION, "search"),
        prevent_initial_call=True,
    )(open_dialog)
    _on_submit(
        app,
        "describe",
        save_description,
        [Output(make_id("images", "description"), "children")],
        State(_id("description"), "value"),
    )
    _on_submit(
        app,
        "index",
        index,
        [
            Output(INDEX_SET, "data"),
            Output(_id("dialog"), "is_open", allow_duplicate=True),
        ],
    )
    moves = [
        Output(_id("dialog"), "is_open", allow_duplicate=True),
        Output(LOCATION, "search", allow_duplicate=True),
    ]
    _on_submit(app, "rename", rename, moves, State(_id("name"), "value"), State(LOCATION, "search"))
    _on_submit(
        app,
        "delete",
        delete,
        [*moves, Output(_id("focus"), "data")],
        State(_id("confirm"), "value"),
        State(LOCATION, "search"),
    )
    in_browser(app, "focusOn", Input(_id("focus"), "data"), prevent_initial_call=True)


def _on_submit(app: Dash, name: str, act: Callable[..., Any], outputs: list[Output], *states: State) -> None:
    """Call `act` with the set and `states` when a section's form is submitted; an error appears in the section."""

    def submit(submitted: int | None, image_set: str, *values: Any) -> tuple[Any, ...]:
        if not submitted:
            raise PreventUpdate
        try:
            answer, *others = act(image_set, *values)
        except ERRORS as error:
            return (" ".join(str(error).split()), "problem", *[no_update] * len(outputs))
        return (answer, "quiet" if name == "describe" else "problem", *others)

    app.callback(
        Output(_id(f"{name}_said"), "children", allow_duplicate=True),
        Output(_id(f"{name}_said"), "className"),
        *outputs,
        Input(_id(name), "n_submit"),
        State(_id("set"), "data"),
        *states,
        prevent_initial_call=True,
        running=[(Output(_id(f"{name}_button"), "disabled"), True, False)],
    )(submit)


def open_dialog(_opened: float, search: str | None) -> dict[str, Any]:
    """Open the dialog for the set in the address."""
    context = current()
    catalogue = context.catalogue()
    _, address = resolve(catalogue, ImagesAddress.read(search)[0])
    image_set = address.images
    try:
        if all(row["image_set"] != image_set for row in catalogue.image_sets):
            missing = f"There is no image set “{image_set}”."
            raise InvalidRequest(missing if image_set else "There is no image set yet: add images first.")
        found = asdict(dependents_of(context.atlas, context.ledger, image_set))
        description = descriptions(context.ledger).get(image_set, "")
    except ERRORS as error:
        return _filled("", str(error))
    return _filled(image_set, [html.B(image_set), f": {depending(found)}."], found, description)


def _filled(image_set: str, what: Any, found: Record | None = None, description: str = "") -> dict[str, Any]:
    found = found or {}
    runs, saved = found.get("runs", []), saved_queries(found)
    return {
        "is_open": True,
        "hidden": not image_set,
        "image_set": image_set,
        "what": what,
        "description": description,
        "indexed": f"Indexed with {', '.join(runs)}." if runs else "Not indexed yet.",
        "name": image_set,
        "renamed": f"The name changes in the atlas and in all results. Links using the old name will stop "
        f"working. {saved}",
        "deleted": f"This also deletes {depending(found)}. Files of a folder that was read in place are "
        f"kept. {saved}",
        "confirmed": f"Type {image_set} to confirm",
        "confirm": "",
        "said": [""] * 4,
    }


def depending(found: Record) -> str:
    """`12 images, 1 run (convnext-demo), 60 patches`: what depends on a set."""
    if not found:
        return ""
    runs = found["runs"]
    parts = [
        (found["images"], count(found["images"], "image")),
        (len(runs), f"{count(len(runs), 'run')} ({', '.join(runs)})"),
        (found["patches"], count(found["patches"], "patch")),
        (found["maps"], count(found["maps"], "saliency map")),
        (found["attacks"], count(found["attacks"], "attack")),
        (found["jobs"], count(found["jobs"], "job")),
    ]
    return ", ".join(words for number, words in parts if number)


def saved_queries(found: Record) -> str:
    """A sentence about saved queries that name the set; empty if there are none."""
    names = found.get("queries", [])
    if not names:
        return ""
    if len(names) == 1:
        return f"1 saved query names the set ({names[0]}) and is not changed."
    return f"{len(names):,} saved queries name the set ({', '.join(names)}) and are not changed."


def save_description(image_set: str, text: str | None) -> tuple[Any, ...]:
    """Store the description; returns the answer and the text for the page."""
    context = current()
    description = description_text(text or "")
    describe_set(context.atlas, context.ledger, image_set, description)
    return "Saved.", description


def index(image_set: str) -> tuple[Any, ...]:
    """Close the dialog, and let the dialog "Add images" offer the models."""
    return "", {"set": image_set, "at": time.time()}, False


def rename(image_set: str, name: str | None, search: str | None) -> tuple[Any, ...]:
    """Rename the set and go to its new address."""
    name = (name or "").strip()
    if name == image_set:
        raise InvalidRequest(f"The name is already {name}.")
    context = current()
    rename_set(context.atlas, context.store, context.ledger, image_set, name)
    return "", False, ImagesAddress.read(search)[0].search_part(images=name)


def delete(image_set: str, typed: str | None, search: str | None) -> tuple[Any, ...]:
    """Delete the set, if its name was typed."""
    if typed != image_set:
        focus = {"id": _id("confirm"), "at": time.time()}
        return f"Expected {image_set}, got “{typed or ''}”.", no_update, no_update, focus
    context = current()
    remove_image_set(context.atlas, context.store, context.ledger, image_set)
    return "", False, ImagesAddress.read(search)[0].search_part(images="", model=""), no_update
