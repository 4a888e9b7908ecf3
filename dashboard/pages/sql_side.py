"""Beside the statement on the SQL page: examples, tables with their columns, and saved queries with their dialogs."""

from collections.abc import Sequence
from typing import Any

import dash_bootstrap_components as dbc
from dash import ALL, MATCH, Dash, Input, Output, State, callback_context, ctx, dcc, html, no_update
from dash.exceptions import PreventUpdate

from dashboard.components.elements import Component, attributes, icon, labelled
from dashboard.components.sql_result import example_button
from dashboard.state.context import current
from dashboard.state.ids import LOCATION, make_id
from dashboard.state.sql_address import Asked, parameters_in
from dashboard.state.sql_offers import offers
from db.ledger.saved_queries import (
    MAX_NAME,
    MAX_TEXT,
    NameTaken,
    NoSuchQuery,
    delete_query,
    save_query,
    saved_queries,
)
from db.sql.catalog import Readable, catalogue, row_counts
from db.sql.examples import EXAMPLES
from db.sql.guard import MAX_CHARACTERS
from workers.requests.members import is_storable

SIDES = {"examples": "Examples", "tables": "Tables", "saved": "Saved"}
GROUPS = {
    "view": "Views: the most common questions",
    "atlas": "Atlas: models' responses to images",
    "ledger": "Ledger: jobs and their results",
}
CHOSEN = "segment on"  # class of the tab that is open
NOTHING_SAVED = (
    "Nothing is saved yet. Save keeps the statement in the editor for all users of this Convscope."
)


def layout() -> Component:
    """The part beside the statement, and its dialogs."""
    return html.Aside(
        [
            html.Div(
                [
                    html.Button(
                        label,
                        id={"type": "sql_side", "name": name},
                        type="button",
                        className="segment",
                        role="tab",
                        **attributes(aria_selected="false", aria_controls=make_id("sql", name)),
                    )
                    for name, label in SIDES.items()
                ],
                className="segments",
                role="tablist",
            ),
            *(
                html.Div(
                    _examples() if name == "examples" else html.P("…", className="quiet"),
                    id=make_id("sql", name),
                    className="sql-side-body",
                    role="tabpanel",
                    tabIndex="0",
                    hidden=True,
                    **attributes(aria_label=label),
                )
                for name, label in SIDES.items()
            ),
            dcc.Store(id=make_id("sql", "saved_list")),
            _save_dialog(),
            _delete_dialog(),
        ],
        className="sql-side",
        **attributes(aria_label="Examples, tables and saved queries"),
    )


def _examples() -> Component:
    return html.Ul(
        [html.Li(example_button("side", place)) for place in range(len(EXAMPLES))], className="sql-list"
    )


def _small(name: str, words: str, kind: str = "btn-quiet") -> Component:
    return html.Button(words, id=make_id("sql", name), type="button", className=f"btn btn-sm {kind}")


def _save_dialog() -> Component:
    name, about = make_id("sql", "save_name"), make_id("sql", "save_about")
    name_field = dbc.Input(id=name, size="sm", maxlength=MAX_NAME, autocomplete="off", value="")
    about_field = dbc.Textarea(id=about, size="sm", rows=3, maxlength=MAX_TEXT, value="")
    return dbc.Modal(
        [
            html.H2("Save this query", id=make_id("sql", "save_title")),
            labelled("Name", name_field, control_id=name),
            labelled("Description (optional)", about_field, control_id=about),
            html.P(id=make_id("sql", "save_problem"), className="problem", role="alert"),
            html.Div(
                [_small("save_now", "Save", "btn-primary"), _small("save_close", "Cancel")],
                className="sql-buttons",
            ),
        ],
        id=make_id("sql", "save_dialog"),
        className="sql-dialog",
        labelledby=make_id("sql", "save_title"),
        centered=True,
        is_open=False,
    )


