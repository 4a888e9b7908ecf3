"""Shows the page of the path in the address bar.

Callbacks::

    path --> show_page --> page, title

The rest of an address is for the page's own callbacks: while it changes, the page stays as it is.
"""

from typing import Any

from dash import Dash, Input, Output, State, dcc, html
from dash.exceptions import PreventUpdate

from dashboard.components import elements as components
from dashboard.components.elements import Component
from dashboard.pages.registry import PAGES
from dashboard.security.prefix import local, page_path
from dashboard.state.ids import LOCATION, PLACE

NOT_FOUND = "Not found · Convscope"


def layout() -> list[Component]:
    """The address bar, and the place of the page; `data-title` is the window's title until the page has a heading."""
    return [dcc.Location(id=LOCATION, refresh="callback-nav"), html.Div(id=PLACE)]


def register(app: Dash) -> None:
    """Register the callback. The address bar calls it first, as soon as it is in the document."""
    app.callback(
        Output(PLACE, "children"),
        Output(PLACE, "data-title"),
        Input(LOCATION, "pathname"),
        State(PLACE, "data-title"),
        prevent_initial_call=True,
    )(show_page)


def show_page(pathname: str | None, shown: str | None) -> tuple[Component, str]:
    """The layout and the title of a path's page; no update if the page is shown already."""
    path = (page_path(pathname) or "").rstrip("/") or "/"
    page = next((page for page in PAGES if page.path == path), None)
    title = NOT_FOUND if page is None else page.title
    if title == shown:
        raise PreventUpdate
    return not_found() if page is None else page.layout(), title


def not_found() -> Any:
    """The page for unknown addresses."""
    return html.Div(
        components.error_message("There is no such page.", link=(local("/"), "Show the patches")),
        className="single-page",
    )
