"""The confusion matrix of the Overview page, and the most confident mistakes."""

from collections.abc import Sequence
from dataclasses import replace

from dash import html

from dashboard.components.confusion import Matrix, confusion_matrix
from dashboard.components.elements import Component, attributes
from dashboard.components.formatting import count, percent
from dashboard.pages.overview_sections import MAX_CLASSES, card
from dashboard.pictures.routes import thumbnail_address
from dashboard.state.address import ImageAddress, ImagesAddress, OverviewAddress
from dashboard.state.context import Context, Record
from dashboard.state.selections import images_query
from db.queries import overview as overview_queries

MAX_MISTAKES = 18


def confusion_section(here: OverviewAddress, run: Record, pairs: Sequence[Record]) -> Component:
    title, query = f"What {here.model} takes for what", overview_queries.confusions(run["run"])
    if not pairs:
        return card(
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
    return card(
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


def mistake_section(
    context: Context, here: OverviewAddress, run: Record, pairs: Sequence[Record]
) -> Component:
    listed = here.at(ImagesAddress, verdict="wrong", sort="surest")
    query = images_query(run, listed, limit=MAX_MISTAKES)
    rows = context.atlas.fetch(query)
    wrong = sum(row["images"] for row in pairs if row["class_index"] != row["predicted_index"])
    title = f"Surest mistakes of {here.model}"
    if not rows:
        return card(title, query, here, "mistakes", html.P("No image is judged wrong.", className="quiet"))
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
    return card(title, query, here, "mistakes", pictures, every if wrong > len(rows) else None)
