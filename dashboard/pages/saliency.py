"""The Saliency page: maps of several images under several models, arriving one by one.

The address holds the request, so a link shows the same maps to everybody; the request finds its job by content.

    address --> read_page --> request --(browser)--> controls, grid of maps
    controls --(browser)--> address
    Run, polling, colours, hovering, the large view --(browser)--> /api/…

What is drawn from a map's numbers is drawn in the browser (`assets/heat.js`), so that colours, scale and strength
change without asking anybody.
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
    """Add the page's callbacks."""
    register_asking(app, "saliency", path=SaliencyAddress.path, draw="drawSaliency", read=read_page)


def constants() -> Record:
    """What the browser needs once: methods with their parameters, and colour maps."""
    return {
        "methods": {name: method.facts() for name, method in METHODS.items()},
        "colours": {name: list(table) for name, table in heat.COLOUR_MAPS.items()},
        "diverging": heat.DIVERGING,
        "most": MAX_MAPS,
    }


def read_page(context: Context, catalogue: Catalogue, search: str | None) -> Record:
    """What the page shows for an address: what is chosen, what is wrong with it, the request, its job and rows."""
    address, problems = SaliencyAddress.read(search)
    asks = functools.partial(ask, steps=address.steps)
    page = read_request(context, catalogue, search, address, problems, METHODS, MAX_MAPS, asks, map_record)
    method = METHODS.get(page["method"])
    unit = "" if method is None else method.unit_of(page["parameters"])
    return page | {"steps": address.steps, "unit": unit}


def ask(context: Context, chosen: Chosen, *, steps: int) -> Asked:
    """The job that a choice asks for, and the maps of it that other jobs have made, with scores of so many steps.

    Raises:
        InvalidRequest: something in it cannot be.
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
