"""From controls that were changed by hand to the address."""

from collections.abc import Mapping
from typing import Any

from dash import ALL, Dash, Input, Output, State, no_update
from dash.exceptions import PreventUpdate

from dashboard.components.callbacks import in_browser
from dashboard.pages import job_progress
from dashboard.pages.request.classes import find_class
from dashboard.pages.request.form import CONTROLS, PICKED, RequestForm, merged, query_of, text_of, values_of
from dashboard.state.context import Context, Record, current
from db.queries.inventory import classes_of


def register(app: Dash, form: RequestForm) -> None:
    """Register the callbacks by which controls write the address."""
    in_browser(
        app,
        "changedControls",
        Output(form.id("asked"), "data"),
        *(Input(form.id(name), "value") for name in CONTROLS),
        Input(form.parameter_id(ALL), "value"),
        State(form.id("filled"), "data"),
        prevent_initial_call=True,
    )
    in_browser(
        app,
        "writeAddress",
        Output(form.id("gone"), "children"),
        Input(form.id("go"), "data"),
        prevent_initial_call=True,
    )

    def changed(asked: Record | None, filled: Record | None) -> Record:
        """What the address becomes after controls were changed by hand."""
        if not asked or filled is None:
            raise PreventUpdate
        if asked["changes"].get("models") == []:
            return {"go": no_update, "event": no_update, "models": filled["models"]}
        changes, sentence = changes_of(form, current(), asked["changes"], filled, asked["search"])
        about = form.about(merged(asked["search"], changes))
        return {"go": changes, "event": job_progress.report(sentence, about=about), "models": no_update}

    app.callback(
        output={
            "go": Output(form.id("go"), "data", allow_duplicate=True),
            "event": job_progress.reports(form.page),
            "models": Output(form.id("models"), "value", allow_duplicate=True),
        },
        inputs={"asked": Input(form.id("asked"), "data")},
        state={"filled": State(form.id("filled"), "data")},
        prevent_initial_call=True,
    )(changed)


def changes_of(
    form: RequestForm, context: Context, changed: Mapping[str, Any], filled: Record, search: str | None
) -> tuple[dict[str, str], str]:
    """Changes of the address for changed controls (see `merged`), and a problem with a class, if any."""
    changes: dict[str, str] = {**filled["implied"], "attack": ""}
    problem = ""
    query = query_of(merged(search, changes))
    given = {name[2:]: value for name, value in query.items() if name.startswith("p_")}
    if "models" in changed:
        chosen = [name for name in _known(context, filled) if name in changed["models"]]
        changes |= {"models": ",".join(chosen), "model": chosen[0]}
    if "ids" in changed:
        changes |= {"ids": text_of(changed["ids"]), **dict.fromkeys(PICKED, "")}
    method = form.methods.get(str(changed.get("method") or filled["method"]))
    if "method" in changed:
        changes["method"] = "" if changed["method"] == form.address.method else str(changed["method"])
        kept = {one.name for one in method.parameters} if method and form.keeps_parameters else set()
        changes |= {f"p_{name}": "" for name in given if name not in kept}
    if "target" in changed:
        value = str(changed["target"])
        value = str(filled["guess"]) if value == "index" else value
        changes["target"] = "" if value == form.address.target else value
    elif "class" in changed:
        names = [row["name"] for row in context.atlas.fetch(classes_of(filled["model"]))]
        number, problem = find_class(names, text_of(changed["class"]), filled["model"])
        changes["target"] = (text_of(changed["class"]) or "index") if number is None else str(number)
    for parameter in method.parameters if method else ():
        if f"p_{parameter.name}" in changed:
            text = text_of(changed[f"p_{parameter.name}"])
            changes[f"p_{parameter.name}"] = "" if text == text_of(parameter.default) else text
    if method:
        stays = filled["values"] if method.name == filled["method"] or form.keeps_parameters else {}
        typed = {name[2:]: value for name, value in changed.items() if name.startswith("p_")}
        values = values_of(method, {**stays, **typed})
        changes |= {
            f"p_{one.name}": "" for one in method.parameters
            if f"p_{one.name}" in query and not form.applies(one.name, values)
        }  # fmt: skip
    return changes, problem


def _known(context: Context, filled: Record) -> list[str]:
    """All models that the form lists, in its order."""
    indexed = [run["model"] for run in context.catalogue().runs]
    return list(dict.fromkeys([*indexed, *filled["models"]]))
