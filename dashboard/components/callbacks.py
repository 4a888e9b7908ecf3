"""Helpers that connect pages to Dash: layouts rendered once, and callbacks that run in the browser."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from dash import ClientsideFunction
from dash.exceptions import PreventUpdate


def render_once(title: str) -> Callable[[Callable[[], Any]], Callable[..., Any]]:
    """Decorator for a page's layout.

    Dash calls the layout on every change of the address; while its page is already shown, the layout stays as
    it is.
    """

    def decorate(draw: Callable[[], Any]) -> Callable[..., Any]:
        @functools.wraps(draw)
        def layout(mounted: Mapping[str, Any] | None = None, **_: Any) -> Any:
            if mounted and mounted.get("title") == title:
                raise PreventUpdate
            return draw()

        return layout

    return decorate


def in_browser(app: Any, function: str, *parts: Any, **options: Any) -> None:
    """Register `function` of `browser/*.js` as a clientside callback with its outputs, inputs and states."""
    app.clientside_callback(ClientsideFunction("convscope", function), *parts, **options)
