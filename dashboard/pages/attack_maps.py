"""Saliency maps of the selected attack's image before and after, with two nulls to read their difference by."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import dash_bootstrap_components as dbc
from dash import html

from dashboard.components import elements as components
from dashboard.components.attack_words import maps_words
from dashboard.components.elements import Component, attributes, icon
from dashboard.components.formatting import activation, probability
from dashboard.pages import map_display
from dashboard.pictures import heat
from dashboard.state.context import Context
from dashboard.state.ids import make_id
from db.queries import attacks as attack_queries
from db.stores.results import ResultGone
from workers.requests.followups import MAP_PARAMETERS
from workers.requests.parameters import Parameter

Record = Mapping[str, Any]
COMPUTE = make_id("attack", "compute")
SHOWN_MAPS = make_id("attack", "shownmaps")
MAPS_ASKED = make_id("attack", "mapsasked")  # which request's maps are shown, see `asked_of`
TITLES = {
    "clean": "Before",
    "attacked": "After, same class",
    "attacked_own": "After, its own prediction",
    "other_seed": "Null: clean, other noise draws",
    "random_signs": "Null: random signs of the same ε",
}
# Panel, part, title, and words below; see `db.ledger.tables.AttackMap`.
_SHOWN = (
    ("clean", "map", TITLES["clean"], ""),
    ("attacked", "map", TITLES["attacked"], ""),
    ("attacked", "difference", "Difference", "after − before"),
    ("attacked", "standard_error", "Its standard error", "over paired samples"),
    ("attacked_own", "map", TITLES["attacked_own"], ""),
    ("attacked_own", "difference", "Difference", "own − before"),
    ("other_seed", "difference", "Null: other draws", "clean − clean"),
    ("random_signs", "difference", "Null: random signs", "random − clean"),
)


def field_id(name: str) -> str:
    """Element id of the field of a parameter of the maps."""
    return f"maps-{name}"


def asked_of(values: Mapping[str, Any]) -> str:
    """The request of a set of maps as one text: samples, noise level, seed."""
    return " ".join(f"{float(values[parameter.name]):g}" for parameter in MAP_PARAMETERS)


def shown_comparison(comparisons: Sequence[Record], asked: str) -> Record | None:
    """The maps of the request `asked` (see `asked_of`), else the newest."""
    return next((found for found in comparisons if asked_of(found) == asked), next(iter(comparisons), None))


def maps_panel(
    context: Context, attack: Record, comparisons: Sequence[Record], *, asked: str, busy: bool
) -> Component:
    """The panel: `comparisons` are the attack's, newest first; `busy`: maps are being computed."""
    shown = shown_comparison(comparisons, asked)
    head: list[Component] = [html.H2("Saliency before and after")]
    body: list[Component]
    if not attack["attacked_epsilon"]:
        body = [html.P("The image was not changed, so there is no adversarial map.", className="quiet")]
    else:
        head.append(_form(shown, busy=busy))
        if shown is None:
            body = [
                html.P(
                    "SmoothGrad of the image and of the attacked image with the same noise draws, their difference "
                    "with its standard error, and two nulls to compare it with: other draws, and random signs of "
                    "the same epsilon.",
                    className="quiet",
                )
            ]
        else:
            body = [_choice(comparisons, shown), *_maps(context, shown)]
    return html.Section(
        [html.Div(head, className="bar-line"), *body],
        className="card-plain attack-maps",
        **attributes(aria_label="Saliency before and after"),
    )


def _form(shown: Record | None, *, busy: bool) -> Component:
    def field(parameter: Parameter) -> Component:
        name = field_id(parameter.name)
        value = parameter.default if shown is None else shown[parameter.name]
        control = dbc.Input(
            id=name, value=f"{float(value):g}", size="sm", autocomplete="off", className="num"
        )
        label = html.Label(parameter.label or parameter.name.replace("_", " "), htmlFor=name)
        return html.Div([label, control], className="control", title=parameter.help)

    return html.Div(
        [
            *map(field, MAP_PARAMETERS),
            html.Button(
                [icon("bullseye"), "Computing…" if busy else "Compute"],
                id=COMPUTE,
                type="button",
                className="btn btn-sm btn-quiet",
                disabled=busy,
            ),
        ],
        className="inline-form",
    )


