"""The Saliency page: maps of several images under several models, shown as they arrive.

The address contains the request, so a link shows the same maps to everybody; the request's job is found by
its content. The page is a function of the address and the ledger:

    address, seconds while a job is unfinished, events of the form and of the job controller
        --> show --> controls, problems, progress, grid of maps, tools
    form --> address, jobs                           (`pages.request`)
    display controls --(browser)--> address, data-display --(painter)--> canvases, legend
    order of rows and columns --> show
    a click on a map --> large view                  (`pages.large_map`)

The browser renders maps from their values (`browser/maps.js`), so colors, scale and strength change without a
request to the server.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from dash import Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.exceptions import PreventUpdate

from dashboard.components.callbacks import in_browser
from dashboard.components.elements import Component, attributes, icon
from dashboard.pages import job_progress, large_map, map_display
from dashboard.pages.job_progress import Watched
from dashboard.pages.page import Page
from dashboard.pages.request import frame
from dashboard.pages.saliency_grid import grid, in_order
from dashboard.pages.saliency_request import DISPLAY, FORM, MAX_MAPS, NAME, read_page
from dashboard.security.prefix import page_path
from dashboard.state.address import SaliencyAddress
from dashboard.state.context import Context, Record, current
from dashboard.state.ids import LOCATION, make_id
from db.ledger.tables import UNFINISHED
from db.queries import jobs as job_queries
from workers.requests.saliency import faithfulness_job

TITLE = "Saliency · Convscope"
_id = functools.partial(make_id, NAME)
_PARTS = ("grid", "legend", "steps", "sorting")


def layout() -> Component:
    """The page without content."""
    slider = map_display.slider
    display = html.Div(
        [
            map_display.choice(_id("view"), "view", "Show"),
            slider(_id("strength"), "strength", "Strength", low=0, high=1, step=0.01),
            slider(_id("wipe"), "wipe", "Original | map", low=0, high=1, step=0.01),
            map_display.choice(_id("colours"), "colours", "Color map"),
            map_display.choice(_id("scale"), "scale", "Scale"),
            slider(_id("clip"), "clip", "Clip at percentile", low=80, high=100, step=0.1),
            map_display.choice(_id("order"), "order", "Order"),
            map_display.choice(_id("model_order"), "model_order", "Sort models", box=_id("sorting")),
            html.Button(
                "As in reports",
                id=_id("reports"),
                type="button",
                className="btn btn-sm btn-quiet as-reports",
                title="The map alone, its magnitudes white on black, clipped at the 99th percentile",
            ),
        ],
        className="controls display",
        role="group",
        **attributes(aria_label="How maps are shown"),
    )
    area = html.Div(
        [
            html.P(
                [
                    map_display.legend_part("low", className="num"),
                    map_display.legend_part("bar", html.Canvas, className="colour-bar"),
                    map_display.legend_part("high", className="num"),
                    html.Span(id=_id("legend"), hidden=True, **attributes(data_legend="words")),
                ],
                className="legend",
            ),
            html.Div(id=_id("grid")),
        ],
        id=_id("area"),
    )
    beside = [
        large_map.layout(),
        dcc.Store(id=_id("steps")),
        dcc.Store(id=_id("defaults"), data={**map_display.DEFAULTS, **map_display.ORDERS}),
    ]
    return frame.layout(FORM, "Saliency", [display, area], beside)


def register(app: Dash) -> None:
    """Register the page's callbacks."""
    frame.register(app, FORM, read_page)
    large_map.register(app, display=_id("area"), steps=_id("steps"))
    app.callback(
        output={
            **frame.outputs(FORM),
            "grid": Output(_id("grid"), "children"),
            "legend": Output(_id("legend"), "data-words"),
            "steps": Output(_id("steps"), "data"),
            "sorting": Output(_id("sorting"), "hidden"),
            "display": {name: Output(_id(name), "value") for name in DISPLAY},
        },
        inputs={
            **frame.inputs(FORM),
            "order": Input(_id("order"), "value"),
            "model_order": Input(_id("model_order"), "value"),
        },
        state=frame.states(FORM),
        running=job_progress.pause(NAME),
    )(show)
    in_browser(
        app,
        "showMaps",
        Output(_id("area"), "data-display"),
        Output(_id("strength") + "_box", "hidden"),
        *(Output(_id(name) + "_value", "children") for name in map_display.RANGES),
        *(Input(_id(name), "value") for name in DISPLAY),
        State(_id("defaults"), "data"),
        prevent_initial_call=True,
    )
    reported = map_display.AS_IN_REPORTS
    app.callback(
        *(Output(_id(name), "value", allow_duplicate=True) for name in reported),
        Input(_id("reports"), "n_clicks"),
        prevent_initial_call=True,
    )(lambda _clicks: tuple(reported.values()))
    app.callback(
        job_progress.reports(NAME),
        Input(_id("score"), "n_clicks"),
        State(LOCATION, "search"),
        prevent_initial_call=True,
    )(_score)


