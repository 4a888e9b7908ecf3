"""The Jobs page: queued, running and finished jobs, a page of them at a time, and the opened one.

Callbacks::

    address, work, tick, done -> table, opened job, controls; tick stops when nothing shown is unfinished
    poll --(browser, while the page is visible)--> tick
    controls -> address
    buttons of the table and of the opened job -> done
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import dash_ag_grid
from dash import ALL, Dash, Input, Output, State, ctx, dcc, html, no_update, set_props
from dash.exceptions import PreventUpdate

from dashboard.api.answers import job_record
from dashboard.components import elements as components
from dashboard.components.callbacks import fingerprint, in_browser, one_at_a_time
from dashboard.components.elements import Component, attributes, labelled, select
from dashboard.components.formatting import count
from dashboard.components.job_cells import age_words, cells
from dashboard.components.job_details import MAX_ITEMS, action_id, job_details, job_parts, part_id
from dashboard.pages.page import Page
from dashboard.security.access import TooManyRequests, spend
from dashboard.security.prefix import page_path
from dashboard.state.address import AttackAddress, JobsAddress, SaliencyAddress
from dashboard.state.context import Context, Record, current
from dashboard.state.ids import LOCATION, make_id
from db.ledger.engine import LedgerError
from db.ledger.jobs import IllegalMove, NoSuchJob
from db.ledger.tables import STATES, UNFINISHED
from db.queries import jobs as job_queries
from workers.jobs.registry import JOB_KINDS

TITLE = "Jobs · Convscope"
PER_PAGE = 25
POLL_MILLISECONDS = 1000
GRID = make_id("jobs", "grid")
ANY = "any"  # a filter that is not set; a select shows an empty value as nothing
# Columns of a wide window; a narrow one has one column that shows them all as a card (`browser/jobs.js`).
COLUMNS: tuple[tuple[str, str, int, int], ...] = (
    # field, header, minimum width in pixels, share of the rest
    ("name", "Job", 190, 3),
    ("what", "Images", 96, 2),
    ("state", "State", 124, 0),
    ("progress", "Progress", 110, 2),
    ("pace", "Time", 120, 2),
    ("age", "Submitted", 92, 0),
    ("actions", "", 190, 0),
)
OPTIONS: dict[str, Any] = {
    "theme": {
        "function": "themeQuartz.withParams({"
        "backgroundColor: 'transparent', foregroundColor: 'var(--text)', borderColor: 'var(--line)', "
        "headerBackgroundColor: 'var(--sunken)', headerTextColor: 'var(--quiet)', accentColor: 'var(--accent)', "
        "rowHoverColor: 'transparent', browserColorScheme: 'inherit', fontFamily: 'inherit', fontSize: 14, "
        "headerFontSize: 12, headerHeight: 34, cellHorizontalPadding: 12, wrapperBorder: false, "
        "wrapperBorderRadius: 0})"
    },
    "domLayout": "autoHeight",
    "rowHeight": 58,
    "animateRows": False,
    # the links and buttons in the cells are reached by Tab, as anywhere on the page
    "ensureDomOrder": True,
    "tabIndex": -1,
    "suppressCellFocus": True,
    "suppressHeaderFocus": True,
    "suppressMovableColumns": True,
    "suppressColumnVirtualisation": True,
    "suppressRowVirtualisation": True,
    "enableCellTextSelection": True,
}


def layout() -> Component:
    """The page without jobs."""
    states = [(state, state.capitalize()) for state in STATES]
    kinds = [(kind.name, kind.title) for kind in JOB_KINDS.values()]
    controls = [
        labelled(
            label,
            select(make_id("jobs", name), [(ANY, "All"), *options], ANY),
            control_id=make_id("jobs", name),
        )
        for name, label, options in (("state", "State", states), ("kind", "Kind", kinds))
    ]
    return html.Div(
        [
            html.Div(
                html.Div([html.H1("Jobs"), html.P(id=make_id("jobs", "count"))], className="title"),
                className="heading",
            ),
            html.Div(controls, className="controls", role="group", **attributes(aria_label="Filters")),
            html.Div(id=make_id("jobs", "note"), role="status"),
            html.Div(
                [
                    html.Div(id=make_id("jobs", "opened"), className="job-opened"),
                    html.Div(
                        [
                            html.Div(html.Div(className="skeleton tall"), id=make_id("jobs", "empty")),
                            html.Div(_grid(), id=make_id("jobs", "list"), className="job-list", hidden=True),
                            html.Div(id=make_id("jobs", "pager")),
                        ],
                        className="job-lists",
                    ),
                ],
                className="job-columns",
            ),
            dcc.Interval(id=make_id("jobs", "poll"), interval=POLL_MILLISECONDS),
            dcc.Store(id=make_id("jobs", "tick")),
            dcc.Store(id=make_id("jobs", "done")),
            dcc.Store(id=make_id("jobs", "shown")),
            dcc.Store(id=make_id("jobs", "columns"), data=column_definitions()),
        ],
        className="single-page jobs-page",
    )


def _grid() -> Component:
    return dash_ag_grid.AgGrid(
        id=GRID,
        columnDefs=[],
        rowData=[],
        getRowId="params.data.job",
        rowClassRules={"selected": "params.data.open", "job-card": "true"},
        defaultColDef={
            "sortable": False,
            "resizable": True,
            "cellDataType": False,
            "cellRenderer": "JobCell",
            "suppressKeyboardEvent": {
                "function": "true"
            },  # else the grid keeps Tab from what is in the cells
        },
        dashGridOptions=OPTIONS,
        style={"height": None},
    )


def column_definitions() -> list[Record]:
    """The columns of a wide window, and the one of a narrow window, the last."""
    wide = [
        {"field": field, "headerName": title, "minWidth": least, "cellRendererParams": {"fields": [field]}}
        | ({"flex": share} if share else {"width": least})
        for field, title, least, share in COLUMNS
    ]
    card = {
        "colId": "card",
        "headerName": "Job",
        "flex": 1,
        "autoHeight": True,
        "cellRendererParams": {"fields": [field for field, *_ in COLUMNS]},
    }
    return [*wide, card]


def register(app: Dash) -> None:
    """Register the page's callbacks."""
    in_browser(
        app,
        "jobColumns",
        Output(GRID, "columnDefs"),
        Input(make_id("jobs", "columns"), "data"),
    )
    in_browser(
        app,
        "whileVisible",
        Output(make_id("jobs", "tick"), "data"),
        Input(make_id("jobs", "poll"), "n_intervals"),
        prevent_initial_call=True,
    )
    app.callback(
        Output(GRID, "rowData"),
        Output(GRID, "rowTransaction"),
        Output(make_id("jobs", "list"), "hidden"),
        Output(make_id("jobs", "empty"), "children"),
        Output(make_id("jobs", "opened"), "children"),
        Output(make_id("jobs", "count"), "children"),
        Output(make_id("jobs", "note"), "children"),
        Output(make_id("jobs", "pager"), "children"),
        Output(make_id("jobs", "state"), "value"),
        Output(make_id("jobs", "kind"), "value"),
        Output(make_id("jobs", "poll"), "disabled"),
        Output(make_id("jobs", "shown"), "data"),
        Input(LOCATION, "search"),
        Input(make_id("shell", "work"), "data"),
        Input(make_id("jobs", "tick"), "data"),
        Input(make_id("jobs", "done"), "data"),
        State(LOCATION, "pathname"),
        State(make_id("jobs", "shown"), "data"),
        running=one_at_a_time(make_id("jobs", "poll")),
    )(show_jobs)
    app.callback(
        Output(LOCATION, "search", allow_duplicate=True),
        Input(make_id("jobs", "state"), "value"),
        Input(make_id("jobs", "kind"), "value"),
        State(LOCATION, "search"),
        prevent_initial_call=True,
    )(filter_jobs)
    app.callback(
        Output(make_id("jobs", "done"), "data"),
        Input(GRID, "cellRendererData"),
        Input(action_id(ALL, ALL), "n_clicks"),
        prevent_initial_call=True,
    )(act)


