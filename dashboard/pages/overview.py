"""The Overview page: an image set as a whole.

Callbacks::

    address --+--> show_overview --> classes, sizes, accuracy, confusion matrix, surest mistakes
    status  --+--> show_repeats  --> pictures that repeat, which takes longer where a set is large

Every table shows its SQL; every bar, cell and picture leads to the images that it stands for.
"""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dash import Dash, Input, Output, State, html
from dash.exceptions import PreventUpdate

from dashboard.components import elements as components
from dashboard.components.callbacks import render_once
from dashboard.components.confusion import Matrix, confusion_matrix
from dashboard.components.elements import Component, attributes, icon
from dashboard.components.formatting import byte_size, count, percent
from dashboard.components.onboarding import nothing_yet
from dashboard.pages.images import description_of, not_indexed, resolve
from dashboard.pages.page import Page
from dashboard.pictures.routes import thumbnail_address
from dashboard.security.prefix import local, page_path
from dashboard.state.address import ImageAddress, ImagesAddress, OverviewAddress
from dashboard.state.context import Context, Record, current
from dashboard.state.ids import LOCATION, make_id
from dashboard.state.selections import images_query, index_command
from db.atlas.store import Query
from db.queries import overview as overview_queries
from db.queries.inventory import has_modules, keeps_modules, left_out_modules
from db.queries.labels import in_words, label_matches, unindexed_choices

TITLE = "Overview · Convscope"
BODY = make_id("overview", "body")
REPEATS = make_id("overview", "repeats")
MAX_CLASSES = 24  # rows of the matrix, bars of a list
MAX_SIZES = 8
MAX_MISTAKES = 18
MAX_PAIRS = 12
_MAX_NAMES = 4  # of layers in a cell
ORDERS = {"images": "most images", "worst": "worst", "best": "best", "name": "name"}


@render_once(TITLE)
def layout() -> Component:
    """The page without content."""
    return html.Div(
        [
            html.Div(html.Div(className="skeleton tall"), id=BODY),
            html.Div(html.Div(className="skeleton"), id=REPEATS),
        ],
        className="single-page overview-page",
    )


def register(app: Dash) -> None:
    """Add the page's callbacks."""
    for place, show in ((BODY, show_overview), (REPEATS, show_repeats)):
        app.callback(
            Output(place, "children"),
            Input(LOCATION, "search"),
            Input(make_id("shell", "status"), "data"),
            State(LOCATION, "pathname"),
        )(show)


def show_overview(search: str | None, _status: Any, pathname: str | None) -> Component:
    """All but the pictures that repeat."""
    if page_path(pathname) != OverviewAddress.path:
        raise PreventUpdate
    context = current()
    catalogue = context.catalogue()
    address, problems = OverviewAddress.read(search)
    if catalogue.trouble:
        return components.trouble(catalogue.trouble)
    if not catalogue.image_sets:
        return nothing_yet()
    run, listed = resolve(catalogue, address.at(ImagesAddress))
    if not any(row["image_set"] == listed.images for row in catalogue.image_sets):
        sets = tuple(row["image_set"] for row in catalogue.image_sets)
        link = (OverviewAddress().href(), "Show the newest set")
        return components.error_message(f"There is no image set “{listed.images}”.", link=link, choices=sets)
    if run is None and address.model:
        problems["model"] = not_indexed(catalogue, listed)
    here = replace(address, images=listed.images, model=listed.model)
    judged = context.atlas.fetch(overview_queries.accuracy(here.images))
    blank = context.atlas.fetch(overview_queries.unpredicted(here.images))
    parts = [
        _heading(context, here),
        *components.problems_list([*problems.values(), *map(_unpredicted, blank)]),
        html.Div([_classes(context, here, run), _sizes(context, here)], className="two"),
    ]
    if run is not None:
        pairs = context.atlas.fetch(overview_queries.confusions(run["run"]))
        parts += [
            _accuracy(here, judged),
            _labels(context, here, run),
            _matrix(here, run, pairs),
            _mistakes(context, here, run, pairs),
        ]
        if context.atlas.fetch(keeps_modules()):
            parts.append(_left_out(context, here, run))
    else:
        parts.append(nothing_yet(here.images))
    return html.Div(parts)


