"""The Saliency page: maps of several images under several models, shown as they arrive.

The address contains the request, so a link shows the same maps to everybody; the request's job is found by
its content.

    address --> read_page --> request --(browser)--> controls, grid of maps
    controls --(browser)--> address
    Run, polling, colors, hovering, the large view --(browser)--> /api/…

The browser renders maps from their values (`browser/heat.js`), so colors, scale and strength change without a
request to the server.
"""

import functools
from collections.abc import Sequence
from urllib.parse import urlencode

from dash import Dash

from dashboard.api.answers import map_record
from dashboard.components.callbacks import render_once
from dashboard.components.elements import Component
from dashboard.components.formatting import count as counted
from dashboard.pages.page import Page
from dashboard.pages.request_page import asking_layout, register_asking
from dashboard.pages.request_state import Asked, Chosen, read_request
from dashboard.pictures import heat
from dashboard.security.prefix import local
from dashboard.state.address import SaliencyAddress
from dashboard.state.context import Catalogue, Context, Record
from workers.attribution.registry import METHODS
from workers.requests.images import short_ids
from workers.requests.models import choose_models
from workers.requests.parameters import InvalidRequest
from workers.requests.saliency import parse_target, saliency_job, stored_maps

TITLE = "Saliency · Convscope"
MAX_MAPS = 240


@render_once(TITLE)
def layout() -> Component:
    """The page without content."""
    return asking_layout("saliency", constants())


def register(app: Dash) -> None:
    """Register the page's callbacks."""
    register_asking(app, "saliency", path=SaliencyAddress.path, draw="drawSaliency", read=read_page)


def constants() -> Record:
    """Constants for the page's script: methods with their parameters, and color maps."""
    return {
        "methods": {name: method.facts() for name, method in METHODS.items()},
        "colours": {name: list(table) for name, table in heat.COLOUR_MAPS.items()},
        "diverging": heat.DIVERGING,
        "most": MAX_MAPS,
    }


def read_page(context: Context, catalogue: Catalogue, search: str | None) -> Record:
    """The page's data for an address: choices, problems with them, the request, its job and rows."""
    address, problems = SaliencyAddress.read(search)
    asks = functools.partial(ask, steps=address.steps)
    page = read_request(context, catalogue, search, address, problems, METHODS, MAX_MAPS, asks, map_record)
    method = METHODS.get(page["method"])
    unit = "" if method is None else method.unit_of(page["parameters"])
    return page | {"steps": address.steps, "unit": unit}


def ask(context: Context, chosen: Chosen, *, steps: int) -> Asked:
    """The job that a choice describes, and its stored maps, from any job, with curves of `steps` steps.

    Raises:
        InvalidRequest: part of the choice is invalid.
    """
    count = len(chosen.ids) * len(chosen.models)
    if count > MAX_MAPS:
        raise InvalidRequest(
            f"ids: this page shows up to {MAX_MAPS} maps, these are {counted(len(chosen.ids), 'image')} by "
            f"{counted(len(chosen.models), 'model')}: choose fewer, or queue them with convscope saliency"
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
    stored = stored_maps(context.atlas, context.ledger, new, steps=steps)
    return Asked(new, {"kind": "saliency", "target": new.parameters["target"]}, stored)


def saliency_of(model: str, image_set: str, ids: Sequence[int]) -> str:
    """Address of the page for some images."""
    given = {"model": model, "images": image_set, "ids": short_ids(list(ids))}
    return (
        local(SaliencyAddress.path) + "?" + urlencode({name: value for name, value in given.items() if value})
    )


PAGE = Page(
    name="saliency",
    title=TITLE,
    address=SaliencyAddress,
    layout=layout,
    register=register,
    label="Saliency",
    icon="bullseye",
)
