"""One page of a set's images, as thumbnails or as a table; each can be selected (`browser/selection.js`)."""

from dash import html

from dashboard.components.elements import Component, attributes, icon
from dashboard.components.formatting import percent
from dashboard.pictures.routes import thumbnail_address
from dashboard.state.address import ImageAddress, ImagesAddress
from dashboard.state.context import Record


def _href(address: ImagesAddress, row: Record) -> str:
    return address.at(ImageAddress, id=row["image_id"]).href()


def pictures(rows: list[Record], address: ImagesAddress) -> Component:
    """Thumbnails with their labels; a mark shows whether the prediction is correct."""
    return html.Ul(
        [
            html.Li(
                [
                    _choose(row),
                    html.A(
                        [
                            html.Img(src=thumbnail_address(row["key"]), alt="", draggable="false"),
                            html.Div(
                                [
                                    html.Span(row["label"] or f"image {row['image_id']}", className="name"),
                                    _mark(row["verdict"]),
                                ],
                                className="caption",
                            ),
                        ],
                        href=_href(address, row),
                        title=_words(row),
                        **attributes(aria_label=_words(row)),
                    ),
                ],
                className="selectable",
            )
            for row in rows
        ],
        className="thumbnails",
        **attributes(data_model=address.model, data_images=address.images),
    )


def _choose(row: Record) -> Component:
    """A checkbox that selects an image; the browser keeps the selection."""
    return html.Button(
        icon("check-lg"),
        type="button",
        className="choose",
        role="checkbox",
        **attributes(
            aria_checked="false",
            aria_label=f"Select image {row['image_id']}",
            data_image=str(row["image_id"]),
        ),
    )


def _words(row: Record) -> str:
    words = f"image {row['image_id']}: {row['label'] or 'no label'}"
    if row["predicted"]:
        verdict = {"right": "correct", "unlabelled": "unlabeled"}.get(row["verdict"], row["verdict"])
        words += f", predicted {row['predicted']} ({percent(row['probability'])}), {verdict}"
    return words


def _mark(verdict: str | None) -> Component:
    symbols = {"right": "check-lg", "wrong": "x-lg"}
    if verdict not in symbols:
        return None
    return html.Span(icon(symbols[verdict]), className=f"verdict-mark {verdict}")


def table(rows: list[Record], address: ImagesAddress) -> Component:
    """The images as a table."""
    head = ("", "", "Image", "Label", "WNID", "Prediction", "Probability", "Size", "Name")
    return html.Div(
        html.Table(
            [
                html.Thead(html.Tr([html.Th(name, scope="col") for name in head])),
                html.Tbody([_table_row(row, address) for row in rows]),
            ],
            className="table-plain",
        ),
        className="table-scroll",
        tabIndex="0",
        role="region",
        **attributes(aria_label="Images", data_model=address.model, data_images=address.images),
    )


def _table_row(row: Record, address: ImagesAddress) -> Component:
    verdict, href = row["verdict"], _href(address, row)
    thumbnail = html.Img(src=thumbnail_address(row["key"]), alt="", className="tiny")
    return html.Tr(
        [
            html.Td(_choose(row)),
            html.Td(html.A(thumbnail, href=href, tabIndex="-1", **attributes(aria_hidden="true"))),
            html.Td(html.A(f"{row['image_id']}", href=href, className="num", **attributes(aria_label=_words(row)))),
            html.Td(html.A(row["label"], href=href) if row["label"] else html.Span("no label", className="quiet")),
            html.Td(row["wnid"] or "", className="num quiet"),
            html.Td([_mark(verdict), row["predicted"] or ""], className=f"predicted {verdict or ''}"),
            html.Td(percent(row["probability"]) if row["predicted"] else "", className="num end"),
            html.Td(f"{row['width']} × {row['height']}", className="num end"),
            html.Td(row["name"], className="quiet long"),
        ],
        className="selectable",
    )  # fmt: skip
