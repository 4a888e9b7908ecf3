"""The form of a page that requests jobs: models, images, a method with its parameters, a class, and Run.

    address --> page callback --> fill --> controls
    controls --(browser: what differs from what was filled)--> changed --(browser)--> address
    First, Random, All, a condition --> picked --(browser)--> address
    Run, Enter --> run (the values in the controls) --> job --> event of the job controller --> page callback

How a page uses it:

    FORM = RequestForm(page="saliency", address=SaliencyAddress, methods=METHODS, ...)
    FORM.layout()            the form, to be put into the page's layout
    FORM.outputs()           outputs of the page's callback, which returns FORM.fill(page, search) for them;
                             `page` is the record that `request_state.read_request` returns
    FORM.register(app, read) its own callbacks; `read(context, catalogue, search)` is the page's reader
    FORM.about(search)       names the request of an address, without parts that only concern the display

The page has a job controller (`pages.job_progress`) with the same page name: the form reports to it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

import dash_bootstrap_components as dbc
from dash import ALL, Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.exceptions import PreventUpdate

from dashboard.components.callbacks import in_browser
from dashboard.components.elements import Component, attributes, icon, labelled, select
from dashboard.pages import job_progress
from dashboard.pages.request_class import find_class, find_label
from dashboard.security.access import TooManyRequests, spend
from dashboard.security.prefix import local
from dashboard.state.address import AttackAddress, ImagesAddress, SaliencyAddress
from dashboard.state.context import Catalogue, Context, Record, current
from dashboard.state.ids import LOCATION, make_id
from dashboard.state.image_choices import choose_images, images_where
from db.atlas.store import AtlasError
from db.queries.images import image_classes
from db.queries.inventory import classes_of
from workers.jobs.kind import Stores
from workers.jobs.registry import read_request
from workers.requests.images import short_ids
from workers.requests.parameters import InvalidRequest, MethodDescription, Parameter

MAX_PICKED = 240
# How images were picked; kept in the address so that the form shows it again.
PICKED = ("n", "seed", "label", "verdict", "where")
# Controls that write the address when they change, and those whose Enter key runs the request.
_CONTROLS = ("models", "ids", "method", "target", "class")
_ENTER = ("ids", "class", "n", "label", "pickseed")
_PLAIN_TARGETS = ("prediction", "label")

Read = Callable[[Context, Catalogue, str | None], Record]


@dataclass(frozen=True, kw_only=True)
class RequestForm:
    """The form of one page.

    Attributes:
        page: prefix of its ids, and name of the page's job controller.
        address: the page's kind of address; its defaults are left out of the address.
        methods: the registry that methods and parameters come from.
        target: label of the choice of a class, and the texts of `prediction`, `label` and `index` (another).
        display: names in the address that do not belong to the request.
        applies: whether a method reads a parameter, given the values of all.
        keeps_parameters: whether parameters that two methods share stay as they are when the method changes.
        guess: the class offered first when another one is to be named, for the page's record.
    """

    page: str
    address: type[SaliencyAddress | AttackAddress]
    methods: Mapping[str, MethodDescription]
    target: tuple[str, Mapping[str, str]]
    display: Sequence[str] = ()
    applies: Callable[[str, Mapping[str, Any]], bool] = lambda _name, _values: True
    keeps_parameters: bool = False
    guess: Callable[[Record], int] = lambda _page: 0

    def id(self, name: str) -> str:
        """The id of an element of the form."""
        return make_id(self.page, name)

    def parameter_id(self, name: str) -> dict[str, str]:
        """The id of a parameter's control."""
        return {"page": self.page, "parameter": name}

    def about(self, search: str | None) -> str:
        """The request of an address as one text: equal if and only if the requests are."""
        leave_out = {*PICKED, *self.display, "attack", "at"}
        return urlencode(sorted(pair for pair in _query(search).items() if pair[0] not in leave_out))

    # ---- layout

    def layout(self) -> Component:
        """The form without values."""
        title, targets = self.target
        methods = [(name, one.title) for name, one in self.methods.items()]
        return html.Div(
            [
                html.Fieldset(
                    [
                        html.Legend("Models"),
                        dbc.Checklist(
                            id=self.id("models"), options=[], value=[], className="checks",
                            inputClassName="form-check-input", labelClassName="check-label",
                        ),
                    ],
                    className="control models-control",
                ),
                html.Div(
                    [
                        html.Label("Images by number", htmlFor=self.id("ids")),
                        self._text("ids", placeholder="0,1,4-7", className="num"),
                        self._picker(),
                    ],
                    className="control ids-group",
                ),
                html.Div(
                    [
                        html.Div(
                            [
                                self._labelled(
                                    "method", "Method",
                                    select(self.id("method"), methods),
                                ),
                                self._labelled("target", title, select(self.id("target"), list(targets.items()))),
                                html.Div(
                                    [
                                        html.Label("Class", htmlFor=self.id("class")),
                                        self._text("class", placeholder="Name or index", list=self.id("classes")),
                                    ],
                                    id=self.id("classbox"), className="control class-control", hidden=True,
                                ),
                                html.Button(
                                    [icon("play-fill"), html.Span("Run")],
                                    id=self.id("run"), type="button", className="btn btn-primary run", disabled=True,
                                ),
                            ],
                            className="method-line",
                        ),
                        html.Div(id=self.id("parameters"), className="parameters"),
                        html.P(id=self.id("reference"), className="reference quiet"),
                    ],
                    className="method-group",
                ),
                html.Datalist(id=self.id("classes")),
                html.Datalist(id=self.id("labels")),
                *(dcc.Store(id=self.id(name)) for name in ("filled", "asked", "go", "drawn")),
                html.Div(id=self.id("gone"), hidden=True),
            ],
            id=self.id("form"),
            className="controls asks",
            role="form",
            **attributes(aria_label="What is computed"),
        )  # fmt: skip

    def _text(self, name: str, **options: Any) -> Component:
        return dbc.Input(
            id=self.id(name), type="text", size="sm", debounce=True, autocomplete="off", **options
        )

    def _labelled(self, name: str, text: str, control: Component) -> Component:
        return labelled(text, control, control_id=self.id(name), className=f"{name}-control")

    def _hidden_label(self, name: str, text: str) -> Component:
        return html.Label(text, htmlFor=self.id(name), className="visually-hidden")

    def _button(self, name: str, *content: Component, title: str = "") -> Component:
        return html.Button(
            list(content),
            id=self.id(name),
            type="button",
            className="btn btn-sm btn-quiet",
            title=title or None,
        )

    def _picker(self) -> Component:
        columns = "name, label, wnid, split, width, height, bytes, predicted, probability and verdict"
        lines = (
            [
                self._hidden_label("n", "How many images to choose"),
                self._text("n", value="6", inputmode="numeric"),
                self._hidden_label("label", "Class of the images to choose"),
                self._text("label", className="pick-class", placeholder="of any class", list=self.id("labels")),
            ],
            [
                self._button("first", "First"),
                self._button("random", icon("shuffle"), "Random"),
                html.Label("seed", htmlFor=self.id("pickseed"), className="quiet", **attributes(aria_hidden="true")),
                self._hidden_label("pickseed", "Seed of the random choice"),
                self._text("pickseed", value="0", inputmode="numeric"),
                html.A(
                    [icon("images"), "Choose…"], id=self.id("choose"), href=local("/images"),
                    className="btn btn-sm btn-quiet",
                ),
            ],
            [
                html.Label("where", htmlFor=self.id("where"), className="quiet"),
                html.Div(
                    self._text(
                        "where", className="pick-where", placeholder="SQL: verdict = 'right' AND width > 300"
                    ),
                    className="pick-where",
                    title=f"A condition over {columns}. Enter chooses all images that satisfy it.",
                ),
                self._button("all", "All", title="All images of the set; the condition stays in its field"),
            ],
        )  # fmt: skip
        verdict = dbc.Checkbox(
            id=self.id("verdict"), label="only correctly classified images", className="check only-right"
        )  # fmt: skip
        return html.Div(
            [*(html.Div(line, className="pick-line") for line in lines), verdict],
            className="pick",
            role="group",
            **attributes(aria_label="Choose images"),
        )

    # ---- address to controls

    def outputs(self) -> dict[str, Output]:
        """Outputs of the page's callback that show an address in the form; `fill` returns their values."""
        values = ("models", "ids", "method", "target", "class", "n", "pickseed", "label", "verdict", "where")
        return {
            **{name: Output(self.id(name), "value") for name in values},
            "options": Output(self.id("models"), "options"),
            "class_hidden": Output(self.id("classbox"), "hidden"),
            "suggested": Output(self.id("form"), "data-suggestions"),
            "parameters": Output(self.id("parameters"), "children"),
            "reference": Output(self.id("reference"), "children"),
            "choose": Output(self.id("choose"), "href"),
            "choose_set": Output(self.id("choose"), "data-choose"),
            "choose_ids": Output(self.id("choose"), "data-ids"),
            "disabled": Output(self.id("run"), "disabled"),
            "filled": Output(self.id("filled"), "data"),
        }

    def fill(self, context: Context, page: Record, search: str | None) -> Record:
        """Values of `outputs` for the page's record of an address."""
        query = _query(search)
        known = list(dict.fromkeys([*page["models"], *page["chosen"]]))
        other = page["target"] not in _PLAIN_TARGETS
        method = self.methods.get(page["method"])
        values = {} if method is None else _values(method, page["parameters"])
        shown = [] if method is None else [one for one in method.parameters if self.applies(one.name, values)]
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
            "suggested": json.dumps({self.id(name): path for name, path in lists.items()}),
            "parameters": [part for one in shown for part in self._parameter(one, values[one.name])],
            "reference": "" if method is None else method.reference,
            "choose": local("/images?" + urlencode(first)),
            "choose_set": page["image_set"],
            "choose_ids": page["ids"],
            "disabled": page["request"] is None,
            "filled": {
                "values": values,
                "implied": {
                    name: value
                    for name, value in _query(page["search"]).items()
                    if name != "attack" and query.get(name) != value
                },
                **controls,
                **{f"p_{one.name}": _text_of(values[one.name]) for one in shown},
                "where": query.get("where", ""),
                "image_set": page["image_set"],
                "model": page["chosen"][0],
                "guess": self.guess(page),
            },
        }

    def _parameter(self, parameter: Parameter, value: Any) -> tuple[Component, Component]:
        """A parameter's control, and its help, which is shown while the control has the focus."""
        name = self.parameter_id(parameter.name)
        element = json.dumps(name, sort_keys=True, separators=(",", ":"))
        label = parameter.label or parameter.name.replace("_", " ")
        control: Component
        if parameter.choices:
            words = parameter.words or tuple(choice.replace("_", " ") for choice in parameter.choices)
            options = [
                {"value": choice, "label": text}
                for choice, text in zip(parameter.choices, words, strict=True)
            ]
            control = dbc.Select(id=name, options=options, value=value, size="sm")
        else:
            control = dbc.Input(
                id=name, type="text", size="sm", debounce=True, autocomplete="off", className="num",
                value=_text_of(value), placeholder=_text_of(parameter.default) or "default layer",
                inputmode="text" if isinstance(parameter.default, str) else "decimal",
            )  # fmt: skip
        return (
            html.Div(
                [html.Label(label, htmlFor=element), control], className="control", title=parameter.help
            ),
            html.P(f"{label}: {parameter.help}", className="reference help quiet"),
        )

    # ---- controls to address

    def register(self, app: Dash, read: Read) -> None:
        """Register the form's callbacks, and Cancel and Retry of the page's job controller."""
        job_progress.register(app, self.page, self.about)
        controls = {name: (self.id(name), "value") for name in _CONTROLS}
        parameters: tuple[Any, str] = (self.parameter_id(ALL), "value")  # type: ignore[arg-type]
        in_browser(
            app,
            "changedControls",
            Output(self.id("asked"), "data"),
            *(Input(*one) for one in controls.values()),
            Input(*parameters),
            State(self.id("filled"), "data"),
            prevent_initial_call=True,
        )
        in_browser(
            app,
            "writeAddress",
            Output(self.id("gone"), "children"),
            Input(self.id("go"), "data"),
            prevent_initial_call=True,
        )
        writes = {
            "go": Output(self.id("go"), "data", allow_duplicate=True),
            "event": job_progress.reports(self.page),
        }
        app.callback(
            output={**writes, "models": Output(self.id("models"), "value", allow_duplicate=True)},
            inputs={"asked": Input(self.id("asked"), "data")},
            state={"filled": State(self.id("filled"), "data")},
            prevent_initial_call=True,
        )(self._changed)
        pick = ("first", "random", "all")
        app.callback(
            output={
                **writes,
                "seed": Output(self.id("pickseed"), "value", allow_duplicate=True),
                "drawn": Output(self.id("drawn"), "data"),
            },
            inputs={
                "clicks": [Input(self.id(name), "n_clicks") for name in pick],
                "where": Input(self.id("where"), "value"),
                "entered": Input(self.id("where"), "n_submit"),
            },
            state={
                "n": State(self.id("n"), "value"),
                "label": State(self.id("label"), "value"),
                "seed": State(self.id("pickseed"), "value"),
                "right": State(self.id("verdict"), "value"),
                "filled": State(self.id("filled"), "data"),
                "drawn": State(self.id("drawn"), "data"),
                "search": State(LOCATION, "search"),
            },
            prevent_initial_call=True,
        )(self._picked)

        def run(
            pressed: list[Any], values: Record, parameters: Any, filled: Record | None, search: str | None
        ) -> Record:
            del pressed, parameters
            if filled is None or not any(one["value"] for one in ctx.triggered):
                raise PreventUpdate
            given = {
                f"p_{one['id']['parameter']}": one.get("value") for one in ctx.args_grouping["parameters"]
            }
            return self._run(read, values | given, filled, search)

        app.callback(
            output=job_progress.reports(self.page),
            inputs={
                "pressed": [
                    Input(self.id("run"), "n_clicks"),
                    *(Input(self.id(name), "n_submit") for name in _ENTER),
                    Input(self.parameter_id(ALL), "n_submit"),  # type: ignore[arg-type]
                ]
            },
            state={
                "values": {name: State(*one) for name, one in controls.items()},
                "parameters": State(*parameters),
                "filled": State(self.id("filled"), "data"),
                "search": State(LOCATION, "search"),
            },
            prevent_initial_call=True,
        )(run)

    def _changed(self, asked: Record | None, filled: Record | None) -> Record:
        """What the address becomes after controls were changed by hand."""
        if not asked or filled is None:
            raise PreventUpdate
        if asked["changes"].get("models") == []:
            return {"go": no_update, "event": no_update, "models": filled["models"]}
        changes, sentence = self.changes(current(), asked["changes"], filled, asked["search"])
        about = self.about(merged(asked["search"], changes))
        return {
            "go": changes,
            "event": job_progress.report(sentence, about=about),
            "models": no_update,
        }

    def changes(
        self, context: Context, changed: Mapping[str, Any], filled: Record, search: str | None
    ) -> tuple[dict[str, str], str]:
        """Changes of the address for changed controls (see `merged`), and a problem with a class, if any."""
        changes: dict[str, str] = {**filled["implied"], "attack": ""}
        problem = ""
        query = _query(merged(search, changes))
        given = {name[2:]: value for name, value in query.items() if name.startswith("p_")}
        if "models" in changed:
            chosen = [name for name in _known(context, filled) if name in changed["models"]]
            changes |= {"models": ",".join(chosen), "model": chosen[0]}
        if "ids" in changed:
            changes |= {"ids": _text_of(changed["ids"]), **dict.fromkeys(PICKED, "")}
        method = self.methods.get(str(changed.get("method") or filled["method"]))
        if "method" in changed:
            changes["method"] = "" if changed["method"] == self.address.method else str(changed["method"])
            kept = {one.name for one in method.parameters} if method and self.keeps_parameters else set()
            changes |= {f"p_{name}": "" for name in given if name not in kept}
        if "target" in changed:
            value = str(changed["target"])
            value = str(filled["guess"]) if value == "index" else value
            changes["target"] = "" if value == self.address.target else value
        elif "class" in changed:
            names = [row["name"] for row in context.atlas.fetch(classes_of(filled["model"]))]
            number, problem = find_class(names, _text_of(changed["class"]), filled["model"])
            changes["target"] = (_text_of(changed["class"]) or "index") if number is None else str(number)
        for parameter in method.parameters if method else ():
            if f"p_{parameter.name}" in changed:
                text = _text_of(changed[f"p_{parameter.name}"])
                changes[f"p_{parameter.name}"] = "" if text == _text_of(parameter.default) else text
        if method:
            stays = filled["values"] if method.name == filled["method"] or self.keeps_parameters else {}
            typed = {name[2:]: value for name, value in changed.items() if name.startswith("p_")}
            values = _values(method, {**stays, **typed})
            changes |= {
                f"p_{one.name}": "" for one in method.parameters
                if f"p_{one.name}" in query and not self.applies(one.name, values)
            }  # fmt: skip
        return changes, problem

    # ---- picking images

    def _picked(
        self,
        clicks: list[int | None],
        where: str | None,
        entered: int | None,
        n: Any,
        label: str | None,
        seed: Any,
        right: bool | None,
        filled: Record | None,
        drawn: Any,
        search: str | None,
    ) -> Record:
        """The images that First, Random, All or a condition choose; one callback, so that the last one counts."""
        del clicks
        fired = {one["prop_id"] for one in ctx.triggered if one["value"] is not None}
        name = {prop.partition(".")[0].partition("-")[2] for prop in fired}
        if filled is None or not name:
            raise PreventUpdate
        condition = _text_of(where)
        typed = name == {"where"}
        if typed and condition == filled["where"] and not any(prop.endswith("n_submit") for prop in fired):
            raise PreventUpdate  # the address has just been shown
        del entered
        context, image_set, model = current(), filled["image_set"], filled["model"]
        result: Record = {"go": no_update, "event": no_update, "seed": no_update, "drawn": no_update}
        try:
            if typed or "all" in name:
                condition = condition if typed else ""
                spend("SQL statements")
                ids = images_where(context, model, image_set, condition)
                picked = {"where": condition}
            else:
                address, count = self._images(context, image_set, model, n, label, right)
                number = None
                if "random" in name:
                    number = _whole("seed", seed, 0)
                    draw = [count, address.label, address.verdict, image_set, model]
                    if drawn == [*draw, number]:  # pressed again: draw others
                        number += 1
                        result["seed"] = str(number)
                    result["drawn"] = [*draw, number]
                ids = choose_images(context, address, count, seed=number)
                picked = {
                    "n": str(count),
                    "seed": "" if number is None else str(number),
                    "label": address.label,
                    "verdict": "right" if right else "",
                }
        except (InvalidRequest, AtlasError, TooManyRequests) as error:
            return result | {"event": job_progress.report(str(error), about=self.about(search))}
        if not ids:
            problem = f"No matching images in {image_set}."
            return result | {"event": job_progress.report(problem, about=self.about(search))}
        changes = {
            **filled["implied"],
            "ids": short_ids(ids),
            **dict.fromkeys(PICKED, ""),
            **picked,
            "attack": "",
        }
        about = self.about(merged(search, changes))
        return result | {"go": changes, "event": job_progress.report(about=about)}

    def _images(
        self, context: Context, image_set: str, model: str, n: Any, label: str | None, right: bool | None
    ) -> tuple[ImagesAddress, int]:
        wanted = _text_of(label)
        found = ""
        if wanted:
            found = find_label(context.atlas.fetch(image_classes(image_set)), wanted)
            if not found:
                raise InvalidRequest(f"No image of {image_set} is labeled “{wanted}”.")
        verdict = "right" if right else ImagesAddress.verdict
        address = ImagesAddress(model=model, images=image_set, label=found, verdict=verdict)
        count = _whole("n", n, 1)
        if count > MAX_PICKED:
            raise InvalidRequest(f"n: expected a whole number from 1 to {MAX_PICKED}, got {count}")
        return address, count

    # ---- Run

    def _run(self, read: Read, values: Record, filled: Record, search: str | None) -> Record:
        """Submit what the controls say, which may be ahead of the address."""
        context = current()
        changed = {name: value for name, value in values.items() if _plain(value) != _plain(filled.get(name))}
        if not values["models"]:
            raise PreventUpdate
        changes, _ = self.changes(context, changed, filled, search)
        address = merged(search, changes)
        page = read(context, context.catalogue(), address)
        request = page["request"]
        if request is None or page["problems"]:
            raise PreventUpdate  # the page says why

        def submit() -> str:
            stores = Stores(context.atlas, context.ledger, context.settings)
            return job_progress.submit(read_request(request, stores))

        return job_progress.attempt(submit, about=self.about(address if changed else search))


