"""The Attack page: the smallest perturbation that breaks a prediction, and which channels shift when it does.

The address contains the request and the selected attack, so a link shows the same to everybody.

    address --> read_page --> request --(browser)--> controls, progress of jobs
    controls --(browser)--> address
    Run, polling --(browser)--> /api/jobs, news
    address, news --> show_results --> cards, selected attack
    selected attack --> show_attack --> verdict, images, curve, channels
    selected attack, news --> show_followups --> maps, ablations, other models
    layer --> choose_layer --> its channels
    epsilon --(browser)--> images, classes
"""

import dataclasses
from typing import Any
from urllib.parse import parse_qsl, urlencode

from dash import ALL, Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.exceptions import PreventUpdate

from dashboard.api.attack_answers import attack_record, comparison_record, whole_attack
from dashboard.components.callbacks import in_browser, render_once
from dashboard.components.elements import Component, attributes
from dashboard.pages.attack_channels import CHANNELS, LAYER, channels_list, channels_panel
from dashboard.pages.attack_followups import followups_panel
from dashboard.pages.attack_list import attack_cards
from dashboard.pages.attack_maps import SHOWN_MAPS, asked_of, maps_panel, shown_comparison
from dashboard.pages.attack_step import EPSILON, PAINTED, STEP_VALUES, step_panel
from dashboard.pages.page import Page
from dashboard.pages.request_page import asking_layout, register_asking
from dashboard.pages.request_state import Asked, Chosen, read_request
from dashboard.pictures import heat
from dashboard.security.prefix import page_path
from dashboard.state.address import AttackAddress
from dashboard.state.context import Catalogue, Context, Record, current
from dashboard.state.ids import LOCATION, make_id
from db.ledger.engine import LedgerError
from db.ledger.jobs import ENDED
from db.ledger.tables import STATES
from db.queries import attacks as attack_queries
from db.queries import jobs as job_queries
from workers.attacks.registry import ATTACKS
from workers.requests.attacks import attack_job, parse_class, stored_attacks
from workers.requests.followups import MAP_PARAMETERS
from workers.requests.models import choose_models

TITLE = "Attack · Convscope"
MAX_SHOWN = 240
# Larger requests may take all night: they run in the batch queue, behind interactive jobs.
MAX_INTERACTIVE = 24
FOLLOWUPS = ("comparison", "ablation", "transfer")
LIST = make_id("attack", "list")
SHOWN = make_id("attack", "shown")  # the selected attack, and the query string for links to others
NEWS = make_id("attack", "news")  # changes whenever a job has progressed
ASKED = make_id("attack", "asked")  # which request's maps are shown, see `attack_maps.asked_of`
LAYER_CHOSEN = make_id("attack", "layer")
PANELS = make_id("attack", "panels")  # what the maps and the follow-ups were drawn from


@render_once(TITLE)
def layout() -> Component:
    """The page without content."""
    page = asking_layout("attack", constants())
    page.children += [
        html.Ul(id=LIST, className="attack-list", **attributes(aria_label="Attacks")),
        html.Div(
            [
                html.Div(id=make_id("attack", "step")),
                html.Div(id=make_id("attack", "maps")),
                html.Section(
                    [
                        html.H2("Inside"),
                        html.Div(id=make_id("attack", "layers")),
                        html.Div(id=make_id("attack", "followups")),
                    ],
                    id=make_id("attack", "inside"),
                    className="card-plain attack-inside",
                    hidden=True,
                    **attributes(aria_label="Inside"),
                ),
            ],
            className="attack-detail",
        ),
        dcc.Store(id=SHOWN),
        dcc.Store(id=NEWS),
        dcc.Store(id=ASKED),
        dcc.Store(id=LAYER_CHOSEN),
        dcc.Store(id=PANELS),
    ]
    return page


def register(app: Dash) -> None:
    """Register the page's callbacks."""
    register_asking(app, "attack", path=AttackAddress.path, draw="drawAttack", read=read_page)
    app.callback(
        Output(LIST, "children"),
        Output(SHOWN, "data"),
        Input(LOCATION, "search"),
        Input(make_id("shell", "status"), "data"),
        Input(NEWS, "data"),
        State(LOCATION, "pathname"),
        State(SHOWN, "data"),
    )(show_results)
    app.callback(
        Output(make_id("attack", "step"), "children"),
        Output(make_id("attack", "layers"), "children"),
        Output(make_id("attack", "inside"), "hidden"),
        Output(LAYER_CHOSEN, "data"),
        Input(SHOWN, "data"),
    )(show_attack)
    app.callback(
        Output(make_id("attack", "maps"), "children"),
        Output(make_id("attack", "followups"), "children"),
        Output(PANELS, "data"),
        Input(SHOWN, "data"),
        Input(NEWS, "data"),
        Input(ASKED, "data"),
        State(PANELS, "data"),
    )(show_followups)
    app.callback(
        Output(ASKED, "data"), Input(SHOWN_MAPS, "value"), State(ASKED, "data"), prevent_initial_call=True
    )(choose_maps)
    app.callback(
        Output(CHANNELS, "children"),
        Output({"type": LAYER, "layer": ALL}, "aria-pressed"),
        Output(LAYER_CHOSEN, "data", allow_duplicate=True),
        Input({"type": LAYER, "layer": ALL}, "n_clicks"),
        State(LAYER_CHOSEN, "data"),
        State(SHOWN, "data"),
        prevent_initial_call=True,
    )(choose_layer)
    in_browser(
        app,
        "showStep",
        Output(PAINTED, "data"),
        Input(EPSILON, "value"),
        Input(STEP_VALUES, "data"),
        State(PAINTED, "data"),
    )
    in_browser(app, "showChosen", Input(SHOWN, "data"), Input(LIST, "children"))
    in_browser(
        app,
        "paintMaps",
        Input(make_id("attack", "maps"), "children"),
        State(make_id("attack", "constants"), "data"),
    )


