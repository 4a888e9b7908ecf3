"""The Attack page: the smallest perturbation that breaks a prediction, and which channels shift when it does.

The address contains the request and the selected attack, so a link shows the same to everybody.

    address, seconds while a job is unfinished, events of the form and of the job controller
        --> show --> controls, problems, progress, tools, cards, selected attack, news
    form --> address, jobs                               (`pages.request`)
    selected attack --> show_attack --> verdict, images, curve, channels
    selected attack, news --> show_followups --> maps, ablations, other models
    buttons of maps, ablations, other models --> jobs    (`pages.attack_jobs`)
    layer --> choose_layer --> its channels
    epsilon --(browser)--> images, classes
"""

from collections.abc import Mapping
from typing import Any

from dash import ALL, Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.exceptions import PreventUpdate

from dashboard.api.attack_answers import comparison_record, whole_attack
from dashboard.components.callbacks import in_browser
from dashboard.components.elements import Component, attributes, icon
from dashboard.pages import attack_jobs, job_progress
from dashboard.pages.attack_channels import CHANNELS, LAYER, channels_list, channels_panel
from dashboard.pages.attack_followups import followups_panel
from dashboard.pages.attack_jobs import followup_jobs, other_models, selected_attack, unfinished_followups
from dashboard.pages.attack_list import attack_cards
from dashboard.pages.attack_maps import MAPS_ASKED, SHOWN_MAPS, asked_of, maps_panel, shown_comparison
from dashboard.pages.attack_request import FORM, MAX_SHOWN, NAME, read_page
from dashboard.pages.attack_step import EPSILON, PAINTED, STEP_VALUES, step_panel
from dashboard.pages.job_progress import Watched
from dashboard.pages.page import Page
from dashboard.pages.request import frame
from dashboard.security.prefix import page_path
from dashboard.state.address import AttackAddress, RobustnessAddress
from dashboard.state.context import Context, Record, current
from dashboard.state.ids import make_id
from db.ledger.tables import UNFINISHED
from db.queries import attacks as attack_queries
from db.queries import jobs as job_queries

TITLE = "Attack · Convscope"
LIST = make_id(NAME, "list")
SELECTED = make_id(NAME, "selected")  # the selected attack, and the query string for links to others
NEWS = make_id(NAME, "news")  # changes whenever a job about the selected attack has progressed
LAYER_CHOSEN = make_id(NAME, "layer")
PANELS = make_id(NAME, "panels")  # what the maps and the follow-ups were drawn from


def layout() -> Component:
    """The page without content."""
    detail = [
        html.Div(id=make_id(NAME, "step")),
        html.Div(id=make_id(NAME, "maps")),
        html.Section(
            [
                html.H2("Inside"),
                html.Div(id=make_id(NAME, "layers")),
                html.Div(id=make_id(NAME, "followups")),
            ],
            id=make_id(NAME, "inside"),
            className="card-plain attack-inside",
            hidden=True,
            **attributes(aria_label="Inside"),
        ),
    ]
    parts = [
        html.Ul(id=LIST, className="attack-list", **attributes(aria_label="Attacks")),
        html.Div(detail, className="attack-detail"),
    ]
    stores = (SELECTED, NEWS, MAPS_ASKED, LAYER_CHOSEN, PANELS)
    return frame.layout(FORM, "Attack", parts, [dcc.Store(id=name) for name in stores])


