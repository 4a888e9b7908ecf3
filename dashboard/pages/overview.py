"""The Overview page: an image set as a whole.

Callbacks::

    address --+--> show_overview --> classes, sizes, accuracy, confusion matrix, most confident mistakes
    status  --+--> show_repeats  --> duplicate images, which take longer in large sets

Every table shows its SQL; every bar, cell and thumbnail links to the images behind it.
"""

from dataclasses import replace
from typing import Any

from dash import Dash, Input, Output, State, html
from dash.exceptions import PreventUpdate

from dashboard.components import elements as components
from dashboard.components.elements import Component, icon
from dashboard.components.formatting import byte_size, count
from dashboard.components.onboarding import nothing_yet
from dashboard.pages.images import description_of, not_indexed
from dashboard.pages.overview_confusion import confusion_section, mistake_section
from dashboard.pages.overview_sections import (
    accuracy_section,
    card,
    class_section,
    label_section,
    left_out_section,
    size_section,
)
from dashboard.pages.page import Page
from dashboard.pictures.routes import thumbnail_address
from dashboard.security.prefix import page_path
from dashboard.state.address import ImageAddress, ImagesAddress, OverviewAddress
from dashboard.state.context import Context, Record, current
from dashboard.state.ids import LOCATION, make_id
from dashboard.state.selections import resolve
from db.queries import overview as overview_queries
from db.queries.inventory import keeps_modules

TITLE = "Overview · Convscope"
BODY = make_id("overview", "body")
REPEATS = make_id("overview", "repeats")
MAX_PAIRS = 12


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
    """Register the page's callbacks."""
    for place, show in ((BODY, show_overview), (REPEATS, show_repeats)):
        app.callback(
            Output(place, "children"),
            Input(LOCATION, "search"),
            Input(make_id("shell", "status"), "data"),
            State(LOCATION, "pathname"),
        )(show)


def show_overview(search: str | None, _status: Any, pathname: str | None) -> Component:
    """Everything but the duplicate images."""
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
        html.Div([class_section(context, here, run), size_section(context, here)], className="two"),
    ]
    if run is not None:
        pairs = context.atlas.fetch(overview_queries.confusions(run["run"]))
        parts += [
            accuracy_section(here, judged),
            label_section(context, here, run),
            confusion_section(here, run, pairs),
            mistake_section(context, here, run, pairs),
        ]
        if context.atlas.fetch(keeps_modules()):
            parts.append(left_out_section(context, here, run))
    else:
        parts.append(nothing_yet(here.images))
    return html.Div(parts)


def show_repeats(search: str | None, _status: Any, pathname: str | None) -> Component:
    """Images that are identical or nearly so."""
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
        return card("Duplicates", query, here, "repeats", html.P(words, className="quiet"))
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
    return card("Duplicates", query, here, "repeats", inside)


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
            html.Div("labeled differently", className="problem") if differ else None,
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


PAGE = Page(
    name="overview",
    title=TITLE,
    address=OverviewAddress,
    layout=layout,
    register=register,
    part_of="images",
)
