"""Figures of the Robustness page: records in, Plotly figures out."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from dashboard.components.formatting import count, epsilon_words, percent
from dashboard.components.survival import band
from dashboard.state.context import Record

# A color-blind-safe palette (Okabe and Ito), readable on light and dark.
COLOURS = ("#0f9d8f", "#d95f02", "#7570b3", "#cc79a7", "#b8860b", "#3b82c4")
INK = "#7d8792"
MAX_POINTS = 3000
# The number of ticks that fit side by side on a phone.
MAX_TICKS = 5
MAX_CLASSES = 20


def colours(models: Sequence[str]) -> dict[str, str]:
    """A color for each model, in order."""
    return {model: COLOURS[place % len(COLOURS)] for place, model in enumerate(models)}


def curve_figure(rows: Sequence[Record], *, cap: float, step: float, axis: str) -> Any:
    """Robust accuracy, or the share of predictions kept, against epsilon, with a bootstrap band.

    The curve steps at each epsilon that changes some images; a logarithmic axis shows epsilon 0 at its left
    end.
    """
    figure = go.Figure()
    by_model = {model: list(found) for model, found in itertools.groupby(rows, lambda row: row["model"])}
    left = step / 2 if axis == "log" else 0.0
    for model, colour in colours(list(by_model)).items():
        found = by_model[model]
        flipped = np.array([row["flipped"] for row in found], np.int64)
        censored = np.array([row["censored"] for row in found], np.int64)
        low, high = band(flipped, censored)
        points = list(zip([row["share"] for row in found], low.tolist(), high.tolist(), strict=True))
        # the last share is valid up to the cap
        epsilons = [row["epsilon"] for row in found]
        if epsilons[-1] < cap:
            epsilons.append(cap)
            points.append(points[-1])
        x = [max(left, epsilon) for epsilon in epsilons]
        _band(figure, x, points, colour, model)
        figure.add_scatter(
            x=x,
            y=[point[0] for point in points],
            name=f"{model} ({count(int(flipped.sum() + censored.sum()), 'image')})",
            line={"color": colour, "width": 2, "shape": "hv"},
            mode="lines+markers" if len(x) <= 60 else "lines",
            marker={"size": 5},
            cliponaxis=False,
            legendgroup=model,
            customdata=[[model, epsilon] for epsilon in epsilons],
            text=[
                ("clean accuracy" if row_measure(rows) == "robust accuracy" else "before any attack")
                if epsilon == 0
                else f"{row_measure(rows)} up to ε {epsilon_words(epsilon)}"
                for epsilon in epsilons
            ],
            hovertemplate="%{y:.1%} %{text}<extra>" + model + "</extra>",
        )
    figure.update_yaxes(range=[0, 1.02], tickformat=".0%", title=row_measure(rows))
    return _dressed(figure, axis=axis, left=left, cap=cap, zero=True)


def row_measure(rows: Sequence[Record]) -> str:
    """What the shares of one protocol measure: robust accuracy, or predictions kept."""
    return str(rows[0]["measure"])


def fixed_figure(rows: Sequence[Record]) -> Any:
    """The shares before the attack and at its single epsilon, with bootstrap intervals; no line connects them."""
    figure = go.Figure()
    by_model = {model: list(found) for model, found in itertools.groupby(rows, lambda row: row["model"])}
    epsilons = sorted({row["epsilon"] for row in rows})
    names = [
        ("clean" if row_measure(rows) == "robust accuracy" else "before")
        if epsilon == 0
        else f"ε {epsilon_words(epsilon)}"
        for epsilon in epsilons
    ]
    for model, colour in colours(list(by_model)).items():
        found = by_model[model]
        flipped = np.array([row["flipped"] for row in found], np.int64)
        censored = np.array([row["censored"] for row in found], np.int64)
        low, high = band(flipped, censored)
        shares = np.array([row["share"] for row in found])
        figure.add_bar(
            x=[names[epsilons.index(row["epsilon"])] for row in found],
            y=shares.tolist(),
            error_y={
                "array": (high - shares).tolist(),
                "arrayminus": (shares - low).tolist(),
                "thickness": 1.5,
                "color": INK,
            },
            name=f"{model} ({count(int(flipped.sum() + censored.sum()), 'image')})",
            marker={"color": colour},
            customdata=[[model, row["epsilon"]] for row in found],
            hovertemplate="%{y:.1%} %{x}<extra>" + model + "</extra>",
        )
    figure.update_layout(barmode="group", bargap=0.5)
    figure.update_xaxes(type="category", categoryorder="array", categoryarray=names)
    figure.update_yaxes(range=[0, 1.02], tickformat=".0%", title=row_measure(rows))
    return _dressed(figure)


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
    """The smallest successful epsilon of each image as a point, with one lane per model."""
    figure = go.Figure()
    random = np.random.default_rng(0)
    left = step / 2 if axis == "log" else 0.0
    by_model = {model: list(found) for model, found in itertools.groupby(rows, lambda row: row["model"])}
    for lane, (model, colour) in enumerate(colours(list(by_model)).items()):
        found = by_model[model]
        if len(found) > MAX_POINTS:
            chosen = random.choice(len(found), MAX_POINTS, replace=False)
            found = [found[place] for place in sorted(chosen)]
        figure.add_scatter(
            x=[max(left, row["smallest"]) for row in found],
            y=lane + random.uniform(-0.36, 0.36, len(found)),
            mode="markers",
            name=model,
            cliponaxis=False,
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


def matrix_figure(rows: Sequence[Record], *, start: str) -> Any:
    """Heat map of the most frequent class changes (from, to); `start` is the title of the "from" axis."""
    counts: dict[tuple[int, int], Record] = {(row["from_index"], row["to_index"]): row for row in rows}
    # the most frequent target classes, and the classes that change to them, so that few cells are empty
    across = _most(rows, "to")
    down = _most([row for row in rows if row["to_index"] in across], "from")
    cells = [[counts.get((left, right)) for right in across] for left in down]
    figure = go.Figure(
        go.Heatmap(
            z=[[None if cell is None else cell["images"] for cell in line] for line in cells],
            x=list(across.values()),
            y=list(down.values()),
            colorscale=[[0, "rgba(15,157,143,0.18)"], [1, "rgba(15,157,143,1)"]],
            customdata=[[None if cell is None else cell["example"] for cell in line] for line in cells],
            hovertemplate="%{y} → %{x}: %{z} images<extra></extra>",
            xgap=1,
            ygap=1,
            zmin=0,
            colorbar={
                "thickness": 10,
                "tickformat": "d",
                "dtick": max(1, math.ceil(max((row["images"] for row in rows), default=1) / 4)),
                "title": {"text": "images"},
                "outlinewidth": 0,
            },
        )
    )
    figure.update_xaxes(tickangle=-45, showgrid=False, title="class after the attack")
    figure.update_yaxes(autorange="reversed", showgrid=False, title=start)
    figure.update_layout(height=max(260, 150 + 20 * len(down)))
    return _dressed(figure)


def _most(rows: Sequence[Record], side: str) -> dict[int, str]:
    """The classes with the most images on one side, largest first, by index; ambiguous names include the index."""
    totals: dict[int, int] = {}
    names: dict[int, str] = {}
    for row in rows:
        index = row[f"{side}_index"]
        totals[index] = totals.get(index, 0) + row["images"]
        names[index] = row[f"{side}_class"]
    chosen = sorted(totals, key=lambda index: (-totals[index], names[index], index))[:MAX_CLASSES]
    shared = [names[index] for index in chosen]
    return {
        index: names[index] if shared.count(names[index]) == 1 else f"{names[index]} ({index})"
        for index in chosen
    }


def _dressed(
    figure: Any, *, axis: str | None = None, left: float = 0.0, cap: float = 1.0, zero: bool = False
) -> Any:
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
    if len(ticks) > MAX_TICKS:
        ticks = ticks[
            len(ticks) % 2 == 0 :: 2
        ]  # the last tick stays; two at the left end would overlap on a phone
    figure.update_xaxes(
        type=axis,
        tickangle=0,
        title="epsilon (n/255 in brackets)",
        # extends slightly past the cap, where the points of resistant images lie
        range=[math.log10(left), math.log10(cap) + 0.02 * math.log10(cap / left)]
        if axis == "log"
        else [0, cap * 1.02],
        **(
            {
                "tickvals": [*([left] if zero else []), *(n / 255 for n in ticks)],
                "ticktext": [*(["0"] if zero else []), *(f"{n / 255:.2g}<br>({n:g})" for n in ticks)],
                "tickfont": {"size": 10},  # room for seven digits next to five, on a phone
            }
            if axis == "log"
            else {}
        ),
    )
    return figure


def share_words(share: float | None) -> str:
    """A share in a table; a dash if unknown."""
    if share is None:
        return "–"
    return "0 %" if share == 0 else percent(share)
