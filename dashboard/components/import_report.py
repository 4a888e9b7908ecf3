"""What an import took from a source: its layout, and the files that it refused or did not use."""

from collections.abc import Mapping, Sequence
from typing import Any

from dash import html

from dashboard.components.elements import Component, attributes
from dashboard.components.formatting import count
from dashboard.state.context import Record

MAX_OPEN = 5


def layout_report(layout: Record | None) -> Component:
    """Where an import took split, class and label from, and what it did not use; None without a layout."""
    if not layout or not layout.get("sentence"):
        return None
    unused = [
        f"{found['kind']}: {found['example']}"
        if found["count"] == 1
        else f"{found['count']:,} {found['kind']}, for example {found['example']}"
        for found in layout["unused"]
    ]
    number = sum(found["count"] for found in layout["unused"])
    return html.Div(
        [
            html.P(f"Layout: {layout['sentence']}."),
            _listed("Notes", layout["notes"]),
            _listed(f"Not used ({number:,})", unused),
        ],
        className="layout-report",
    )


def _listed(title: str, rows: Sequence[str]) -> Component:
    if not rows:
        return None
    listed = html.Ul([html.Li(row) for row in rows], className="layout-list")
    return html.Details([html.Summary(title), listed], open=len(rows) <= MAX_OPEN)


def refusals(report: Record) -> Component:
    """The files that an import refused, collapsed; None if there are none."""
    if not report["refused"]:
        return None
    listed = report["refusals"]
    names = html.Tr([html.Th(name, scope="col") for name in ("File", "Reason")])
    rows = [html.Tr([html.Td(one["name"], className="long"), html.Td(one["reason"])]) for one in listed]
    return html.Details(
        [
            html.Summary(f"Refused files ({report['refused']:,})"),
            html.Div(
                html.Table([html.Thead(names), html.Tbody(rows)], className="table-plain"),
                className="table-scroll refusals",
                tabIndex="0",
                role="region",
                **attributes(aria_label="Refused files"),
            ),
            html.P(f"The first {len(listed):,}.", className="quiet")
            if report["refused"] > len(listed)
            else None,
        ]
    )


def counted(counts: Mapping[str, int], total: int, noun: str, *, shown: int = 8) -> Component:
    """`2 classes: cat (8), dog (4)`; the first few of `total` names with their numbers of images."""
    if not counts:
        return None
    names = ", ".join(f"{name} ({number:,})" for name, number in list(counts.items())[:shown])
    return html.P(f"{count(total, noun)}: {names}{', …' if total > shown else ''}")


def added(report: Mapping[str, Any]) -> str:
    """`12 images added, 3 already there`."""
    others = (
        ("known", "already there"),
        ("renamed", "moved or renamed"),
        ("labelled", "with a label"),
        ("refused", "refused"),
    )
    found = [f"{report[name]:,} {words}" for name, words in others if report[name]]
    return ", ".join([f"{count(report['added'], 'image')} added", *found])
