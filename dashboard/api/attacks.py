"""Attack routes of the HTTP API: `/api/attacks/…` and `/api/attack-maps/…`."""

import flask

from dashboard.api.answers import (
    STATUS,
    NotFound,
    answer,
    choice,
    error_response,
    kept,
    result_bytes,
)
from dashboard.api.attack_answers import attack_record, whole_attack
from dashboard.state.context import Record, current
from db.queries import attacks as attack_queries
from workers.requests.parameters import MAX_NUMBER

attack_api = flask.Blueprint("attack_api", __name__, url_prefix="/api")
for _kind in STATUS:
    attack_api.register_error_handler(_kind, error_response)


@attack_api.get("/attacks/<int:attack>")
def show_attack(attack: int) -> flask.Response:
    """An attack, the model's output at each epsilon, the channels that shifted, and all follow-up results."""
    return answer(whole_attack(current(), _attack(attack)))


@attack_api.get("/attacks/<int:attack>.png")
def attacked_picture(attack: int) -> flask.Response:
    """The adversarial image, as it was stored and reclassified."""
    return _picture(attack, "file", f"attack-{attack}.png")


@attack_api.get("/attacks/<int:attack>/input.png")
def attack_input(attack: int) -> flask.Response:
    """The clean image: the model's input before normalization."""
    return _picture(attack, "input_file", f"attack-{attack}-input.png")


@attack_api.get("/attacks/<int:attack>/signs.png")
def attack_signs(attack: int) -> flask.Response:
    """The gradient signs that FGSM steps along: 255 up, 128 unchanged, 1 down."""
    return _picture(attack, "change_file", f"attack-{attack}-signs.png", end=".png")


@attack_api.get("/attacks/<int:attack>/change.npy")
def attack_change(attack: int) -> flask.Response:
    """PGD's perturbation of the pixels: float32, the three color planes stacked vertically, 3 H by W."""
    return _picture(attack, "change_file", f"attack-{attack}-change.npy", end=".npy")


@attack_api.get("/attack-maps/<int:number>.npy")
def attack_map(number: int) -> flask.Response:
    """A map before or after an attack, its difference to the clean map, or that difference's standard error."""
    part = choice("part", "map", ("map", "difference", "standard_error"))
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
