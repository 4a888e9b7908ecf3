"""What a page is. One is a module of `dashboard.pages` with `PAGE`, and one line in `dashboard.pages.registry`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dash import Dash

from dashboard.state.address import Address


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page.

    Attributes:
        name: of its module and of its elements.
        title: of the browser's window.
        address: what its query string says; `address.path` is where the page is.
        layout: what Dash shows there; see `dashboard.components.callbacks.render_once`.
        register: adds its callbacks to the app.
        label, icon: of its link in the header, a Bootstrap icon's name; empty: it has none.
        part_of: name of the page whose link is marked while this one is shown.
    """

    name: str
    title: str
    address: type[Address]
    layout: Callable[..., Any]
    register: Callable[[Dash], None]
    label: str = ""
    icon: str = ""
    part_of: str = ""

    @property
    def path(self) -> str:
        """Where the page is, below the prefix of all addresses."""
        return self.address.path
