"""The request form without values."""

from typing import Any

import dash_bootstrap_components as dbc
from dash import dcc, html

from dashboard.components.elements import Component, attributes, icon, labelled, select
from dashboard.pages.request.form import RequestForm
from dashboard.security.prefix import local


def layout(form: RequestForm) -> Component:
    """The form without values."""
    title, targets = form.target
    methods = [(name, one.title) for name, one in form.methods.items()]
    return html.Div(
        [
            html.Fieldset(
                [
                    html.Legend("Models"),
                    dbc.Checklist(
                        id=form.id("models"), options=[], value=[], className="checks",
                        inputClassName="form-check-input", labelClassName="check-label",
                    ),
                ],
                className="control models-control",
            ),
            html.Div(
                [
                    html.Label("Images by number", htmlFor=form.id("ids")),
                    _text(form, "ids", placeholder="0,1,4-7", className="num"),
                    _picker(form),
                ],
                className="control ids-group",
            ),
            html.Div(
                [
                    html.Div(
                        [
                            _labelled(form, "method", "Method", select(form.id("method"), methods)),
                            _labelled(form, "target", title, select(form.id("target"), list(targets.items()))),
                            html.Div(
                                [
                                    html.Label("Class", htmlFor=form.id("class")),
                                    _text(form, "class", placeholder="Name or index", list=form.id("classes")),
                                ],
                                id=form.id("classbox"), className="control class-control", hidden=True,
                            ),
                            html.Button(
                                [icon("play-fill"), html.Span("Run")],
                                id=form.id("run"), type="button", className="btn btn-primary run", disabled=True,
                            ),
                        ],
                        className="method-line",
                    ),
                    html.Div(id=form.id("parameters"), className="parameters"),
                    html.P(id=form.id("reference"), className="reference quiet"),
                ],
                className="method-group",
            ),
            html.Datalist(id=form.id("classes")),
            html.Datalist(id=form.id("labels")),
            *(dcc.Store(id=form.id(name)) for name in ("filled", "asked", "go", "drawn")),
            html.Div(id=form.id("gone"), hidden=True),
        ],
        id=form.id("form"),
        className="controls asks",
        role="form",
        **attributes(aria_label="What is computed"),
    )  # fmt: skip


def _text(form: RequestForm, name: str, **options: Any) -> Component:
    return dbc.Input(id=form.id(name), type="text", size="sm", debounce=True, autocomplete="off", **options)


def _labelled(form: RequestForm, name: str, text: str, control: Component) -> Component:
    return labelled(text, control, control_id=form.id(name), className=f"{name}-control")


def _hidden_label(form: RequestForm, name: str, text: str) -> Component:
    return html.Label(text, htmlFor=form.id(name), className="visually-hidden")


def _button(form: RequestForm, name: str, *content: Component, title: str = "") -> Component:
    return html.Button(
        list(content),
        id=form.id(name),
        type="button",
        className="btn btn-sm btn-quiet",
        title=title or None,
    )


def _picker(form: RequestForm) -> Component:
    columns = "name, label, wnid, split, width, height, bytes, predicted, probability and verdict"
    lines = (
        [
            _hidden_label(form, "n", "How many images to choose"),
            _text(form, "n", value="6", inputmode="numeric"),
            _hidden_label(form, "label", "Class of the images to choose"),
            _text(form, "label", className="pick-class", placeholder="of any class", list=form.id("labels")),
        ],
        [
            _button(form, "first", "First"),
            _button(form, "random", icon("shuffle"), "Random"),
            html.Label("seed", htmlFor=form.id("pickseed"), className="quiet", **attributes(aria_hidden="true")),
            _hidden_label(form, "pickseed", "Seed of the random choice"),
            _text(form, "pickseed", value="0", inputmode="numeric"),
            html.A(
                [icon("images"), "Choose…"], id=form.id("choose"), href=local("/images"),
                className="btn btn-sm btn-quiet",
            ),
        ],
        [
            html.Label("where", htmlFor=form.id("where"), className="quiet"),
            html.Div(
                _text(
                    form, "where", className="pick-where", placeholder="SQL: verdict = 'right' AND width > 300"
                ),
                className="pick-where",
                title=f"A condition over {columns}. Enter chooses all images that satisfy it.",
            ),
            _button(form, "all", "All", title="All images of the set; the condition stays in its field"),
        ],
    )  # fmt: skip
    verdict = dbc.Checkbox(
        id=form.id("verdict"), label="only correctly classified images", className="check only-right"
    )
    return html.Div(
        [*(html.Div(line, className="pick-line") for line in lines), verdict],
        className="pick",
        role="group",
        **attributes(aria_label="Choose images"),
    )
