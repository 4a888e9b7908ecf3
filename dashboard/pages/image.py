"""The Image page: one image, its label, each model's predictions, and the channels with it in their top-k.

Callbacks::

    address, status --> show_image --+--> everything but the channels
                                     +--> channels --(browser)--> rendered list
"""

import itertools
from dataclasses import replace
from typing import Any

from dash import Dash, Input, Output, State, dcc, html
from dash.exceptions import PreventUpdate

from dashboard.components import elements as components
from dashboard.components.callbacks import in_browser
from dashboard.components.elements import Component, icon
from dashboard.components.formatting import activation, byte_size, count, percent
from dashboard.components.onboarding import nothing_yet
from dashboard.pages.attack_request import attack_of
from dashboard.pages.page import Page
from dashboard.pages.saliency_request import saliency_of
from dashboard.pictures.routes import image_address
from dashboard.security.prefix import local, page_path
from dashboard.state.address import ChannelAddress, ImageAddress, ImagesAddress
from dashboard.state.context import Context, Record, current
from dashboard.state.ids import LOCATION, make_id
from dashboard.state.selections import IMAGES_PER_PAGE, image_filter
from db.queries import images as image_queries

TITLE = "Image · Convscope"
BODY = make_id("image", "body")
DRIVEN = make_id("image", "driven")
CHANNELS = make_id("image", "channels")
PAINTED = make_id("image", "painted")
PER_LAYER = 24


def layout() -> Component:
    """The page without content."""
    return html.Div(
        [
            html.Div(html.Div(className="skeleton tall"), id=BODY),
            html.Div(id=DRIVEN, className="driven-channels"),
            dcc.Store(id=CHANNELS),
            html.Div(id=PAINTED, hidden=True),
        ],
        className="single-page",
    )


def register(app: Dash) -> None:
    """Register the page's callback."""
    app.callback(
        Output(BODY, "children"),
        Output(CHANNELS, "data"),
        Input(LOCATION, "search"),
        Input(make_id("shell", "status"), "data"),
        State(LOCATION, "pathname"),
    )(show_image)
    in_browser(app, "paintChannels", Output(PAINTED, "children"), Input(CHANNELS, "data"))


def show_image(
    search: str | None, _status: Any, pathname: str | None
) -> tuple[Component, dict[str, Any] | None]:
    """The whole page, and the channels with the image in their top-k."""
    if page_path(pathname) != ImageAddress.path:
        raise PreventUpdate
    context = current()
    catalogue = context.catalogue()
    address, problems = ImageAddress.read(search)
    if catalogue.trouble:
        return components.trouble(catalogue.trouble), None
    if not catalogue.image_sets:
        return nothing_yet(), None
    run = catalogue.run(address.model, address.images)
    if run is None and address.model:
        run = catalogue.run("", address.images)
        over = f" over {address.images}" if address.images else ""
        shown = f": what follows is of {run['model']}" if run else ""
        problems["model"] = f"{address.model} was not indexed{over}{shown}."
    image_set = address.images or (run["image_set"] if run else catalogue.newest_set())
    found = context.atlas.fetch(image_queries.image(image_set, address.id))
    if not found:
        sets = tuple(known["image_set"] for known in catalogue.image_sets)
        there = next((known for known in catalogue.image_sets if known["image_set"] == image_set), None)
        if there is None:
            link = (ImagesAddress().href(), "Show the images there are")
            return components.error_message(
                f"There is no image set “{image_set}”.", link=link, choices=sets
            ), None
        link = (ImagesAddress(model=address.model, images=image_set).href(), f"Show {image_set}")
        wrong = f"{image_set} has images 0 to {there['images'] - 1}, not {address.id}."
        return components.error_message(wrong, link=link), None
    model = run["model"] if run else ""
    here = replace(address, model=model, images=image_set)
    page, channels = image_page(context, here, found[0], run)
    return html.Div([*components.problems_list(problems.values()), *page]), channels


