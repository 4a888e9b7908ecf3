"""Callbacks that run in the browser."""

from typing import Any

from dash import ClientsideFunction


def in_browser(app: Any, function: str, *parts: Any, **options: Any) -> None:
    """Add the callback `function` of `assets/*.js`, with its outputs, inputs and states."""
    app.clientside_callback(ClientsideFunction("convscope", function), *parts, **options)
