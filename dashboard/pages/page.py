"""The `Page` type. A page is a module of `dashboard.pages` with a `PAGE`, and one line in `registry`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dash import Dash

from dashboard.state.address import Address


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page.

    Attributes:
        name: name of its module, and prefix of its element ids.
        title: title of the browser window until the page has a heading.
        address: its choices in the query string; `address.path` is the page's path.
        layout: the Dash layout, drawn when the page is opened; its callbacks do what depends on the address.
        register: adds its callbacks to the app.
        label, icon: text and Bootstrap icon of its link in the header; empty: no link.
        part_of: name of the page whose link is highlighted while this one is shown.
    """

    name: str
    title: str
    address: type[Address]
    layout: Callable[[], Any]
    register: Callable[[Dash], None]
    label: str = ""
    icon: str = ""
    part_of: str = ""

    @property
    def path(self) -> str:
        """The page's path, without the URL prefix."""
        return self.address.path
