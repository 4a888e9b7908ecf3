"""The attacks of the request as cards, one for each image and model, as they arrive."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode

from dash import html

from dashboard.components.attack_words import outcome_words
from dashboard.components.elements import Component, attributes
from dashboard.security.prefix import local
from dashboard.state.address import AttackAddress

Record = Mapping[str, Any]


def attack_cards(
    page: Record, items: Sequence[Record], chosen: int, *, total: int, unfinished: bool
) -> list[Component]:
    """Cards for the request of `page` (`request.state.read_request`), with the items of its job.

    `total` is how many items the job has, `unfinished` whether it still adds results.

    A single attack has none: a card would repeat what the verdict below it says.
    """
    if len(items) < 2 and len(page["rows"]) * len(page["chosen"]) < 2:
        return []
    found = {(one["image_id"], one["model"]): one for one in page["stored"]}
    errors = {(item["image_id"], item["model"]): item["error"] for item in items if item["error"]}
    known = "not known" if "ledger" in page["problems"] else "not attacked"
    absent = "waiting" if unfinished else known
    cards = [
        _card(
            row,
            model,
            found.get((row["id"], model)),
            errors.get((row["id"], model)),
            absent,
            page,
            chosen,
        )
        for row in page["rows"]
        for model in page["chosen"]
    ]
    if total > len(cards):
        more = f"The first {len(cards)} of {total:,}: the Robustness page has all."
        cards.append(html.Li(more, className="quiet"))
    return cards


def _card(
    row: Record,
    model: str,
    attack: Record | None,
    error: str | None,
    absent: str,
    page: Record,
    chosen: int,
) -> Component:
    if attack is None:
        outcome, name = ("failed", error) if error else (absent, row["label"] or "no label")
    else:
        flipped = attack["name_after"] and attack["outcome"] == "flipped"
        outcome = outcome_words(attack)
        name = f"{attack['name_before']} → {attack['name_after']}" if flipped else attack["name_before"]
    inside = [
        html.Img(src=row["thumbnail"], alt="", width=72, height=72),
        html.Span(
            [
                html.B(outcome),
                html.Small(name, className="name"),
                html.Small(
                    f"image {row['id']}" + (f" · {model}" if len(page["chosen"]) > 1 else ""),
                    className="quiet num",
                ),
            ],
            className="attack-words",
        ),
    ]
    if attack is None:
        kind = "failed" if error else "none"
        return html.Li(html.Div(inside, title=error or ""), className=f"attack-card {kind}")
    here = attack["attack"] == chosen
    there = dict(parse_qsl(page["search"].lstrip("?"), keep_blank_values=True)) | {"attack": attack["attack"]}
    there.pop("at", None)
    return html.Li(
        html.A(
            inside,
            href=f"{local(AttackAddress.path)}?{urlencode(there, safe=',')}",
            **(attributes(aria_current="true") if here else {}),
        ),
        className=f"attack-card {attack['outcome']}{' here' if here else ''}",
    )
