"""The grid of maps: a row per image, a cell per model, each with its map, or with why there is none yet."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dash import html

from dashboard.components.elements import Component, attributes, icon
from dashboard.components.formatting import probability
from dashboard.pages.map_display import canvas
from dashboard.state.context import Record

# What rows and columns can be ordered by: the lower, the earlier.
SCORES: dict[str, Any] = {
    "deletion": lambda found: found["deletion_auc"],
    "insertion": lambda found: None if found["insertion_auc"] is None else -found["insertion_auc"],
    "agreement": lambda found: None if found["agreement"] is None else -found["agreement"],
    "confidence": lambda found: -found["predicted_probability"],
}


def mean_score(maps: Iterable[Record], order: str) -> float:
    """Mean of the maps' scores; infinity if none has one."""
    values = [value for found in maps if (value := SCORES[order](found)) is not None]
    return sum(values) / len(values) if values else math.inf


def in_order(
    rows: Sequence[Record], models: Sequence[str], maps: Sequence[Record], order: str, model_order: str
) -> tuple[list[Record], list[str]]:
    """Rows and models ordered by their maps' mean scores; equal ones stay in the order of the request."""
    if order in SCORES:
        rows = sorted(
            rows, key=lambda row: mean_score((one for one in maps if one["image_id"] == row["id"]), order)
        )
    if model_order in SCORES:
        models = sorted(
            models, key=lambda model: mean_score((one for one in maps if one["model"] == model), model_order)
        )
    return list(rows), list(models)


def grid(
    rows: Sequence[Record],
    models: Sequence[str],
    maps: Sequence[Record],
    *,
    opens: str,
    failed: Mapping[tuple[int, str], str],
    state: str,
) -> Component:
    """The grid.

    Args:
        rows: the images in their order, as from `request.state.rows`.
        models: the columns in their order.
        maps: those computed so far, as from `map_record`.
        opens: id of the store that hears which map is to be opened.
        failed: errors by image and model.
        state: of the job that computes the others; empty if there is none.
    """  # fmt: skip
    found = {(one["image_id"], one["model"]): one for one in maps}
    missing = [
        (row["id"], model)
        for row in rows
        for model in models
        if (row["id"], model) not in found and (row["id"], model) not in failed
    ]
    head: list[Component] = []
    if len(models) > 1:
        names = [html.B(model, **attributes(data_model=model)) for model in models]
        head = [html.Div([html.Span(), *names], className="map-heads", **attributes(aria_hidden="true"))]
    lines = []
    for row in rows:
        cells = []
        for model in models:
            place = (row["id"], model)
            if place in found:
                cells.append(_map(found[place], row, opens))
            elif place in failed:
                cells.append(_blank(row, model, "failed", failed[place]))
            elif state == "running" and place == missing[0]:
                cells.append(_blank(row, model, "computing", "computing…"))
            elif state:
                cells.append(_blank(row, model, "waiting", "waiting"))
            else:
                cells.append(_blank(row, model, "idle", ""))
        lines.append(_row(row, cells))
    return html.Div(
        [*head, *lines],
        className="maps single" if len(models) == 1 else "maps",
        style={"--columns": len(models)},
    )


def _row(row: Record, cells: list[Component]) -> Component:
    image = html.A(
        [
            html.Img(src=row["thumbnail"], alt=""),
            html.Span(row["label"] or "no label", className="name"),
            html.Span(f"image {row['id']}", className="num quiet"),
        ],
        href=row["href"],
        className="map-image",
    )
    # by its id, React keeps the row's canvases when the order changes
    return html.Section(
        [image, *cells],
        id={"row": row["id"]},
        className="map-row",
        **attributes(data_image=str(row["id"]), aria_label=f"image {row['id']}"),
    )


def _blank(row: Record, model: str, state: str, words: str) -> Component:
    return html.Div(
        html.Div(html.Span(words), className="map-blank"),
        id={"row": row["id"], "model": model},
        className=f"map-cell {state}",
        **attributes(data_model=model),
    )


def _map(found: Record, row: Record, opens: str) -> Component:
    words = (
        f"{found['model']}, image {found['image_id']}: "
        f"{found['target_name'] or 'class ' + str(found['target_class'])}"
    )
    button = html.Button(
        canvas(found, f"Map of {words}", column=found["model"]),
        type="button",
        className="map-open",
        **attributes(aria_label=f"Open the map of {words}", data_opens=opens, data_value=str(found["map"])),
    )
    return html.Div(
        html.Figure([button, html.Figcaption(caption(found, row))], id={"map": found["map"]}),
        id={"row": row["id"], "model": found["model"]},
        className="map-cell map",
        **attributes(data_model=found["model"]),
    )


def caption(found: Record, row: Record) -> list[Component]:
    """Lines below a map: the prediction and whether it is correct, the target class, the layer, the scores."""
    label = row["classes"].get(found["model"])
    lines = [
        _line(
            _name(found["predicted_name"] or f"class {found['predicted_class']}", found["predicted_name"]),
            None if label is None else _verdict(found["predicted_class"] == label, row["label"]),
            html.Span(probability(found["predicted_probability"]), className="num quiet"),
        )
    ]
    if found["target_class"] != found["predicted_class"]:
        name = found["target_name"] or str(found["target_class"])
        share = html.Span(probability(found["target_probability"]), className="num quiet")
        lines.append(_line(_name(f"for {name}", found["target_name"], "name quiet"), share))
    layer = found["parameters"].get("layer")
    if layer:
        lines.append(_line(_name(f"at {layer}", layer, "name quiet")))
    if found["lowest"] == 0 == found["highest"]:
        lines.append(
            _line(
                "The map is zero everywhere."
                if layer is None
                else "Zero everywhere: nothing in this layer supports the class."
            )
        )
    if found["deletion_auc"] is not None:
        steps = f"Areas under the curves of {found['steps']} steps"
        lines.append(
            html.Div(
                [
                    html.Span(f"del {found['deletion_auc']:.3f}"),
                    html.Span(f"ins {found['insertion_auc']:.3f}"),
                ],
                className="map-line num quiet",
                title=f"{steps}: deletion (lower is better), insertion (higher is better)",
            )
        )
    return lines


def _line(*parts: Component) -> Component:
    return html.Div(list(parts), className="map-line")


def _name(text: str, title: str | None, classes: str = "name") -> Component:
    return html.Span(text, className=classes, title=title or None)


def _verdict(correct: bool, label: str) -> Component:
    word = "correct" if correct else "wrong"
    return html.Span(
        icon("check-lg" if correct else "x-lg"),
        className=f"verdict-mark {'right' if correct else 'wrong'}",
        title=f"{word}: the label is {label}",
    )
