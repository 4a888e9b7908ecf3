"""The request of the Attack page: its form, and what an address asks for."""

import functools
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

from dashboard.api.attack_answers import attack_record
from dashboard.pages.request.form import RequestForm
from dashboard.pages.request.state import Asked, Chosen, read_request
from dashboard.state.address import AttackAddress
from dashboard.state.context import Catalogue, Context, Record
from db.atlas.store import Atlas
from db.ledger.engine import LedgerError
from db.ledger.jobs import NewJob
from db.queries import attacks as attack_queries
from workers.attacks.registry import ATTACKS, unread
from workers.requests.attacks import attack_job, parse_class, stored_attacks
from workers.requests.models import choose_models

NAME = "attack"
MAX_SHOWN = 240
# Larger requests may take all night: they run in the batch queue, behind interactive jobs.
MAX_INTERACTIVE = 24


def applies(name: str, values: Mapping[str, Any]) -> bool:
    """Whether a request reads a parameter: 8-bit levels have the linear grid, without a choice."""
    if values["levels"] == "8-bit":
        return name != "grid" and name not in unread({**values, "grid": "linear"})
    return name not in unread(values)


def _first_reached(page: Record) -> int:
    return int(page["stored"][0]["class_after"] or 0) if page["stored"] else 0


FORM = RequestForm(
    page=NAME,
    address=AttackAddress,
    methods=ATTACKS,
    target=(
        "Aim",
        {"prediction": "Leave the prediction", "label": "Leave the label", "index": "Reach a class…"},
    ),
    applies=applies,
    keeps_parameters=True,
    guess=_first_reached,
)


def read_page(context: Context, catalogue: Catalogue, search: str | None) -> Record:
    """The page's data for an address. An attack without a request supplies the request itself."""
    address, problems = AttackAddress.read(search)
    if address.attack and not address.ids:
        try:
            found = attack_queries.attack(context.ledger, address.attack)
            if found is None:
                problems["attack"] = f"There is no attack {address.attack}."
            else:
                given = dict(parse_qsl((search or "").lstrip("?")))
                search = request_of(found, at=given["at"]) if "at" in given else request_of(found)
                address, _ = AttackAddress.read(search)
        except LedgerError as error:  # whether it exists is unknown
            problems["ledger"] = f"{error}."
    page = read_request(context, catalogue, search, address, problems, ATTACKS, MAX_SHOWN, ask, attack_record)
    return page | {"attack": address.attack}


def request_of(found: Record, **more: str) -> str:
    """Query string of the request for one attack, with `more` parameters; it also opens the attack."""
    target = found["class_index"] if found["relative_to"] == "target" else found["relative_to"]
    given = {
        "model": found["model"],
        "images": found["image_set"],
        "ids": found["image_id"],
        "method": found["method"],
        "target": target,
        "attack": found["attack"],
        **{f"p_{name}": value for name, value in found["parameters"].items()},
        **more,
    }
    return "?" + urlencode(given)


def ask(context: Context, chosen: Chosen, *, most: int = MAX_SHOWN) -> Asked:
    """The job that a choice describes, and those of its first `most` attacks that are stored, from any job.

    Raises:
        InvalidRequest: part of the choice is invalid.
    """
    leaves = chosen.target in ("prediction", "label")
    items = len(chosen.ids) * len(chosen.models)
    rest = {
        "kind": NAME,
        "relative_to": chosen.target if leaves else "prediction",
        "target": None if leaves else parse_class(chosen.target),
        "queue": "interactive" if items <= MAX_INTERACTIVE else "batch",
    }
    new = _job(
        context.atlas,
        context.catalogue().version,
        models=tuple(chosen.models),
        image_set=chosen.image_set,
        image_ids=tuple(chosen.ids),
        method=chosen.method,
        parameters=tuple(chosen.parameters.items()),
        relative_to=str(rest["relative_to"]),
        target=rest["target"],
        queue=str(rest["queue"]),
    )
    stored = stored_attacks(context.atlas, context.ledger, new, most=most)
    return Asked(new, rest, stored)


@functools.lru_cache(maxsize=8)
def _job(
    atlas: Atlas,
    _version: str | None,
    *,
    models: tuple[str, ...],
    parameters: tuple[tuple[str, Any], ...],
    **choice: Any,
) -> NewJob:
    """The job of a choice over one version of the atlas; a page with a whole set asks for it every second."""
    return attack_job(atlas, models=choose_models(atlas, models), parameters=dict(parameters), **choice)


def attack_of(model: str, image_set: str, image: int) -> str:
    """Address of the page for one image."""
    return AttackAddress(model=model, images=image_set, ids=str(image)).href()
