"""From an address to the controls of the form."""

import json
from typing import Any
from urllib.parse import urlencode

import dash_bootstrap_components as dbc
from dash import Output, html, no_update

from dashboard.components.elements import Component
from dashboard.pages.request.form import PLAIN_TARGETS, RequestForm, query_of, text_of, values_of
from dashboard.security.prefix import local
from dashboard.state.context import Context, Record
from db.queries.images import image_classes
from db.queries.inventory import classes_of
from workers.requests.parameters import Parameter


def outputs(form: RequestForm) -> dict[str, Output]:
    """Outputs of the page's callback that show an address in the form; `fill` returns their values."""
    values = ("models", "ids", "method", "target", "class", "n", "pickseed", "label", "verdict", "where")
    return {
        **{name: Output(form.id(name), "value") for name in values},
        "options": Output(form.id("models"), "options"),
        "class_hidden": Output(form.id("classbox"), "hidden"),
        "suggested": Output(form.id("form"), "data-suggestions"),
        "parameters": Output(form.id("parameters"), "children"),
        "reference": Output(form.id("reference"), "children"),
        "choose": Output(form.id("choose"), "href"),
        "choose_set": Output(form.id("choose"), "data-choose"),
        "choose_ids": Output(form.id("choose"), "data-ids"),
        "disabled": Output(form.id("run"), "disabled"),
        "filled": Output(form.id("filled"), "data"),
    }


def fill(form: RequestForm, context: Context, page: Record, search: str | None) -> Record:
    """Values of `outputs` for the page's record of an address."""
    query = query_of(search)
    known = list(dict.fromkeys([*page["models"], *page["chosen"]]))
    other = page["target"] not in PLAIN_TARGETS
    method = form.methods.get(page["method"])
    values = {} if method is None else values_of(method, page["parameters"])
    shown = [] if method is None else [one for one in method.parameters if form.applies(one.name, values)]
    controls: Record = {
        "models": [name for name in known if name in page["chosen"]],
        "ids": page["ids"],
        "method": page["method"],
        "target": "index" if other else page["target"],
        "class": _class_words(context, page) if other else "",
    }
    label = query.get("label")
    named = None if label is None else _label_name(context, page["image_set"], label)
    first = {"images": page["image_set"], "model": page["chosen"][0]}
    version = {"version": page["version"]}  # indexed again, a model may have other classes
    lists = {
        "classes": f"/choices/classes.json?{urlencode({'model': first['model']} | version)}",
        "labels": f"/choices/labels.json?{urlencode({'images': first['images']} | version)}",
    }
    return controls | {
        "n": query.get("n", no_update),
        "pickseed": query.get("seed", no_update),
        "label": no_update if named is None else named,
        "verdict": query.get("verdict") == "right",
        "where": query.get("where", no_update),
        "options": [{"value": name, "label": name} for name in known],
        "class_hidden": not other,
        "suggested": json.dumps({form.id(name): path for name, path in lists.items()}),
        "parameters": [part for one in shown for part in _parameter(form, one, values[one.name])],
        "reference": "" if method is None else method.reference,
        "choose": local("/images?" + urlencode(first)),
        "choose_set": page["image_set"],
        "choose_ids": page["ids"],
        "disabled": page["request"] is None,
        "filled": {
            "values": values,
            "implied": {
                name: value
                for name, value in query_of(page["search"]).items()
                if name != "attack" and query.get(name) != value
            },
            **controls,
            **{f"p_{one.name}": text_of(values[one.name]) for one in shown},
            "where": query.get("where", ""),
            "image_set": page["image_set"],
            "model": page["chosen"][0],
            "guess": form.guess(page),
        },
    }


def _parameter(form: RequestForm, parameter: Parameter, value: Any) -> tuple[Component, Component]:
    """A parameter's control, and its help, which is shown while the control has the focus."""
    name = form.parameter_id(parameter.name)
    element = json.dumps(name, sort_keys=True, separators=(",", ":"))
    label = parameter.label or parameter.name.replace("_", " ")
    control: Component
    if parameter.choices:
        words = parameter.words or tuple(choice.replace("_", " ") for choice in parameter.choices)
        options = [
            {"value": choice, "label": text} for choice, text in zip(parameter.choices, words, strict=True)
        ]
        control = dbc.Select(id=name, options=options, value=value, size="sm")
    else:
        control = dbc.Input(
            id=name, type="text", size="sm", debounce=True, autocomplete="off", className="num",
            value=text_of(value), placeholder=text_of(parameter.default) or "default layer",
            inputmode="text" if isinstance(parameter.default, str) else "decimal",
        )  # fmt: skip
    return (
        html.Div([html.Label(label, htmlFor=element), control], className="control", title=parameter.help),
        html.P(f"{label}: {parameter.help}", className="reference help quiet"),
    )


def _class_words(context: Context, page: Record) -> str:
    """`1: goldfish` for a class index; else what was typed."""
    target = str(page["target"])
    if target == "index":
        return ""
    if target.isdecimal() and len(target) < 10:
        rows = context.atlas.fetch(classes_of(page["chosen"][0]))
        if int(target) < len(rows):
            return f"{target}: {rows[int(target)]['name']}"
    return target


def _label_name(context: Context, image_set: str, label: str) -> str:
    rows = context.atlas.fetch(image_classes(image_set))
    return next((str(row["label"]) for row in rows if row["class"] == label), label)
