"""What callbacks share: timers that wait, comparison with what is shown, and functions that run in the browser."""

from hashlib import blake2b
from typing import Any

from dash import ClientsideFunction, Output
from plotly.io.json import to_json_plotly


def one_at_a_time(timer: str) -> list[tuple[Output, int, int]]:
    """`running` of a callback that a `dcc.Interval` triggers: the timer pauses until the answer has arrived.

    Of two calls of one callback Dash drops the answer to the first. With answers that take longer than the
    interval, each would be dropped, and the page would never change.
    """
    return [(Output(timer, "max_intervals"), 0, -1)]


def fingerprint(part: Any) -> str:
    """A hash by which a part of a page is compared with the one that is shown."""
    return blake2b(to_json_plotly(part).encode(), digest_size=8).hexdigest()


def in_browser(app: Any, function: str, *parts: Any, **options: Any) -> None:
    """Register `function` of `browser/*.js` as a clientside callback with its outputs, inputs and states."""
    app.clientside_callback(ClientsideFunction("convscope", function), *parts, **options)
