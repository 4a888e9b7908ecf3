"""Jobs about the selected attack: maps before and after, ablations, predictions of other models.

Compute, Clamp the 10 channels…, Test transfer --> submitted job, event of the job controller --> page callback
"""

from collections.abc import Callable, Mapping
from typing import Any

from dash import Dash, Input, Output, State, no_update
from dash.exceptions import PreventUpdate

from dashboard.pages import job_progress
from dashboard.pages.attack_followups import ABLATE, TRANSFER
from dashboard.pages.attack_maps import COMPUTE, MAPS_ASKED, asked_of, field_id
from dashboard.pages.attack_request import FORM, NAME
from dashboard.state.context import Context, Record, current
from dashboard.state.ids import LOCATION
from db.ledger.tables import UNFINISHED
from db.queries import attacks as attack_queries
from db.queries import jobs as job_queries
from workers.jobs.kind import Stores
from workers.jobs.registry import read_request
from workers.requests.followups import MAP_PARAMETERS
from workers.requests.parameters import InvalidRequest

FOLLOWUPS = ("comparison", "ablation", "transfer")
_MAX_JOBS = 100


def followup_jobs(context: Context, image_set: str, attack: int) -> list[Record]:
    """The newest job of each kind about this attack alone.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    jobs = job_queries.jobs(context.ledger, kinds=FOLLOWUPS, image_set=image_set, limit=_MAX_JOBS)
    found: dict[str, Record] = {}
    for job in jobs:
        if job["parameters"]["attacks"] == str(attack):
            found.setdefault(job["kind"], job)
    return list(found.values())


def unfinished_followups(context: Context, attack: Record) -> list[str]:
    """Kinds of those jobs that are not finished."""
    jobs = followup_jobs(context, attack["image_set"], attack["attack"])
    return [job["kind"] for job in jobs if job["state"] in UNFINISHED]


def other_models(context: Context, model: str) -> list[str]:
    """The other indexed models."""
    models = dict.fromkeys(run["model"] for run in context.catalogue().runs)
    return [name for name in models if name != model]


def register(app: Dash, selected: str) -> None:
    """Register the buttons; `selected` is the id of the store with the selected attack."""
    fields = {parameter.name: State(field_id(parameter.name), "value") for parameter in MAP_PARAMETERS}
    add = {"selected": State(selected, "data"), "search": State(LOCATION, "search")}
    app.callback(
        output={
            "event": job_progress.reports(NAME),
            "asked": Output(MAPS_ASKED, "data", allow_duplicate=True),
        },
        inputs={"clicks": Input(COMPUTE, "n_clicks")},
        state=add | {"fields": fields},
        prevent_initial_call=True,
    )(compute_maps)
    for button, request in ((ABLATE, _ablation), (TRANSFER, _transfer)):
        app.callback(
            output=job_progress.reports(NAME),
            inputs={"clicks": Input(button, "n_clicks")},
            state=add,
            prevent_initial_call=True,
        )(_submits(request))


def compute_maps(
    clicks: int | None, selected: Record | None, search: str | None, fields: Mapping[str, Any]
) -> Record:
    """Submit the job for maps with these parameters, which are shown when they are there."""
    if not clicks or not selected:
        raise PreventUpdate
    about = FORM.about(search)
    try:
        given = {one.name: one.parse(str(fields[one.name]).strip()) for one in MAP_PARAMETERS}
    except InvalidRequest as error:
        return {"event": job_progress.report(str(error), about=about), "asked": no_update}
    request = {"kind": "comparison", "parameters": given}
    return {"event": _submit(request, selected["attack"], about), "asked": asked_of(given)}


def _ablation(_attack: Record) -> Record:
    return {"kind": "ablation"}


def _transfer(attack: Record) -> Record:
    return {"kind": "transfer", "judges": other_models(current(), attack["model"])}


def _submits(
    request: Callable[[Record], Record],
) -> Callable[[int | None, Record | None, str | None], Record]:
    """The callback of a button that submits `request` of the selected attack."""

    def press(clicks: int | None, selected: Record | None, search: str | None) -> Record:
        attack = selected_attack(selected) if clicks else None
        if attack is None:
            raise PreventUpdate
        return _submit(request(attack), attack["attack"], FORM.about(search))

    return press


def selected_attack(selected: Record | None) -> Record | None:
    """The selected attack as the ledger has it; None if there is none."""
    return (
        attack_queries.attack(current().ledger, selected["attack"])
        if selected and selected["attack"]
        else None
    )


def _submit(request: Record, attack: int, about: str) -> Record:
    context = current()
    body = {"attacks": [attack], "queue": "interactive", **request}

    def submit() -> str:
        stores = Stores(context.atlas, context.ledger, context.settings)
        return job_progress.submit(read_request(body, stores))

    return job_progress.attempt(submit, about=about)
