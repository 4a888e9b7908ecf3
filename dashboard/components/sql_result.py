"""What stands around a SQL result: row count, time, downloads, the choice of the view, a plan, an error, a start."""

from typing import Any
from urllib.parse import urlencode

from dash import html

from dashboard.components.elements import Component, attributes, icon
from dashboard.components.formatting import count
from dashboard.components.sql_cards import has_pictures
from dashboard.components.sql_chart import can_draw
from dashboard.security.prefix import local
from dashboard.state.ids import make_id
from dashboard.state.sql_statements import MAX_ROWS, Answer
from db.sql.examples import EXAMPLES

VIEWS = {"table": "Table", "chart": "Chart", "gallery": "Gallery"}
FORMS = {"csv": "CSV", "json": "JSON", "parquet": "Parquet"}
SYMBOLS = {"table": "table", "chart": "bar-chart", "gallery": "grid-3x3-gap"}


def possible_views(answer: Answer) -> dict[str, str]:
    """Why each view of a result is not possible; empty where it is."""
    pictures = "" if has_pictures(answer.names) else "this result has no column image_id, attack or map"
    return {
        "table": "",
        "chart": "" if can_draw(answer) else "this result has no column of numbers",
        "gallery": pictures if answer.rows else "this result has no rows",
    }


def status_line(answer: Answer, parameters: list[tuple[str, str]]) -> Component:
    """Row count and time, and the downloads; `parameters` are those of the download's address."""
    if answer.plan:
        words = "plan"
    else:
        rows = f"{'the first ' if answer.more else ''}{count(len(answer.rows), 'row')}"
        seconds = answer.seconds
        time = f"{1000 * seconds:.1f} ms" if seconds < 0.1 else f"{seconds:.2f} s"
        words = f"{rows} · {len(answer.columns)} columns · {time}"
    line: list[Component] = [html.P(words, className="sql-status num", role="status")]
    if answer.more and len(answer.rows) < MAX_ROWS:
        line.append(
            html.Button(
                f"Show up to {MAX_ROWS:,}",
                id={"type": "sql_more", "name": "limit"},
                type="button",
                className="btn btn-sm btn-quiet",
            )
        )
    if not answer.plan:
        line.append(_downloads(urlencode(parameters)))
    return html.Div(line, className="sql-status-line")


def _downloads(query: str) -> Component:
    return html.Div(
        [
            html.A(
                [icon("download"), name],
                href=local(f"/download/sql.{form}?{query}"),
                download="",
                title=f"All rows as {form}",
                className="btn btn-sm btn-quiet",
            )
            for form, name in FORMS.items()
        ],
        className="tools",
        role="group",
        **attributes(aria_label="Download all rows"),
    )


def view_tabs(shown: str, reasons: dict[str, str]) -> Component:
    """The tabs that choose the view."""
    return html.Div(
        [
            html.Button(
                label,
                id={"type": "sql_view", "name": name},
                type="button",
                className="segment on" if name == shown else "segment",
                disabled=bool(reasons[name]),
                title=reasons[name],
                role="tab",
                **attributes(
                    aria_selected="true" if name == shown else "false",
                    aria_controls=make_id("sql", f"panel_{name}"),
                ),
            )
            for name, label in VIEWS.items()
        ],
        className="segments sql-tabs",
        role="tablist",
        **attributes(aria_label="How the result is shown"),
    )


def plan(answer: Answer) -> Component:
    """The plan of an explained statement."""
    text = "\n".join(str(row[-1]) for row in answer.rows)
    return html.Pre(text, className="command sql-plan", tabIndex="0")


def failure(sentence: str) -> Component:
    """A message in place of a result."""
    return html.P(sentence, className="sql-failed problem", role="alert")


def start() -> Component:
    """The examples in place of a result, on a page without a statement."""
    return html.Section(
        [
            html.H2("Pick a question, or write one"),
            html.Div(
                [example_button("start", place) for place in range(len(EXAMPLES))], className="sql-starts"
            ),
        ],
        className="sql-blank",
    )


def example_button(at: str, place: int) -> Component:
    """The button that opens an example; `at` says where on the page it is."""
    example: Any = EXAMPLES[place]
    return html.Button(
        [icon(SYMBOLS[example.view]), html.Span(example.title)],
        id={"type": "sql_example", "at": at, "place": place},
        type="button",
        className="sql-item",
    )
