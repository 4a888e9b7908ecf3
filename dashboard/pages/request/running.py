"""Run: the job of what the controls say, which may be ahead of the address."""

from collections.abc import Callable
from typing import Any

from dash import ALL, Dash, Input, State, ctx
from dash.exceptions import PreventUpdate

from dashboard.pages import job_progress
from dashboard.pages.request.changes import changes_of
from dashboard.pages.request.form import CONTROLS, RequestForm, merged, text_of
from dashboard.state.context import Catalogue, Context, Record, current
from dashboard.state.ids import LOCATION
from workers.jobs.kind import Stores
from workers.jobs.registry import read_request

Read = Callable[[Context, Catalogue, str | None], Record]
# Fields whose Enter key runs the request, as those of parameters do.
_ENTER = ("ids", "class", "n", "label", "pickseed")


def register(app: Dash, form: RequestForm, read: Read) -> None:
    """Register Run and the Enter key; `read` returns the page's data for an address."""

    def run(
        pressed: list[Any], values: Record, parameters: Any, filled: Record | None, search: str | None
    ) -> Record:
        del pressed, parameters
        if filled is None or not any(one["value"] for one in ctx.triggered):
            raise PreventUpdate
        given = {f"p_{one['id']['parameter']}": one.get("value") for one in ctx.args_grouping["parameters"]}
        return _run(form, read, values | given, filled, search)

    fixed = [Input(form.id("run"), "n_clicks"), *(Input(form.id(name), "n_submit") for name in _ENTER)]
    # parameters in a callback of their own: drawn again, they trigger it, and the answer to a click would be dropped
    for pressed in (fixed, [Input(form.parameter_id(ALL), "n_submit")]):
        app.callback(
            output=job_progress.reports(form.page),
            inputs={"pressed": pressed},
            state={
                "values": {name: State(form.id(name), "value") for name in CONTROLS},
                "parameters": State(form.parameter_id(ALL), "value"),
                "filled": State(form.id("filled"), "data"),
                "search": State(LOCATION, "search"),
            },
            prevent_initial_call=True,
        )(run)


def _run(form: RequestForm, read: Read, values: Record, filled: Record, search: str | None) -> Record:
    """Submit what the controls say, which may be ahead of the address."""
    context = current()
    changed = {name: value for name, value in values.items() if _plain(value) != _plain(filled.get(name))}
    if not values["models"]:
        raise PreventUpdate
    changes, _ = changes_of(form, context, changed, filled, search)
    address = merged(search, changes)
    page = read(context, context.catalogue(), address)
    request = page["request"]
    if request is None or page["problems"]:
        raise PreventUpdate  # the page says why

    def submit() -> str:
        stores = Stores(context.atlas, context.ledger, context.settings)
        return job_progress.submit(read_request(request, stores))

    return job_progress.attempt(submit, about=form.about(address if changed else search))


def _plain(value: Any) -> Any:
    return value if isinstance(value, list) else text_of(value)