def _delete_dialog() -> Component:
    return dbc.Modal(
        [
            html.H2("Delete this query?", id=make_id("sql", "delete_title")),
            html.P(id=make_id("sql", "delete_words")),
            html.P(id=make_id("sql", "delete_problem"), className="problem", role="alert"),
            html.Div(
                [_small("delete_now", "Delete", "btn-primary"), _small("delete_close", "Cancel")],
                className="sql-buttons",
            ),
            dcc.Store(id=make_id("sql", "delete_query")),
        ],
        id=make_id("sql", "delete_dialog"),
        className="sql-dialog",
        labelledby=make_id("sql", "delete_title"),
        centered=True,
        is_open=False,
    )


def register(app: Dash) -> None:
    """Register the callbacks of this part."""

    def of(name: str) -> str:
        return make_id("sql", name)

    search = State(LOCATION, "search")
    app.callback(
        *(Output(of(name), "hidden") for name in SIDES),
        Output({"type": "sql_side", "name": ALL}, "className"),
        Output({"type": "sql_side", "name": ALL}, "aria-selected"),
        Input({"type": "sql_side", "name": ALL}, "n_clicks"),
        Input(of("saved_list"), "data"),
        State({"type": "sql_side", "name": ALL}, "className"),
        search,
    )(show_side)
    app.callback(
        Output(LOCATION, "search", allow_duplicate=True),
        Output(of("problem"), "children", allow_duplicate=True),
        Input({"type": "sql_example", "at": ALL, "place": ALL}, "n_clicks"),
        Input({"type": "sql_saved", "query": ALL}, "n_clicks"),
        State(of("saved_list"), "data"),
        State({"type": "sql_value", "name": ALL}, "id"),
        State({"type": "sql_value", "name": ALL}, "value"),
        search,
        prevent_initial_call=True,
    )(open_query)
    app.callback(Output(of("tables"), "children"), Input(of("tab"), "data"))(show_tables)
    app.callback(
        Output({"type": "sql_columns", "table": MATCH}, "children"),
        Input({"type": "sql_table", "table": MATCH}, "n_clicks"),
        prevent_initial_call=True,
    )(show_columns)
    app.callback(
        Output(of("saved"), "children"),
        Output(of("saved_list"), "data"),
        Input(of("tab"), "data"),
        Input(of("save_dialog"), "is_open"),
        Input(of("delete_dialog"), "is_open"),
        State(of("saved_list"), "data"),
    )(show_saved)
    app.callback(
        Output(of("save_now"), "children"),
        Output(of("save_problem"), "children"),
        Input(of("save_name"), "value"),
        Input(of("save_dialog"), "is_open"),
        State(of("saved_list"), "data"),
        prevent_initial_call=True,
    )(name_query)
    app.callback(
        Output(of("save_dialog"), "is_open"),
        Output(of("save_problem"), "children", allow_duplicate=True),
        Output(of("problem"), "children", allow_duplicate=True),
        Output(of("save_name"), "value"),
        Output(of("save_about"), "value"),
        Input(of("save"), "n_clicks"),
        Input(of("save_now"), "n_clicks"),
        Input(of("save_name"), "n_submit"),
        Input(of("save_close"), "n_clicks"),
        State(of("statement"), "value"),
        State(of("save_name"), "value"),
        State(of("save_about"), "value"),
        State(of("save_now"), "children"),
        prevent_initial_call=True,
    )(save)
    app.callback(
        Output(of("delete_dialog"), "is_open"),
        Output(of("delete_words"), "children"),
        Output(of("delete_problem"), "children"),
        Output(of("delete_query"), "data"),
        Input({"type": "sql_delete", "query": ALL}, "n_clicks"),
        Input(of("delete_now"), "n_clicks"),
        Input(of("delete_close"), "n_clicks"),
        State(of("delete_query"), "data"),
        State(of("saved_list"), "data"),
        prevent_initial_call=True,
    )(delete)


