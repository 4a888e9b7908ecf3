"""The Jobs page: what waits, runs and ended. The browser draws it from the HTTP interface (`assets/jobs.js`).

address, work --(browser)--> list, the opened job; asks again every second while something of it runs
"""

from dash import Dash, Input, Output, dcc, html

from dashboard.components.callbacks import drawn_once, in_browser
from dashboard.components.elements import Component
from dashboard.pages.page import Page
from dashboard.state.address import JobsAddress
from dashboard.state.ids import LOCATION, make_id

TITLE = "Jobs · Convscope"


@drawn_once(TITLE)
def layout() -> Component:
    """The page without content."""
    return html.Div(
        [
            html.Div(html.Div(className="skeleton tall"), id=make_id("jobs", "root")),
            dcc.Store(id=make_id("jobs", "drawn")),
        ],
        className="single-page jobs-page",
    )


def register(app: Dash) -> None:
    """Add the page's callback."""
    in_browser(
        app,
        "drawJobs",
        Output(make_id("jobs", "drawn"), "data"),
        Input(LOCATION, "pathname"),
        Input(LOCATION, "search"),
        Input(make_id("shell", "work"), "data"),
    )


PAGE = Page(
    name="jobs",
    title=TITLE,
    address=JobsAddress,
    layout=layout,
    register=register,
    label="Jobs",
    icon="list-check",
)
