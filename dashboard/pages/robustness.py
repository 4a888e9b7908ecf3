"""The Robustness page: attacks on a whole set, as curves, points, tables and their SQL.

    address, work, clock --> show_robustness --> everything
    protocol, class, axis --> choose --> address
    a point of the curve --> list_images --> address of the images behind it
    a point of the strip, a cell of the matrix --> open_attack --> address of the attack
    Test transfer --> submit_transfer --> job, clock

Every number is a SELECT from a view of `db.sql.views`; each table shows its own.
"""

from collections.abc import Sequence
from typing import Any

from dash import Dash, Input, Output, State, dcc, html, no_update
from dash.exceptions import PreventUpdate

from dashboard.api.answers import job_record
from dashboard.components import elements as components
from dashboard.components.callbacks import one_at_a_time
from dashboard.components.elements import Component, attributes, icon
from dashboard.components.formatting import count
from dashboard.components.onboarding import nothing_yet
from dashboard.pages.page import Page
from dashboard.pages.robustness_curves import CURVE, STRIP, curve_section, strip_section
from dashboard.pages.robustness_tables import (
    ASK,
    ASKED,
    MATRIX,
    class_table,
    leaderboard,
    outcomes_table,
    transfer_matrix,
    transfer_table,
)
from dashboard.security.access import TooManyRequests, spend
from dashboard.security.prefix import local, page_path
from dashboard.state.address import AttackAddress, RobustnessAddress
from dashboard.state.context import Catalogue, Context, Record, current
from dashboard.state.ids import LOCATION, make_id
from db.ledger.engine import LedgerError
from db.ledger.tables import UNFINISHED
from db.queries import jobs as job_queries
from db.queries import robustness as robustness_queries
from workers.jobs.kind import Stores
from workers.jobs.registry import read_request
from workers.requests.parameters import InvalidRequest

TITLE = "Robustness · Convscope"
BODY = make_id("robustness", "body")
CLOCK = make_id("robustness", "clock")
CHOSEN = make_id("robustness", "chosen")
CONTROLS = ("protocol", "label", "axis")
ALL_CLASSES = "all"
REFRESH_MILLISECONDS = 5000


def layout() -> Component:
    """The page without content."""
    return html.Div(
        [
            html.Div(html.Div(className="skeleton tall"), id=BODY),
            dcc.Interval(id=CLOCK, interval=REFRESH_MILLISECONDS, disabled=True),
        ],
        className="single-page robustness-page",
    )


def register(app: Dash) -> None:
    """Register the page's callbacks."""
    app.callback(
        Output(BODY, "children"),
        Output(CLOCK, "disabled"),
        Input(LOCATION, "search"),
        Input(make_id("shell", "status"), "data"),
        Input(make_id("shell", "work"), "data"),
        Input(CLOCK, "n_intervals"),
        State(LOCATION, "pathname"),
        running=one_at_a_time(CLOCK),
    )(show_robustness)
    app.callback(
        Output(LOCATION, "search", allow_duplicate=True),
        *(Input(make_id("robustness", name), "value") for name in CONTROLS),
        State(CHOSEN, "data"),
        State(LOCATION, "search"),
        prevent_initial_call=True,
    )(choose)
    app.callback(
        Output(LOCATION, "search", allow_duplicate=True),
        Output(CURVE, "clickData"),  # forgotten, so the same point can be clicked again
        Input(CURVE, "clickData"),
        State(LOCATION, "search"),
        prevent_initial_call=True,
    )(list_images)
    for figure in (STRIP, MATRIX):
        app.callback(
            Output(LOCATION, "href", allow_duplicate=True),
            Input(figure, "clickData"),
            prevent_initial_call=True,
        )(open_attack)
    app.callback(
        Output(ASKED, "children"),
        Output(ASK, "disabled"),
        Output(CLOCK, "n_intervals"),
        Input(ASK, "n_clicks"),
        State(ASK, "data-attacks"),
        State(ASK, "data-judges"),
        State(CLOCK, "n_intervals"),
        prevent_initial_call=True,
    )(submit_transfer)


