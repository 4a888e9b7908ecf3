"""The Channel page: top patches of one channel enlarged, its statistics, classes, histogram and SQL.

Callbacks::

    address, status --+--> show_channel --> all but the tuning
                      +--> show_tuning --> the tuning, whose queries take longer
"""

from dataclasses import replace
from typing import Any

from dash import Dash, Input, Output, State, html
from dash.exceptions import PreventUpdate

from dashboard.components import elements as components
from dashboard.components.elements import Component, attributes, icon
from dashboard.components.formatting import activation, count, patch_sentence, percent
from dashboard.components.grid import tied
from dashboard.components.onboarding import nothing_yet
from dashboard.components.tuning import tuning_panel
from dashboard.pages.page import Page
from dashboard.pictures.geometry import CROPS
from dashboard.pictures.routes import row_address
from dashboard.security.prefix import local, page_path
from dashboard.state.address import ROWS_PER_PAGE, ChannelAddress, ImageAddress, PatchesAddress
from dashboard.state.context import Context, Record, current
from dashboard.state.ids import LOCATION, make_id
from dashboard.state.selections import LayerSelection, NothingSelected, NotIndexed, select_layer
from db.atlas.store import Query
from db.queries import patches as patch_queries

TITLE = "Channel · Convscope"
LARGE = 192
CLASSES_SHOWN = 8
BODY = make_id("channel", "body")
TUNING = make_id("channel", "tuning")


def layout() -> Component:
    """The page without content."""
    return html.Div(
        [html.Div(html.Div(className="skeleton tall"), id=BODY), html.Div(id=TUNING)], className="single-page"
    )


def register(app: Dash) -> None:
    """Register the page's callbacks."""
    asked = (
        Input(LOCATION, "search"),
        Input(make_id("shell", "status"), "data"),
        State(LOCATION, "pathname"),
    )
    app.callback(Output(BODY, "children"), *asked)(show_channel)
    # dimmed while it still shows the previous channel
    pale = [(Output(TUNING, "className"), "stale", "")]
    app.callback(Output(TUNING, "children"), *asked, running=pale)(show_tuning)


def show_channel(search: str | None, _status: Any, pathname: str | None) -> Component:
    """The whole page except the tuning."""
    if page_path(pathname) != ChannelAddress.path:
        raise PreventUpdate
    context = current()
    catalogue = context.catalogue()
    address, problems = ChannelAddress.read(search)
    if catalogue.trouble:
        return components.trouble(catalogue.trouble)
    if not catalogue.runs:
        return nothing_yet(catalogue.newest_set(address.images))
    try:
        selection = select_layer(catalogue, address.at(PatchesAddress))
    except NothingSelected as nothing:
        way_out = (PatchesAddress(model=address.model, images=address.images).href(), "Show the layers")
        to_type = nothing.command if isinstance(nothing, NotIndexed) else ""
        return components.error_message(str(nothing), link=way_out, choices=nothing.choices, to_type=to_type)
    last = selection.layer["channels"] - 1
    if address.channel > last:
        return components.error_message(
            f"{selection.layer['label']} has channels 0 to {last}, not {address.channel}.",
            link=(selection.address.href(), "Show its channels"),
        )
    return html.Div(
        [
            *components.problems_list(problems.values()),
            *channel_page(context, selection, address),
        ]
    )


def show_tuning(search: str | None, _status: Any, pathname: str | None) -> Component:
    """The channel's responses to probe images; None for an invalid channel, which the page itself reports."""
    if page_path(pathname) != ChannelAddress.path:
        raise PreventUpdate
    context = current()
    address, _ = ChannelAddress.read(search)
    try:
        selection = select_layer(context.catalogue(), address.at(PatchesAddress))
    except NothingSelected:
        return None
    if address.channel >= selection.layer["channels"]:
        return None
    return tuning_panel(context, selection, selection.address.at(ChannelAddress, channel=address.channel))


def patches_query(selection: LayerSelection, channel: int) -> Query:
    """The query for the channel's patches, behind the page, its SQL and its download."""
    return patch_queries.patches(selection.run["run"], selection.layer["layer"], [channel], k=20)


