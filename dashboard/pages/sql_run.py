"""The result on the SQL page: run the statement of the address, draw its rows, draw them in another view, cancel."""

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dash import ALL, Dash, Input, Output, State, callback_context, html, no_update
from dash.exceptions import PreventUpdate

from dashboard.api.errors import explain
from dashboard.api.sql import client_gone
from dashboard.components.callbacks import in_browser, one_at_a_time
from dashboard.components.elements import Component
from dashboard.components.sql_cards import answer_cards, gallery
from dashboard.components.sql_chart import axes, chart_of, figure
from dashboard.components.sql_result import (
    VIEWS,
    failure,
    plan,
    possible_views,
    start,
    status_line,
    view_tabs,
)
from dashboard.components.sql_table import column_definitions, grid_rows
from dashboard.security.access import TooManyRequests, spend
from dashboard.security.prefix import page_path
from dashboard.state.address import SQLAddress
from dashboard.state.context import current
from dashboard.state.ids import LOCATION, make_id
from dashboard.state.sql_address import Asked
from dashboard.state.sql_statements import MAX_BYTES, MAX_ROWS, STANDARD_ROWS, Answer, statements
from db.sql.child import SQLFailed, SQLStopped
from db.sql.guard import RefusedSQL
from db.sql.places import TooManyQueries
from db.sql.runner import as_value


class BadLimit(ValueError):
    """The address has an impossible limit; the message is one sentence."""


EXPECTED = (RefusedSQL, SQLFailed, SQLStopped, TooManyQueries, BadLimit, TooManyRequests)
# Outputs of the two callbacks that draw a result, in this order: see `drawn`.
DRAWN = (
    ("result", "children"),
    *((f"panel_{view}", "hidden") for view in VIEWS),
    ("grid", "columnDefs"),
    ("grid", "rowData"),
    ("grid", "filterModel"),
    ("axes", "children"),
    ("figure", "figure"),
    ("cards", "children"),
    ("answer", "data"),
)
HIDDEN = (True,) * len(VIEWS)
KEEP = (no_update,) * 6  # the contents of the panels


def register(app: Dash) -> None:
    """Register the callbacks of the result."""
    search = State(LOCATION, "search")
    tab = State(make_id("sql", "tab"), "data")
    in_browser(
        app,
        "askSQL",
        Output(make_id("sql", "question"), "data"),
        Output(make_id("sql", "busy"), "hidden"),
        Output(make_id("sql", "clock"), "disabled"),
        Output(make_id("sql", "clock"), "n_intervals"),
        Input(LOCATION, "pathname"),
        Input(LOCATION, "search"),
        Input(make_id("sql", "again"), "data"),
        State(make_id("sql", "question"), "data"),
    )
    app.callback(
        *(Output(make_id("sql", name), part) for name, part in DRAWN),
        Output(make_id("sql", "busy"), "hidden", allow_duplicate=True),
        Output(make_id("sql", "clock"), "disabled", allow_duplicate=True),
        Input(make_id("sql", "question"), "data"),
        search,
        tab,
        prevent_initial_call=True,
    )(answer_question)
    app.callback(
        *(Output(make_id("sql", name), part, allow_duplicate=True) for name, part in DRAWN),
        Output(make_id("sql", "again"), "data", allow_duplicate=True),
        Input(LOCATION, "search"),
        State(LOCATION, "pathname"),
        State(make_id("sql", "answer"), "data"),
        State(make_id("sql", "again"), "data"),
        prevent_initial_call=True,
    )(show_again)
    app.callback(
        Output(LOCATION, "search", allow_duplicate=True),
        Input({"type": "sql_view", "name": ALL}, "n_clicks"),
        Input({"type": "sql_axis", "name": ALL, "shown": ALL}, "value"),
        Input({"type": "sql_more", "name": ALL}, "n_clicks"),
        search,
        prevent_initial_call=True,
    )(choose_view)
    app.callback(
        Output(make_id("sql", "busy"), "hidden", allow_duplicate=True),
        Output(make_id("sql", "clock"), "disabled", allow_duplicate=True),
        Input(make_id("sql", "cancel"), "n_clicks"),
        tab,
        prevent_initial_call=True,
    )(cancel)
    app.callback(
        Output(make_id("sql", "running"), "children"),
        Input(make_id("sql", "clock"), "n_intervals"),
        running=one_at_a_time(make_id("sql", "clock")),
    )(running)
    app.callback(Output(make_id("sql", "left"), "children"), Input(LOCATION, "pathname"), tab)(leave)
    in_browser(
        app,
        "settleSQL",
        Output(make_id("sql", "settled"), "children"),
        Input(make_id("sql", "answer"), "data"),
    )


