"""The large view of one map: the map, what it was computed with, its curves, and its downloads.

[data-opens] in the grid --(browser)--> opened --> dialog, filled
view, strength, wipe --(browser)--> data-display of the stage --(painter)--> canvas
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import dash_bootstrap_components as dbc
from dash import Dash, Input, Output, State, dcc, html
from dash.exceptions import PreventUpdate

from dashboard.api.answers import map_record
from dashboard.components.callbacks import in_browser
from dashboard.components.elements import Component, attributes, icon
from dashboard.components.formatting import activation, duration, probability
from dashboard.components.line_art import line_art
from dashboard.pages.map_display import CHOICES, canvas, legend_part
from dashboard.state.context import Record, current
from dashboard.state.ids import make_id
from db.ledger.engine import LedgerError
from db.queries.jobs import saliency_map
from db.queries.patches import pictured
from workers.attribution.registry import METHODS

STAGE = make_id("large", "stage")
OPENED = make_id("large", "opened")
WORDS = json.dumps({"own": "its own scale", "shared": "shared scale"})
_CURVE = (200.0, 110.0)


def layout() -> Component:
    """The closed dialog, and the store that hears which map is to be opened."""
    return html.Div(
        [
            dcc.Store(id=OPENED),
            dbc.Modal(
                [],
                id=make_id("large", "dialog"),
                is_open=False,
                fade=False,
                scrollable=True,
                dialogClassName="large-map",
                labelledby=make_id("large", "title"),
            ),
        ]
    )


def register(app: Dash, *, display: str, steps: str) -> None:
    """Register the dialog's callbacks.

    Args:
        display: id of the element whose `data-display` says how the page shows its maps.
        steps: id of a store with the number of steps of the curves.
    """
    app.callback(
        Output(make_id("large", "dialog"), "children"),
        Output(make_id("large", "dialog"), "is_open"),
        Input(OPENED, "data"),
        State(steps, "data"),
        State(display, "data-display"),
        prevent_initial_call=True,
    )(_open)
    app.callback(
        Output(make_id("large", "dialog"), "is_open", allow_duplicate=True),
        Input(make_id("large", "close"), "n_clicks"),
        prevent_initial_call=True,
    )(_close)
    in_browser(
        app,
        "showLarge",
        Output(STAGE, "data-display"),
        Input(make_id("large", "view"), "value"),
        Input(make_id("large", "strength"), "value"),
        Input(make_id("large", "wipe"), "value"),
        State(STAGE, "data-map"),
        State(display, "data-display"),
    )


def _close(clicks: int | None) -> bool:
    if not clicks:
        raise PreventUpdate
    return False


def _open(opened: Record | None, steps: int | None, display: str | None) -> tuple[list[Component], bool]:
    if not opened or steps is None or not display:
        raise PreventUpdate
    context = current()
    number = int(opened["value"])
    try:
        found = saliency_map(context.ledger, number, steps=steps)
    except LedgerError as error:
        return [html.P(f"{error}.", className="problem", role="alert")], True
    if found is None:
        return [html.P(f"There is no map {number}.", className="problem", role="alert")], True
    rows = context.atlas.fetch(pictured(found["image_set"], [found["image_id"]]))
    return content(map_record(found), label=rows[0]["label"] if rows else None, display=display), True


def content(found: Mapping[str, Any], *, label: str | None, display: str) -> list[Component]:
    """The dialog of a map (a record of `map_record`); `display` is that of the page, as JSON."""
    view = json.loads(display)
    head = html.Div(
        [
            html.Div(
                [
                    html.H2(
                        [
                            label or "No label",
                            html.Span(f" image {found['image_id']}", className="quiet"),
                        ],
                        id=make_id("large", "title"),
                    ),
                    html.P(f"map {found['map']} · {found['model']}", className="quiet"),
                ]
            ),
            html.Button(
                icon("x-lg"),
                id=make_id("large", "close"),
                type="button",
                className="btn btn-quiet close-large",
                **attributes(aria_label="Close"),
            ),
        ],
        className="large-head",
    )
    left = html.Div(
        [
            html.Div(
                [
                    html.Div(canvas(found, f"Map {found['map']}"), className="large-stage"),
                    legend_part("bar", html.Canvas, className="colour-bar wide"),
                    html.Div(
                        [
                            legend_part("low"),
                            legend_part("words", **attributes(data_words=WORDS)),
                            legend_part("high"),
                        ],
                        className="ends num",
                    ),
                    legend_part("note", html.P, className="quiet"),
                ],
                id=STAGE,
                **attributes(data_map=found["npy"]),
            ),
            dbc.RadioItems(
                id=make_id("large", "view"),
                options=[{"value": name, "label": text} for name, text in CHOICES["view"].items()],
                value=view["view"],
                className="segments btn-group",
                inputClassName="btn-check",
                labelClassName="segment",
                labelCheckedClassName="on",
            ),
            _range("strength", "Strength", view["strength"]),
            _range("wipe", "Original | map", view["wipe"]),
        ],
        className="large-left",
    )
    right = html.Div([_facts(found), _curves(found), _tools(found)], className="large-right")
    return [head, html.Div([left, right], className="large-body")]


def _range(name: str, label: str, value: float) -> Component:
    control = make_id("large", name)
    return html.Div(
        [
            html.Label(label, htmlFor=control),
            dbc.Input(id=control, type="range", className="form-range", min=0, max=1, step=0.01, value=value),
        ],
        className="slide",
    )


def _facts(found: Mapping[str, Any]) -> Component:
    """What the map was computed with."""
    parameters = found["parameters"]
    drawn = None
    if found["seed"] is not None:
        drawn = f"{found['samples']} drawn of {parameters.get('samples') or found['samples']}"

    def classed(which: str) -> str:
        name = found[f"{which}_name"] or ""
        return f"{name} ({found[f'{which}_class']}), {probability(found[f'{which}_probability'])}"

    facts: dict[str, Any] = {
        "method": METHODS[found["method"]].title,
        "model": found["model"],
        "class explained": classed("target"),
        "prediction": classed("predicted"),
        **{name: value for name, value in parameters.items() if name not in ("dtype", "agreement")},
        "samples": drawn,
        "precision": found["dtype"],
        "agreement of halves": None if found["agreement"] is None else f"{found['agreement']:.3f}",
        "mean standard error": None
        if found["standard_error"] is None
        else activation(found["standard_error"]),
        "values": f"{activation(found['lowest'])} to {activation(found['highest'])}",
        "computed": f"in {duration(found['seconds'])} on {found['device']}",
        "agreement": f"stop at {parameters['agreement']:g}" if parameters.get("agreement") else None,
    }
    return html.Dl(
        [
            html.Div([html.Dt(name.replace("_", " ")), html.Dd(str(value))])
            for name, value in facts.items()
            if value is not None
        ],
        className="job-parameters",
    )


def _curves(found: Mapping[str, Any]) -> Component:
    if not found["deletion"]:
        return None
    return html.Div(
        [
            html.P(f"Deletion and insertion in {found['steps']} steps", className="quiet"),
            curve("Deletion", found["deletion"], found["deletion_auc"]),
            curve("Insertion", found["insertion"], found["insertion_auc"]),
        ],
        className="curves",
    )


def curve(title: str, values: Sequence[float], area: float) -> Component:
    """Probability (0 to 1) against the share of pixels (0 to 1), with the area under it."""
    width, height = _CURVE
    across = [at / (len(values) - 1) for at in range(len(values))]
    corners = ", ".join(f"{100 * x:.2f}% {100 * (1 - y):.2f}%" for x, y in zip(across, values, strict=True))
    points = [(x * width, (1 - y) * height) for x, y in zip(across, values, strict=True)]
    return html.Figure(
        [
            html.Div(
                [
                    html.Div(className="area", style={"clipPath": f"polygon(0% 100%, {corners}, 100% 100%)"}),
                    line_art([points], size=_CURVE, className="line", width=2, stretch=True),
                ],
                className="plot",
                role="img",
                **attributes(aria_label=f"{title}: area {area:.3f}"),
            ),
            html.Figcaption([html.Span(title), html.Span(f"area {area:.3f}", className="num")]),
        ],
        className="curve",
    )


def _tools(found: Mapping[str, Any]) -> Component:
    def link(href: str, text: str, **options: Any) -> Component:
        return html.A(
            [icon("download"), text],
            href=href,
            className="btn btn-sm btn-quiet",
            download=options.pop("download", ""),
            **options,
        )

    error = found["standard_error_npy"]
    return html.Div(
        [
            link(found["png"], "PNG", download=f"map-{found['map']}.png", **attributes(data_png=f"#{STAGE}")),
            link(found["npy"], "NPY"),
            link(error, "Standard error, NPY") if error else None,
            html.A(
                [icon("braces"), "JSON"],
                href=found["url"],
                target="_blank",
                className="btn btn-sm btn-quiet",
            ),
        ],
        className="tools",
    )
