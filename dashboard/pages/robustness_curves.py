"""The curves of the Robustness page, and the images behind a point on a curve."""

from collections.abc import Sequence

from dash import html

from dashboard.components import elements as components
from dashboard.components.elements import Component, icon
from dashboard.components.formatting import count, epsilon_words
from dashboard.components.robustness_figures import (
    MAX_POINTS,
    curve_figure,
    fixed_figure,
    strip_figure,
)
from dashboard.pages.robustness_tables import card, graph
from dashboard.pictures.routes import thumbnail_address
from dashboard.security.prefix import local
from dashboard.state.address import RobustnessAddress
from dashboard.state.context import Context, Record
from dashboard.state.ids import make_id
from db.queries import robustness as robustness_queries

CURVE = make_id("robustness", "curve")
STRIP = make_id("robustness", "strip")
MAX_LISTED = 60


def curve_section(context: Context, here: RobustnessAddress, way: Record) -> list[Component]:
    query = robustness_queries.curve(here.images, here.protocol, image_class=here.label)
    rows = context.both.fetch(query)
    if not rows:
        return [components.message("No attack of that class", html.P("Choose another class."), kind="empty")]
    of_label = way["measure"] == "robust accuracy"
    if way["fixed"]:
        figure = fixed_figure(rows)
        told = (
            "Over the attacked images: clean accuracy, and accuracy at the only epsilon tested"
            if of_label
            else "Share of predictions, correct or wrong, that do not change at the only epsilon tested"
        )
        told += ", with a 95 % bootstrap interval over images. Other epsilons were not tested."
    else:
        figure = curve_figure(rows, cap=way["cap"], step=_step(rows), axis=here.axis)
        told = (
            "At ε = 0 the clean accuracy over the attacked images; above, the share that is correct at every tested "
            "epsilon up to there."
            if of_label
            else "The share of images whose prediction, correct or wrong, is the same at every tested epsilon up to "
            "there. For accuracy, attack relative to the label."
        )
        told += (
            " Kaplan and Meier's estimate with a 95 % bootstrap band over images: images that resist leave it at the "
            "largest epsilon, those without a gradient at 0. Choose a point to list the images that change there."
        )
    title = "Robust accuracy" if of_label else "Predictions kept"
    return [
        card(
            title,
            query,
            here,
            "curve",
            graph(CURVE, figure, f"{title} against epsilon", 380),
            html.P(told, className="quiet"),
        ),
        *_listed(context, here),
    ]


def _step(rows: Sequence[Record]) -> float:
    """The smallest epsilon above 0 that changed a prediction: where a logarithmic axis begins."""
    return min((row["epsilon"] for row in rows if row["epsilon"] > 0), default=0.001)


LISTED = {
    "wrong_before": "Wrong before any attack: {} of {}",
    "changed": "Changed at ε {2}: {0} of {1}",
    "resisted": "Resist up to ε {2}: {0} of {1}",
}


def _listed(context: Context, here: RobustnessAddress) -> list[Component]:
    """The images that change at the epsilon in the address, and those that resist up to it."""
    try:
        epsilon = float(here.epsilon)
    except ValueError:
        return []
    model = here.listed or here.model
    rows = context.both.fetch(
        robustness_queries.at_epsilon(here.images, here.protocol, model, epsilon, image_class=here.label)
    )
    sections = [
        _listed_section([row for row in rows if row["verdict"] == verdict], words, model, epsilon)
        for verdict, words in LISTED.items()
    ]
    close = html.A(
        [icon("x-lg"), "Close"], href=here.href(epsilon="", listed=""), className="btn btn-sm btn-quiet"
    )
    nothing = None if rows else html.H2(f"No image of {model} changes at ε {epsilon_words(epsilon)}")
    return [
        html.Section(
            [html.Div([html.Span(nothing), close], className="bar-line"), *sections], className="card-plain"
        )
    ]


def _listed_section(rows: Sequence[Record], words: str, model: str, epsilon: float) -> Component:
    if not rows:
        return None
    told = [
        f"{row['class_name']}, predicted {row['name_before']}"
        if row["verdict"] == "wrong_before"
        else f"{row['class_name']}, still {row['name_after']}"
        if row["verdict"] == "resisted"
        else f"{row['name_before']} → {row['name_after']}"
        for row in rows[:MAX_LISTED]
    ]
    return html.Div(
        [
            html.H2(words.format(count(len(rows), "image"), model, epsilon_words(epsilon))),
            html.Div(
                [
                    html.A(
                        [
                            html.Img(src=thumbnail_address(row["key"]), alt=""),
                            html.Div(html.Span(line, className="name"), className="caption"),
                        ],
                        href=local(f"/attack?attack={row['attack']}"),
                        title=f"image {row['image_id']}: {line}",
                    )
                    for row, line in zip(rows, told, strict=False)
                ],
                className="thumbnails",
            ),
            html.P(f"The first {MAX_LISTED}.", className="quiet") if len(rows) > MAX_LISTED else None,
        ]
    )


def strip_section(context: Context, here: RobustnessAddress, way: Record) -> list[Component]:
    query = robustness_queries.strip(here.images, here.protocol, image_class=here.label)
    rows = context.both.fetch(query)
    if not rows:
        return []
    figure = strip_figure(rows, cap=way["cap"], step=min(row["smallest"] for row in rows), axis=here.axis)
    censored = sum(row["censored"] for row in rows)
    told = "Each point is an image: choose one to open its attack. "
    told += f"The lowest epsilon tested is {epsilon_words(way['lowest'])}: an image there changes at that or less."
    if way["measure"] == "robust accuracy":
        told += " Images that are wrong before any attack are not shown."
    if censored:
        told += f" Open triangles ({censored:,}) resist up to the largest epsilon tested."
    if len(rows) > MAX_POINTS:
        told += f" {MAX_POINTS:,} images of each model, drawn at random."
    return [
        card(
            "Smallest epsilon of each image",
            query,
            here,
            "strip",
            graph(STRIP, figure, "Smallest epsilon of each image"),
            html.P(told, className="quiet"),
        )
    ]
