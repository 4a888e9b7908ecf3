"""The job controller of a page: progress lines of its jobs, with Cancel and Retry.

The page says which jobs it shows; the controller reads them from the ledger, once a second while one of them is
unfinished.

    page callback --> watch(jobs) --> outputs(page): lines, and whether the interval runs
    interval --> page callback      (the page sees new results at the same time)
    Cancel, Retry --(browser)--> pressed --> ledger --> event(page) --> page callback

A page puts `layout` where the lines shall appear, spreads `outputs` into the outputs of its callback, and
returns `watch(...)` for them. `ticks` and `event` are inputs of that callback. Its own buttons report what
happened through `event` too: `report(...)`, which also carries a sentence to show.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import flask
from dash import Dash, Input, Output, State, dcc, html

from dashboard.api.answers import job_record
from dashboard.components.callbacks import one_at_a_time
from dashboard.components.elements import Component, attributes, icon, progress_bar
from dashboard.components.formatting import duration
from dashboard.security.access import TooManyRequests, spend
from dashboard.security.prefix import local
from dashboard.state.context import Record, current
from dashboard.state.ids import LOCATION, make_id
from db.ledger.engine import LedgerError
from db.ledger.jobs import IllegalMove, NewJob, NoSuchJob
from db.ledger.tables import UNFINISHED
from db.queries import jobs as job_queries
from workers.requests.parameters import InvalidRequest

MILLISECONDS = 1000
REFUSALS = (LedgerError, IllegalMove, NoSuchJob, InvalidRequest, TooManyRequests)
# What the items of a kind are called.
_NOUNS = {
    "saliency": "maps",
    "faithfulness": "curves",
    "attack": "attacks",
    "comparison": "comparisons",
    "ablation": "ablations",
    "transfer": "models",
}


@dataclass(frozen=True)
class Watched:
    """The jobs of a page as the ledger has them; `state` changes if and only if results may have."""

    jobs: tuple[Mapping[str, Any], ...] = ()

    @property
    def unfinished(self) -> bool:
        """Whether the ledger must be read again."""
        return any(job["state"] in UNFINISHED for job in self.jobs)

    @property
    def state(self) -> list[list[Any]]:
        """What a page compares to know that there are new results."""
        names = ("job", "state", "items_done", "items_failed")
        return [[job[name] for name in names] for job in self.jobs]


def layout(page: str) -> Component:
    """The place of the lines, and the parts that make the page look again."""
    return html.Div(
        [
            html.Div(id=make_id(page, "said")),
            html.Div(id=make_id(page, "lines")),
            html.Div(id=make_id(page, "hint")),
            dcc.Interval(id=make_id(page, "ticks"), interval=MILLISECONDS, disabled=True),
            dcc.Store(id=make_id(page, "event")),
            dcc.Store(id=make_id(page, "pressed")),
        ],
        className="job-line",
        role="status",
    )


def ticks(page: str) -> Input:
    """Input of the page's callback: a second has passed, and a job is unfinished."""
    return Input(make_id(page, "ticks"), "n_intervals")


def pause(page: str) -> list[tuple[Output, int, int]]:
    """`running` of the page's callback."""
    return one_at_a_time(make_id(page, "ticks"))


def event(page: str) -> Input:
    """Input of the page's callback: a button has changed something; see `report`."""
    return Input(make_id(page, "event"), "data")


def reports(page: str) -> Output:
    """Output of a callback that calls `report`."""
    return Output(make_id(page, "event"), "data", allow_duplicate=True)


def outputs(page: str) -> dict[str, Output]:
    """Outputs of the page's callback; `watch` returns their values."""
    return {
        "said": Output(make_id(page, "said"), "children"),
        "lines": Output(make_id(page, "lines"), "children"),
        "hint": Output(make_id(page, "hint"), "children"),
        "disabled": Output(make_id(page, "ticks"), "disabled"),
    }


def report(sentence: str = "", *, about: str = "") -> Record:
    """What happened, for the page's callback: a problem to show if the page is still `about` the same request."""
    return {"sentence": sentence, "about": about, "at": time.monotonic_ns()}


def attempt(change: Callable[[], str], *, about: str = "") -> Record:
    """Do `change`, which returns a sentence to show or an empty text, and report it or why it was refused."""
    try:
        return report(change(), about=about)
    except REFUSALS as error:
        return report(str(error), about=about)