def show_side(
    _clicks: Sequence[int | None],
    saved: dict[str, Any] | None,
    classes: Sequence[str],
    search: str | None,
) -> tuple[Any, ...]:
    """The chosen tab, or the saved queries when they have changed.

    A page without a statement begins with its tables, since its examples are below.
    """
    key: Any = callback_context.triggered_id
    if isinstance(key, dict) and callback_context.triggered[0]["value"]:
        name = key["name"]
    elif saved and saved["changed"]:
        name = "saved"
    elif CHOSEN not in classes:
        name = "examples" if Asked.read(search).sql else "tables"
    else:
        raise PreventUpdate
    return (
        *(one != name for one in SIDES),
        [CHOSEN if one == name else "segment" for one in SIDES],
        ["true" if one == name else "false" for one in SIDES],
    )


def open_query(
    _examples: Sequence[int | None],
    _saved: Sequence[int | None],
    saved: dict[str, Any] | None,
    ids: Sequence[dict[str, str]],
    values: Sequence[str | None],
    search: str | None,
) -> tuple[Any, Any]:
    """The address of an example with values that this atlas has, or of a saved query with the values typed."""
    key: Any = callback_context.triggered_id
    if not key or not callback_context.triggered[0]["value"]:
        raise PreventUpdate
    asked = Asked.read(search)
    more: dict[str, str] = {}
    if key["type"] == "sql_saved":
        sql = next(
            one["sql"] for one in (saved or {"queries": []})["queries"] if one["query"] == key["query"]
        )
        typed = {field["name"]: value or "" for field, value in zip(ids, values, strict=True)}
        given = {name: typed.get(name, asked.value(name)) for name in parameters_in(sql)}
    else:
        example = EXAMPLES[key["place"]]
        sql = example.sql.strip()
        given = _existing_values(sql, dict(example.values), asked)
        more = {"view": "" if example.view == "table" else example.view, **example.chart}
    try:
        return asked.statement(sql, given, more), ""
    except ValueError as error:
        return no_update, str(error)