def channel_page(context: Context, selection: LayerSelection, address: ChannelAddress) -> list[Component]:
    """The components of the page."""
    run, layer, number = selection.run["run"], selection.layer["layer"], address.channel
    query = patches_query(selection, number)
    patches = context.atlas.fetch(query)
    statistics = context.atlas.fetch(
        patch_queries.channels(run, layer, only=[number], order="index", limit=1)
    )
    agreement = context.atlas.fetch(patch_queries.agreement(run, layer, [number]))
    classes_query = patch_queries.channel_classes(run, layer, number)
    classes = context.atlas.fetch(classes_query)
    histogram_query = patch_queries.channel_histogram(run, layer, number)
    histogram = context.atlas.fetch(histogram_query)
    here = selection.address.at(ChannelAddress, channel=number)
    table = here.href().partition("?")[2]
    return [
        _heading(selection, here),
        _facts(statistics[0], agreement[0] if agreement and not tied(patches) else None)
        if statistics
        else None,
        html.Div(
            [
                _crops(here),
                components.sql_tools(query, local("/download/channel.csv?") + table),
            ],
            className="bar-line",
        ),
        components.legend(here.crop),
        _tie(patches) if statistics and not statistics[0]["dead"] else None,
        patch_cards(selection, here, patches),
        html.Div(
            [
                components.card(
                    f"Classes in its top {len(patches)}",
                    components.sql_tools(
                        classes_query,
                        local("/download/channel-classes.csv?") + table,
                        rows=len(classes) if len(classes) > CLASSES_SHOWN else None,
                    ),
                    class_bars(classes),
                ),
                components.card(
                    "Strongest activation per image",
                    components.sql_tools(histogram_query, local("/download/channel-histogram.csv?") + table),
                    histogram_bars(histogram),
                ),
            ],
            className="two",
        ),
        components.sql_text(query),
    ]


