"""Helpers that connect pages to Dash: layouts rendered once, and callbacks that run in the browser."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from dash import ClientsideFunction, Output
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


def one_at_a_time(timer: str) -> list[tuple[Output, int, int]]:
    """`running` of a callback that a `dcc.Interval` triggers: the timer pauses until the answer has arrived.

    Of two calls of one callback Dash drops the answer to the first. With answers that take longer than the
    interval, each would be dropped, and the page would never change.
    """
    return [(Output(timer, "max_intervals"), 0, -1)]


def in_browser(app: Any, function: str, *parts: Any, **options: Any) -> None:
    """Register `function` of `browser/*.js` as a clientside callback with its outputs, inputs and states."""
    app.clientside_callback(ClientsideFunction("convscope", function), *parts, **options)
