"""Tuning of one channel: its responses to gratings by orientation and frequency, and to plain hues."""

import colorsys
from collections.abc import Sequence
from itertools import groupby

from dash import html

from dashboard.components import elements as components
from dashboard.components.elements import Component, attributes
from dashboard.components.formatting import activation
from dashboard.pictures.routes import thumbnail_address
from dashboard.security.prefix import local
from dashboard.state.address import ChannelAddress, ImageAddress
from dashboard.state.context import Context, Record
from dashboard.state.selections import LayerSelection
from db.queries import tuning as tuning_queries


def tuning_panel(context: Context, selection: LayerSelection, here: ChannelAddress) -> Component:
    """Two cards if the model was indexed over probe images, else a collapsed section on how to get them."""
    model, layer, number = selection.run["model"], selection.layer["layer"], here.channel
    runs = context.atlas.fetch(tuning_queries.probe_run(model))
    found = context.atlas.fetch(tuning_queries.tuning(runs[0]["run"], layer, number)) if runs else []
    if not found:
        return _nothing(model)
    tuned, run, images = found[0], runs[0]["run"], runs[0]["image_set"]
    there = here.at(ImageAddress, images=images)
    table = here.href().partition("?")[2]
    gratings_query = tuning_queries.gratings(run, layer, number)
    hues_query = tuning_queries.hues(run, layer, number)
    gratings, hues = context.atlas.fetch(gratings_query), context.atlas.fetch(hues_query)
    return html.Div(
        [
            components.card(
                "Gratings: orientation × frequency",
                components.sql_tools(gratings_query, local(f"/download/channel-gratings.csv?{table}")),
                _grating_facts(selection.run, tuned, gratings),
                html.Div([_heat(gratings, there), _probe(gratings, there)], className="tuning"),
            ),
            components.card(
                "Hues",
                components.sql_tools(hues_query, local(f"/download/channel-hues.csv?{table}")),
                _hue_facts(tuned, hues),
                _hues(hues, there),
            ),
        ],
        className="two",
    )


def _nothing(model: str) -> Component:
    return html.Details(
        [
            html.Summary("Tuning to orientation, frequency and hue"),
            html.P("It is measured on probe images. To have it, type in a terminal:"),
            components.command(
                f"convscope images make stimuli\nconvscope index --model {model} --images stimuli"
            ),
        ],
        className="sql tuning-hint",
    )


def _grating_facts(run: Record, tuned: Record, rows: Sequence[Record]) -> Component:
    """Probe images are square: the resize scales their side to `resize_width` input pixels."""
    period = run["resize_width"] / tuned["frequency"]
    return components.facts(
        [
            components.fact(
                "prefers",
                f"{tuned['orientation']:g}°, {tuned['frequency']:g} cycles",
                title=f"Stripes along {tuned['orientation']:g} degrees, counter-clockwise from the x axis; "
                f"{tuned['frequency']:g} cycles per image are a period of {period:.1f} pixels of the input",
            ),
            components.fact("period", f"{period:.1f} px"),
            _selectivity(tuned["orientation_selectivity"], "orientations", "orientation"),
            _range(rows),
        ]
    )


def _hue_facts(tuned: Record, rows: Sequence[Record]) -> Component:
    return components.facts(
        [
            components.fact("prefers", f"{tuned['hue']:g}°", title="Hue: 0 red, 120 green, 240 blue"),
            _selectivity(tuned["hue_selectivity"], "hues", "hue"),
            _range(rows),
        ]
    )


def _selectivity(index: float | None, plural: str, single: str) -> Component:
    return components.fact(
        "selectivity",
        "–" if index is None else f"{index:.2f}",
        title=f"1 less the circular variance of the answers above the weakest: 0 where all {plural} are answered "
        f"alike, 1 where only one {single} is",
    )


def _range(rows: Sequence[Record]) -> Component:
    answers = [row["response"] for row in rows if row["response"] is not None]
    return components.fact(
        "answers",
        f"{activation(min(answers))} to {activation(max(answers))}",
        title="Strongest activation in the image, of the weakest and the strongest probe",
    )


def _shares(rows: Sequence[Record]) -> list[float]:
    """Position of each response between the weakest (0) and the strongest (1)."""
    answers = [row["response"] if row["response"] is not None else float("-inf") for row in rows]
    low = min(answer for answer in answers if answer != float("-inf"))
    span = max(answers) - low
    return [max(0.0, (answer - low) / span) if span else 0.0 for answer in answers]


def _heat(rows: Sequence[Record], there: ImageAddress) -> Component:
    shares = dict(zip(((row["orientation"], row["frequency"]) for row in rows), _shares(rows), strict=True))
    frequencies = dict.fromkeys(row["frequency"] for row in rows)
    head = [html.Th(f"{frequency:g}", scope="col") for frequency in frequencies]
    lines = []
    for orientation, of_orientation in groupby(rows, key=lambda row: row["orientation"]):
        cells = []
        for row in of_orientation:
            share = shares[orientation, row["frequency"]]
            words = f"{orientation:g}°, {row['frequency']:g} cycles: {activation(row['response'])}"
            link = html.A(href=there.href(id=row["image_id"]), title=words, **attributes(aria_label=words))
            cells.append(
                html.Td(link, className="best" if share == 1 else "", style={"--share": f"{share:.3f}"})
            )
        lines.append(html.Tr([html.Th(f"{orientation:g}°", scope="row"), *cells]))
    return html.Table(
        [html.Caption("cycles per image"), html.Thead(html.Tr([html.Td(), *head])), html.Tbody(lines)],
        className="heat",
    )


def _probe(rows: Sequence[Record], there: ImageAddress) -> Component:
    best = rows[_shares(rows).index(max(_shares(rows)))]
    return html.Figure(
        [
            html.A(
                html.Img(
                    src=thumbnail_address(best["key"]),
                    alt=f"Grating of {best['orientation']:g}° and {best['frequency']:g} cycles",
                ),
                href=there.href(id=best["image_id"]),
            ),
            html.Figcaption("what it prefers", className="quiet"),
        ],
        className="probe",
    )


def _hues(rows: Sequence[Record], there: ImageAddress) -> Component:
    bars = []
    for row, share in zip(rows, _shares(rows), strict=True):
        red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(row["hue"] / 360, 1, 1))
        words = f"{row['hue']:g}°: {activation(row['response'])}"
        bars.append(
            html.Li(
                html.A(
                    html.Div(
                        style={
                            "height": f"{4 + 96 * share:.1f}%",
                            "background": f"rgb({red}, {green}, {blue})",
                        }
                    ),
                    href=there.href(id=row["image_id"]),
                    title=words,
                    **attributes(aria_label=words),
                )
            )
        )
    return html.Ul(bars, className="hues")
