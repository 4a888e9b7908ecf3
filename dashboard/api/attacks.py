"""Attack routes of the HTTP API: `/api/attacks/…` and `/api/attack-maps/…`."""

from typing import Annotated

import flask
from msgspec import Meta

from dashboard.api.answer_types import WholeAttack
from dashboard.api.answers import STATUS, NotFound, kept, result_bytes
from dashboard.api.attack_answers import attack_record, whole_attack
from dashboard.api.routing import GONE, LEDGER, Query, Routes
from dashboard.state.context import Record, current
from db.queries import attacks as attack_queries
from workers.requests.members import one_of
from workers.requests.parameters import MAX_NUMBER

attack_api = Routes("attack_api", "/api", STATUS)
AttackNumber = Annotated[int, Meta(ge=0, description="Number of an attack.")]
MapNumber = Annotated[int, Meta(ge=0, description="Number of a map of an attack.")]
_FILE_ERRORS = {404: "There is no such attack, or it has no such file.", **GONE, **LEDGER}
_PNG, _ARRAY = ("image/png",), ("application/octet-stream",)


@attack_api.get(
    "/attacks/<int:attack>", answers="The attack.", errors={404: "There is no such attack.", **LEDGER}
)
def show_attack(attack: AttackNumber) -> WholeAttack:
    """An attack, the model's output at each epsilon, the channels that shifted, and all follow-up results."""
    return whole_attack(current(), _attack(attack))


@attack_api.get("/attacks/<int:attack>.png", answers="The image.", errors=_FILE_ERRORS, media=_PNG)
def attacked_picture(attack: AttackNumber) -> flask.Response:
    """The adversarial image, as it was stored and classified again."""
    return _picture(attack, "file", f"attack-{attack}.png")


@attack_api.get("/attacks/<int:attack>/input.png", answers="The image.", errors=_FILE_ERRORS, media=_PNG)
def attack_input(attack: AttackNumber) -> flask.Response:
    """The clean image: the model's input before normalization."""
    return _picture(attack, "input_file", f"attack-{attack}-input.png")


@attack_api.get(
    "/attacks/<int:attack>/signs.png",
    answers="An image: 255 up, 128 unchanged, 1 down.",
    errors=_FILE_ERRORS,
    media=_PNG,
)
def attack_signs(attack: AttackNumber) -> flask.Response:
    """The gradient signs that FGSM steps along."""
    return _picture(attack, "change_file", f"attack-{attack}-signs.png", end=".png")


@attack_api.get(
    "/attacks/<int:attack>/change.npy",
    answers="An array: float32, the three color planes stacked vertically, 3 H by W.",
    errors=_FILE_ERRORS,
    media=_ARRAY,
)
def attack_change(attack: AttackNumber) -> flask.Response:
    """PGD's perturbation of the pixels."""
    return _picture(attack, "change_file", f"attack-{attack}-change.npy", end=".npy")


class AttackMapQuery(Query):
    """The part of a map."""

    part: Annotated[
        str,
        one_of(
            ("map", "difference", "standard_error"),
            "The map, its difference to the clean map, or the standard error of the difference.",
        ),
    ] = "map"


@attack_api.get(
    "/attack-maps/<int:number>.npy",
    answers="An array: float32, H by W.",
    errors={404: "There is no such map, or it has no such part.", **GONE, **LEDGER},
    media=_ARRAY,
)
def attack_map(number: MapNumber, query: AttackMapQuery) -> flask.Response:
    """A map before or after an attack, its difference to the clean map, or the standard error of the difference."""
    part = query.part
    found = attack_queries.attack_map(current().ledger, number) if number <= MAX_NUMBER else None
    if found is None:
        raise NotFound(f"there is no map {number} of an attack")
    file = found["file" if part == "map" else f"{part}_file"]
    if file is None:
        raise NotFound(f"map {number} is the clean one: it has no {part.replace('_', ' ')}")
    return kept(result_bytes(file), "application/octet-stream", f"attack-map-{number}-{part}.npy")


def _attack(number: int) -> Record:
    found = attack_queries.attack(current().ledger, number) if number <= MAX_NUMBER else None
    if found is None:
        raise NotFound(f"there is no attack {number}")
    return found


def _picture(number: int, column: str, name: str, *, end: str = "") -> flask.Response:
    found = _attack(number)
    file = found[column]
    if file is None or not file.endswith(end):
        what = attack_record(found)["outcome"].replace("_", " ")
        raise NotFound(f"attack {number} ({found['method']}, {what}) has no {name}")
    kind = "image/png" if file.endswith(".png") else "application/octet-stream"
    return kept(result_bytes(file), kind, name)
