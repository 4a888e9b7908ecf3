"""Sections of the Overview page: classes, sizes, accuracy, labels, skipped layers."""

import shlex
from collections.abc import Sequence

from dash import html

from dashboard.components import elements as components
from dashboard.components.elements import Component, attributes
from dashboard.components.formatting import count, percent
from dashboard.security.prefix import local
from dashboard.state.address import ImagesAddress, OverviewAddress
from dashboard.state.context import Context, Record
from dashboard.state.selections import index_command
from db.atlas.store import Query
from db.queries import overview as overview_queries
from db.queries.inventory import has_modules, left_out_modules
from db.queries.labels import in_words, label_matches, unindexed_choices

MAX_CLASSES = 24  # rows of the matrix, bars of a list
MAX_SIZES = 8
_MAX_NAMES = 4  # layer names in a table cell
ORDERS = {"images": "most images", "worst": "worst", "best": "best", "name": "name"}


def card(title: str, query: Query, here: OverviewAddress, table: str, *inside: Component) -> Component:
    download = local(f"/download/overview/{table}.csv") + here.search_part()
    tools = components.sql_tools(query, download)
    return components.card(title, tools, *inside, components.sql_text(query))


def class_section(context: Context, here: OverviewAddress, run: Record | None) -> Component:
    number = None if run is None else run["run"]
    query = overview_queries.classes(here.images, number, order=here.order, limit=None)
    rows = context.atlas.fetch(query)
    orders = html.Div(
        [
            html.A(
                words,
                href=here.href(order=order),
                className=f"segment{' on' if order == here.order else ''}",
                **(attributes(aria_current="true") if order == here.order else {}),
            )
            for order, words in ORDERS.items()
            if run is not None or order in ("images", "name")
        ],
        className="segments",
    )
    by_accuracy = run is not None and here.order in ("worst", "best")
    most = max((row["images"] for row in rows), default=1)
    listed = components.bars(
        components.bar(
            html.A(row["label"] or row["class"], href=here.at(ImagesAddress, label=row["class"]).href()),
            (row["top1"] or 0) if by_accuracy else row["images"] / most,
            f"{percent(row['top1'])} of {row['judged']:,}" if by_accuracy else f"{row['images']:,}",
            title=f"{row['class']}: {count(row['images'], 'image')}"
            + (f", {percent(row['top1'])} right" if row["judged"] else ""),
        )
        for row in rows[:MAX_CLASSES]
    )
    more = f"{MAX_CLASSES} of {len(rows):,} classes; the CSV has all." if len(rows) > MAX_CLASSES else None
    return card(
        "Classes",
        query,
        here,
        "classes",
        orders if rows else None,
        listed if rows else html.P("No image has a label.", className="quiet"),
        html.P(more, className="quiet") if more else None,
    )


def size_section(context: Context, here: OverviewAddress) -> Component:
    query = overview_queries.sizes(here.images, limit=None)
    rows = context.atlas.fetch(query)
    most = max(row["images"] for row in rows)
    others = sum(row["images"] for row in rows[MAX_SIZES:])
    listed = [
        components.bar(f"{row['width']:,} × {row['height']:,}", row["images"] / most, f"{row['images']:,}")
        for row in rows[:MAX_SIZES]
    ]
    if others:
        name = count(len(rows) - MAX_SIZES, "other")
        listed.append(components.bar(name, others / most, f"{others:,}"))
    return card("Sizes, width × height", query, here, "sizes", components.bars(listed))


def accuracy_section(here: OverviewAddress, rows: Sequence[Record]) -> Component:
    head = ("Model", "Judged", "Top-1", "Top-5", "Sure where right", "Sure where wrong")
    body = [
        [
            html.A(row["model"], href=here.href(model=row["model"])),
            f"{row['judged']:,}",
            percent(row["top1"]),
            percent(row["top5"]),
            percent(row["probability_right"]),
            percent(row["probability_wrong"]),
        ]
        for row in rows
    ]
    unjudged = max(row["unjudged"] for row in rows)
    told = f"{count(unjudged, 'image')} without a label among a model's classes." if unjudged else None
    return card(
        "Models",
        overview_queries.accuracy(here.images),
        here,
        "accuracy",
        components.plain_table(
            head, body, "Models", chosen=[row["model"] == here.model for row in rows].index(True)
        ),
        html.P(told, className="quiet") if told else None,
    )


def label_section(context: Context, here: OverviewAddress, run: Record) -> Component:
    """How the set's labels were matched to the model's classes, and which were not."""
    query = label_matches(run["run"])
    rows = context.atlas.fetch(query)
    title = f"Labels as classes of {here.model}"
    settle = f"convscope models map-labels {shlex.quote(here.model)} --images {shlex.quote(here.images)}"
    again = index_command(run, here.images) + " --replace"
    if not rows:
        labelled = context.atlas.fetch(overview_queries.size_summary(here.images))[0]["classes"]
        told = "No image has a label." if not labelled else "This run did not record it. To list the classes:"
        return card(
            title, query, here, "labels", html.P(told), components.command(settle) if labelled else None
        )
    left = [row for row in rows if row["how"] in ("ambiguous", "none")]
    shown = [
        [row["label"] or row["wnid"], f"{row['images']:,}", ", ".join(row["candidates"] or ()) or "no class"]
        for row in left[:MAX_CLASSES]
    ]
    more = f"{MAX_CLASSES} of {len(left):,} labels; the CSV has all." if len(left) > MAX_CLASSES else None
    settled = context.atlas.fetch(unindexed_choices(run["run"]))
    parts: list[Component] = [html.P(in_words(rows, here.model))]
    if left:
        parts += [
            components.plain_table(
                ("Label without a class", "Images", "May be"), shown, "Labels without a class"
            ),
            html.P(more, className="quiet") if more else None,
            html.P("Images with these labels are not judged. Choose their classes with:"),
            components.command(settle),
        ]
    if settled:
        told = (
            f"{count(len(settled), 'label')} settled since this run: predictions follow with the next index."
        )
        parts += [html.P(told), components.command(again)]
    return card(title, query, here, "labels", *parts)


def left_out_section(context: Context, here: OverviewAddress, run: Record) -> Component:
    """Layers with channels that could not be indexed, by reason."""
    title, query = f"Layers of {here.model} that are left out", left_out_modules(here.model)
    rows = context.atlas.fetch(query)
    if not rows and context.atlas.fetch(has_modules(here.model)):
        return None
    if not rows:
        told = f"The index of {here.model} did not record them. To list them:"
        listing = f"convscope models show {shlex.quote(run['source'])}"
        return card(title, query, here, "left_out", html.P(told), components.command(listing))
    table = components.plain_table(
        ("Reason", "Layers", "Names"),
        [
            [
                html.Span(row["reason"], className="sentence"),
                f"{row['modules']:,}",
                ", ".join(row["named"][:_MAX_NAMES]) + (", …" if row["modules"] > _MAX_NAMES else ""),
            ]
            for row in rows
        ],
        "Layers that are left out",
    )
    told = "They have channels, but no map of the image to show patches of. The CSV has all names."
    return card(title, query, here, "left_out", html.P(told, className="quiet"), table)