def show(
    search: str | None,
    _status: Any,
    _ticks: int | None,
    event: Record | None,
    order: str | None,
    model_order: str | None,
    pathname: str | None,
    shown: Record | None,
    work: Mapping[str, Any] | None,
) -> Record:
    """The page for an address and the present state of the ledger; what did not change is left alone."""
    if page_path(pathname) != SaliencyAddress.path:
        raise PreventUpdate
    context = current()
    catalogue = context.catalogue()
    message = frame.nothing_to_choose(catalogue)
    kept = dict.fromkeys(DISPLAY, no_update)
    if message is not None:
        return frame.only(FORM, message, _PARTS) | {"display": kept}
    new_address = shown is None or any(one["prop_id"] == f"{LOCATION}.search" for one in ctx.triggered)
    display = map_display.read_display(search)
    if not new_address:
        display |= {"order": order or "", "model_order": model_order or ""}
    page, watched = frame.read_with_jobs(
        lambda: read_page(context, catalogue, search), lambda page: _scoring(context, page)
    )
    values = frame.values(
        FORM, context, page, watched, search=search, event=event, work=work,
        tools=_tools(page["stored"], search, busy=watched.unfinished),
        hint=frame.hint(page, noun="maps", done="computed"),
    )  # fmt: skip
    values |= page_values(context, page, watched, display)
    return frame.changed(values, shown or {}) | {"display": display if new_address else kept}


def page_values(context: Context, page: Record, watched: Watched, display: Mapping[str, Any]) -> Record:
    """Values of the page's own parts for its data and jobs."""
    maps: list[Record] = page["stored"]
    state = frame.job_state(page, watched)
    failed: dict[tuple[int, str], str] = {}
    if state:
        items = job_queries.job_items(context.ledger, page["job"], limit=MAX_MAPS)
        failed = {(item["image_id"], item["model"]): item["error"] for item in items if item["error"]}
    models = page["request"]["models"] if page["request"] else page["chosen"]
    rows, columns = in_order(page["rows"], models, maps, display["order"], display["model_order"])
    scored = any(found["deletion_auc"] is not None for found in maps)
    dtypes = " and ".join(dict.fromkeys(found["dtype"] for found in maps))
    return {
        "grid": grid(
            rows,
            columns,
            maps,
            opens=large_map.OPENED,
            failed=failed,
            state=state if state in UNFINISHED else "",
        ),
        "legend": map_display.legend_words(page["unit"], dtypes),
        "steps": page["steps"],
        "sorting": len(columns) < 2 or not scored,
    }


def _scoring(context: Context, page: Record) -> list[int]:
    """The newest job about curves that the maps shown lack, if there is one."""
    numbers = {found["map"] for found in page["stored"] if found["deletion_auc"] is None}
    if not numbers:
        return []
    jobs = job_queries.jobs(context.ledger, kinds=("faithfulness",), image_set=page["image_set"], limit=20)
    found = (
        job["job"]
        for job in jobs
        if job["parameters"]["steps"] == page["steps"] and numbers & set(job["parameters"]["maps"])
    )
    return list(found)[:1]


def _tools(maps: Sequence[Record], search: str | None, *, busy: bool) -> list[Component]:
    """Deletion and insertion, CSV and Figure; nothing as long as there are no maps."""
    if not maps:
        return []

    complete = all(found["deletion_auc"] is not None for found in maps)
    score = html.Button(
        [icon("graph-down"), "Deletion and insertion"],
        id=_id("score"),
        type="button",
        className="btn btn-sm btn-quiet",
        disabled=busy,
        title="How fast the probability of the class falls when the pixels that the map ranks first are "
        "deleted, and rises when they are inserted",
    )
    return [
        *([] if complete else [score]),
        frame.download("download", "CSV", "/download/saliency.csv", search),
        frame.download("image", "Figure", "/download/saliency.png", search),
    ]


def _score(clicks: int | None, search: str | None) -> Record:
    """Submit the curves of the maps shown."""
    if not clicks:
        raise PreventUpdate
    context = current()
    page = read_page(context, context.catalogue(), search)

    def submit() -> str:
        maps = sorted(found["map"] for found in page["stored"])
        new = faithfulness_job(context.ledger, maps, steps=page["steps"], queue="interactive")
        return job_progress.submit(new)

    return job_progress.attempt(submit, about=FORM.about(search))


PAGE = Page(
    name=NAME,
    title=TITLE,
    address=SaliencyAddress,
    layout=layout,
    register=register,
    label="Saliency",
    icon="bullseye",
)
