"""What a job shows of itself, in the table and where it is opened: jobs as the API returns them in, components out."""

from collections.abc import Sequence

from dash import html

from dashboard.components import elements
from dashboard.components.elements import Component, attributes, icon
from dashboard.components.formatting import duration, rough_duration, when
from dashboard.state.address import JobsAddress
from dashboard.state.context import Record
from db.ledger.tables import UNFINISHED

# A job of these kinds has one item: its progress is a share, not a count.
OF_ONE_ITEM = ("import", "index")
# Windows in which an opened job is beside the table, not above it: as in `assets/style.css`.
BESIDE = "(min-width: 1240px)"
_LAMPS = {"queued": "waiting", "running": "busy", "done": "on", "failed": "off", "cancelled": "idle"}


def cells(shown: Record, address: JobsAddress) -> Record:
    """The cells of a job's row, by column; a click on its name opens or closes it at `address`."""
    return {
        "job": str(shown["job"]),
        "open": address.job == shown["job"],
        "name": _name(shown, address),
        "what": _what(shown),
        "state": state(shown),
        "progress": progress_bar(shown),
        "pace": _pace(shown),
        "age": age(shown),
        "actions": html.Div(_actions(shown), className="job-actions"),
    }


def _name(job: Record, address: JobsAddress) -> Component:
    is_open = address.job == job["job"]
    return html.A(
        [
            html.Span(f"#{job['job']}", className="num job-number"),
            html.Span([html.B(job["title"]), html.Small(subject(job))]),
        ],
        id=f"job-{job['job']}",
        className="job-name",
        href=address.href(job=0 if is_open else job["job"]),
        **attributes(aria_expanded=str(is_open).lower(), data_stay=BESIDE),
    )


def subject(job: Record) -> str:
    """The models of a job, or the source of an import."""
    return ", ".join(job["models"]) or str(job["parameters"].get("source") or "")


def _what(job: Record) -> Component:
    method = str(job["parameters"].get("method") or "").replace("_", " ")
    return html.Div([html.Span(job["image_set"]), html.Small(method or job["queue"])], className="job-what")


def state(job: Record) -> Component:
    """A lamp and the state in words."""
    words = job["state"]
    if job["silent"]:
        words = "worker silent"
    if job["cancel_requested"] and job["state"] == "running":
        words = "cancelling"
    lamp = "off" if job["silent"] else _LAMPS[job["state"]]
    return html.Div(
        [html.Span(className=f"lamp {lamp}", **attributes(aria_hidden="true")), words], className="job-state"
    )


def progress_bar(job: Record) -> Component:
    """The finished share as a bar, and as items or percent."""
    share = job["progress"]
    if job["kind"] not in OF_ONE_ITEM:
        words = f"{job['items_done'] + job['items_failed']:,} of {job['items']:,}"
    elif job["state"] in ("failed", "cancelled"):
        words = "no result"
    else:
        words = f"{int(100 * share)} %"
    if job["items_failed"]:
        words += f", {job['items_failed']:,} failed"
    return elements.progress_bar(share, words, job["state"])


def _pace(job: Record) -> Component:
    words = []
    if job["item_seconds"]:
        words.append(f"{duration(job['item_seconds'])} each")
    if job["state"] == "running" and job["seconds_left"] is not None:
        words.append(f"{rough_duration(job['seconds_left'])} left")
    worker = job["worker"] or ""
    if worker and job["attempts"] > 1:
        worker += f", attempt {job['attempts']}"
    text = " · ".join(words) or job["note"] or ""
    return html.Div([text, html.Small(worker)], className="job-facts num", title=text)


def age(job: Record) -> Component:
    """Time since the job was submitted."""
    return html.Div(age_words(job), className="job-age num", title=when(job["created"]))


def age_words(job: Record) -> str:
    """Time since the job was submitted, in steps of ten seconds at first."""
    seconds = job["age"] if job["age"] >= 90 else job["age"] // 10 * 10
    return f"{rough_duration(seconds)} ago" if seconds else "just now"


def possible_actions(job: Record) -> list[tuple[str, str, str]]:
    """What may be done with a job: name, label and icon."""
    if job["state"] in UNFINISHED and not job["cancel_requested"]:
        return [("cancel", "Cancel", "x-lg")]
    if job["state"] in ("failed", "cancelled"):
        return [("retry", "Retry", "arrow-clockwise")]
    return []


def result_link(job: Record) -> Component:
    """A link to the page with the job's results; None if no page shows them."""
    if not job["page"]:
        return None
    return html.A(
        [icon(job["link"]["icon"]), job["link"]["text"]], className="btn btn-sm btn-quiet", href=job["page"]
    )


def _actions(job: Record) -> Sequence[Component]:
    buttons = [
        html.Button(
            [icon(symbol), label],
            type="button",
            className="btn btn-sm btn-quiet",
            **attributes(aria_label=f"{label} job {job['job']}", data_action=name),
        )
        for name, label, symbol in possible_actions(job)
    ]
    return [found for found in (result_link(job), *buttons) if found is not None]
