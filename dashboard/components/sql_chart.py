"""A SQL result as a chart: which columns it shows, its controls, and its Plotly figure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dash_bootstrap_components as dbc
import plotly.graph_objects as go

from dashboard.components.elements import Component, labelled
from dashboard.components.sql_table import as_text
from dashboard.state.ids import dom_id
from dashboard.state.sql_statements import Answer

KINDS = {"bar": "Bars", "line": "Line", "scatter": "Points", "histogram": "Histogram"}
# Wong, "Points of view: Color blindness", Nature Methods 8, 2011, and more for the later groups
PALETTE = (
    "#0f9d8f", "#d55e00", "#0072b2", "#cc79a7", "#e69f00", "#56b4e9", "#009e73", "#999999", "#b59f00", "#7b5ea7",
    "#8c564b", "#7d8792",
)  # fmt: skip
INK = "#7d8792"  # readable on light and dark
MAX_POINTS_AS_SVG = 4000
OTHERS = "all others"


@dataclass(frozen=True)
class Chart:
    """What a chart shows: its kind, and the names of the columns for its axes and colors (empty: none)."""

    kind: str
    x: str
    y: str
    colour: str


def can_draw(answer: Answer) -> bool:
    """Whether a chart of a result is possible."""
    return bool(answer.rows) and bool(answer.numbers)


def chart_of(answer: Answer, given: Mapping[str, str]) -> Chart:
    """The chart in an address, with the first suitable columns for what the address leaves open."""
    named = {name: given.get(name, "") for name in ("x", "y", "colour")}
    named = {name: value if value in answer.names else "" for name, value in named.items()}
    x = named["x"] or answer.names[0]
    y = named["y"] or next((name for name in answer.numbers if name != x), answer.numbers[0])
    kind = given.get("kind", "")
    if kind not in KINDS:
        kind = "scatter" if x in answer.numbers else "bar"
    return Chart(kind, x, y, named["colour"])


def axes(answer: Answer, chart: Chart) -> list[Component]:
    """The controls of a chart. Their ids contain what they show, so showing a value is no choice of the user."""

    def control(name: str, label: str, options: list[tuple[str, str]]) -> Component:
        shown = getattr(chart, name)
        key = {"type": "sql_axis", "name": name, "shown": shown}
        listed = [{"value": value, "label": text} for value, text in options]
        return labelled(
            label, dbc.Select(id=key, options=listed, value=shown, size="sm"), control_id=dom_id(key)
        )

    names = [(name, name) for name in answer.names]
    numbers = [(name, name) for name in answer.numbers]
    histogram = chart.kind == "histogram"
    return [
        control("kind", "Kind", list(KINDS.items())),
        control("x", "x", numbers if histogram else names),
        *([] if histogram else [control("y", "y", numbers)]),
        control("colour", "Color", [("", "none"), *names]),
    ]


def figure(answer: Answer, chart: Chart) -> Any:
    """The chart as a Plotly figure."""
    place = {name: at for at, name in reversed(list(enumerate(answer.names)))}
    x, y, colour = place[chart.x], place[chart.y], place.get(chart.colour)
    found = go.Figure()
    groups = _groups(answer, colour)
    for number, (name, rows) in enumerate(groups.items()):
        shown: dict[str, Any] = {"x": [_drawable(row[x]) for row in rows], "name": name}
        if chart.kind != "histogram":
            shown["y"] = [_drawable(row[y]) for row in rows]
        paint = PALETTE[number]
        if chart.kind == "histogram":
            found.add_histogram(**shown, marker_color=paint, opacity=0.6 if len(groups) > 1 else 1)
        elif chart.kind == "bar":
            found.add_bar(**shown, marker_color=paint)
        else:
            draw = found.add_scattergl if len(rows) > MAX_POINTS_AS_SVG else found.add_scatter
            points = chart.kind == "scatter"
            draw(
                **shown,
                mode="markers" if points else "lines+markers",
                marker={"color": paint, "size": 7, "opacity": 0.75 if points else 1},
                line={"color": paint, "width": 2},
            )
    line = "rgba(125, 135, 146, .35)"
    axis = {
        "gridcolor": "rgba(125, 135, 146, .2)",
        "zerolinecolor": line,
        "linecolor": line,
        "automargin": True,
    }
    found.update_layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "inherit", "size": 12, "color": INK},
        margin={"l": 56, "r": 16, "t": 12, "b": 44},
        barmode="overlay" if chart.kind == "histogram" else "group",
        showlegend=colour is not None,
        legend={"orientation": "h", "y": 1.08, "x": 0},
        hovermode="closest",
    )
    found.update_xaxes(axis, title={"text": chart.x, "standoff": 8})
    found.update_yaxes(axis, title={"text": "rows" if chart.kind == "histogram" else chart.y, "standoff": 8})
    return found


def _groups(answer: Answer, colour: int | None) -> dict[str, list[tuple[Any, ...]]]:
    """The rows by the value of their color's column; the values after the first eleven are one group."""
    groups: dict[str, list[tuple[Any, ...]]] = {}
    for row in answer.rows:
        name = "" if colour is None else as_text(row[colour]) or "null"
        if name not in groups and len(groups) >= len(PALETTE) - 1:
            name = OTHERS
        groups.setdefault(name, []).append(row)
    return groups


def _drawable(value: Any) -> Any:
    return as_text(value) if isinstance(value, list | dict) else value
