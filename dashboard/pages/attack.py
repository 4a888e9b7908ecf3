"""The Attack page: the smallest change that breaks a prediction, and what moves inside when it does.

The address holds the request and the attack that is looked at, so a link shows the same to everybody.

    address --> show_attack --> request --(browser)--> controls, list of attacks, the attack that is looked at
    controls --(browser)--> address
    Run, polling, the slider over epsilon, maps and channels --(browser)--> /api/…
"""

import dataclasses
from typing import Any
from urllib.parse import urlencode

from dash import Dash, Input, Output, State, dcc, html
from dash.exceptions import PreventUpdate

from dashboard import components, heat
from dashboard.address import AttackAddress
from dashboard.attack_answers import attack_record
from dashboard.components import Component
from dashboard.context import Catalogue, Context, Record, current
from dashboard.drawing import as_picture, draw
from dashboard.ids import LOCATION, make_id
from dashboard.requests import Asked, Chosen, read_request
from dashboard.wiring import in_browser
from db import attack_queries
from db.ledger import LedgerError
from workers.attack_requests import ATTACKS
from workers.submit import choose_models
from workers.submit_attacks import MAP_PARAMETERS, attack_job, parse_class, stored_attacks

TITLE = "Attack · Convscope"
MOST_SHOWN = 240
# More than these are a night's work: they let pass what somebody waits for.
MOST_INTERACTIVE = 24


def layout(mounted: Any = None, **_: Any) -> Component:
    """The page without content."""
    if mounted and mounted.get("title") == TITLE:
        raise PreventUpdate
    return html.Div(
        [
            html.Div(id=make_id("attack", "message")),
            html.Div(html.Div(className="skeleton tall"), id=make_id("attack", "root")),
            dcc.Store(id=make_id("attack", "page")),
            dcc.Store(id=make_id("attack", "constants"), data=constants()),
            html.Div(id=make_id("attack", "drawn"), hidden=True),
        ],
        className="single-page attack-page",
    )


def register(app: Dash) -> None:
    """Add the page's callbacks."""
    app.callback(
        Output(make_id("attack", "message"), "children"),
        Output(make_id("attack", "page"), "data"),
        Input(LOCATION, "search"),
        Input(make_id("shell", "status"), "data"),
        State(LOCATION, "pathname"),
    )(show_attack)
    in_browser(
        app,
        "drawAttack",
        Output(make_id("attack", "drawn"), "children"),
        Input(make_id("attack", "page"), "data"),
        State(make_id("attack", "constants"), "data"),
    )


def constants() -> Record:
    """What the browser needs once: methods with their parameters, those of the maps, and colour maps."""
    return {
        "methods": {name: dataclasses.asdict(method) for name, method in ATTACKS.items()},
        "maps": [dataclasses.asdict(parameter) for parameter in MAP_PARAMETERS],
        "colours": {name: list(heat.COLOUR_MAPS[name]) for name in ("inferno", heat.DIVERGING)},
        "diverging": heat.DIVERGING,
        "most": MOST_SHOWN,
    }


def show_attack(
    search: str | None, _status: Any, pathname: str | None
) -> tuple[Component, dict[str, Any] | None]:
    """A message where there is nothing to choose from, else what the address asks for."""
    if pathname != AttackAddress.path:
        raise PreventUpdate
    context = current()
    catalogue = context.catalogue()
    if catalogue.trouble:
        return components.trouble(catalogue.trouble), None
    if not catalogue.runs or not catalogue.image_sets:
        return components.nothing_yet(catalogue.newest_set()), None
    return None, read_page(context, catalogue, search)


def read_page(context: Context, catalogue: Catalogue, search: str | None) -> Record:
    """What the page shows for an address. An attack without a request brings its own."""
    address, problems = AttackAddress.read(search)
    if address.attack and not address.ids:
        try:
            found = attack_queries.attack(context.ledger, address.attack)
        except LedgerError:  # said by what follows
            found = None
        if found is None:
            problems["attack"] = f"There is no attack {address.attack}."
        else:
            address, _ = AttackAddress.read(search := request_of(found))
    page = read_request(context, catalogue, search, address, problems, ATTACKS, MOST_SHOWN, ask)
    drawings = {
        model: as_picture(draw(catalogue.layers[model], catalogue.edges[model]))
        for model in page["chosen"]
        if model in catalogue.layers
    }
    return page | {"attack": address.attack, "drawings": drawings}


def request_of(found: Record) -> str:
    """The query string of the request for one attack, which also opens it."""
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


def ask(context: Context, chosen: Chosen) -> Asked:
    """The job that a choice asks for, and the attacks of it that other jobs have made.

    Raises:
        WrongRequest: something in it cannot be.
    """
    leaves = chosen.target in ("prediction", "label")
    items = len(chosen.ids) * len(chosen.models)
    rest = {
        "kind": "attack",
        "relative_to": chosen.target if leaves else "prediction",
        "target": None if leaves else parse_class(chosen.target),
        "queue": "interactive" if items <= MOST_INTERACTIVE else "batch",
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
    stored = stored_attacks(context.atlas, context.ledger, new, most=MOST_SHOWN)
    return Asked(new, rest, [attack_record(found) for found in stored])


def attack_of(model: str, image_set: str, image: int) -> str:
    """Address of the page for one image."""
    return AttackAddress(model=model, images=image_set, ids=str(image)).href()
