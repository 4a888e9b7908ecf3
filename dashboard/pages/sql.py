"""The SQL page: a statement, its parameters, and its result as a table, a chart or images.

Callbacks::

    editor, fields, Run, examples, saved queries --> address
    address --> editor, fields
    address --(browser)--> question --(runs it)--> result, in the view of the address
    tabs, axes --> address --> result, in another view (of the kept rows)
    Cancel, leaving the page --> the statement ends

The address contains the statement and the values of its parameters, so a link shows the same query to other users.
The question is the part of the address that determines the rows. The page beside the statement is in `sql_side`, the
result in `sql_run`.
"""

import secrets
from collections.abc import Sequence
from typing import Any, cast

import dash_ag_grid
import dash_bootstrap_components as dbc
from dash import ALL, Dash, Input, Output, State, callback_context, dcc, html, no_update
from dash.exceptions import PreventUpdate

from dashboard.components.callbacks import in_browser
from dashboard.components.elements import Component, attributes, icon
from dashboard.components.sql_table import GRID
from dashboard.pages import sql_run, sql_side
from dashboard.pages.page import Page
from dashboard.security.prefix import page_path
from dashboard.state.address import SQLAddress
from dashboard.state.ids import LOCATION, dom_id, make_id
from dashboard.state.sql_address import Asked, parameters_in
from dashboard.state.sql_offers import offers, words

TITLE = "SQL · Convscope"
NOTHING = "Write a statement first, or pick an example."


def layout() -> Component:
    """The page without content."""
    return html.Div(
        [
            html.Div(
                html.Div(
                    [
                        html.H1("SQL"),
                        html.P("One question over activations, images, predictions, attacks, maps and jobs."),
                    ],
                    className="title",
                ),
                className="heading",
            ),
            html.Div([_statement(), sql_side.layout()], className="sql-top"),
            html.Div(html.Div(className="skeleton tall"), id=make_id("sql", "result")),
            _panel(
                "table",
                dash_ag_grid.AgGrid(
                    id=make_id("sql", "grid"),
                    columnDefs=[],
                    rowData=[],
                    defaultColDef={"sortable": True, "filter": True, "resizable": True, "minWidth": 70},
                    columnSize="autoSize",
                    dashGridOptions=GRID,
                    style={"height": None},
                ),
            ),
            _panel(
                "chart",
                html.Div(id=make_id("sql", "axes"), className="sql-axes"),
                dcc.Graph(
                    id=make_id("sql", "figure"),
                    config=cast(Any, {"displaylogo": False, "responsive": True}),
                    style={"height": "440px"},
                ),
            ),
            _panel("gallery", html.Div(id=make_id("sql", "cards"))),
            dcc.Store(id=make_id("sql", "tab"), data=secrets.token_urlsafe(12)),
            dcc.Store(id=make_id("sql", "words"), data=words()),
            dcc.Store(id=make_id("sql", "shown")),
            dcc.Store(id=make_id("sql", "question")),
            dcc.Store(id=make_id("sql", "again"), data=0),
            dcc.Store(id=make_id("sql", "answer")),
            *(html.Div(id=make_id("sql", name), hidden=True) for name in ("left", "edited", "settled")),
        ],
        className="single-page sql-page",
    )


def _statement() -> Component:
    area = make_id("sql", "statement")
    return html.Section(
        [
            html.Label("SQL statement", htmlFor=area, className="visually-hidden"),
            html.Div(
                dbc.Textarea(id=area, rows=12, spellcheck="false", className="sql-plain", value=""),
                className="sql-editor",
            ),
            html.Div(
                id=make_id("sql", "fields"),
                className="sql-fields",
                role="group",
                **attributes(aria_label="Values of the parameters"),
            ),
            html.Div(id=make_id("sql", "offers")),
            html.P(id=make_id("sql", "problem"), className="problem", role="alert"),
            html.Div(
                [
                    _button("run", "Run", "play-fill", "btn-primary", title="Ctrl+Enter"),
                    html.Span(
                        [
                            _button("cancel", "Cancel", "x-lg", "btn-quiet"),
                            html.Span(id=make_id("sql", "running"), className="quiet num", role="status"),
                            dcc.Interval(id=make_id("sql", "clock"), interval=1000, disabled=True),
                        ],
                        id=make_id("sql", "busy"),
                        className="sql-busy",
                        hidden=True,
                    ),
                    _button("explain", "Explain", "diagram-2", "btn-quiet", title="How DuckDB would run it"),
                    _button("save", "Save…", "bookmark", "btn-quiet"),
                    html.Button(
                        [icon("link-45deg"), html.Span("Copy link")],
                        id=make_id("sql", "link"),
                        type="button",
                        className="btn btn-sm btn-quiet sql-link",
                        hidden=True,
                        **attributes(data_copy=""),
                    ),
                ],
                className="sql-buttons",
            ),
        ],
        className="sql-ask",
        **attributes(aria_label="The statement"),
    )


def _button(name: str, words: str, symbol: str, kind: str, *, title: str = "") -> Component:
    return html.Button(
        [icon(symbol), html.Span(words)],
        id=make_id("sql", name),
        type="button",
        className=f"btn btn-sm {kind}",
        title=title,
    )


def _panel(view: str, *content: Component) -> Component:
    return html.Div(
        list(content),
        id=make_id("sql", f"panel_{view}"),
        className="sql-panel",
        hidden=True,
        role="tabpanel",
        **attributes(aria_labelledby=dom_id({"type": "sql_view", "name": view})),
    )


