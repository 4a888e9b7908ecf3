"""The tables of the Robustness page: outcomes, leaderboard, transfer, classes."""

from typing import Any

from dash import dcc, html

from dashboard.components import elements as components
from dashboard.components.elements import Component, attributes, icon
from dashboard.components.formatting import epsilon_words
from dashboard.components.robustness_figures import (
    matrix_figure,
    share_words,
)
from dashboard.security.prefix import local
from dashboard.state.address import RobustnessAddress
from dashboard.state.context import Catalogue, Context, Record
from dashboard.state.ids import make_id
from db.atlas.store import Query
from db.queries import robustness as robustness_queries
from workers.requests.followups import MAX_FOLLOWED
from workers.requests.images import short_ids

ASK = make_id("robustness", "ask")
ASKED = make_id("robustness", "asked")  # why a job was not submitted
MATRIX = make_id("robustness", "matrix")
MAX_CLASSES = 30
QUIET_MODEBAR: Any = {"displaylogo": False, "modeBarButtonsToRemove": ["lasso2d", "select2d", "autoScale2d"]}


def _tools(query: Query, here: RobustnessAddress, table: str) -> Component:
    return components.sql_tools(query, local(f"/download/robustness/{table}.csv") + here.search_part())


def card(title: str, query: Query, here: RobustnessAddress, table: str, *inside: Component) -> Component:
    tools = _tools(query, here, table)
    return components.card(title, tools, *inside, components.sql_text(query))


def graph(name: str, figure: Any, words: str, height: int | None = None) -> Component:
    return html.Div(
        dcc.Graph(
            id=name,
            figure=figure,
            config=QUIET_MODEBAR,
            responsive=True,
            style={"height": f"{height or figure.layout.height}px"},
        ),
        role="group",
        **attributes(aria_label=words),
    )


def outcomes_table(context: Context, here: RobustnessAddress, images: int) -> Component:
    query = robustness_queries.outcomes(here.images, here.protocol, image_class=here.label)
    rows = context.both.fetch(query)
    of_label = bool(rows) and rows[0]["measure"] == "robust accuracy"
    names = {
        "images": "Attacked",
        **({"wrong_before": "Wrong before"} if of_label else {}),
        "changed": "Changed",
        "resisted": "Resist",
        "no_gradient": "No gradient",
    }
    body = [[row["model"], *(f"{row[name]:,}" for name in names)] for row in rows]
    told = f"Images, of the {images:,} of {here.images}."
    if of_label:
        told += (
            " Only images whose label is one of the model's classes can be attacked relative to the label."
        )
    if any(row["no_gradient"] for row in rows):
        told += " Images without a gradient were not perturbed: they count at ε = 0 only."
    return card(
        "Outcomes",
        query,
        here,
        "outcomes",
        components.plain_table(["Model", *names.values()], body, "Outcomes"),
        html.P(told, className="quiet"),
    )


def leaderboard(context: Context, here: RobustnessAddress, way: Record) -> Component:
    query = robustness_queries.leaderboard(here.images, here.protocol)
    rows = context.both.fetch(query)
    of_label = way["measure"] == "robust accuracy"
    shares = {
        name: words
        for name, words in (
            ("right_at_0", "Clean"),
            *((f"{'right' if of_label else 'kept'}_at_{level}", f"{level}/255") for level in (1, 4, 8)),
        )
        if name != "right_at_0" or of_label
    }
    body = [
        [
            html.A(row["model"], href=here.href(model=row["model"])),
            f"{row['images']:,}",
            *(share_words(row[name]) for name in shares),
            *([] if way["fixed"] else [_median(row, way, row["changed"])]),
        ]
        for row in rows
    ]
    told = "Over the images that all these models were attacked on: " + (
        "clean accuracy, and robust accuracy up to 1, 4 and 8 levels of 255."
        if of_label
        else "the share of predictions, correct or wrong, kept up to 1, 4 and 8 levels of 255."
    )
    told += " A dash: no epsilon was tested there." + (
        ""
        if way["fixed"]
        else " Median ε: of the images that are correct before the attack."
        if of_label
        else " Median ε: of all images with a gradient."
    )
    return card(
        "Leaderboard" + ("" if of_label else ": predictions kept"),
        query,
        here,
        "leaderboard",
        components.plain_table(
            ["Model", "Images", *shares.values(), *([] if way["fixed"] else ["Median ε"])],
            body,
            "Leaderboard",
        ),
        html.P(told if rows else "No image was attacked under all models.", className="quiet"),
    )


