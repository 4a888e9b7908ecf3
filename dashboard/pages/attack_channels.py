"""Which layers and channels an attack shifts: a drawing of the network, and the channels that shifted most."""

from collections.abc import Mapping, Sequence
from typing import Any

from dash import html

from dashboard.components.drawing import PILL_HEIGHT, as_picture, draw
from dashboard.components.elements import Component, attributes, icon
from dashboard.components.formatting import activation, probability
from dashboard.components.line_art import line_art
from dashboard.state.address import ChannelAddress
from dashboard.state.context import Catalogue
from dashboard.state.ids import make_id
from db.atlas.stds import DEAD, RULE

Record = Mapping[str, Any]
CHANNELS = make_id("attack", "channels")
LAYER = "attack-layer"  # type of the ids of the drawing's layers
MAX_CHANNELS = 8
STRONG = 0.55  # share of the accent color above which text on it is light


def layer_id(layer: str) -> dict[str, str]:
    """Element id of a layer of the drawing."""
    return {"type": LAYER, "layer": layer}


def channels_panel(catalogue: Catalogue, attack: Record) -> Component:
    """The panel of an attack with its `layers` and `units` (`attack_answers.whole_attack`)."""
    if not attack["layers"]:
        why = (
            "No layer was recorded for this attack."
            if attack["attacked_epsilon"]
            else "The image was not changed, so no channel shifted."
        )
        return html.P(why, className="quiet")
    return html.Div(
        [
            html.Div(
                [
                    html.H3("Change of each layer"),
                    _network(catalogue, attack),
                    html.P(
                        "The stronger the color, the larger the change of the layer's output, relative to its norm on "
                        "the clean image (Euclidean). Choose a layer to list its channels.",
                        className="quiet",
                    ),
                ],
                className="network",
            ),
            html.Div(channels_list(attack, None), id=CHANNELS),
        ],
        className="inside-columns",
    )


def channels_list(attack: Record, layer: str | None) -> list[Component]:
    """The channels of one layer, or of all, that shifted most."""
    spreads = any(unit["deviations"] is not None for unit in attack["units"])
    ranked = (
        f"Ranked by the shift of the largest activation, divided by the channel's spread: {RULE}. Next to each, its "
        "top-activating patches."
        if spreads
        else "Ranked by the shift of the largest activation: this set was not indexed with this model, so channels "
        "cannot be compared by their spread."
    )
    units = sorted(
        (unit for unit in attack["units"] if layer in (None, unit["layer"])),
        key=lambda unit: -_size(unit, spreads=spreads),
    )[:MAX_CHANNELS]
    layers = [row for row in attack["layers"] if layer in (None, row["layer"])]
    of = "" if layer is None else f" of {units[0]['label'] if units else layer}"
    return [
        html.H3(f"Channels{of} that shifted most"),
        html.P(ranked, className="quiet"),
        html.P(_left_out(layers, spreads=spreads), className="quiet"),
        html.Div([_channel(attack, unit, spreads=spreads) for unit in units], className="movers"),
    ]


def _size(unit: Record, *, spreads: bool) -> float:
    if not spreads:
        return abs(float(unit["shift"]))
    return -1.0 if unit["deviations"] is None else abs(float(unit["deviations"]))


def _left_out(layers: Sequence[Record], *, spreads: bool) -> str:
    """How many channels are not ranked, and why; attacks of an earlier version ranked all."""
    if any(row["dead"] is None for row in layers):
        return (
            "An earlier version ranked these channels: nearly dead ones may come first. Run the attack again to rank "
            "them by the current rule."
        )
    dead = sum(row["dead"] for row in layers)
    if not dead:
        return ""
    what = "1 channel is" if dead == 1 else f"{dead:,} channels are"
    return f"{what} left out: {DEAD if spreads else '0 before and after'}."


