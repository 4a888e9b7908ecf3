"""Buttons of the tour that index its image set with another model, and what becomes of that job.

button --(browser/form.js)--> pressed --> job --> said, interval
interval --> said, until the job has ended
"""

from collections.abc import Mapping
from typing import Any

from dash import Dash, Input, Output, State, dcc, html
from dash.exceptions import PreventUpdate

from dashboard.components.callbacks import one_at_a_time
from dashboard.components.elements import Component
from dashboard.pages.job_progress import REFUSALS
from dashboard.security.access import spend
from dashboard.security.prefix import local
from dashboard.state.context import Record, current
from dashboard.state.ids import make_id
from db.atlas.store import AtlasError
from db.ledger.engine import LedgerError
from db.ledger.jobs import NoSuchJob
from db.ledger.tables import UNFINISHED
from db.queries import jobs as job_queries
from workers.jobs.kind import Stores
from workers.jobs.registry import read_request

MILLISECONDS = 1000
PRESSED, JOB, SAID, TICKS = (make_id("offer", name) for name in ("pressed", "job", "said", "ticks"))


def layout() -> Component:
    """The line about the job, below the tour, and its state."""
    return html.Div(
        [
            html.Div(id=SAID, role="status"),
            dcc.Store(id=PRESSED),
            dcc.Store(id=JOB),
            dcc.Interval(id=TICKS, interval=MILLISECONDS, disabled=True),
        ],
        className="offer-job",
    )


def register(app: Dash) -> None:
    """Register the callbacks."""
    shown = [Output(SAID, "children"), Output(TICKS, "disabled")]
    app.callback(Output(JOB, "data"), *shown, Input(PRESSED, "data"), prevent_initial_call=True)(index)
    again = [Output(one.component_id, one.component_property, allow_duplicate=True) for one in shown]
    app.callback(
        *again,
        Input(TICKS, "n_intervals"),
        State(JOB, "data"),
        prevent_initial_call=True,
        running=one_at_a_time(TICKS),
    )(follow)


def index(pressed: Mapping[str, Any] | None) -> tuple[Record | None, Component, bool]:
    """Submit the job; a model that is on a hub is fetched by it."""
    if pressed is None:
        raise PreventUpdate
    context = current()
    body = {"kind": "index", "model": pressed["offer"], "images": pressed["images"]}
    try:
        spend("jobs")
        request = read_request(body, Stores(context.atlas, context.ledger, context.settings))
        number = context.submitter.submit(request).job
    except (*REFUSALS, AtlasError) as error:
        return None, _problem(error), True
    job = {"job": number, "what": f"{pressed['offer']} over {pressed['images']}"}
    return job, *follow(0, job)


def follow(_ticks: int | None, job: Mapping[str, Any] | None) -> tuple[Component, bool]:
    """The state of the job in words, and whether it need not be read again."""
    if job is None:
        raise PreventUpdate
    try:
        found = job_queries.job(current().ledger, job["job"])
    except (LedgerError, NoSuchJob) as error:
        return _problem(error), isinstance(error, NoSuchJob)
    what = job["what"]
    words = {
        "queued": f", {what}: queued.",
        "running": f", {what}: {found['note'] or 'running'}.",
        "done": f": {what} is indexed.",
        "failed": f" failed: {found['error']}",
        "cancelled": " was cancelled.",
    }[found["state"]]
    link = html.A(f"Job {job['job']}", href=local(f"/jobs?job={job['job']}"))
    said = html.Span([link, words], className="problem" if found["state"] == "failed" else "")
    return said, found["state"] not in UNFINISHED


def _problem(error: Exception) -> Component:
    return html.Span(" ".join(str(error).split()), className="problem")