def choose(protocol: str, label: str, axis: str, chosen: Record | None, search: str | None) -> str:
    """The query string after a choice; controls that show what is in the address change nothing."""
    values = {"protocol": protocol, "label": "" if label == ALL_CLASSES else label, "axis": axis}
    changes = {name: value for name, value in values.items() if chosen and value != chosen[name]}
    if not changes:
        raise PreventUpdate
    if "protocol" in changes:
        changes["label"] = ""
    address, _ = RobustnessAddress.read(search)
    return address.search_part(**changes, epsilon="", listed="")


def list_images(clicked: Record | None, search: str | None) -> tuple[str, None]:
    """The query string that lists the images behind a point of the curve; the page's model stays."""
    data = _custom_data(clicked)
    if len(data) != 2:
        raise PreventUpdate
    address, _ = RobustnessAddress.read(search)
    return address.search_part(listed=data[0], epsilon=str(data[1])), None


def open_attack(clicked: Record | None) -> str:
    """The address of the attack behind a point of the strip, or of the example behind a cell of the matrix."""
    data = _custom_data(clicked)
    if not data:
        raise PreventUpdate
    return AttackAddress(attack=data[0]).href()


def _custom_data(clicked: Record | None) -> list[Any]:
    """What a figure stores with the clicked point; empty if nothing was clicked."""
    data = clicked["points"][0].get("customdata") if clicked and clicked.get("points") else None
    return data if isinstance(data, list) else [] if data is None else [data]


def submit_transfer(
    clicks: int | None, attacks: str, judges: str, clock: int | None
) -> tuple[Component, bool, Any]:
    """Submit the job in which other models classify the attacked images; its progress is on this page."""
    if not clicks:
        raise PreventUpdate
    context = current()
    request = {"kind": "transfer", "attacks": attacks, "judges": judges.split(","), "queue": "batch"}
    try:
        spend("jobs")
        new = read_request(request, Stores(context.atlas, context.ledger, context.settings))
        context.submitter.submit(new)
    except (InvalidRequest, LedgerError, TooManyRequests) as error:
        return html.P(f"{error}.", className="problem", role="alert"), False, no_update
    return None, True, (clock or 0) + 1


def show_robustness(
    search: str | None, _status: Any, _work: Any, _clock: Any, pathname: str | None
) -> tuple[Component, bool]:
    """The page, and whether polling can stop because no running job would change it."""
    if page_path(pathname) != RobustnessAddress.path:
        raise PreventUpdate
    context = current()
    catalogue = context.catalogue()
    if catalogue.trouble:
        return components.trouble(catalogue.trouble), True
    if not catalogue.runs or not catalogue.image_sets:
        return nothing_yet(catalogue.newest_set()), True
    address, problems = RobustnessAddress.read(search)
    try:
        return page(context, catalogue, address, problems)
    except LedgerError as error:
        return components.message("The ledger cannot be read", html.P(f"{error}."), kind="error"), True


def page(
    context: Context, catalogue: Catalogue, address: RobustnessAddress, problems: dict[str, str]
) -> tuple[Component, bool]:
    """The components of the page, and whether polling can stop."""
    image_set = catalogue.newest_set(address.images)
    if address.images and image_set != address.images:
        problems["images"] = f"There is no image set “{address.images}”; this is {image_set}."
    images = next(row["images"] for row in catalogue.image_sets if row["image_set"] == image_set)
    running = job_queries.jobs(
        context.ledger,
        states=UNFINISHED,
        kinds=("attack", "transfer"),
        image_set=image_set,
        limit=5,
    )
    ways = context.both.fetch(robustness_queries.protocols(image_set))
    way = next((found for found in ways if found["protocol"] == address.protocol), None)
    if address.protocol and way is None:
        problems["protocol"] = f"{image_set} was not attacked by “{address.protocol}”."
    way = way or next(iter(ways), None)
    heading = _heading(image_set, images, address)
    lines = [_job_line(job) for job in running]
    if way is None:
        told = components.problems_list(problems.values())
        return html.Div([heading, *told, *lines, _empty(address, image_set, images)]), not running
    here = RobustnessAddress(
        model=address.model if address.model in way["models"] else way["models"][0],
        images=image_set,
        protocol=way["protocol"],
        label=address.label,
        axis=address.axis,
        sort=address.sort,
        epsilon=address.epsilon,
        listed=address.listed if address.listed in way["models"] else "",
    )
    parts = [
        heading,
        *components.problems_list(problems.values()),
        *lines,
        _controls(context, here, ways),
        *curve_section(context, here, way),
        # a single epsilon yields no smallest one
        *([] if way["fixed"] else strip_section(context, here, way)),
        html.Div([outcomes_table(context, here, images), leaderboard(context, here, way)], className="two"),
        transfer_table(context, catalogue, here),
        html.Div([transfer_matrix(context, here, way), class_table(context, here, way)], className="two"),
    ]
    return html.Div(parts), not running