def _channel(attack: Record, unit: Record, *, spreads: bool) -> Component:
    there = ChannelAddress(
        model=attack["model"], images=attack["image_set"], layer=unit["layer"], channel=unit["channel"]
    )
    up = unit["shift"] >= 0
    size = (
        f"{abs(unit['deviations']):.1f} SD"
        if spreads and unit["deviations"] is not None
        else activation(abs(unit["shift"]))
    )
    patches = unit["patches"]
    before, after = activation(unit["activation_before"]), activation(unit["activation_after"])
    return html.A(
        [
            html.Div(
                [
                    html.B(f"{unit['label'].replace(' > ', ' › ')} · {unit['channel']}"),
                    html.Span(
                        [icon("arrow-up" if up else "arrow-down"), size],
                        className=f"num {'up' if up else 'down'}",
                    ),
                    html.Small(
                        f"{before} → {after}, row {unit['y']} column {unit['x']}", className="quiet num"
                    ),
                ],
                className="mover-words",
            ),
            None
            if patches is None
            else html.Div(
                className="mover-patches",
                style={"backgroundImage": f'url("{patches["picture"]}")', "aspectRatio": str(patches["k"])},
                role="img",
                **attributes(
                    aria_label=f"The {patches['k']} top-activating patches of channel {unit['channel']} of "
                    f"{unit['label']}"
                ),
            ),
        ],
        href=there.href(),
        className="mover",
    )


def _network(catalogue: Catalogue, attack: Record) -> Component:
    """The drawing of the network; each layer is a button, colored by its change."""
    if attack["model"] not in catalogue.layers:
        return html.P("This model is not in the atlas, so there is no drawing of it.", className="quiet")
    picture = as_picture(draw(catalogue.layers[attack["model"]], catalogue.edges[attack["model"]]))
    changes = {row["layer"]: row for row in attack["layers"]}
    most = max([*(row["relative_change"] for row in attack["layers"]), 1e-12])
    left, width, height = picture["left"], picture["width"] - picture["left"], picture["height"]
    pills = {node["id"]: node for node in picture["nodes"] if "width" in node}

    def pill(node: Record) -> Component:
        row = changes.get(node["id"])
        share = row["relative_change"] / most if row else 0
        words = (
            f"{row['label']}: changed by {probability(row['relative_change'])} of its norm"
            if row
            else f"{node['id']}: not measured"
        )
        return html.Button(
            node["label"],
            id=layer_id(node["id"]),
            type="button",
            className="pill strong" if share > STRONG else "pill",
            title=words,
            style={
                "left": node["x"] - node["width"] / 2 - left,
                "top": node["y"] - PILL_HEIGHT / 2,
                "width": node["width"],
                "background": f"color-mix(in srgb, var(--accent) {100 * share:.0f}%, var(--sunken))",
            },
            **attributes(aria_label=words, aria_pressed="false"),
        )

    def wire(edge: Record) -> list[tuple[float, float]]:
        ends = []
        start, end = pills[edge["source"]], pills[edge["target"]]
        for node, other, way in ((start, end, 1), (end, start, -1)):
            if abs(start["y"] - end["y"]) < 1:
                toward = 1 if other["x"] > node["x"] else -1
                ends.append((node["x"] + toward * node["width"] / 2 - left, node["y"]))
            else:
                ends.append((node["x"] - left, node["y"] + way * PILL_HEIGHT / 2))
        return ends

    heads = [
        html.Span(node["label"], className="head", style={"left": node["x"] - left, "top": node["y"] - 14})
        for node in picture["nodes"]
        if node.get("head")
    ]
    return html.Div(
        html.Div(
            [
                line_art([wire(edge) for edge in picture["edges"]], size=(width, height), className="wires"),
                *heads,
                *(pill(node) for node in pills.values()),
            ],
            className="network-drawing",
            role="group",
            style={"width": width, "height": height},
            **attributes(aria_label=f"Drawing of {attack['model']}"),
        ),
        className="network-scroll",
    )
