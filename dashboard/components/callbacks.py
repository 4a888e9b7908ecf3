"""How pages are joined to Dash: layouts that are drawn once, callbacks that run in the browser."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from dash import ClientsideFunction
from dash.exceptions import PreventUpdate


def render_once(title: str) -> Callable[[Callable[[], Any]], Callable[..., Any]]:
    """A page's layout. Dash calls it on every change of the address: while the page is shown, it stays."""

    def decorate(draw: Callable[[], Any]) -> Callable[..., Any]:
        @functools.wraps(draw)
        def layout(mounted: Mapping[str, Any] | None = None, **_: Any) -> Any:
            if mounted and mounted.get("title") == title:
                raise PreventUpdate
            return draw()

        return layout

    return decorate


def in_browser(app: Any, function: str, *parts: Any, **options: Any) -> None:
    """Add the callback `function` of `assets/*.js`, with its outputs, inputs and states."""
    app.clientside_callback(ClientsideFunction("convscope", function), *parts, **options)
