"""The Attack page: the smallest perturbation that breaks a prediction, and which channels shift when it does.

The address contains the request and the selected attack, so a link shows the same to everybody.

    address --> read_page --> request --(browser)--> controls, list of attacks, selected attack
    controls --(browser)--> address
    Run, polling, epsilon slider, maps and channels --(browser)--> /api/…
"""

import dataclasses
from urllib.parse import urlencode

from dash import Dash

from dashboard.api.attack_answers import attack_record
from dashboard.components.callbacks import render_once
from dashboard.components.drawing import as_picture, draw
from dashboard.components.elements import Component
from dashboard.pages.page import Page
from dashboard.pages.request_page import asking_layout, register_asking
from dashboard.pages.request_state import Asked, Chosen, read_request
from dashboard.pictures import heat
from dashboard.state.address import AttackAddress
from dashboard.state.context import Catalogue, Context, Record
from db.atlas.stds import DEAD, RULE
from db.ledger.engine import LedgerError
from db.queries import attacks as attack_queries
from workers.attacks.registry import ATTACKS
from workers.requests.attacks import attack_job, parse_class, stored_attacks
from workers.requests.followups import MAP_PARAMETERS
from workers.requests.models import choose_models

TITLE = "Attack · Convscope"
MAX_SHOWN = 240
# Larger requests may take all night: they run in the batch queue, behind interactive jobs.
MAX_INTERACTIVE = 24


@render_once(TITLE)
def layout() -> Component:
    """The page without content."""
    return asking_layout("attack", constants())


def register(app: Dash) -> None:
    """Register the page's callbacks."""
    register_asking(app, "attack", path=AttackAddress.path, draw="drawAttack", read=read_page)


def constants() -> Record:
    """Constants for the page's script: methods with their parameters, the maps' parameters, and color maps."""
    return {
        "methods": {name: method.facts() for name, method in ATTACKS.items()},
        "maps": [dataclasses.asdict(parameter) for parameter in MAP_PARAMETERS],
        "colours": {name: list(heat.COLOUR_MAPS[name]) for name in ("inferno", heat.DIVERGING)},
        "diverging": heat.DIVERGING,
        "most": MAX_SHOWN,
        "spread": RULE,
        "dead": DEAD,
    }


def read_page(context: Context, catalogue: Catalogue, search: str | None) -> Record:
    """The page's data for an address. An attack without a request supplies the request itself."""
    address, problems = AttackAddress.read(search)
    if address.attack and not address.ids:
        try:
            found = attack_queries.attack(context.ledger, address.attack)
            if found is None:
                problems["attack"] = f"There is no attack {address.attack}."
            else:
                address, _ = AttackAddress.read(search := request_of(found))
        except LedgerError as error:  # whether it exists is unknown
            problems["ledger"] = f"{error}."
    page = read_request(context, catalogue, search, address, problems, ATTACKS, MAX_SHOWN, ask, attack_record)
    drawings = {
        model: as_picture(draw(catalogue.layers[model], catalogue.edges[model]))
        for model in page["chosen"]
        if model in catalogue.layers
    }
    return page | {"attack": address.attack, "drawings": drawings}


def request_of(found: Record) -> str:
    """Query string of the request for one attack; it also opens the attack."""
    target = found["class_index"] if found["relative_to"] == "target" else found["relative_to"]
    given = {
        "model": found["model"],
        "images": found["image_set"],
        "ids": found["image_id"],
        "method": found["method"],
        "target": target,
        "attack": found["attack"],
        **{f"p_{name}": value for name, value in found["parameters"].items()},
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
        "kind": "attack",
        "relative_to": chosen.target if leaves else "prediction",
        "target": None if leaves else parse_class(chosen.target),
        "queue": "interactive" if items <= MAX_INTERACTIVE else "batch",
    }
    new = attack_job(
        context.atlas,
        models=choose_models(context.atlas, chosen.models),
        image_set=chosen.image_set,
        image_ids=chosen.ids,
        method=chosen.method,
        parameters=chosen.parameters,
        relative_to=str(rest["relative_to"]),
        target=rest["target"],
        queue=str(rest["queue"]),
    )
    stored = stored_attacks(context.atlas, context.ledger, new, most=most)
    return Asked(new, rest, stored)


def attack_of(model: str, image_set: str, image: int) -> str:
    """Address of the page for one image."""
    return AttackAddress(model=model, images=image_set, ids=str(image)).href()


PAGE = Page(
    name="attack",
    title=TITLE,
    address=AttackAddress,
    layout=layout,
    register=register,
    label="Attack",
    icon="lightning-charge",
)
