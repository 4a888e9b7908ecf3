"""Element ids, all made by one function.

A control is named after its page and the choice it sets, so the browser can write the choice to the address
without a lookup table.
"""

import json
from collections.abc import Mapping

LOCATION = "location"  # the address bar
PLACE = "page"  # the place of the current page


def make_id(page: str, name: str) -> str:
    """`patches-k`: the element for `name` on `page`; neither may contain a hyphen."""
    if "-" in page or "-" in name:
        raise ValueError(f"expected names without a hyphen, got {page!r} and {name!r}")
    return f"{page}-{name}"


def dom_id(key: Mapping[str, str | int]) -> str:
    """The id in the document of a component whose Dash id is a dictionary."""
    return json.dumps(key, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