def constants() -> Record:
    """Constants for the page's script: methods with their parameters, the maps' parameters, and color maps."""
    return {
        "methods": {name: method.facts() for name, method in ATTACKS.items()},
        "maps": [dataclasses.asdict(parameter) for parameter in MAP_PARAMETERS],
        "colours": {name: list(heat.COLOUR_MAPS[name]) for name in (heat.PLAIN, heat.DIVERGING)},
        "diverging": heat.DIVERGING,
        "most": MAX_SHOWN,
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
                given = dict(parse_qsl((search or "").lstrip("?")))
                search = request_of(found, at=given["at"]) if "at" in given else request_of(found)
                address, _ = AttackAddress.read(search)
        except LedgerError as error:  # whether it exists is unknown
            problems["ledger"] = f"{error}."
    page = read_request(context, catalogue, search, address, problems, ATTACKS, MAX_SHOWN, ask, attack_record)
    return page | {"attack": address.attack}


def show_results(
    search: str | None, _status: Any, _news: Any, pathname: str | None, shown: Record | None
) -> tuple[Any, Any]:
    """The cards of the request's attacks, and the selected attack: the one in the address, else the first."""
    if page_path(pathname) != AttackAddress.path:
        raise PreventUpdate
    context = current()
    catalogue = context.catalogue()
    if catalogue.trouble or not catalogue.runs or not catalogue.image_sets:
        return [], None
    page = read_page(context, catalogue, search)
    job, items = None, []
    chosen = page["attack"] or (page["stored"][0]["attack"] if page["stored"] else 0)
    if "ledger" not in page["problems"] and page["job"] is not None:
        job = job_queries.job(context.ledger, page["job"])
        items = job_queries.job_items(context.ledger, page["job"], limit=MAX_SHOWN)
    cards = attack_cards(page, job, items, chosen, page["search"])
    now_shown = {"attack": chosen, "search": page["search"]}
    return cards, no_update if now_shown == shown or "ledger" in page["problems"] else now_shown


def show_attack(shown: Record | None) -> tuple[Any, Any, bool, None]:
    """The selected attack: its verdict, images and curve; the layers and channels that it shifts."""
    found = _found(shown)
    if found is None:
        return None, None, True, None
    context = current()
    attack = whole_attack(context, found)
    assert shown is not None
    return step_panel(attack, shown["search"]), channels_panel(context.catalogue(), attack), False, None


def show_followups(
    shown: Record | None, _news: Any, asked: str | None, drawn: Record | None
) -> tuple[Any, Any, Any]:
    """What was requested about the selected attack: maps before and after, ablations, other models."""
    found = _found(shown)
    if found is None:
        return None, None, None
    context = current()
    number = found["attack"]
    comparisons = [comparison_record(maps) for maps in attack_queries.attack_maps(context.ledger, number)]
    ablations = attack_queries.attack_ablations(context.ledger, number)
    transfers = attack_queries.attack_transfers(context.ledger, number)
    busy = unfinished_followups(context, found)
    models = dict.fromkeys(run["model"] for run in context.catalogue().runs)
    others = [name for name in models if name != found["model"]]
    maps = shown_comparison(comparisons, asked or "")
    keys = {
        "maps": repr([number, len(comparisons), maps and asked_of(maps), "comparison" in busy]),
        "rest": repr([number, [row["created"] for row in (*ablations, *transfers)], others, busy]),
    }
    drawn = drawn or {}
    return (
        no_update
        if keys["maps"] == drawn.get("maps")
        else maps_panel(context, found, comparisons, asked=asked or "", busy="comparison" in busy),
        no_update
        if keys["rest"] == drawn.get("rest")
        else followups_panel(found, ablations, transfers, others, busy),
        no_update if keys == drawn else keys,
    )


def choose_maps(chosen: str | None, asked: str | None) -> Any:
    """Show the maps of another request."""
    return no_update if chosen in (None, asked) else chosen


def choose_layer(_clicks: Any, layer: str | None, shown: Record | None) -> tuple[Any, Any, Any]:
    """The channels of the layer that was clicked; of all layers if it was chosen already."""
    found = _found(shown)
    if found is None or not ctx.triggered_id or not ctx.triggered[0]["value"]:
        raise PreventUpdate
    clicked = ctx.triggered_id["layer"]
    chosen = None if clicked == layer else clicked
    pressed = ["true" if item["id"]["layer"] == chosen else "false" for item in ctx.outputs_list[1]]
    return channels_list(whole_attack(current(), found), chosen), pressed, chosen


def _found(shown: Record | None) -> Record | None:
    return attack_queries.attack(current().ledger, shown["attack"]) if shown and shown["attack"] else None


def unfinished_followups(context: Context, attack: Record) -> list[str]:
    """Kinds of the unfinished jobs about this attack alone."""
    jobs = job_queries.jobs(
        context.ledger,
        states=[state for state in STATES if state not in ENDED],
        kinds=FOLLOWUPS,
        image_set=attack["image_set"],
        limit=30,
    )
    return [job["kind"] for job in jobs if job["parameters"]["attacks"] == str(attack["attack"])]


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
