"""Figures of the Robustness page: records in, Plotly figures out."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from dashboard.context import Record
from dashboard.survival import band
from dashboard.words import percent

# Distinguishable without seeing red and green apart (Okabe and Ito), readable on light and dark.
COLOURS = ("#0f9d8f", "#d95f02", "#7570b3", "#cc79a7", "#b8860b", "#3b82c4")
INK = "#7d8792"
MOST_POINTS = 3000
# That many stand beside each other on a phone.
MOST_TICKS = 5
MOST_CLASSES = 20


def colours(models: Sequence[str]) -> dict[str, str]:
    """A colour for each model, in their order."""
    return {model: COLOURS[place % len(COLOURS)] for place, model in enumerate(models)}


def epsilon_words(epsilon: float) -> str:
    """An epsilon as decimal and in levels: `0.003 (0.77/255)`."""
    return f"{epsilon:.3g} ({epsilon * 255:.2f}/255)"


def curve_figure(rows: Sequence[Record], *, cap: float, step: float, axis: str) -> Any:
    """Share of images still right against epsilon, with a bootstrap band; a step at each epsilon that flips some."""
    figure = go.Figure()
    by_model = {model: list(found) for model, found in itertools.groupby(rows, lambda row: row["model"])}
    left = step / 2 if axis == "log" else 0.0
    for model, colour in colours(list(by_model)).items():
        found = by_model[model]
        flipped = np.array([row["flipped"] for row in found], np.int64)
        censored = np.array([row["censored"] for row in found], np.int64)
        low, high = band(flipped, censored)
        shares = [row["share"] for row in found]
        points = list(zip(shares, low.tolist(), high.tolist(), strict=True))
        # what flips at epsilon 0 has done so before the axis begins; the last share holds up to the cap
        at_zero = 1 if found[0]["epsilon"] == 0 else 0
        begin = points[0] if at_zero else (1.0, 1.0, 1.0)
        x = [left, *(row["epsilon"] for row in found[at_zero:]), cap]
        ends = [begin, *points[at_zero:], points[-1]]
        _band(figure, x, ends, colour, model)
        figure.add_scatter(
            x=x,
            y=[end[0] for end in ends],
            name=f"{model} ({int(flipped.sum() + censored.sum()):,} images)",
            line={"color": colour, "width": 2, "shape": "hv"},
            mode="lines+markers" if len(x) <= 60 else "lines",
            marker={"size": 5},
            legendgroup=model,
            customdata=[[model, epsilon] for epsilon in x],
            hovertemplate="%{y:.1%} still right after ε %{x:.3g}<extra>" + model + "</extra>",
        )
    figure.update_yaxes(range=[0, 1.02], tickformat=".0%", title="still right")
    return _dressed(figure, axis=axis, left=left, cap=cap)


def _band(figure: Any, x: Sequence[float], ends: Sequence[Any], colour: str, model: str) -> None:
    for place, fill in ((1, None), (2, "tonexty")):
        figure.add_scatter(
            x=x,
            y=[end[place] for end in ends],
            line={"width": 0, "shape": "hv"},
            mode="lines",
            fill=fill,
            fillcolor=_faded(colour),
            hoverinfo="skip",
            showlegend=False,
            legendgroup=model,
        )


def _faded(colour: str) -> str:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.16)"


def strip_figure(rows: Sequence[Record], *, cap: float, step: float, axis: str) -> Any:
    """The smallest epsilon of each image, a point each, with a lane for each model."""
    figure = go.Figure()
    random = np.random.default_rng(0)
    left = step / 2 if axis == "log" else 0.0
    by_model = {model: list(found) for model, found in itertools.groupby(rows, lambda row: row["model"])}
    for lane, (model, colour) in enumerate(colours(list(by_model)).items()):
        found = by_model[model]
        if len(found) > MOST_POINTS:
            chosen = random.choice(len(found), MOST_POINTS, replace=False)
            found = [found[place] for place in sorted(chosen)]
        figure.add_scatter(
            x=[max(left, row["smallest"]) for row in found],
            y=lane + random.uniform(-0.36, 0.36, len(found)),
            mode="markers",
            name=model,
            marker={
                "color": colour,
                "size": 7,
                "opacity": 0.6,
                "symbol": ["triangle-right-open" if row["censored"] else "circle" for row in found],
            },
            customdata=[[row["attack"]] for row in found],
            text=[_told(row) for row in found],
            hovertemplate="%{text}<extra>" + model + "</extra>",
        )
    figure.update_yaxes(
        tickvals=list(range(len(by_model))),
        ticktext=list(by_model),
        range=[-0.6, len(by_model) - 0.4],
        showgrid=False,
    )
    figure.update_layout(showlegend=False, height=110 + 90 * max(1, len(by_model)))
    return _dressed(figure, axis=axis, left=left, cap=cap)


def _told(row: Mapping[str, Any]) -> str:
    first = f"image {row['image_id']}: {row['label'] or 'no label'}"
    if row["censored"]:
        return f"{first}<br>resists to ε {epsilon_words(row['smallest'])}"
    return (
        f"{first}<br>{row['name_before']} → {row['name_after']}<br>ε {epsilon_words(row['smallest'])}<br>"
        "click to open it"
    )


def matrix_figure(rows: Sequence[Record]) -> Any:
    """From which class to which, for the classes that change most."""
    counts: dict[tuple[str, str], Record] = {(row["from_class"], row["to_class"]): row for row in rows}
    # the classes that draw most images, and those that go there: so that the cells are where the images are
    across = _most(rows, "to_class")
    down = _most([row for row in rows if row["to_class"] in across], "from_class")
    cells = [[counts.get((start, end)) for end in across] for start in down]
    figure = go.Figure(
        go.Heatmap(
            z=[[None if cell is None else cell["images"] for cell in line] for line in cells],
            x=across,
            y=down,
            colorscale=[[0, "rgba(15,157,143,0.18)"], [1, "rgba(15,157,143,1)"]],
            customdata=[[None if cell is None else cell["example"] for cell in line] for line in cells],
            hovertemplate="%{y} → %{x}: %{z} images<extra></extra>",
            xgap=1,
            ygap=1,
            zmin=0,
            colorbar={
                "thickness": 10,
                "tickformat": "d",
                "nticks": 5,
                "title": {"text": "images"},
                "outlinewidth": 0,
            },
        )
    )
    figure.update_xaxes(tickangle=-45, showgrid=False, title="class after the attack")
    figure.update_yaxes(autorange="reversed", showgrid=False, title="true class")
    figure.update_layout(height=max(260, 150 + 20 * len(down)))
    return _dressed(figure)


def _most(rows: Sequence[Record], side: str) -> list[str]:
    """The classes of most images on one side, those first."""
    totals: dict[str, int] = {}
    for row in rows:
        totals[row[side]] = totals.get(row[side], 0) + row["images"]
    return sorted(totals, key=lambda name: (-totals[name], name))[:MOST_CLASSES]


def _dressed(figure: Any, *, axis: str | None = None, left: float = 0.0, cap: float = 1.0) -> Any:
    figure.update_layout(
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": INK, "size": 12, "family": "system-ui, sans-serif"},
        margin={"l": 60, "r": 16, "t": 12, "b": 48},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hoverlabel={"font": {"size": 12}},
        uirevision="same",
    )
    grid = {"gridcolor": "rgba(125,135,146,0.22)", "zeroline": False, "automargin": True}
    figure.update_xaxes(**grid)
    figure.update_yaxes(**grid)
    if axis is None:
        return figure
    ticks = [
        n for n in (0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 127) if left * 255 * 0.999 <= n <= cap * 255 * 1.001
    ]
    if len(ticks) > MOST_TICKS:
        ticks = ticks[
            len(ticks) % 2 == 0 :: 2
        ]  # the last one stays; two at the left end would touch on a phone
    figure.update_xaxes(
        type=axis,
        tickangle=0,
        title="epsilon (n/255 in brackets)",
        range=[math.log10(left), math.log10(cap)] if axis == "log" else [0, cap],
        **(
            {"tickvals": [n / 255 for n in ticks], "ticktext": [f"{n / 255:.2g}<br>({n:g})" for n in ticks]}
            if axis == "log"
            else {}
        ),
    )
    return figure


def share_words(share: float | None) -> str:
    """A share in a table; a dash where it is not known."""
    if share is None:
        return "–"
    return "0 %" if share == 0 else percent(share)