def image_page(
    context: Context, here: ImageAddress, image: Record, run: Record | None
) -> tuple[list[Component], dict[str, Any] | None]:
    """The components of the page, and the channels with the image in their top-k."""
    number = image["image_id"]
    first = None if run is None else run["run"]
    predictions_query = image_queries.image_predictions(here.images, number, first=first)
    predictions = context.atlas.fetch(predictions_query)
    table = ImageAddress(model=here.model, images=here.images, id=number).href().partition("?")[2]
    parts: list[Component] = [
        _heading(image, here, _listed(context, here, run)),
        html.Div(
            [
                html.Figure(
                    [
                        html.Img(
                            src=image_address(image["key"]),
                            alt=f"image {number}: {image['label'] or 'no label'}",
                            width=image["width"],
                            height=image["height"],
                        ),
                        None if context.store.original_path(image["path"]).exists() else _gone(image),
                    ],
                    className="picture",
                ),
                html.Div(
                    [
                        _facts(image),
                        html.Div(
                            [
                                html.H2("Predictions"),
                                components.sql_tools(
                                    predictions_query, local("/download/image-predictions.csv?") + table
                                ),
                            ],
                            className="bar-line",
                        ),
                        prediction_lists(predictions, image),
                    ],
                    className="beside",
                ),
            ],
            className="image-top",
        ),
    ]
    channels = None
    if run is not None:
        per_layer = PER_LAYER if here.driven == "some" else None
        query = image_queries.image_channels(run["run"], number, per_layer=per_layer, with_tied=False)
        rows = context.atlas.fetch(query)
        total = sum({row["layer"]: row["in_layer"] for row in rows}.values())
        tied = context.atlas.fetch(image_queries.count_tied_channels(run["run"], number))[0]["channels"]
        parts += [
            html.Div(
                [
                    html.H2(f"Channels of {here.model} with this image among their top patches"),
                    _some_or_all(here, shown=len(rows), total=total),
                    components.sql_tools(
                        query,
                        local("/download/image-channels.csv?") + table,
                        rows=total + tied if total + tied > len(rows) else None,
                    ),
                ],
                className="bar-line",
            ),
            _left_out(tied),
        ]
        channels = driven_channels(rows, run)
    return parts, channels


def _gone(image: Record) -> Component:
    return html.Figcaption(
        f"The file {image['path']} is missing. The thumbnail is shown instead.", className="problem"
    )


def _left_out(tied: int) -> Component:
    if not tied:
        return None
    have = "1 channel has" if tied == 1 else f"{tied:,} channels have"
    return html.P(
        f"{have} this image among tied images only, where the order has no meaning. The CSV includes them.",
        className="quiet",
    )


def _some_or_all(here: ImageAddress, *, shown: int, total: int) -> Component:
    if shown < total:
        words, driven = f"Show all {total:,}", "all"
    elif here.driven == "all":
        words, driven = f"Show at most {PER_LAYER} per layer", "some"
    else:
        return None
    return html.A(words, href=here.href(driven=driven), className="btn btn-sm btn-quiet")


def _listed(context: Context, here: ImageAddress, run: Record | None) -> Record:
    """Position of the image in the list that led here, with its neighbors; falls back to the whole set."""
    for listed in (here, ImagesAddress()):
        query = image_queries.neighbours(
            here.images,
            None if run is None else run["run"],
            image_filter(listed),
            order=listed.sort,
            image_id=here.id,
        )
        found = context.atlas.fetch(query)
        if found:
            return found[0]
    return {"place": 1, "images": 1, "before": None, "after": None}