def register(app: Dash) -> None:
    """Register the page's callbacks."""
    frame.register(app, FORM, read_page)
    attack_jobs.register(app, SELECTED)
    app.callback(
        output={
            **frame.outputs(FORM),
            "list": Output(LIST, "children"),
            "selected": Output(SELECTED, "data"),
            "news": Output(NEWS, "data"),
        },
        inputs=frame.inputs(FORM),
        state=frame.states(FORM),
        running=job_progress.pause(NAME),
    )(show)
    app.callback(
        Output(make_id(NAME, "step"), "children"),
        Output(make_id(NAME, "layers"), "children"),
        Output(make_id(NAME, "inside"), "hidden"),
        Output(LAYER_CHOSEN, "data"),
        Input(SELECTED, "data"),
    )(show_attack)
    app.callback(
        Output(make_id(NAME, "maps"), "children"),
        Output(make_id(NAME, "followups"), "children"),
        Output(PANELS, "data"),
        Input(SELECTED, "data"),
        Input(NEWS, "data"),
        Input(MAPS_ASKED, "data"),
        State(PANELS, "data"),
    )(show_followups)
    app.callback(
        Output(MAPS_ASKED, "data"),
        Input(SHOWN_MAPS, "value"),
        State(MAPS_ASKED, "data"),
        prevent_initial_call=True,
    )(choose_maps)
    app.callback(
        Output(CHANNELS, "children"),
        Output({"type": LAYER, "layer": ALL}, "aria-pressed"),
        Output(LAYER_CHOSEN, "data", allow_duplicate=True),
        Input({"type": LAYER, "layer": ALL}, "n_clicks"),
        State(LAYER_CHOSEN, "data"),
        State(SELECTED, "data"),
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
    in_browser(app, "showChosen", Input(SELECTED, "data"), Input(LIST, "children"))


def show(
    search: str | None,
    _status: Any,
    _ticks: int | None,
    event: Record | None,
    pathname: str | None,
    shown: Record | None,
    work: Mapping[str, Any] | None,
) -> Record:
    """The page for an address and the present state of the ledger; what did not change is left alone."""
    if page_path(pathname) != AttackAddress.path:
        raise PreventUpdate
    context = current()
    catalogue = context.catalogue()
    message = frame.nothing_to_choose(catalogue)
    if message is not None:
        return frame.only(FORM, message, ("news",)) | {"list": [], "selected": None}
    page, watched = frame.read_with_jobs(
        lambda: read_page(context, catalogue, search), lambda _page: (), lambda page: _about(context, page)
    )
    values = frame.values(
        FORM, context, page, watched, search=search, event=event, work=work,
        tools=_tools(page, search),
        hint=frame.hint(page, noun="images", done="attacked"),
    )  # fmt: skip
    return frame.changed(values | page_values(context, page, watched), shown or {})


def page_values(context: Context, page: Record, watched: Watched) -> Record:
    """Values of the page's own parts for its data and jobs."""
    job = next((job for job in watched.jobs if job["job"] == page["job"]), None)
    items = [] if job is None else job_queries.job_items(context.ledger, job["job"], limit=MAX_SHOWN)
    chosen = _chosen(page)
    return {
        "list": attack_cards(
            page, items, chosen,
            total=job["items"] if job else 0,
            unfinished=job is not None and job["state"] in UNFINISHED,
        ),
        "selected": no_update
        if "ledger" in page["problems"]
        else {"attack": chosen, "search": page["search"]},
        "news": [state for state in watched.state if state[0] != page["job"]],
    }  # fmt: skip


def _chosen(page: Record) -> int:
    """The selected attack: the one in the address, else the first; 0 if there is none."""
    first = page["stored"][0]["attack"] if page["stored"] else 0
    return int(page["attack"] or first)


def _about(context: Context, page: Record) -> list[int]:
    """The newest jobs about the selected attack."""
    chosen = _chosen(page)
    jobs = followup_jobs(context, page["image_set"], chosen) if chosen else []
    return [job["job"] for job in jobs]


def _tools(page: Record, search: str | None) -> list[Component]:
    """Robustness and CSV; nothing as long as there are no attacks."""
    if not page["stored"]:
        return []
    there = RobustnessAddress(model=page["chosen"][0], images=page["image_set"]).href()
    return [
        html.A([icon("graph-down"), "Robustness"], href=there, className="btn btn-sm btn-quiet"),
        frame.download("download", "CSV", "/download/attacks.csv", search),
    ]


def show_attack(selected: Record | None) -> tuple[Any, Any, bool, None]:
    """The selected attack: its verdict, images and curve; the layers and channels that it shifts."""
    found = selected_attack(selected)
    if found is None:
        return None, None, True, None
    context = current()
    attack = whole_attack(context, found)
    assert selected is not None
    return step_panel(attack, selected["search"]), channels_panel(context.catalogue(), attack), False, None


def show_followups(
    selected: Record | None, _news: Any, asked: str | None, drawn: Record | None
) -> tuple[Any, Any, Any]:
    """What was requested about the selected attack: maps before and after, ablations, other models."""
    found = selected_attack(selected)
    if found is None:
        return None, None, None
    context = current()
    number = found["attack"]
    comparisons = [comparison_record(maps) for maps in attack_queries.attack_maps(context.ledger, number)]
    ablations = attack_queries.attack_ablations(context.ledger, number)
    transfers = attack_queries.attack_transfers(context.ledger, number)
    busy = unfinished_followups(context, found)
    others = other_models(context, found["model"])
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


def choose_layer(_clicks: Any, layer: str | None, selected: Record | None) -> tuple[Any, Any, Any]:
    """The channels of the layer that was clicked; of all layers if it was chosen already."""
    found = selected_attack(selected)
    if found is None or not ctx.triggered_id or not ctx.triggered[0]["value"]:
        raise PreventUpdate
    clicked = ctx.triggered_id["layer"]
    chosen = None if clicked == layer else clicked
    pressed = ["true" if item["id"]["layer"] == chosen else "false" for item in ctx.outputs_list[1]]
    return channels_list(whole_attack(current(), found), chosen), pressed, chosen


PAGE = Page(
    name=NAME,
    title=TITLE,
    address=AttackAddress,
    layout=layout,
    register=register,
    label="Attack",
    icon="lightning-charge",
)
