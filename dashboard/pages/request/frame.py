"""The frame of a page that submits jobs: a heading, the request form, problems, progress, and the page's parts.

The page is a function of the address and the ledger, and looks again while a job is unfinished:

    address, seconds, events of form and buttons
        --> nothing_to_choose     a message instead of the page, which is `only`
        --> read_with_jobs        the page's data, and its jobs
        --> values                of the frame; the page adds its own
        --> changed --> outputs   what differs from what is shown
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from dash import Dash, Input, Output, State, dcc, html, no_update

from dashboard.components import elements as components
from dashboard.components.callbacks import fingerprint
from dashboard.components.elements import Component, attributes, icon
from dashboard.components.formatting import count
from dashboard.components.onboarding import nothing_yet
from dashboard.pages import job_progress
from dashboard.pages.job_progress import Watched, read_jobs
from dashboard.pages.request import changes, filling, picking, running
from dashboard.pages.request.form import RequestForm
from dashboard.pages.request.layout import layout as form_layout
from dashboard.pages.request.running import Read
from dashboard.security.prefix import local
from dashboard.state.context import Catalogue, Context, Record
from dashboard.state.ids import LOCATION, make_id
from db.ledger.engine import LedgerError
from db.ledger.tables import UNFINISHED

# Outputs of the frame, except those of the form and of the job controller.
_PARTS = {
    "message": ("message", "children"),
    "hidden": ("root", "hidden"),
    "about": ("about", "children"),
    "problems": ("problems", "children"),
    "tools": ("tools", "children"),
}


def layout(
    form: RequestForm, title: str, parts: Sequence[Component], beside: Sequence[Component]
) -> Component:
    """The page without content; `beside` is there even where a message replaces the page."""
    heading = html.Div(
        [
            html.Div([html.H1(title), html.P(id=form.id("about"))], className="title"),
            html.Div(id=form.id("tools"), className="tools tools-place"),
        ],
        className="heading",
    )
    root = [
        heading,
        form_layout(form),
        html.Div(id=form.id("problems"), role="alert"),
        job_progress.layout(form.page),
        *parts,
    ]
    return html.Div(
        [
            html.Div(html.Div(className="skeleton tall"), id=form.id("message")),
            html.Div(root, id=form.id("root"), hidden=True),
            dcc.Store(id=form.id("shown")),
            *beside,
        ],
        className=f"single-page {form.page}-page",
    )


def register(app: Dash, form: RequestForm, read: Read) -> None:
    """Register the callbacks of the form and of the job controller; `read` returns the page's data for an address."""
    job_progress.register(app, form.page, form.about)
    changes.register(app, form)
    picking.register(app, form)
    running.register(app, form, read)


def outputs(form: RequestForm) -> Record:
    """Outputs of the page's callback; `values` and `changed`, or `only`, return their values."""
    return {
        **{name: Output(form.id(part), prop) for name, (part, prop) in _PARTS.items()},
        "shown": Output(form.id("shown"), "data"),
        "form": filling.outputs(form),
        "jobs": job_progress.outputs(form.page),
    }


def inputs(form: RequestForm) -> dict[str, Input]:
    """Inputs of the page's callback."""
    return {
        "search": Input(LOCATION, "search"),
        "_status": Input(make_id("shell", "status"), "data"),
        "_ticks": job_progress.ticks(form.page),
        "event": job_progress.event(form.page),
    }


def states(form: RequestForm) -> dict[str, State]:
    """States of the page's callback."""
    return {
        "pathname": State(LOCATION, "pathname"),
        "shown": State(form.id("shown"), "data"),
        "work": State(make_id("shell", "work"), "data"),
    }


def only(form: RequestForm, message: Component, parts: Iterable[str]) -> Record:
    """A message instead of the page, with its own `parts`; all are shown again when it is gone."""
    return dict.fromkeys((*_PARTS, *parts), no_update) | {
        "message": message,
        "hidden": True,
        "shown": None,
        "form": dict.fromkeys(filling.outputs(form), no_update),
        "jobs": dict.fromkeys(job_progress.outputs(form.page), no_update) | {"disabled": True},
    }