def show_repeats(search: str | None, _status: Any, pathname: str | None) -> Component:
    """Pictures that are the same or nearly."""
    if page_path(pathname) != OverviewAddress.path:
        raise PreventUpdate
    context = current()
    catalogue = context.catalogue()
    address, _ = OverviewAddress.read(search)
    if catalogue.trouble or not catalogue.image_sets:
        return None
    _, listed = resolve(catalogue, address.at(ImagesAddress))
    here = replace(address, images=listed.images, model=listed.model)
    query = overview_queries.near_duplicates(here.images, limit=None)
    if not context.atlas.fetch(overview_queries.has_colors()):
        words = (
            "This atlas has no colors to compare images by: import an image set again to see what repeats."
        )
        return _card("Pictures that repeat", query, here, "repeats", html.P(words, className="quiet"))
    (left,) = context.atlas.fetch(overview_queries.without_colors(here.images))
    earlier = (
        f" Compared by file alone, until the set is imported again: {count(left['images'], 'image')} without colors."
        if left["images"]
        else ""
    )
    rows = context.atlas.fetch(query)
    if not rows:
        inside: Component = html.P(f"No two images look alike.{earlier}", className="quiet")
    else:
        same = sum(row["identical"] for row in rows)
        told = f"{count(same, 'pair')} of the same file, {len(rows) - same:,} that look alike"
        shown = f"; the nearest {MAX_PAIRS}" if len(rows) > MAX_PAIRS else ""
        inside = html.Div(
            [
                html.P(
                    f"{told}{shown}. Distance: bits of 64 in which their perceptual hashes differ; colors agree "
                    "too. An image that hardly changes from left to right pairs with the same file "
                    f"alone.{earlier}",
                    className="quiet",
                ),
                html.Ul([_pair(here, row) for row in rows[:MAX_PAIRS]], className="pairs"),
            ]
        )
    return _card("Pictures that repeat", query, here, "repeats", inside)


def _pair(here: OverviewAddress, row: Record) -> Component:
    names = {side: row[f"label_{side}"] or row[f"name_{side}"] for side in "ab"}
    differ = row["label_a"] != row["label_b"]
    return html.Li(
        [
            html.Div(
                [
                    html.A(
                        html.Img(
                            src=thumbnail_address(row[f"key_{side}"]), alt=f"image {row[f'image_{side}']}"
                        ),
                        href=here.at(ImageAddress, id=row[f"image_{side}"]).href(),
                        title=f"image {row[f'image_{side}']}: {row[f'name_{side}']}",
                    )
                    for side in "ab"
                ],
                className="pair-pictures",
            ),
            html.Div(
                [
                    html.Span(names["a"] if not differ else f"{names['a']} / {names['b']}"),
                    html.Span("same file" if row["identical"] else f"distance {row['distance']}", className="num"),
                ],
                className="caption",
            ),
            html.Div("labelled differently", className="problem") if differ else None,
        ]
    )  # fmt: skip


def _unpredicted(row: Record) -> str:
    return (
        f"The logits of {row['model']} are not finite (NaN or infinite) for {row['unpredicted']:,} of "
        f"{count(row['images'], 'image')}: these have no prediction and count in no accuracy."
    )


def _heading(context: Context, here: OverviewAddress) -> Component:
    row = context.atlas.fetch(overview_queries.size_summary(here.images))[0]
    return html.Div(
        [
            html.Div(
                [
                    html.H1(f"{here.images} as a whole"),
                    html.P(description_of(context, here.images), className="set-description"),
                ],
                className="title",
            ),
            components.facts(
                [
                    components.fact("images", f"{row['images']:,}"),
                    components.fact("classes", f"{row['classes']:,}"),
                    components.fact("unlabelled", f"{row['unlabelled']:,}"),
                    components.fact(
                        "shortest side", _range(row), title="Smallest, middle and largest, in pixels"
                    ),
                    components.fact("files", byte_size(row["bytes"])),
                ]
            ),
            html.Div(
                html.A(
                    [icon("images"), html.Span("The images")],
                    href=here.at(ImagesAddress).href(),
                    className="btn btn-sm btn-quiet",
                ),
                className="tools tools-place",
            ),
        ],
        className="heading",
    )


def _range(row: Record) -> str:
    if row["shortest"] == row["longest"]:
        return f"{row['shortest']:,} px"
    return f"{row['shortest']:,} · {row['middle']:,.0f} · {row['longest']:,} px"


def _card(title: str, query: Query, here: OverviewAddress, table: str, *inside: Component) -> Component:
    download = local(f"/download/overview/{table}.csv") + here.search_part()
    tools = components.sql_tools(query, download)
    return components.card(title, tools, *inside, components.sql_text(query))


def _classes(context: Context, here: OverviewAddress, run: Record | None) -> Component:
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
    return _card(
        "Classes",
        query,
        here,
        "classes",
        orders if rows else None,
        listed if rows else html.P("No image has a label.", className="quiet"),
        html.P(more, className="quiet") if more else None,
    )


def _sizes(context: Context, here: OverviewAddress) -> Component:
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
    return _card("Sizes, width × height", query, here, "sizes", components.bars(listed))


def _accuracy(here: OverviewAddress, rows: Sequence[Record]) -> Component:
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
    return _card(
        "Models",
        overview_queries.accuracy(here.images),
        here,
        "accuracy",
        components.plain_table(
            head, body, "Models", chosen=[row["model"] == here.model for row in rows].index(True)
        ),
        html.P(told, className="quiet") if told else None,
    )


