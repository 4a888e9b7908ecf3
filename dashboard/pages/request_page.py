"""Layout and callbacks of pages that submit jobs: a message, a root rendered in the browser, and its data."""

from collections.abc import Callable
from typing import Any

from dash import Dash, Input, Output, State, dcc, html
from dash.exceptions import PreventUpdate

from dashboard.components import elements as components
from dashboard.components.callbacks import in_browser
from dashboard.components.elements import Component
from dashboard.components.onboarding import nothing_yet
from dashboard.security.prefix import page_path
from dashboard.state.context import Catalogue, Context, Record, current
from dashboard.state.ids import LOCATION, make_id

Show = Callable[[Context, Catalogue, str | None], Record]


def asking_layout(name: str, constants: Record) -> Component:
    """The page without content; `constants` is the data its script needs once."""
    return html.Div(
        [
            html.Div(id=make_id(name, "message")),
            html.Div(html.Div(className="skeleton tall"), id=make_id(name, "root")),
            dcc.Store(id=make_id(name, "page")),
            dcc.Store(id=make_id(name, "constants"), data=constants),
            html.Div(id=make_id(name, "drawn"), hidden=True),
        ],
        className=f"single-page {name}-page",
    )


def register_asking(app: Dash, name: str, *, path: str, draw: str, read: Show) -> None:
    """Register the page's callbacks: `read` returns the data for an address, the script's `draw` renders it."""

    def show(
        search: str | None, _status: Any, pathname: str | None
    ) -> tuple[Component, dict[str, Any] | None]:
        if page_path(pathname) != path:
            raise PreventUpdate
        return show_asking(search, read)

    app.callback(
        Output(make_id(name, "message"), "children"),
        Output(make_id(name, "page"), "data"),
        Input(LOCATION, "search"),
        Input(make_id("shell", "status"), "data"),
        State(LOCATION, "pathname"),
    )(show)
    in_browser(
        app,
        draw,
        Output(make_id(name, "drawn"), "children"),
        Input(make_id(name, "page"), "data"),
        State(make_id(name, "constants"), "data"),
    )


def show_asking(search: str | None, read: Show) -> tuple[Component, dict[str, Any] | None]:
    """A message if there is nothing to choose from, else the data for the address."""
    context = current()
    catalogue = context.catalogue()
    message = nothing_to_choose(catalogue)
    return message, None if message is not None else read(context, catalogue, search)


def nothing_to_choose(catalogue: Catalogue) -> Component | None:
    """Why nothing can be requested; None if something can."""
    if catalogue.trouble:
        return components.trouble(catalogue.trouble)
    if not catalogue.runs or not catalogue.image_sets:
        return nothing_yet(catalogue.newest_set())
    return None