def _heading(image: Record, here: ImageAddress, listed: Record) -> Component:
    number = image["image_id"]
    back = here.at(ImagesAddress, page=(listed["place"] - 1) // IMAGES_PER_PAGE + 1)

    before, after = (
        None if listed[other] is None else here.href(id=listed[other]) for other in ("before", "after")
    )
    return html.Div(
        [
            html.Div(
                [
                    html.A([icon("arrow-left"), image["image_set"]],
                           href=back.href(), className="crumb"),
                    html.H1([image["label"] or "No label", html.Span(f" image {number}", className="above num")]),
                ],
                className="title",
            ),
            html.A(
                [icon("bullseye"), html.Span("Saliency of this image")],
                href=saliency_of(here.model, here.images, [number]), className="btn btn-sm btn-quiet",
            ),
            html.A(
                [icon("lightning-charge"), html.Span("Attack it")],
                href=attack_of(here.model, here.images, number), className="btn btn-sm btn-quiet",
            ),
            html.Div(
                [html.Span(f"{listed['place']:,} of {listed['images']:,}", className="num quiet"),
                 components.step(before, "chevron-left", "Previous image"),
                 components.step(after, "chevron-right", "Next image")],
                className="steps",
            ),
        ],
        className="heading",
    )  # fmt: skip


def _facts(image: Record) -> Component:
    items = [
        components.fact("name", image["name"]),
        components.fact("size", f"{image['width']} × {image['height']} px"),
        components.fact("file", byte_size(image["bytes"])),
    ]
    if image["wnid"]:
        items.insert(0, components.fact("WNID", image["wnid"]))
    if image["label_index"] is not None:
        items.insert(1, components.fact("ImageNet class", str(image["label_index"])))
    if image["split"]:
        items.append(components.fact("split", image["split"]))
    return components.facts(items)


def prediction_lists(predictions: list[Record], image: Record) -> Component:
    """The most probable classes of each model; the labeled class is marked, whatever its rank."""
    named = image["label"] or image["wnid"]
    why = f"“{named}” is none of its classes" if named else "the image has no label"
    if not predictions:
        return html.P("No model was indexed over this set yet.", className="quiet")
    lists = []
    for model, rows in itertools.groupby(predictions, lambda row: row["model"]):
        ranked = list(rows)
        label = next((row for row in ranked if row["is_label"]), None)
        if label is None:
            verdict, kind = f"unlabeled for this model: {why}", "none"
        elif label["rank"] == 1:
            verdict, kind = "correct", "right"
        else:
            verdict, kind = f"wrong: its label is number {label['rank']:,}", "wrong"
        lists.append(
            html.Div(
                [
                    html.H3([model, html.Span(verdict, className=f"verdict {kind}")]),
                    components.bars(
                        components.bar(
                            [
                                html.Span(f"{row['rank']}", className="rank num"),
                                html.Span(row["name"] or f"class {row['class_index']}"),
                                *([html.Span("label", className="tag")] if row["is_label"] else []),
                            ],
                            row["probability"],
                            percent(row["probability"]),
                            marked=row["is_label"],
                            title=f"class {row['class_index']}, {row['wnid'] or 'no WNID'}, logit {row['logit']:.3f}",
                        )
                        for row in ranked
                    ),
                ],
                className="prediction",
            )
        )
    return html.Div(lists)


def driven_channels(rows: list[Record], run: Record) -> dict[str, Any]:
    """Channels with the image in their top-k, by layer: records for `grid.js`, because there may be many.

    Links consist of `channel` with the names of layer and channel filled in.
    """
    address = ChannelAddress(model=run["model"], images=run["image_set"])
    groups = []
    for layer, found in itertools.groupby(rows, lambda row: row["layer"]):
        inside = list(found)
        groups.append(
            {
                "layer": layer,
                "label": inside[0]["layer_label"].replace(" > ", " › "),
                "count": count(inside[0]["in_layer"], "channel"),
                "more": inside[0]["in_layer"] - len(inside),
                "href": address.href(layer=layer, channel=1).removesuffix("1"),
                "chips": [[row["channel"], row["rank"], activation(row["activation"])] for row in inside],
            }
        )
    return {"groups": groups, "empty": f"It is in no channel’s top {run['k']}."}


PAGE = Page(
    name="image",
    title=TITLE,
    address=ImageAddress,
    layout=layout,
    register=register,
    part_of="images",
)
