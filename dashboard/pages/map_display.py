"""How maps are displayed: options of the address, their controls, and the elements that the browser paints.

The painter (`browser/maps.js`) reads what to paint from the attributes that `display_area`, `canvas` and
`legend` set; any page may use them.
"""

import json
import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

import dash_bootstrap_components as dbc
from dash import html

from dashboard.components.elements import Component, attributes, labelled, select
from dashboard.pictures import heat
from dashboard.state.context import Record

DEFAULT_STRENGTH = 0.65
# Options and their defaults, which the address leaves out; in the order of the address.
DEFAULTS: dict[str, str | float] = {
    "view": "overlay",
    "strength": DEFAULT_STRENGTH,
    "wipe": 0.0,
    "colours": "auto",
    "scale": "own",
    "clip": heat.DEFAULT_CLIP,
}
ORDERS: dict[str, str] = {"order": "chosen", "model_order": "chosen"}
RANGES = {"strength": (0.0, 1.0), "wipe": (0.0, 1.0), "clip": (heat.LOWEST_CLIP, heat.HIGHEST_CLIP)}
CHOICES: dict[str, dict[str, str]] = {
    "view": {"overlay": "Over the image", "map": "Map alone", "error": "Standard error"},
    "colours": {
        "auto": "By kind of map",
        "inferno": "Inferno",
        "viridis": "Viridis",
        "magma": "Magma",
        "cividis": "Cividis",
        "grey": "Gray (magnitude)",
        "rdbu": "Red and blue (sign)",
    },
    "scale": {"own": "Each its own", "model": "Shared in a column", "all": "Shared by all"},
    "order": {
        "chosen": "As chosen",
        "deletion": "Deletion, best first",
        "insertion": "Insertion, best first",
        "agreement": "Agreement, best first",
        "confidence": "Confidence",
    },
    "model_order": {
        "chosen": "As chosen",
        "deletion": "Deletion, best first",
        "insertion": "Insertion, best first",
    },
}
SCALE_WORDS = {
    "own": "each map has its own scale, so their strengths cannot be compared",
    "model": "one scale per model",
    "all": "one scale for all maps",
    "shared": "shared scale",
}
AS_IN_REPORTS = {"view": "map", "colours": "grey", "clip": 99.0, "wipe": 0.0}


def read_display(search: str | None) -> Record:
    """The options of an address; what cannot be used is at its default, numbers are clamped to their range."""
    given = {name: values[-1] for name, values in parse_qs((search or "").lstrip("?")).items()}
    found: Record = {**DEFAULTS, **ORDERS}
    for name, text in given.items():
        if name in CHOICES and text in CHOICES[name]:
            found[name] = text
        elif name in RANGES:
            low, high = RANGES[name]
            try:
                value = float(text)
            except ValueError:
                continue
            if math.isfinite(value):
                found[name] = min(high, max(low, value))
    return found


def choice(control_id: str, name: str, label: str, *, box: str = "") -> Component:
    """A select for an option."""
    control = select(control_id, list(CHOICES[name].items()), str({**DEFAULTS, **ORDERS}[name]))
    made = labelled(label, control, control_id=control_id, className=f"{name}-control")
    if box:
        made.id = box
    return made


def slider(control_id: str, name: str, label: str, *, low: float, high: float, step: float) -> Component:
    """A range for a number, with its value beside it."""
    return html.Div(
        [
            html.Label(label, htmlFor=control_id),
            html.Div(
                [
                    dbc.Input(
                        id=control_id, type="range", className="form-range", min=low, max=high, step=step,
                        value=DEFAULTS[name],
                    ),
                    html.Span(id=f"{control_id}_value", className="num value"),
                ],
                className="slide",
            ),
        ],
        id=f"{control_id}_box",
        className=f"control {name}-control",
    )  # fmt: skip


def canvas(found: Mapping[str, Any], label: str, *, column: str = "") -> Component:
    """The place of a map (a record of `map_record`); `column` groups maps that may share a scale."""
    data = attributes(
        data_map=str(found["map"]),
        data_array=found["npy"],
        data_input=found["input_png"],
        data_column=column,
        aria_label=label,
    )
    if found["standard_error_npy"]:
        data |= attributes(data_error=found["standard_error_npy"])
    else:
        data |= attributes(data_unknown="This method takes no samples, so there is no standard error.")
    if found["signed"]:
        data |= attributes(data_signed="")
    return html.Canvas(width=found["width"], height=found["height"], role="img", **data)


def legend_words(unit: str, dtypes: str) -> str:
    """JSON of the words of a legend, for the painter."""
    units = {"overlay": unit, "map": unit, "error": "standard error of the map"}
    return json.dumps({**units, **SCALE_WORDS, "rest": dtypes})


def legend_part(name: str, tag: Any = html.Span, **options: Any) -> Component:
    """A part of a legend that the painter fills."""
    return tag(hidden=True, **attributes(data_legend=name), **options)
