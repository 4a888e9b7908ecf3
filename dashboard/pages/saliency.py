"""The Saliency page: maps of several images under several models, arriving one by one.

The address holds the request, so a link shows the same maps to everybody; the request finds its job by content.

    address --> show_saliency --> request --(browser)--> controls, grid of maps
    controls --(browser)--> address
    Run, polling, colours, hovering, the large view --(browser)--> /api/…

What is drawn from a map's numbers is drawn in the browser (`assets/heat.js`), so that colours, scale and strength
change without asking anybody.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from dash import Dash, Input, Output, State, dcc, html
from dash.exceptions import PreventUpdate

from dashboard import components, heat
from dashboard.address import SaliencyAddress
from dashboard.components import Component
from dashboard.context import Catalogue, Context, Record, current
from dashboard.ids import LOCATION, make_id
from dashboard.requests import Asked, Chosen, read_request
from dashboard.wiring import in_browser
from workers.methods import METHODS, WrongRequest
from workers.submit import choose_models, parse_target, saliency_job, short_ids

TITLE = "Saliency · Convscope"
MOST_MAPS = 240


def layout(mounted: Any = None, **_: Any) -> Component:
    """The page without content."""
    if mounted and mounted.get("title") == TITLE:
        raise PreventUpdate
    return html.Div(
        [
            html.Div(id=make_id("saliency", "message")),
            html.Div(html.Div(className="skeleton tall"), id=make_id("saliency", "root")),
            dcc.Store(id=make_id("saliency", "page")),
            dcc.Store(id=make_id("saliency", "constants"), data=constants()),
            html.Div(id=make_id("saliency", "drawn"), hidden=True),
        ],
        className="single-page saliency-page",
    )


def register(app: Dash) -> None:
    """Add the page's callbacks."""
    app.callback(
        Output(make_id("saliency", "message"), "children"),
        Output(make_id("saliency", "page"), "data"),
        Input(LOCATION, "search"),
        Input(make_id("shell", "status"), "data"),
        State(LOCATION, "pathname"),
    )(show_saliency)
    in_browser(
        app,
        "drawSaliency",
        Output(make_id("saliency", "drawn"), "children"),
        Input(make_id("saliency", "page"), "data"),
        State(make_id("saliency", "constants"), "data"),
    )


def constants() -> Record:
    """What the browser needs once: methods with their parameters, and colour maps."""
    return {
        "methods": {name: dataclasses.asdict(method) for name, method in METHODS.items()},
        "colours": {name: list(table) for name, table in heat.COLOUR_MAPS.items()},
        "diverging": heat.DIVERGING,
        "most": MOST_MAPS,
    }


def show_saliency(
    search: str | None, _status: Any, pathname: str | None
) -> tuple[Component, dict[str, Any] | None]:
    """A message where there is nothing to choose from, else what the address asks for."""
    if pathname != SaliencyAddress.path:
        raise PreventUpdate
    context = current()
    catalogue = context.catalogue()
    if catalogue.trouble:
        return components.trouble(catalogue.trouble), None
    if not catalogue.runs or not catalogue.image_sets:
        return components.nothing_yet(catalogue.newest_set()), None
    return None, read_page(context, catalogue, search)


def read_page(context: Context, catalogue: Catalogue, search: str | None) -> Record:
    """What the page shows for an address: what is chosen, what is wrong with it, the request, its job and rows."""
    address, problems = SaliencyAddress.read(search)
    return read_request(context, catalogue, search, address, problems, METHODS, MOST_MAPS, ask)


def ask(context: Context, chosen: Chosen) -> Asked:
    """The job that a choice asks for.

    Raises:
        WrongRequest: something in it cannot be.
    """
    count = len(chosen.ids) * len(chosen.models)
    if count > MOST_MAPS:
        raise WrongRequest(
            f"ids: this page shows up to {MOST_MAPS} maps, these are {len(chosen.ids):,} images by "
            f"{len(chosen.models)} models: choose fewer, or queue them with convscope saliency"
        )
    new = saliency_job(
        context.atlas,
        models=choose_models(context.atlas, chosen.models),
        image_set=chosen.image_set,
        image_ids=chosen.ids,
        method=chosen.method,
        parameters=dict(chosen.parameters),
        target=parse_target(chosen.target),
    )
    return Asked(new, {"kind": "saliency", "target": new.parameters["target"]})


def saliency_of(model: str, image_set: str, ids: Sequence[int]) -> str:
    """Address of the page for some images."""
    given = {"model": model, "images": image_set, "ids": short_ids(list(ids))}
    return SaliencyAddress.path + "?" + urlencode({name: value for name, value in given.items() if value})