def register(app: Dash) -> None:
    """Register the page's callbacks."""
    sql_run.register(app)
    sql_side.register(app)
    in_browser(
        app,
        "editSQL",
        Output(make_id("sql", "edited"), "children"),
        Input(make_id("sql", "statement"), "value"),
        State(make_id("sql", "words"), "data"),
    )
    app.callback(
        Output(make_id("sql", "statement"), "value"),
        Output(make_id("sql", "fields"), "children"),
        Output(make_id("sql", "link"), "hidden"),
        Output(make_id("sql", "shown"), "data"),
        Input(LOCATION, "search"),
        Input(make_id("sql", "statement"), "value"),
        State(LOCATION, "pathname"),
        State(make_id("sql", "shown"), "data"),
        State({"type": "sql_value", "name": ALL}, "id"),
        State({"type": "sql_value", "name": ALL}, "value"),
    )(show_statement)
    app.callback(
        Output(make_id("sql", "link"), "data-copy"),
        Input(LOCATION, "href"),
        prevent_initial_call=False,
    )(lambda href: href)
    app.callback(
        Output(make_id("sql", "offers"), "children"),
        Input(make_id("sql", "fields"), "children"),
        Input({"type": "sql_value", "name": ALL}, "n_blur"),
        State({"type": "sql_value", "name": ALL}, "id"),
        State({"type": "sql_value", "name": ALL}, "value"),
        prevent_initial_call=True,
    )(show_offers)
    app.callback(
        Output(LOCATION, "search", allow_duplicate=True),
        Output(make_id("sql", "again"), "data"),
        Output(make_id("sql", "problem"), "children"),
        Input(make_id("sql", "run"), "n_clicks"),
        Input(make_id("sql", "explain"), "n_clicks"),
        Input({"type": "sql_value", "name": ALL}, "n_submit"),
        State(make_id("sql", "statement"), "value"),
        State({"type": "sql_value", "name": ALL}, "id"),
        State({"type": "sql_value", "name": ALL}, "value"),
        State(LOCATION, "search"),
        State(make_id("sql", "again"), "data"),
        prevent_initial_call=True,
    )(run_statement)


def show_statement(
    search: str | None,
    text: str | None,
    pathname: str | None,
    shown: dict[str, Any] | None,
    ids: Sequence[dict[str, str]],
    values: Sequence[str | None],
) -> tuple[Any, ...]:
    """The statement and the values of an address, or the fields of the statement that is being written."""
    if page_path(pathname) != SQLAddress.path:
        raise PreventUpdate
    asked = Asked.read(search)
    before = shown or {"q": "", "search": None, "typed": {}}
    if search != before["search"]:
        written = asked.sql if asked.sql != before["q"] else text or ""
        fields = [_field(name, asked.value(name)) for name in parameters_in(written)]
        now = {"q": asked.sql, "search": search, "typed": asked.typed}
        # the first time even without a change: the editor is opened by it
        same = shown is not None and written == text
        return no_update if same else written, fields, not asked.sql, now
    names = parameters_in(text or "")
    here = [key["name"] for key in ids]
    if names == here:
        raise PreventUpdate
    typed = before["typed"] | {name: value or "" for name, value in zip(here, values, strict=True)}
    fields = [_field(name, typed.get(name, asked.value(name))) for name in names]
    return no_update, fields, no_update, before | {"typed": typed}


def _field(name: str, value: str) -> Component:
    key = {"type": "sql_value", "name": name}
    field = dbc.Input(
        id=key,
        value=value,
        size="sm",
        autocomplete="off",
        placeholder="value",
        list=make_id("sql", f"offers_{name}"),
    )
    return html.Div([html.Label(f"${name}", htmlFor=dom_id(key)), field], className="control")


def show_offers(
    _fields: Any, _blurred: Any, ids: Sequence[dict[str, str]], values: Sequence[str | None]
) -> list[Component]:
    """The values that the parameters may have."""
    typed = {key["name"]: value or "" for key, value in zip(ids, values, strict=True)}
    return [
        html.Datalist(
            [html.Option(value=value) for value in offers(name, typed)], id=make_id("sql", f"offers_{name}")
        )
        for name in typed
    ]


def run_statement(
    _run: int | None,
    _explain: int | None,
    _submitted: Sequence[int | None],
    text: str | None,
    ids: Sequence[dict[str, str]],
    values: Sequence[str | None],
    search: str | None,
    again: int,
) -> tuple[Any, ...]:
    """The address of the statement in the editor; if it is the present one, the statement is run again."""
    if not any(event["value"] for event in callback_context.triggered):
        raise PreventUpdate
    sql = (text or "").strip()
    if not sql:
        return no_update, no_update, NOTHING
    asked = Asked.read(search)
    typed = {key["name"]: value or "" for key, value in zip(ids, values, strict=True)}
    given = {name: typed.get(name, asked.value(name)) for name in parameters_in(sql)}
    explain = {"explain": "1"} if callback_context.triggered_id == make_id("sql", "explain") else {}
    try:
        there = asked.statement(sql, given, explain)
    except ValueError as error:
        return no_update, no_update, str(error)
    if Asked.read(there) == asked:
        return no_update, again + 1, ""
    return there, no_update, ""


PAGE = Page(
    name="sql",
    title=TITLE,
    address=SQLAddress,
    layout=layout,
    register=register,
    label="SQL",
    icon="database",
)
