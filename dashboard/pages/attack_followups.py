"""Follow-ups of the selected attack: the search with clamped channels, and the predictions of other models."""

from collections.abc import Mapping, Sequence
from typing import Any

from dash import html

from dashboard.components import elements as components
from dashboard.components.attack_words import search_words
from dashboard.components.elements import Component, icon
from dashboard.components.formatting import named_class, probability
from dashboard.state.ids import make_id
from workers.requests.followups import DRAWS

Record = Mapping[str, Any]
ABLATE = make_id("attack", "ablate")
TRANSFER = make_id("attack", "transfer")
VERDICTS = {
    "carry": "These channels carry the attack.",
    "no_more_than_random": "They do no more than random channels.",
    "cannot_say": "Cannot say.",
}


def followups_panel(
    attack: Record,
    ablations: Sequence[Record],
    transfers: Sequence[Record],
    others: Sequence[str],
    busy: Sequence[str],
) -> list[Component]:
    """Both sections. `others` are the other indexed models; `busy` are the kinds of the attack's unfinished jobs."""
    if not attack["attacked_epsilon"]:
        return []
    return [
        html.Div(_ablations(attack, ablations, busy="ablation" in busy), className="asked"),
        html.Div(_transfers(transfers, others, busy="transfer" in busy), className="asked"),
    ]


def _button(control_id: str, symbol: str, words: str, *, busy: str, **more: Any) -> Component:
    return html.Button(
        [icon(symbol), busy or words],
        id=control_id,
        type="button",
        className="btn btn-sm btn-quiet",
        disabled=bool(busy),
        **more,
    )


def _ablations(attack: Record, ablations: Sequence[Record], *, busy: bool) -> list[Component]:
    words = "Clamp the 10 channels that shifted most and rerun"
    head = html.Div(
        [
            html.H3("Do these channels carry the attack?"),
            _button(ABLATE, "scissors", words, busy="Searching…" if busy else ""),
        ],
        className="bar-line",
    )
    if not ablations:
        return [
            head,
            html.P(
                "Clamps the channels to the mean of their clean map and searches again, compared with "
                f"{DRAWS} random draws of equally many channels of the same layers.",
                className="quiet",
            ),
        ]
    return [head, *(part for found in ablations for part in _ablation(attack, found))]


def _ablation(attack: Record, found: Record) -> list[Component]:
    in_layer = f" in {found['layer']}" if found["layer"] else ""
    rows = [
        ("Nothing clamped", {**attack, "probability": None}),
        (f"The {len(found['units'])} that shifted most{in_layer}, clamped", found),
        *_random_rows(found["random"]),
    ]
    body = [
        [name, search_words(row), "" if row["probability"] is None else probability(row["probability"])]
        for name, row in rows
    ]
    label = attack["class_name"] or attack["class_index"]
    reason = found["reason"]
    clamped = ", ".join(f"{layer} {channel}" for layer, channel in found["units"])
    return [
        html.P(
            [html.B(VERDICTS[found["verdict"]]), f" {reason[0].upper()}{reason[1:]}."], className="verdict"
        ),
        components.plain_table(
            ["", "Smallest epsilon", f"Confidence in {label} before"], body, "Searches with clamped channels"
        ),
        html.P(
            f"{found['channels']} channels, {found['draws']} random draws, seed {found['seed']}. Clamped: {clamped}",
            className="quiet",
        ),
    ]


def _random_rows(draws: Sequence[Record]) -> list[tuple[str, Record]]:
    """The random draws with the lowest, the median and the highest epsilon; all if there are at most two."""
    in_order = sorted(draws, key=lambda draw: float("inf") if draw["epsilon"] is None else draw["epsilon"])
    if len(in_order) <= 2:
        return [(f"Random channels clamped, draw {at + 1}", draw) for at, draw in enumerate(in_order)]
    chosen = {"lowest": 0, "median": (len(in_order) - 1) // 2, "highest": len(in_order) - 1}
    return [
        (f"Random channels clamped, {name} of {len(in_order)} draws", in_order[at])
        for name, at in chosen.items()
    ]


def _transfers(transfers: Sequence[Record], others: Sequence[str], *, busy: bool) -> list[Component]:
    button = (
        _button(
            TRANSFER,
            "people",
            "Test transfer",
            busy="Running…" if busy else "",
        )
        if others
        else None
    )
    body = [
        [
            found["judge"],
            *(
                f"{named_class(found[f'name_{when}'], found[f'class_{when}'])}, "
                f"{probability(found[f'probability_{when}'])}"
                for when in ("before", "after")
            ),
            "class changes" if found["moved"] else "same class",
        ]
        for found in transfers
    ]
    return [
        html.Div([html.H3("Transfer to other models"), button], className="bar-line"),
        None if others else html.P("No other model is indexed.", className="quiet"),
        components.plain_table(["Model", "Before", "Attacked", "Result"], body, "Other models")
        if body
        else None,
    ]