def submit(new: NewJob) -> str:
    """Submit a job from a callback; returns a sentence if no worker will hear of it for now.

    Raises:
        LedgerError, InvalidRequest, TooManyRequests: nothing was submitted.
    """
    spend("jobs")
    submitted = current().submitter.submit(new)
    sentence = submitted.sentence()
    return f"{sentence[0].upper()}{sentence[1:]}." if submitted.queued and not submitted.sent else ""


def read_jobs(numbers: Iterable[int]) -> Watched:
    """The jobs with these numbers.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    ledger = current().ledger
    return Watched(tuple(job_record(job_queries.job(ledger, number)) for number in dict.fromkeys(numbers)))


def watch(page: str, watched: Watched, work: Mapping[str, Any] | None, *, said: str, hint: str) -> Record:
    """Values of `outputs`: a problem, the jobs' lines, a hint, and whether to look again.

    Args:
        work: the state of workers and broker, from the shell's store.
    """
    lines: list[Component] = []
    for job in watched.jobs:
        if job["state"] != "done":
            lines.append(_line(page, job))
    waiting = any(job["state"] == "queued" for job in watched.jobs)
    if waiting and (reason := obstacle(work or {})):
        lines.append(html.P(reason, className="problem"))
    return {
        "said": html.P(said, className="problem") if said else None,
        "lines": lines,
        "hint": html.P(hint, className="quiet") if hint else None,
        "disabled": not watched.unfinished,
    }


def obstacle(work: Mapping[str, Any]) -> str:
    """Why queued jobs do not start: a sentence, or an empty text if nothing is missing."""
    if work.get("trouble"):
        return f"Jobs cannot be read: {work['trouble']}."
    queued = work.get("queued") or 0
    waiting = f"{queued} waiting" if queued else "a job is unfinished"
    if not work.get("workers", True):
        return f"No worker: {waiting}: start convscope run, or convscope worker."
    if not work.get("broker", True):
        return (
            f"Broker away: {waiting}: jobs continue when the broker is back (convscope run starts one; "
            "CONVSCOPE_REDIS_URL names another)."
        )
    return ""


def _line(page: str, job: Mapping[str, Any]) -> Component:
    running = job["state"] in UNFINISHED
    noun = _NOUNS.get(job["kind"], "items")
    words = f"{job['items_done']:,} of {job['items']:,} {noun}"
    if job["items_failed"]:
        words += f", {job['items_failed']:,} failed"
    if job["state"] == "running" and job["seconds_left"] is not None:
        words += f", {duration(job['seconds_left'])} left"
    button = None
    if running and not job["cancel_requested"]:
        button = _button(page, job, "cancel", "x-lg", "Cancel")
    elif not running:
        button = _button(page, job, "retry", "arrow-clockwise", "Retry")
    note = job["state"] == "running" and job["note"]
    failed = job["state"] == "failed" and job["error"]
    return html.Div(
        [
            html.A(f"Job {job['job']}", href=local(f"/jobs?job={job['job']}"), className="num"),
            html.Span("cancelling" if job["cancel_requested"] and running else job["state"]),
            progress_bar(job["progress"], words, job["state"]),
            button,
            html.P(job["note"], className="num quiet job-note") if note else None,
            html.P(job["error"], className="problem") if failed else None,
        ],
        className="job-now",
    )


def _button(page: str, job: Mapping[str, Any], act: str, symbol: str, text: str) -> Component:
    """A button whose clicks `browser/form.js` reports: one with an id would trigger each time it is drawn again."""
    return html.Button(
        [icon(symbol), text],
        type="button",
        className="btn btn-sm btn-quiet",
        **attributes(data_page=page, data_act=act, data_job=str(job["job"])),
    )


def register(app: Dash, page: str, about: Callable[[str | None], str]) -> None:
    """Register Cancel and Retry of a page's lines; `about` names the request of an address, as in `report`."""

    def act(pressed: Record, search: str | None) -> Record:
        return attempt(lambda: _act(pressed["act"], pressed["job"]), about=about(search))

    app.callback(
        reports(page),
        Input(make_id(page, "pressed"), "data"),
        State(LOCATION, "search"),
        prevent_initial_call=True,
    )(act)


def _act(act: str, job: int) -> str:
    submitter = current().submitter
    if act == "cancel":
        submitter.cancel(job)
    elif act == "retry":
        spend("jobs")
        submitter.retry(job)
    else:
        flask.abort(400)
    return ""
