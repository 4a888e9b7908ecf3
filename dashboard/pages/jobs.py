"""The Jobs page: queued, running and finished jobs, rendered in the browser from the API (`browser/jobs.js`).

address, work --(browser)--> list, the open job; polls every second while one of its items is running
"""

from dash import Dash, Input, Output, State, dcc, html

from dashboard.components.callbacks import in_browser, render_once
from dashboard.components.elements import Component
from dashboard.pages.page import Page
from dashboard.state.address import JobsAddress
from dashboard.state.ids import LOCATION, make_id
from workers.jobs.registry import JOB_KINDS

TITLE = "Jobs · Convscope"


@render_once(TITLE)
def layout() -> Component:
    """The page without content."""
    return html.Div(
        [
            html.Div(html.Div(className="skeleton tall"), id=make_id("jobs", "root")),
            dcc.Store(id=make_id("jobs", "drawn")),
            dcc.Store(
                id=make_id("jobs", "kinds"), data={kind.name: kind.title for kind in JOB_KINDS.values()}
            ),
        ],
        className="single-page jobs-page",
    )


def register(app: Dash) -> None:
    """Register the page's callback."""
    in_browser(
        app,
        "drawJobs",
        Output(make_id("jobs", "drawn"), "data"),
        Input(LOCATION, "pathname"),
        Input(LOCATION, "search"),
        Input(make_id("shell", "work"), "data"),
        State(make_id("jobs", "kinds"), "data"),
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
