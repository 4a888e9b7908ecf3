"""The corners of the header: what the atlas contains, and which jobs run."""

from collections.abc import Mapping, Sequence
from typing import Any

from dash import html

from dashboard.components.elements import Component, attributes
from dashboard.components.formatting import count, duration, when
from dashboard.state.context import Catalogue


def corner(
    catalogue: Catalogue, model: str, images: str, *, indexing: Sequence[Sequence[str]] = ()
) -> list[Component]:
    """Atlas version, run and device, or the index being built: two short lines, the rest as the tooltip."""
    if indexing:
        busy = "; ".join(f"{name} over {over}" for name, over in indexing)
        return [_lamp("busy"), html.Div([html.B("indexing…"), html.Span(busy)], title=f"Indexing {busy}")]
    if catalogue.trouble:
        said = html.Div([html.B("atlas not readable"), html.Span("see the page")], title=catalogue.trouble)
        return [_lamp("off"), said]
    if catalogue.version is None:
        return [_lamp("off"), html.Div([html.B("nothing published yet"), html.Span("no atlas")])]
    run = catalogue.run(model, images)
    version = f"atlas {int(catalogue.version)}" if catalogue.version.isdigit() else catalogue.version
    if run is None:
        held = sum(found["images"] for found in catalogue.image_sets)
        return [
            _lamp("idle"),
            html.Div([html.B("no such run"), html.Span(f"{version} · {count(held, 'image')}")]),
        ]
    title = (
        f"Run {run['run']} of {run['model']} over {run['image_set']}: {count(run['images'], 'image')}, "
        f"{count(run['layers'], 'layer')}, k = {run['k']}, {run['dtype']} on {run['device']}, "
        f"{duration(run['seconds'])}, finished {when(run['finished'])}"
    )
    return [
        _lamp("on"),
        html.Div(
            [
                html.B(f"run {run['run']} · {run['device']} · k {run['k']}"),
                html.Span(f"{version} · {count(run['images'], 'image')}"),
            ],
            title=title,
        ),
    ]


def busy_corner(work: Mapping[str, Any]) -> dict[str, Any]:
    """Properties of the corner about jobs that run, wait, or cannot run; it is hidden without unfinished jobs."""
    if not work.get("words"):
        return {"children": None, "hidden": True, "title": ""}
    state, head, rest = work["words"]
    return {
        "children": [_lamp(state), html.Div([html.B(head), html.Span(rest)])],
        "hidden": False,
        "title": f"{head}: {rest}" if rest else head,
    }


def _lamp(state: str) -> Component:
    return html.Span(className=f"lamp {state}", **attributes(aria_hidden="true"))