class Listing(NamedTuple):
    """What the page shows for an address: rows of the table, the opened job in parts, the number of all jobs."""

    jobs: Sequence[Record]
    opened: Record | None
    parts: Mapping[str, Component]
    total: int
    problems: Sequence[str]

    @property
    def unfinished(self) -> bool:
        """Whether any of these jobs can still change."""
        shown = [*self.jobs, *([self.opened] if self.opened else [])]
        return any(job["state"] in UNFINISHED for job in shown)


class Update(NamedTuple):
    """Return value of `show_jobs`, in the order of its outputs; `no_update` for what is shown already."""

    data: Any = no_update
    transaction: Any = no_update
    hidden: Any = no_update
    empty: Any = no_update
    opened: Any = no_update
    count: Any = no_update
    note: Any = no_update
    pager: Any = no_update
    state: Any = no_update
    kind: Any = no_update
    still: Any = False
    shown: Any = no_update


def show_jobs(
    search: str | None,
    work: Record | None,
    _tick: Any,
    done: Record | None,
    pathname: str | None,
    shown: Record | None,
) -> Update:
    """The parts of the page that differ from those that are `shown`."""
    if page_path(pathname) != JobsAddress.path:
        raise PreventUpdate
    update, parts = changes(search, work, done, shown or {})
    for name, part in parts.items():
        set_props(part_id(name), {"children": part})
    return update