def _choice(comparisons: Sequence[Record], shown: Record) -> Component:
    def words(found: Record) -> str:
        return f"{found['samples']} samples, noise level {found['noise_level']:g}, seed {found['seed']}"

    options = [(asked_of(found), words(found)) for found in comparisons]
    choice = components.labelled(
        "Shown",
        components.select(SHOWN_MAPS, options, asked_of(shown)),
        control_id=SHOWN_MAPS,
        className="maps-shown",
    )
    one = html.P(f"Shown: {words(shown)}.", className="quiet")
    # hidden, the control is still there: a callback reads it
    return html.Div([html.Div(choice, hidden=len(comparisons) == 1), one if len(comparisons) == 1 else None])


def _maps(context: Context, shown: Record) -> list[Component]:
    panels = {found["panel"]: found for found in shown["maps"]}
    try:
        ends = scales(context, shown["maps"])
    except ResultGone as error:
        return [html.P(f"{error}.", className="problem", role="alert")]
    compared = all(panels[name]["rank_correlation"] is not None for name in panels if name != "clean")
    legend = (
        f"Maps share one scale, up to {activation(ends['map'])}; differences and standard errors share another, up to "
        f"±{activation(ends['difference'])} ({heat.DEFAULT_CLIP}th percentiles). Red: higher than before; blue: lower. "
        f"SmoothGrad, {shown['samples']} samples, the largest absolute value of the three colors."
    )
    return [
        html.Div([_figure(panels[name], *rest, ends=ends) for name, *rest in _SHOWN], className="map-panels"),
        html.P(legend, className="legend"),
        html.P(maps_words(panels)) if compared else None,
        _table([found for found in shown["maps"] if found["panel"] != "clean"]),
    ]


def scales(context: Context, maps: Sequence[Record]) -> dict[str, float]:
    """The upper ends of the color scales: one for maps, one for differences and standard errors.

    Raises:
        ResultGone: a file is missing.
    """
    ends = {"map": 0.0, "difference": 0.0}
    rows = {found["panel"]: attack_queries.attack_map(context.ledger, found["attack_map"]) for found in maps}
    for panel, part, *_ in _SHOWN:
        row = rows[panel]
        assert row is not None, "maps are never deleted"
        values = context.results.read_array(row["file" if part == "map" else f"{part}_file"])
        scale = "map" if part == "map" else "difference"
        ends[scale] = max(ends[scale], heat.highest(values, heat.DEFAULT_CLIP))
    return ends


def _figure(found: Record, part: str, title: str, words: str, *, ends: Mapping[str, float]) -> Component:
    """One canvas with the scale given here, painted by `browser/maps.js`."""
    address = found["npy" if part == "map" else f"{part}_npy"]
    canvas = html.Canvas(
        width=224,
        height=224,
        role="img",
        **attributes(
            aria_label=title,
            data_array=address,
            **({"data_signed": ""} if part == "difference" else {}),
        ),
    )
    display = {
        **map_display.DEFAULTS,
        "view": "map",
        "high": ends["map" if part == "map" else "difference"],
    }
    below = words or f"of {found['target_name'] or found['target_class']}"
    return html.Figure(
        [
            html.H3(title),
            canvas,
            html.Figcaption(
                [
                    html.Span(below),
                    html.A(
                        [icon("download"), "NPY"],
                        href=address,
                        download="",
                        title="Download its values",
                        **attributes(aria_label=f"{title}: download its values"),
                    ),
                ]
            ),
        ],
        **attributes(data_display=json.dumps(display)),
    )


def _table(maps: Sequence[Record]) -> Component:
    heads = (
        "Compared with the clean map", "Class", "Rank correlation", "SSIM", "Mean |difference|", "Mean standard error",
        "Beyond 2 errors",
    )  # fmt: skip

    def decimal(value: float | None) -> str:
        return "–" if value is None else f"{value:.3f}"

    def row(found: Record) -> Component:
        numbers = [
            decimal(found["rank_correlation"]),
            decimal(found["ssim"]),
            activation(found["mean_difference"]),
            activation(found["mean_standard_error"]),
            probability(found["beyond_noise"]),
        ]
        return html.Tr(
            [
                html.Td(TITLES[found["panel"]]),
                html.Td(found["target_name"] or str(found["target_class"])),
                *(html.Td(number, className="num end") for number in numbers),
            ],
            className="" if found["panel"].startswith("attacked") else "quiet",
        )

    names = [html.Th(name, scope="col", className="end" if at > 1 else "") for at, name in enumerate(heads)]
    return html.Div(
        html.Table(
            [html.Thead(html.Tr(names)), html.Tbody([row(found) for found in maps])], className="table-plain"
        ),
        className="table-scroll",
        tabIndex="0",
        role="region",
        **attributes(aria_label="Distances to the clean map"),
    )