def values(
    form: RequestForm,
    context: Context,
    page: Record,
    watched: Watched,
    *,
    search: str | None,
    event: Record | None,
    work: Mapping[str, Any] | None,
    tools: Sequence[Component],
    hint: str,
) -> Record:
    """Values of the frame's outputs for a page's data, except `shown`; `hint` is what `hint` says."""
    said = event["sentence"] if event and event["about"] == form.about(search) else ""
    return {
        "message": None,
        "hidden": False,
        "about": f"{page['image_set']} · {count(page['images'], 'image')}",
        "problems": [html.P(sentence, className="problem") for sentence in page["problems"].values()],
        "tools": list(tools),
        "form": filling.fill(form, context, page, search),
        "jobs": job_progress.watch(form.page, watched, work, said=said, hint="" if said else hint),
    }


def download(symbol: str, text: str, path: str, search: str | None) -> Component:
    """A link to a file of what the address asks for."""
    return html.A(
        [icon(symbol), text],
        href=local(path) + (search or ""),
        className="btn btn-sm btn-quiet",
        download="",
        **attributes(data_with_address="yes"),
    )


def nothing_to_choose(catalogue: Catalogue) -> Component | None:
    """Why nothing can be requested; None if something can."""
    if catalogue.trouble:
        return components.trouble(catalogue.trouble)
    if not catalogue.runs or not catalogue.image_sets:
        return nothing_yet(catalogue.newest_set())
    return None


def read_with_jobs(
    read: Callable[[], Record],
    jobs: Callable[[Record], Iterable[int]],
    others: Callable[[Record], Iterable[int]] = lambda _page: (),
) -> tuple[Record, Watched]:
    """The page's data (`request.state.read_request`) and its jobs; why not, among the data's problems.

    The jobs are read after the data. If one that adds to the data has ended by then and data are missing, they are
    read again: had it ended in between, its last result would be left out, and nobody would look again.

    Args:
        jobs: those that add to the data, apart from the request's own.
        others: those that do not.
    """
    page = read()
    request = [] if page["job"] is None else [page["job"]]
    try:
        adding = list(jobs(page))
        watched = read_jobs([*request, *adding, *others(page)])
    except LedgerError as error:
        return page | {"problems": page["problems"] | {"ledger": f"{error}."}}, Watched()
    looked = {*adding, *(request if missing(page) > 0 else [])}
    if any(job["state"] not in UNFINISHED and job["job"] in looked for job in watched.jobs):
        page = read()
    return page, watched


def missing(page: Record) -> int:
    """How many results of a page's request are not stored."""
    return len(page["rows"]) * len(page["chosen"]) - len(page["stored"])


def job_state(page: Record, watched: Watched) -> str:
    """The state of the request's job; empty if it has none."""
    return next((str(job["state"]) for job in watched.jobs if job["job"] == page["job"]), "")


def hint(page: Record, *, noun: str, done: str) -> str:
    """What Run would compute; empty if nothing is missing, or the request's job says it.

    Args:
        noun: what the results are called.
        done: what becomes of images, as in `computed`.
    """
    left = missing(page)
    if page["job"] is not None or not page["request"] or left <= 0:
        return ""
    if page["stored"]:
        return f"{left:,} of {left + len(page['stored']):,} {noun} are not {done} yet. Press Run."
    asked = f"{count(len(page['rows']), 'image')} by {count(len(page['chosen']), 'model')}"
    return f"Not {done} yet: {asked}. Press Run."


def changed(values: Record, before: Mapping[str, str]) -> Record:
    """The values with `no_update` for those that have the digest of `before`, and all digests as `shown`.

    The members of `form` and `jobs` are compared one by one.
    """
    digests: dict[str, str] = {}

    def compare(name: str, value: Any) -> Any:
        if value is no_update:
            return value
        digests[name] = fingerprint(value)
        return no_update if before.get(name) == digests[name] else value

    parts = {
        name: {inner: compare(f"{name}.{inner}", one) for inner, one in value.items()}
        if name in ("form", "jobs")
        else compare(name, value)
        for name, value in values.items()
    }
    return parts | {"shown": {**before, **digests}}