def changes(
    search: str | None, work: Record | None, done: Record | None, shown: Record
) -> tuple[Update, dict[str, Component]]:
    """What differs from what is `shown`: of the page, and by name the parts of the opened job."""
    address, unusable = JobsAddress.read(search)
    try:
        listing = read_listing(current(), address)
    except LedgerError as error:
        return Update(note=components.problems_list([f"{error}."])), {}
    rows = {str(job["job"]): job for job in listing.jobs}
    problems = [*unusable.values(), *_problems(work, done), *listing.problems]
    places = {
        "hidden": not rows,
        "empty": None if rows else _nothing(address),
        "count": count(listing.total, "job"),
        "note": components.problems_list(problems),
        "pager": _pager(address, listing.total),
        "state": address.state or ANY,
        "kind": address.kind or ANY,
    }
    now: Record = {
        "rows": {number: state_of(job, address) for number, job in rows.items()},
        "places": {name: fingerprint(place) for name, place in places.items()},
        "parts": {name: fingerprint(part) for name, part in listing.parts.items()},
        "job": listing.opened["job"] if listing.opened else 0,
    }
    before: Record = {"rows": {}, "places": {}, "parts": {}, "job": 0} | shown
    sent = {
        name: place for name, place in places.items() if now["places"][name] != before["places"].get(name)
    }
    changed = [job for number, job in rows.items() if now["rows"][number] != before["rows"].get(number)]
    if before["rows"].keys() != now["rows"].keys():
        sent["data"] = [cells(job, address) for job in rows.values()]
    elif changed:
        sent["transaction"] = {"update": [cells(job, address) for job in changed], "async": False}
    parts: dict[str, Component] = {}
    if now["job"] == before["job"]:
        parts = {n: part for n, part in listing.parts.items() if now["parts"][n] != before["parts"].get(n)}
    else:
        close = address.href(job=0)
        sent["opened"] = job_details(listing.opened, listing.parts, close=close) if listing.opened else None
    if now != shown:
        sent["shown"] = now
    return Update(**sent, still=not listing.unfinished), parts


def state_of(job: Record, address: JobsAddress) -> str:
    """The same for a row, from what its cells are drawn from: drawing them takes ten times as long."""
    return fingerprint(job | {"age": age_words(job), "open": address.job == job["job"]})