def _median(row: Record, way: Record, changed: int) -> str:
    """A median of smallest epsilons; "≤" if it is the lowest epsilon tried, ">" if it exceeds the largest."""
    median = row["median_epsilon"]
    if median is None:
        return f"> {way['cap']:.3g}" if changed + row["resisted"] else "–"
    return ("≤ " if median <= way["lowest"] * (1 + 1e-9) else "") + epsilon_words(median)


def transfer_table(context: Context, catalogue: Catalogue, here: RobustnessAddress) -> Component:
    query = robustness_queries.transfers(here.images, here.protocol)
    rows = context.both.fetch(query)
    judges = list(dict.fromkeys(row["judge"] for row in rows))
    attacked = list(dict.fromkeys(row["model"] for row in rows))
    pairs = {(row["model"], row["judge"]): row for row in rows}
    body = [
        [
            model,
            *(_transfer_cell(pairs[(model, judge)]) if (model, judge) in pairs else "–" for judge in judges),
        ]
        for model in attacked
    ]
    others = sorted({run["model"] for run in catalogue.runs} - {here.model})
    attacks = [
        row["attack"]
        for row in context.both.fetch(robustness_queries.strip(here.images, here.protocol))
        if row["model"] == here.model and row["verdict"] == "changed"
    ][:MAX_FOLLOWED]
    ask = (
        html.Button(
            [icon("people"), f"Test transfer from {here.model} to {', '.join(others)}"],
            id=ASK,
            type="button",
            className="btn btn-sm btn-quiet",
            **attributes(data_judges=",".join(others), data_attacks=short_ids(attacks)),
        )
        if others and attacks
        else None
    )
    return card(
        "Transfer",
        query,
        here,
        "transfer",
        components.plain_table(["Attacked model", *judges], body, "Transfer") if rows else None,
        html.P(
            "Of the images that an attack on one model changed, and that another model classified correctly before, "
            "the share whose class changes for that one too."
            if rows
            else "Whether the attacked images fool other models too was not tested yet."
            if others
            else "No other model is indexed.",
            className="quiet",
        ),
        ask,
        html.Div(id=ASKED),
    )


def _transfer_cell(row: Record) -> str:
    if row["share_fooled"] is None:
        return f"none correct before; {share_words(row['share_moved'])} of {row['judged']:,} change"
    return f"{share_words(row['share_fooled'])} of {row['right_before']:,}"


def transfer_matrix(context: Context, here: RobustnessAddress, way: Record) -> Component:
    query = robustness_queries.flips(here.images, here.protocol, here.model, limit=None)
    rows = context.both.fetch(query)
    start = "True class" if way["measure"] == "robust accuracy" else "Prediction"
    inside = (
        graph(MATRIX, matrix_figure(rows, start=start.lower()), "From which class to which")
        if rows
        else html.P("The attack changed no image.", className="quiet")
    )
    told = (
        "The classes that most changed images become, and those they were. Choose a cell to open an example."
    )
    return card(
        f"{start} → class after the attack, {here.model}",
        query,
        here,
        "flips",
        inside,
        html.P(told, className="quiet") if rows else None,
    )


def class_table(context: Context, here: RobustnessAddress, way: Record) -> Component:
    query = robustness_queries.by_class(
        here.images, here.protocol, here.model, order=here.sort, limit=MAX_CLASSES
    )
    rows = context.both.fetch(query)
    of_label = way["measure"] == "robust accuracy"
    names = {
        **({"wrong_already": "Wrong before"} if of_label else {}),
        "flipped": "Changed",
        "resisted": "Resist",
    }
    body = [
        [
            html.A(row["label"] or row["class"], href=here.href(label=row["class"])),
            f"{row['images']:,}",
            *(f"{row[name]:,}" for name in names),
            *([] if way["fixed"] else [_median(row, way, row["flipped"])]),
        ]
        for row in rows
    ]
    orders = {"weakest": "weakest", "strongest": "strongest", "images": "most images", "name": "name"}
    return card(
        f"Classes, {here.model}",
        query,
        here,
        "classes",
        html.Div(
            [
                html.A(
                    words,
                    href=here.href(sort=order),
                    className=f"segment{' on' if order == here.sort else ''}",
                )
                for order, words in orders.items()
            ],
            className="segments",
        ),
        components.plain_table(
            ["Class", "Images", *names.values(), *([] if way["fixed"] else ["Median ε"])], body, "Classes"
        )
        if rows
        else html.P("No attacked image has a label.", className="quiet"),
    )