def _heading(image_set: str, images: int, address: RobustnessAddress) -> Component:
    there = AttackAddress(model=address.model, images=image_set, ids=f"0-{images - 1}" if images > 1 else "0")
    return html.Div(
        [
            html.Div(
                [html.H1("Robustness"), html.P(f"{image_set} · {count(images, 'image')}")], className="title"
            ),
            html.Div(
                html.A(
                    [icon("lightning-charge"), html.Span("Attack the whole set…")],
                    href=there.href(),
                    className="btn btn-sm btn-quiet",
                ),
                className="tools tools-place",
            ),
        ],
        className="heading",
    )


def _job_line(job: Record) -> Component:
    record = job_record(job)
    done = f"{job['items_done']:,} of {job['items']:,}" + (
        f", {job['items_failed']:,} failed" if job["items_failed"] else ""
    )
    return html.Div(
        [
            html.A(f"Job {job['job']}", href=local(f"/jobs?job={job['job']}"), className="num"),
            html.Span(job["state"]),
            components.progress_bar(
                record["progress"], f"{done} {'attacks' if job['kind'] == 'attack' else 'predictions'}"
            ),
        ],
        className="job-now",
        role="status",
    )


def _empty(address: RobustnessAddress, image_set: str, images: int) -> Component:
    there = AttackAddress(model=address.model, images=image_set, ids=f"0-{images - 1}" if images > 1 else "0")
    return components.message(
        f"{image_set} was not attacked yet",
        html.P(
            [
                "Start on the ",
                html.A("Attack page", href=there.href()),
                ", or in a terminal. Each result is stored as soon as it is ready; a job can be cancelled, resumed and "
                "extended.",
            ]
        ),
        components.command(f"convscope attack --model {address.model or 'MODEL'} --images {image_set}"),
        kind="empty",
    )


def _controls(context: Context, here: RobustnessAddress, ways: Sequence[Record]) -> Component:
    classes = context.both.fetch(
        robustness_queries.by_class(here.images, here.protocol, here.model, order="name", limit=None)
    )
    return html.Div(
        [
            _choice(
                "Attack",
                "protocol",
                [(way["protocol"], f"{way['protocol']} ({way['attacks']:,})") for way in ways],
                here.protocol,
            ),
            _choice(
                "Class",
                "label",
                [
                    (ALL_CLASSES, "All classes"),
                    *((row["class"], f"{row['label']} ({row['images']})") for row in classes),
                ],
                here.label or ALL_CLASSES,
            ),
            _choice("Epsilon axis", "axis", [("log", "Logarithmic"), ("linear", "Linear")], here.axis),
            dcc.Store(id=CHOSEN, data={"protocol": here.protocol, "label": here.label, "axis": here.axis}),
        ],
        className="controls",
        role="group",
        **attributes(aria_label="What is shown"),
    )


def _choice(label: str, name: str, options: Sequence[tuple[str, str]], chosen: str) -> Component:
    """A select that writes to the address (see `choose`)."""
    control = make_id("robustness", name)
    return components.labelled(label, components.select(control, options, chosen), control_id=control)


PAGE = Page(
    name="robustness",
    title=TITLE,
    address=RobustnessAddress,
    layout=layout,
    register=register,
    label="Robustness",
    icon="graph-down",
)
