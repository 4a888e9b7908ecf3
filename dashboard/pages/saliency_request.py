"""The request of the Saliency page: its form, and what an address asks for."""

import functools
from collections.abc import Sequence
from urllib.parse import urlencode

from dashboard.api.answers import map_record
from dashboard.components.formatting import count as counted
from dashboard.pages import map_display
from dashboard.pages.request.form import RequestForm
from dashboard.pages.request.state import Asked, Chosen, read_request
from dashboard.security.prefix import local
from dashboard.state.address import SaliencyAddress
from dashboard.state.context import Catalogue, Context, Record
from workers.attribution.registry import METHODS
from workers.requests.images import short_ids
from workers.requests.models import choose_models
from workers.requests.parameters import InvalidRequest
from workers.requests.saliency import parse_target, saliency_job, stored_maps

NAME = "saliency"
MAX_MAPS = 240
# Controls of the display, which the browser applies.
DISPLAY = (*map_display.DEFAULTS, *map_display.ORDERS)


def _first_prediction(page: Record) -> int:
    return int(page["stored"][0]["predicted_class"]) if page["stored"] else 0


FORM = RequestForm(
    page=NAME,
    address=SaliencyAddress,
    methods=METHODS,
    target=(
        "Class to explain",
        {"prediction": "The prediction", "label": "The label", "index": "Another class…"},
    ),
    display=DISPLAY,
    guess=_first_prediction,
)


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
