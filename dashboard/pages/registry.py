"""All pages; those with a link in the header come in the order of their links."""

from importlib import import_module

from dashboard.pages.page import Page

# One line per page: its module in `dashboard.pages`.
_MODULES = (
    "patches",
    "channel",
    "images",
    "image",
    "overview",
    "saliency",
    "attack",
    "robustness",
    "sql",
    "jobs",
)
PAGES: tuple[Page, ...] = tuple(import_module(f"dashboard.pages.{name}").PAGE for name in _MODULES)
LINKED = tuple(page for page in PAGES if page.label)