def merged(search: str | None, changes: Mapping[str, str]) -> str:
    """A query string with some values changed; an empty value removes the name. The browser does the same."""
    query = {name: value for name, value in (_query(search) | dict(changes)).items() if value}
    return "?" + urlencode(query, safe=",") if query else ""


def _query(search: str | None) -> dict[str, str]:
    return dict(parse_qsl((search or "").lstrip("?"), keep_blank_values=True))


def _values(method: MethodDescription, given: Mapping[str, Any]) -> dict[str, Any]:
    return {one.name: given.get(one.name, one.default) for one in method.parameters}


def _text_of(value: Any) -> str:
    """A control's value as its text; numbers have six digits."""
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value).strip()


def _plain(value: Any) -> Any:
    return value if isinstance(value, list) else _text_of(value)


def _known(context: Context, filled: Record) -> list[str]:
    """All models that the form lists, in its order."""
    indexed = [run["model"] for run in context.catalogue().runs]
    return list(dict.fromkeys([*indexed, *filled["models"]]))


def _whole(name: str, value: Any, low: int) -> int:
    text = _text_of(value)
    if not text.isascii() or not text.isdecimal() or len(text) > 9 or int(text) < low:
        raise InvalidRequest(f"{name}: expected a whole number from {low}, got {text!r}")
    return int(text)


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