def _existing_values(sql: str, values: dict[str, str], asked: Asked) -> dict[str, str]:
    """An example's values, replaced by others where this atlas does not have them."""
    picked = {name: asked.picked(name) for name in ("model", "images")}
    given = {name: values.get(name, picked.get(name, "")) for name in parameters_in(sql)}
    place = 0
    for name in given:
        there = [] if name in picked else offers(name, picked)
        if there and given[name] not in there:
            given[name] = there[len(there) // 2] if name == "layer" else there[place % len(there)]
            place += name != "layer"
    return given


def show_tables(_tab: str) -> list[Component]:
    """Tables and views by group, with their row counts."""
    context = current()
    counts = row_counts(context.atlas, context.ledger)
    return [
        html.Section(
            [
                html.H3(title),
                *(_table(one, counts.get(one.name)) for one in catalogue() if one.place == place),
            ]
        )
        for place, title in GROUPS.items()
    ]


def _table(table: Readable, rows: int | None) -> Component:
    summary: list[Component] = [html.Code(table.name)]
    if rows is not None:
        summary.append(html.Small(f"{rows:,}", className="num"))
    insert = html.Button(
        "Insert", type="button", className="btn btn-sm btn-quiet", **attributes(data_insert=table.name)
    )
    return html.Details(
        [
            html.Summary(summary, id={"type": "sql_table", "table": table.name}),
            html.P([table.comment, " ", insert]),
            html.Dl(id={"type": "sql_columns", "table": table.name}),
        ],
        className="sql-table",
    )


def show_columns(_clicks: int | None) -> list[Component]:
    """The columns of the table that was opened."""
    key: Any = ctx.triggered_id
    table = next(one for one in catalogue() if one.name == key["table"])
    shown: list[Component] = []
    for column in table.columns:
        insert = html.Button(
            column.name,
            type="button",
            title=f"Insert {column.name}",
            **attributes(data_insert=column.name),
        )
        shown += [html.Dt([insert, html.Small(column.kind.lower())]), html.Dd(column.comment)]
    return shown


def show_saved(_tab: str, _saving: bool, _deleting: bool, before: dict[str, Any] | None) -> tuple[Any, Any]:
    """The saved queries."""
    found = [
        {name: one[name] for name in ("query", "name", "description", "sql")}
        for one in saved_queries(current().ledger)
    ]
    if before and found == before["queries"]:
        raise PreventUpdate
    listed = {"queries": found, "changed": before is not None}
    if not found:
        return html.P(NOTHING_SAVED, className="quiet"), listed
    return html.Ul([_saved(one) for one in found], className="sql-list"), listed


def _saved(one: dict[str, Any]) -> Component:
    words: list[Component] = [one["name"]]
    if one["description"]:
        words.append(html.Small(one["description"]))
    return html.Li(
        [
            html.Button(
                [icon("bookmark"), html.Span(words)],
                id={"type": "sql_saved", "query": one["query"]},
                type="button",
                className="sql-item",
            ),
            html.Button(
                "Delete",
                id={"type": "sql_delete", "query": one["query"]},
                type="button",
                className="btn btn-sm btn-quiet",
                **attributes(aria_label=f"Delete {one['name']}"),
            ),
        ],
        className="sql-saved",
    )


def name_query(name: str | None, _open: bool, saved: dict[str, Any] | None) -> tuple[str, str]:
    """The label of the button that saves, and what it does to a query of the same name."""
    if any(one["name"] == (name or "").strip() for one in (saved or {"queries": []})["queries"]):
        return "Replace", "A saved query has this name. Replace overwrites its statement."
    return "Save", ""


def save(
    _open: int | None,
    _save: int | None,
    _submitted: int | None,
    _close: int | None,
    text: str | None,
    name: str | None,
    about: str | None,
    label: str,
) -> tuple[Any, ...]:
    """Open the dialog, save and close it, or say why the query cannot be saved."""
    part = callback_context.triggered_id
    sql = (text or "").strip()
    if not callback_context.triggered[0]["value"]:
        raise PreventUpdate
    if part == make_id("sql", "save_close"):
        return False, no_update, no_update, no_update, no_update
    if part == make_id("sql", "save"):
        if not sql:
            sentence = "Write a statement first, or pick an example."
            return no_update, no_update, sentence, no_update, no_update
        return True, "", "", "", ""
    named, described = (name or "").strip(), (about or "").strip()
    if not named or not named.isprintable():
        return no_update, "Name: expected one line of printable characters.", *(no_update,) * 3
    if len(sql) > MAX_CHARACTERS:
        said = f"Statement: expected at most {MAX_CHARACTERS:,} characters, got {len(sql):,}."
        return no_update, said, *(no_update,) * 3
    if not all(is_storable(text) for text in (named, described, sql)):
        said = "Expected text without null characters and unpaired surrogates, got some."
        return no_update, said, *(no_update,) * 3
    try:
        save_query(
            current().ledger,
            name=named,
            description=described,
            sql=sql,
            replace=label == "Replace",
        )
    except NameTaken as error:
        return no_update, f"{error}.", *(no_update,) * 3
    return False, *(no_update,) * 4


def delete(
    _open: Sequence[int | None],
    _delete: int | None,
    _close: int | None,
    query: int | None,
    saved: dict[str, Any] | None,
) -> tuple[Any, ...]:
    """Open the dialog for a saved query, delete it and close the dialog."""
    part: Any = callback_context.triggered_id
    if not callback_context.triggered[0]["value"]:
        raise PreventUpdate
    if isinstance(part, dict):
        one = next(one for one in (saved or {"queries": []})["queries"] if one["query"] == part["query"])
        return True, f"“{one['name']}” is deleted permanently, for all users.", "", one["query"]
    if part == make_id("sql", "delete_now") and query is not None:
        try:
            delete_query(current().ledger, query)
        except NoSuchQuery as error:
            return no_update, no_update, f"{error}.", no_update
    return False, no_update, no_update, None
