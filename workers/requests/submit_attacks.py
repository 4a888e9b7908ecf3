"""Requests for attacks, and for what is asked of attacks that were found. Imports no torch."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import select

from db.atlas.image_sets import images_by_id
from db.atlas.store import Atlas
from db.ledger.engine import Ledger
from db.ledger.jobs import NewItem, NewJob, Record
from db.ledger.tables import Attack, Job
from db.queries.attacks import attacks_with_keys
from db.suggestions import hint
from workers.attacks.registry import ATTACK_VERSION, parse_attack
from workers.attribution.registry import METHODS
from workers.requests.keys import content_key, key_in_set
from workers.requests.parameters import InvalidRequest, Value
from workers.requests.submit import (
    ModelRef,
    check_classes,
    check_labels,
    check_layer,
    check_queue,
    job_over,
    label_classes,
    short_ids,
)

# Of jobs alone: a higher one has what is stored of an attack completed, and keeps the attack.
_JOB_VERSION = 3
MAX_ATTACKS = 200_000
MAX_FOLLOWED = 10_000
RELATIVE_TO = ("prediction", "label")
MAX_CHANNELS = 100
_LAYER = re.compile(r"|[\w-]+(\.[\w-]+)*")
MAX_DRAWS = 100
# With it, channels that do more than all random draws carry the attack at 5 % (see `workers.attacks.ablation`).
DRAWS = 20
_MAPS = METHODS["smoothgrad"]
MAP_PARAMETERS = tuple(p for p in _MAPS.parameters if p.name in ("samples", "noise_level", "seed"))


def attack_job(
    atlas: Atlas,
    *,
    models: Sequence[ModelRef],
    image_set: str,
    image_ids: Sequence[int],
    method: str = "fgsm",
    parameters: Mapping[str, Any],
    relative_to: str = "prediction",
    target: Any = None,
    queue: str = "interactive",
) -> NewJob:
    """A request for one attack of each image under each model.

    Args:
        relative_to: the class to leave: `prediction` or `label` of each image.
        target: a class to reach instead, by its index; then `relative_to` is not read.

    Raises:
        InvalidRequest: something in it cannot be; the message names it.
    """
    complete = parse_attack(method, parameters)
    if relative_to not in RELATIVE_TO:
        raise InvalidRequest(
            f"relative_to: expected one of {', '.join(RELATIVE_TO)}, got {relative_to!r}"
            + hint(relative_to, RELATIVE_TO)
        )
    aim = parse_class(target)
    check_queue(queue)
    ids = list(dict.fromkeys(image_ids))
    check_classes(atlas, models, aim)
    request = {
        "models": [asdict(model) for model in models],
        "image_set": image_set,
        "ids": short_ids(ids),
        "method": method,
        "parameters": complete,
        "relative_to": "target" if aim is not None else relative_to,
        "target": aim,
    }
    new = job_over(
        atlas,
        "attack",
        _JOB_VERSION,
        request,
        ids,
        models=models,
        queue=queue,
        most=MAX_ATTACKS,
        noun="attacks",
        restores="attack",
        by_label=request["relative_to"] == "label",
    )
    if request["relative_to"] == "label":
        check_labels(atlas, new, "relative_to")
    return new


def attack_question(digest: str, parameters: Mapping[str, Any], image_key: str, label: int | None) -> str:
    """SHA-256 over all that what an attack finds depends on; `key_in_set` of it is the row's key.

    An image in two sets has two rows: channels are compared by their spread over the set.

    Args:
        digest: that of the model.
        parameters: those of the job.
        image_key: content of the image.
        label: the image's label as a class of the model, where the attack is relative to it.
    """
    aim = {name: parameters[name] for name in ("method", "parameters", "relative_to", "target")}
    return content_key(ATTACK_VERSION, digest, image_key, aim, label)


def stored_attacks(atlas: Atlas, ledger: Ledger, new: NewJob, *, most: int) -> list[Record]:
    """Of the first `most` attacks of a request, those that are stored already, as `job_attacks` gives them."""
    items = new.items[:most]
    ids = list({item.image_id for item in items})
    images = {row["image_id"]: row for row in atlas.fetch(images_by_id(str(new.image_set), ids))}
    digests = {model["name"]: model["digest"] for model in new.parameters["models"]}
    labels: dict[str, dict[int, int]] = {name: {} for name in digests}
    if new.parameters["relative_to"] == "label":
        labels = {name: label_classes(atlas, name, new.image_set, ids) for name in digests}
    keys = []
    for item in items:
        row = images[item.image_id]
        label = labels[item.model].get(item.image_id)
        question = attack_question(digests[item.model], new.parameters, row["key"], label)
        keys.append(key_in_set(question, new.image_set, item.image_id))
    found = {row["key"]: row for row in attacks_with_keys(ledger, keys)}
    # models of one digest share their attacks
    asked = zip(keys, items, strict=True)
    return [
        found[key] | {"model": item.model, "position": position}
        for position, (key, item) in enumerate(asked)
        if key in found
    ]


def parse_class(given: Any) -> int | None:
    """The index of a class, typed or from JSON; None and an empty text are none.

    Raises:
        InvalidRequest: it is something else.
    """
    if given is None or given == "":
        return None
    number = int(given) if isinstance(given, str) and given.isdecimal() and len(given) < 10 else given
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 10**9:
        return number
    raise InvalidRequest(f"target: expected the index of a class, got {given!r}")


def comparison_job(
    ledger: Ledger, attacks: Sequence[int], parameters: Mapping[str, Any], *, queue: str = "interactive"
) -> NewJob:
    """A request for SmoothGrad before and after attacks, with the noise of the difference.

    Args:
        parameters: `samples` (2 or more), `noise_level` and `seed`, as of SmoothGrad.

    Raises:
        InvalidRequest: no such attack or parameter, or an attack that changed nothing.
    """
    complete = parse_maps(parameters)
    return _about(ledger, "comparison", attacks, {"parameters": complete}, queue=queue)


def parse_maps(given: Mapping[str, Any]) -> dict[str, Value]:
    """The parameters of the maps before and after an attack, with defaults.

    Raises:
        InvalidRequest: there is no such parameter, or a value is out of range.
    """
    known = {parameter.name: parameter for parameter in MAP_PARAMETERS}
    for name in given:
        if name not in known:
            raise InvalidRequest(
                f"maps have no parameter {name!r}: they have {', '.join(known)}{hint(name, known)}"
            )
    values = {
        name: parameter.parse(given[name]) if name in given else parameter.default
        for name, parameter in known.items()
    }
    if int(values["samples"]) < 2:
        raise InvalidRequest("samples: expected 2 or more, for a difference has its noise beside it, got 1")
    return values


def ablation_job(
    ledger: Ledger,
    atlas: Atlas,
    attacks: Sequence[int],
    *,
    channels: int = 10,
    draws: int = DRAWS,
    seed: int = 0,
    layer: str = "",
    queue: str = "interactive",
) -> NewJob:
    """A request to search again with the most moved channels held, next to as many random ones.

    Args:
        layer: take the channels of this layer, or of any module's output by its path; empty takes all layers of the
            index.

    Raises:
        InvalidRequest: no such attack, an attack that changed nothing, a number out of range, or what is no name.
    """
    for name, value, low, high in (
        ("channels", channels, 1, MAX_CHANNELS),
        ("draws", draws, 1, MAX_DRAWS),
        ("seed", seed, 0, 2**31 - 1),
    ):
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise InvalidRequest(f"{name}: expected a whole number from {low} to {high}, got {value!r}")
    if not isinstance(layer, str) or not _LAYER.fullmatch(layer):
        raise InvalidRequest(
            "layer: expected a layer such as stage2.block1.dwconv or the path of a module such as layer4.1, "
            f"got {layer!r}"
        )
    asked = {"channels": channels, "draws": draws, "seed": seed, "layer": layer}
    new = _about(ledger, "ablation", attacks, asked, queue=queue)
    if layer:
        check_layer(atlas, [ModelRef(**model) for model in new.parameters["models"]], layer)
    return new


def transfer_job(
    ledger: Ledger, attacks: Sequence[int], judges: Sequence[ModelRef], *, queue: str = "batch"
) -> NewJob:
    """A request for what other models say of attacked images; a model does not judge its own.

    Raises:
        InvalidRequest: no such attack, an attack that changed nothing, or nobody to judge it.
    """
    return _about(ledger, "transfer", attacks, {}, queue=queue, judges=judges)


def _about(
    ledger: Ledger,
    kind: str,
    attacks: Sequence[int],
    asked: dict[str, Any],
    *,
    queue: str,
    judges: Sequence[ModelRef] = (),
) -> NewJob:
    """A job with an item for each attack or, with judges, for each attack under each other model."""
    check_queue(queue)
    wanted = list(dict.fromkeys(attacks))
    if not 1 <= len(wanted) <= MAX_FOLLOWED:
        raise InvalidRequest(f"attacks: expected from 1 to {MAX_FOLLOWED:,} attacks, got {len(wanted):,}")
    rows = _attacks(ledger, wanted)
    for number in wanted:
        if number not in rows:
            raise InvalidRequest(f"attacks: there is no attack {number}")
        if not rows[number].attacked_epsilon:
            raise InvalidRequest(f"attacks: attack {number} changed nothing: there is nothing to look at")
    sets = {row.image_set for row in rows.values()}
    if len(sets) > 1:
        raise InvalidRequest(f"attacks: expected attacks on one image set, got {', '.join(sorted(sets))}")
    by_model = {row.model: _model_of(row) for row in rows.values()}
    used = {judge.name: asdict(judge) for judge in judges} if judges else by_model
    pairs = [
        (number, name)
        for number in wanted
        for name in (used if judges else [rows[number].model])
        if not judges or used[name]["digest"] != rows[number].model_digest
    ]
    if not pairs:
        raise InvalidRequest("judges: expected another model than the one that was attacked, got none")
    request = {"models": list(used.values()), "attacks": short_ids(wanted), **asked}
    (image_set,) = sets
    question = content_key(kind, ATTACK_VERSION, request)
    return NewJob(
        key=key_in_set(question, image_set),
        question=question,
        kind=kind,
        about="attack",
        queue=queue,
        models=", ".join(used),
        image_set=image_set,
        parameters=request,
        items=tuple(
            NewItem(name, rows[number].image_id, rows[number].image_key, subject=number)
            for number, name in pairs
        ),
    )


def _attacks(ledger: Ledger, wanted: Sequence[int]) -> dict[int, Any]:
    asked = select(
        Attack.attack,
        Attack.model,
        Attack.model_digest,
        Attack.image_set,
        Attack.image_id,
        Attack.image_key,
        Attack.attacked_epsilon,
        Job.parameters,
    ).join(Job, Job.job == Attack.job)
    with ledger.read() as connection:
        return {
            row.attack: row
            for first in range(0, len(wanted), 500)  # databases take only so many values in one statement
            for row in connection.execute(asked.where(Attack.attack.in_(wanted[first : first + 500])))
        }


def _model_of(row: Any) -> dict[str, Any]:
    return next(dict(model) for model in row.parameters["models"] if model["digest"] == row.model_digest)