def _heading(selection: LayerSelection, here: ChannelAddress) -> Component:
    last = selection.layer["channels"] - 1
    back = here.at(PatchesAddress)
    if here.sort == "index" and not here.channels:
        back = replace(back, page=here.channel // ROWS_PER_PAGE + 1)

    before, after = (
        here.href(channel=number) if 0 <= number <= last else None
        for number in (here.channel - 1, here.channel + 1)
    )
    return html.Div(
        [
            html.Div(
                [
                    html.A([icon("arrow-left"), selection.layer["label"].replace(" > ", " › ")],
                           href=back.href(), className="crumb"),
                    html.H1(["Channel ", html.Span(str(here.channel), className="num")]),
                ],
                className="title",
            ),
            html.Div(
                [components.step(before, "chevron-left", "Previous channel"),
                 components.step(after, "chevron-right", "Next channel")],
                className="steps",
            ),
        ],
        className="heading",
    )  # fmt: skip


def _facts(row: Record, agreement: Record | None) -> Component:
    spread = f"{activation(row['mean'])} ± {activation(row['std'])}"
    items = [
        components.fact("strongest", activation(row["max"])),
        components.fact("mean ± deviation", spread, title="Over images, of each image's best activation"),
        components.fact("weakest", activation(row["min"])),
    ]
    if agreement is not None:
        items += [
            components.fact("selectivity", f"{agreement['entropy_bits']:.2f} bits",
                            title="Entropy of the classes in its top-k: 0 where all agree"),
            components.fact("classes", f"{agreement['classes']} among {count(agreement['labelled'], 'image')}"),
            components.fact("most frequent", f"{agreement['majority_label']}, {percent(agreement['majority_share'])}"),
        ]  # fmt: skip
    if row["dead"]:
        items.append(components.fact("state", "dead", title="The same value for all images"))
    if row["nonfinite"]:
        items.append(
            components.fact(
                "not finite", count(row["nonfinite"], "image"), title="NaN or infinity; never ranked"
            )
        )
    return components.facts(items)


def _tie(patches: list[Record]) -> Component:
    if not tied(patches):
        return None
    value = activation(patches[0]["activation"])
    return html.P(
        f"All {len(patches)} tied at {value}: their order has no meaning. "
        "They are the images with the lowest numbers that reach it.",
        className="legend",
    )


def _crops(here: ChannelAddress) -> Component:
    return html.Div(
        [
            html.A(
                words,
                href=here.href(crop=crop),
                className="segment on" if crop == here.crop else "segment",
                **(attributes(aria_current="true") if crop == here.crop else attributes()),
            )
            for crop, words in CROPS.items()
        ],
        className="segments",
        role="group",
        **attributes(aria_label="Crop"),
    )


def patch_cards(selection: LayerSelection, here: ChannelAddress, patches: list[Record]) -> Component:
    """Enlarged patches, strongest first, each linked to its image."""
    if not patches:
        return html.P("This channel has no patches: no image gave it a finite value.", className="quiet")
    picture = row_address(selection.run, here.layer, here.channel, k=len(patches), crop=here.crop, tile=LARGE)
    return html.Ol(
        [
            html.Li(
                html.A(
                    [
                        html.Div(
                            className="sprite",
                            style={"--i": index, "backgroundImage": f"url('{picture}')"},
                        ),
                        html.Div(
                            [
                                html.Span(
                                    [
                                        html.Span(f"#{patch['rank']}", className="rank num"),
                                        f" {patch['label'] or 'no label'}",
                                    ],
                                    className="name",
                                ),
                                html.Span(activation(patch["activation"]), className="num"),
                            ],
                            className="caption",
                        ),
                    ],
                    href=ImageAddress(model=here.model, images=here.images, id=patch["image_id"]).href(),
                    title=patch_sentence(patch),
                    **attributes(aria_label=patch_sentence(patch)),
                )
            )
            for index, patch in enumerate(patches)
        ],
        className="cards",
        style={"--n": len(patches), "--last": max(1, len(patches) - 1)},
    )


def class_bars(classes: list[Record]) -> Component:
    """Frequency of each class among the patches; bars are shares of the top-k."""
    if not classes:
        return html.P("No images.", className="quiet")
    most = max(row["share"] for row in classes)
    shown = [
        components.bar(
            row["label"] or "no label",
            row["share"] / most,
            f"{row['images']} · {percent(row['share'])}",
            title=row["wnid"] or "",
        )
        for row in classes[:CLASSES_SHOWN]
    ]
    rest = len(classes) - CLASSES_SHOWN
    more = html.P(f"and {count(rest, 'class')} more", className="quiet") if rest > 0 else None
    return html.Div([components.bars(shown), more])


def histogram_bars(bins: list[Record]) -> Component:
    """Images per bin: the width is the bin's, the height is images per width, so areas are image counts."""
    if not bins:
        return html.P("No histogram.", className="quiet")
    widths = [max(row["high"] - row["low"], 0.0) for row in bins]
    smallest = min((width for width in widths if width > 0), default=1.0)
    widths = [width or smallest for width in widths]
    total = sum(row["images"] for row in bins)
    highest = max(row["images"] / width for row, width in zip(bins, widths, strict=True))
    parts: list[Component] = []
    at = bins[0]["low"]
    for row, width in zip(bins, widths, strict=True):
        gap = row["low"] - at
        if gap > 1e-6 * smallest:
            parts.append(html.Div(className="bin none", style={"flexGrow": gap / smallest}))
        words = (
            f"{activation(row['low'])} to {activation(row['high'])}: "
            f"{count(row['images'], 'image')}, {percent(row['images'] / total)}"
        )
        height = row["images"] / width / highest
        parts.append(
            html.Div(
                html.Div(style={"height": f"{max(100 * height, 1):.1f}%"}),
                className="bin",
                style={"flexGrow": width / smallest},
                title=words,
            )
        )
        at = row["high"]
    low, high = activation(bins[0]["low"]), activation(bins[-1]["high"])
    return html.Figure(
        [
            html.Div(parts, className="histogram", role="img",
                     **attributes(aria_label=f"Histogram of {count(total, 'image')} from {low} to {high}")),
            html.Figcaption([html.Span(low, className="num"),
                             html.Span("area = images", className="quiet"), html.Span(high, className="num")]),
        ]
    )  # fmt: skip


PAGE = Page(
    name="channel",
    title=TITLE,
    address=ChannelAddress,
    layout=layout,
    register=register,
    part_of="patches",
)
