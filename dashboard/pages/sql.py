"""The SQL page: a statement, its parameters, and its result as a table, a chart or images.

    address --(browser)--> editor, fields, result (fetched from /api/sql), saved queries, tables

The browser renders it from the API (`browser/sql.js`, `browser/sqlresult.js`). The address contains
the statement and the values of its parameters, so a link shows the same query to other users.
"""

from dataclasses import asdict
from typing import Any, cast

import dash_ag_grid
from dash import Dash, Input, Output, State, dcc, html

from dashboard.components.callbacks import in_browser, render_once
from dashboard.components.elements import Component, attributes
from dashboard.pages.page import Page
from dashboard.state.address import MAX_ADDRESS, SQLAddress
from dashboard.state.context import Record
from dashboard.state.ids import LOCATION, make_id
from db.sql.examples import EXAMPLES

TITLE = "SQL · Convscope"
# The grid uses the page's CSS variables, so it follows the theme.
GRID: dict[str, Any] = {
    "theme": {
        "function": "themeQuartz.withParams({"
        "backgroundColor: 'var(--panel)', foregroundColor: 'var(--text)', borderColor: 'var(--line)', "
        "headerBackgroundColor: 'var(--sunken)', headerTextColor: 'var(--quiet)', accentColor: 'var(--accent)', "
        "oddRowBackgroundColor: 'var(--panel)', rowHoverColor: 'var(--sunken)', "
        "browserColorScheme: 'inherit', fontFamily: 'inherit', fontSize: 13, headerFontSize: 12, spacing: 5, "
        "wrapperBorderRadius: 8})"
    },
    "pagination": True,
    "paginationPageSize": 100,
    "paginationPageSizeSelector": [20, 100, 1000],
    "enableCellTextSelection": True,
    "ensureDomOrder": True,
    "suppressFieldDotNotation": True,
    "domLayout": "autoHeight",
    "tooltipShowDelay": 500,
}


@render_once(TITLE)
def layout() -> Component:
    """The page without content."""
    return html.Div(
        [
            html.Div(html.Div(className="skeleton tall"), id=make_id("sql", "head")),
            html.Div(id=make_id("sql", "result")),
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
            dcc.Store(id=make_id("sql", "constants"), data=constants()),
            html.Div(id=make_id("sql", "drawn"), hidden=True),
        ],
        className="single-page sql-page",
    )


def constants() -> Record:
    """Constants for the page's script."""
    return {"examples": [asdict(example) for example in EXAMPLES], "most_address": MAX_ADDRESS}


def _panel(view: str, *content: Component) -> Component:
    return html.Div(
        list(content),
        id=make_id("sql", f"panel_{view}"),
        className="sql-panel",
        hidden=True,
        role="tabpanel",
        **attributes(aria_labelledby=make_id("sql", f"tab_{view}")),
    )


def register(app: Dash) -> None:
    """Register the page's callback."""
    in_browser(
        app,
        "drawSQL",
        Output(make_id("sql", "drawn"), "children"),
        Input(LOCATION, "pathname"),
        Input(LOCATION, "search"),
        State(make_id("sql", "constants"), "data"),
    )


PAGE = Page(
    name="sql",
    title=TITLE,
    address=SQLAddress,
    layout=layout,
    register=register,
    label="SQL",
    icon="database",
)