def read_listing(context: Context, address: JobsAddress) -> Listing:
    """The jobs of an address, and the opened one.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    ledger = context.ledger
    filters: Record = {
        "states": [address.state] if address.state else [],
        "kinds": [address.kind] if address.kind else [],
    }
    offset = (address.page - 1) * PER_PAGE
    found: list[Record] = [
        dict(job_record(job)) for job in job_queries.jobs(ledger, **filters, limit=PER_PAGE, offset=offset)
    ]
    total = job_queries.count_jobs(ledger, **filters)
    if not address.job:
        return Listing(found, None, {}, total, [])
    try:
        job: Record = dict(job_record(job_queries.job(ledger, address.job)))
    except NoSuchJob as error:
        return Listing(found, None, {}, total, [_sentence(error)])
    items = job_queries.job_items(ledger, address.job, limit=MAX_ITEMS)
    parts = job_parts(job, items, job_queries.image_import(ledger, address.job))
    return Listing(found, job, parts, total, [])


def _sentence(error: Exception) -> str:
    return f"{str(error)[0].upper()}{str(error)[1:]}."


def _problems(work: Record | None, done: Record | None) -> list[str]:
    """Why the last button did nothing, and why jobs do not run."""
    found = [done["problem"]] if done and done["problem"] else []
    lamp, title, text = (work or {}).get("words") or ("", "", "")
    if lamp == "off":
        found.append(f"{title[0].upper()}{title[1:]}: {text}.")
    return found


def _nothing(address: JobsAddress) -> Component:
    return components.message(
        "No such job" if address.state or address.kind else "No jobs yet",
        html.P(
            [
                "Jobs compute maps and attacks. Start one on the ",
                html.A("Saliency page", href=address.at(SaliencyAddress).href()),
                " or the ",
                html.A("Attack page", href=address.at(AttackAddress).href()),
                ", or in a terminal:",
            ]
        ),
        components.command("convscope saliency --model efficientnet-lite0 --images samples --ids 0-9"),
        kind="empty",
    )


def _pager(address: JobsAddress, total: int) -> Component:
    pages = max(1, -(-total // PER_PAGE))
    if pages == 1 and address.page == 1:
        return None
    page = min(address.page, pages + 1)
    return components.pager(
        f"{address.page:,} of {pages:,}",
        previous=address.href(page=page - 1, job=0) if page > 1 else None,
        following=address.href(page=page + 1, job=0) if page < pages else None,
    )


def filter_jobs(state: str | None, kind: str | None, search: str | None) -> str:
    """The address with the chosen filters, on its first page and with no job opened."""
    address, _ = JobsAddress.read(search)
    if state is None or kind is None:
        raise PreventUpdate
    chosen = replace(address, state="" if state == ANY else state, kind="" if kind == ANY else kind)
    if chosen == address:
        raise PreventUpdate  # the controls show what the address says
    return replace(chosen, page=1, job=0).search_part()


def act(clicked: Mapping[str, Any] | None, clicks: Sequence[int | None]) -> Record:
    """Cancel or retry a job, from a button of the table or of the opened job."""
    if isinstance(ctx.triggered_id, Mapping):
        action, job = ctx.triggered_id["action"], ctx.triggered_id["job"]
        if not any(clicks):
            raise PreventUpdate  # the buttons were only drawn
    elif clicked and clicked.get("value"):
        action, job = clicked["value"]["action"], clicked["value"]["job"]
    else:
        raise PreventUpdate
    return {"problem": move_job(str(action), int(job))}


def move_job(action: str, job: int) -> str:
    """Cancel or retry a job; the sentence why that was not possible, else an empty text."""
    context = current()
    try:
        if action == "cancel":
            context.submitter.cancel(job)
        else:
            spend("jobs")
            context.submitter.retry(job)
    except (IllegalMove, NoSuchJob, LedgerError, TooManyRequests) as error:
        return _sentence(error)
    return ""


PAGE = Page(
    name="jobs",
    title=TITLE,
    address=JobsAddress,
    layout=layout,
    register=register,
    label="Jobs",
    icon="list-check",
)