def _labels(context: Context, here: OverviewAddress, run: Record) -> Component:
    """How the set's labels were matched to the model's classes, and which were not."""
    query = label_matches(run["run"])
    rows = context.atlas.fetch(query)
    title = f"Labels as classes of {here.model}"
    settle = f"convscope models map-labels {shlex.quote(here.model)} --images {shlex.quote(here.images)}"
    again = index_command(run, here.images) + " --replace"
    if not rows:
        labelled = context.atlas.fetch(overview_queries.size_summary(here.images))[0]["classes"]
        told = "No image has a label." if not labelled else "This run did not record it. To list the classes:"
        return _card(
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
    return _card(title, query, here, "labels", *parts)


def _left_out(context: Context, here: OverviewAddress, run: Record) -> Component:
    """The network's layers with channels that cannot be looked at, by reason."""
    title, query = f"Layers of {here.model} that are left out", left_out_modules(here.model)
    rows = context.atlas.fetch(query)
    if not rows and context.atlas.fetch(has_modules(here.model)):
        return None
    if not rows:
        told = f"The index of {here.model} did not record them. To list them:"
        listing = f"convscope models show {shlex.quote(run['source'])}"
        return _card(title, query, here, "left_out", html.P(told), components.command(listing))
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
    return _card(title, query, here, "left_out", html.P(told, className="quiet"), table)


def _matrix(here: OverviewAddress, run: Record, pairs: Sequence[Record]) -> Component:
    title, query = f"What {here.model} takes for what", overview_queries.confusions(run["run"])
    if not pairs:
        return _card(
            title,
            query,
            here,
            "confusions",
            html.P("No image has a label among the model's classes.", className="quiet"),
        )
    matrix = confusion_matrix(pairs, MAX_CLASSES)
    told = (
        f"Rows: the label. Columns: the prediction. {len(matrix.classes)} classes that are confused most; "
        f"{matrix.left_out:,} more in the CSV."
        if matrix.left_out
        else "Rows: the label. Columns: the prediction."
    )
    return _card(
        title,
        query,
        here,
        "confusions",
        html.P(f"{told} A cell opens its images.", className="quiet"),
        _drawn(here, matrix),
    )


def _drawn(here: OverviewAddress, matrix: Matrix) -> Component:
    list_of = here.at(ImagesAddress)
    head = [
        html.Th(html.Span(kind.name, title=kind.name), scope="col", className="turned")
        for kind in matrix.classes
    ]
    lines = []
    for kind, line, other in zip(matrix.classes, matrix.counts, matrix.others, strict=True):
        row = replace(list_of, label=kind.key)
        cells = [
            _cell(
                images,
                kind.images,
                row.href(predicted=str(said.index)),
                f"{kind.name} taken for {said.name}",
                right=said.index == kind.index,
            )
            for said, images in zip(matrix.classes, line, strict=True)
        ]
        cells.append(
            _cell(
                other,
                kind.images,
                row.href(verdict="wrong"),
                f"{kind.name} taken for a class that is no column",
                right=False,
            )
        )
        name = html.Th(html.A(kind.name, href=row.href(), title=kind.name), scope="row")
        lines.append(html.Tr([name, *cells]))
    return html.Div(
        html.Table(
            [
                html.Thead(
                    html.Tr(
                        [
                            html.Td(),
                            *head,
                            html.Th(html.Span("another"), scope="col", className="turned other"),
                        ]
                    )
                ),
                html.Tbody(lines),
            ],
            className="matrix",
        ),
        className="table-scroll",
        tabIndex="0",
        role="region",
        **attributes(aria_label="Confusion matrix"),
    )


def _cell(images: int, of: int, href: str, words: str, *, right: bool) -> Component:
    if not images:
        return html.Td()
    return html.Td(
        html.A(
            f"{images:,}", href=href, title=f"{words}: {images:,} of {of:,}",
            **attributes(aria_label=f"{words}: {count(images, 'image')}"),
        ),
        className="right" if right else "wrong",
        style={"--share": f"{images / of:.3f}"},
    )  # fmt: skip


def _mistakes(context: Context, here: OverviewAddress, run: Record, pairs: Sequence[Record]) -> Component:
    listed = here.at(ImagesAddress, verdict="wrong", sort="surest")
    query = images_query(run, listed, limit=MAX_MISTAKES)
    rows = context.atlas.fetch(query)
    wrong = sum(row["images"] for row in pairs if row["class_index"] != row["predicted_index"])
    title = f"Surest mistakes of {here.model}"
    if not rows:
        return _card(title, query, here, "mistakes", html.P("No image is judged wrong.", className="quiet"))
    pictures = html.Ul(
        [
            html.Li(
                html.A(
                    [
                        html.Img(src=thumbnail_address(row["key"]), alt=""),
                        html.Div(
                            [
                                html.Span(f"{row['label']} → {row['predicted']}", className="name"),
                                html.Span(percent(row["probability"]), className="num"),
                            ],
                            className="caption",
                        ),
                    ],
                    href=listed.at(ImageAddress, id=row["image_id"]).href(),
                    title=f"image {row['image_id']}: {row['label']}, predicted {row['predicted']} "
                    f"({percent(row['probability'])})",
                )
            )
            for row in rows
        ],
        className="thumbnails",
    )
    every = html.A(f"All {count(wrong, 'mistake')}", href=listed.href(), className="btn btn-sm btn-quiet")
    return _card(title, query, here, "mistakes", pictures, every if wrong > len(rows) else None)


PAGE = Page(
    name="overview",
    title=TITLE,
    address=OverviewAddress,
    layout=layout,
    register=register,
    part_of="images",
)
