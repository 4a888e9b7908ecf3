"""Names of elements: one function makes them all.

A control is named after its page and the choice that it sets, so the browser can write the choice into the
address without a table of its own.
"""

LOCATION = "_pages_location"  # made by Dash for its pages
MOUNTED = "_pages_store"  # the same; holds the title of the page that is shown


def make_id(page: str, name: str) -> str:
    """`patches-k`: the element for `name` on `page`; neither may hold a hyphen."""
    if "-" in page or "-" in name:
        raise ValueError(f"expected names without a hyphen, got {page!r} and {name!r}")
    return f"{page}-{name}"