def answer_question(question: Mapping[str, Any] | None, search: str | None, tab: str) -> tuple[Any, ...]:
    """Run the statement of a question, and draw its result in the view of the address."""
    if question is None:
        raise PreventUpdate
    asked = Asked.read(question["search"])
    cancelled = statements().begin(tab)  # ends the statement before it
    begun = time.monotonic()
    if not asked.sql.strip():
        return (start(), *HIDDEN, *KEEP, None, True, True)
    try:
        found = _run(asked, cancelled)
    except EXPECTED as error:
        seconds = time.monotonic() - begun
        sentence = f"Cancelled after {seconds:.0f} s." if cancelled() else " ".join(str(error).split())
        return (failure(sentence), *HIDDEN, *KEEP, None, True, True)
    except Exception as error:  # the page remains usable after it; the log has the traceback of a fault
        _, sentence = explain(error, "a statement of the SQL page")
        return (failure(sentence), *HIDDEN, *KEEP, None, True, True)
    key = secrets.token_urlsafe(12)
    statements().answers.put(key, found)
    # the view may have changed since; unless there is another question, for which this is not the answer
    shown = Asked.read(search)
    shown = shown if shown.question() == asked.question() else asked
    return (*drawn(key, found, shown, drawn_before=()), True, True)


def _run(asked: Asked, cancelled: Callable[[], bool]) -> Answer:
    limit = asked.given.get("limit") or str(STANDARD_ROWS)
    if not limit.isascii() or not limit.isdigit() or len(limit) > 9 or not 1 <= int(limit) <= MAX_ROWS:
        raise BadLimit(f"limit: expected a whole number from 1 to {MAX_ROWS}, got {limit!r}")
    spend("SQL statements")
    disconnected = client_gone()
    values = {name: as_value(value) for name, value in asked.values().items()}
    return Answer.read(
        current().sql.run(
            asked.run_sql,
            values,
            rows=int(limit),
            size=MAX_BYTES,
            gone=lambda: cancelled() or disconnected(),
        )
    )


def drawn(key: str, found: Answer, asked: Asked, drawn_before: Sequence[str]) -> tuple[Any, ...]:
    """The outputs DRAWN for a result in the view of an address; panels that show the same rows already are kept."""
    parameters = [("q", asked.run_sql), *((f"p.{name}", value) for name, value in asked.values().items())]
    line = status_line(found, parameters)
    question = {"key": key, "question": asked.question()}
    if found.plan:
        return ([line, plan(found)], *HIDDEN, *KEEP, question | {"drawn": []})
    wanted = asked.given.get("view") or "table"
    reasons = possible_views(found)
    view = wanted if reasons.get(wanted) == "" else "table"
    result: list[Component] = [line, view_tabs(view, reasons)]
    if reasons.get(wanted) and found.rows:
        result.append(html.P(f"{VIEWS[wanted]}: {reasons[wanted]}.", className="quiet"))
    hidden = [name != view for name in VIEWS]
    contents: list[Any] = list(KEEP)
    if view == "table" and view not in drawn_before:
        contents[:3] = [column_definitions(found), grid_rows(found), {}]
    elif view == "chart":
        chart = chart_of(found, asked.given)
        contents[3:5] = [axes(found, chart), figure(found, chart)]
    elif view == "gallery" and view not in drawn_before:
        context = current()
        contents[5] = gallery(found, answer_cards(context, found, image_set=asked.given.get("images", "")))
    return (result, *hidden, *contents, question | {"drawn": sorted({*drawn_before, view})})


def show_again(
    search: str | None, pathname: str | None, answer: Mapping[str, Any] | None, again: int
) -> tuple[Any, ...]:
    """Draw the kept rows as the address says; run the statement again if they are not kept any longer."""
    asked = Asked.read(search)
    if page_path(pathname) != SQLAddress.path or not answer or answer["question"] != asked.question():
        raise PreventUpdate
    found = statements().answers.get(answer["key"])
    if found is None:
        return (*(no_update,) * len(DRAWN), again + 1)
    return (*drawn(answer["key"], found, asked, answer["drawn"]), no_update)


def choose_view(
    _views: Sequence[int | None], _axes: Sequence[str | None], _more: Sequence[int | None], search: str | None
) -> str:
    """The address of the view, axis or limit that was chosen."""
    key: Any = callback_context.triggered_id
    value = callback_context.triggered[0]["value"]
    if not key or value is None:
        raise PreventUpdate
    asked = Asked.read(search)
    if key["type"] == "sql_view":
        there = asked.with_view(view="" if key["name"] == "table" else key["name"])
    elif key["type"] == "sql_more":
        there = asked.with_view(limit=str(MAX_ROWS))
    elif value == key["shown"]:
        raise PreventUpdate
    else:
        there = asked.with_view(**{key["name"]: value})
    return there


def cancel(clicks: int | None, tab: str) -> tuple[bool, bool]:
    """End the running statement; its own callback says so."""
    if not clicks:
        raise PreventUpdate
    statements().cancel(tab)
    return True, True


def running(seconds: int | None) -> str:
    """The time since a statement was begun."""
    return f"Running… {seconds} s" if seconds else ""


def leave(pathname: str | None, tab: str | None) -> Any:
    """End the statement when another page is opened."""
    if tab and page_path(pathname) != SQLAddress.path:
        statements().leave(tab)
    return no_update
