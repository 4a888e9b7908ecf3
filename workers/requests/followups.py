"""Requests about completed attacks: maps before and after, ablations, transfer. Imports no torch."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import select

from db.atlas.store import Atlas
from db.ledger.engine import Ledger
from db.ledger.jobs import NewItem, NewJob
from db.ledger.tables import Attack, Job
from db.suggestions import hint
from workers.attacks.registry import ATTACK_VERSION
from workers.attribution.registry import METHODS
from workers.requests.images import check_queue, short_ids
from workers.requests.keys import content_key, key_in_set
from workers.requests.models import ModelRef, check_layer
from workers.requests.parameters import MAX_NUMBER, InvalidRequest, Value

MAX_FOLLOWED = 10_000
MAX_CHANNELS = 100
_LAYER = re.compile(r"|[\w-]+(\.[\w-]+)*")
MAX_DRAWS = 100
# Enough that channels which beat all random draws carry the attack at the 5 % level (see
# `workers.attacks.ablation`).
DRAWS = 20
_MAPS = METHODS["smoothgrad"]
MAP_PARAMETERS = tuple(p for p in _MAPS.parameters if p.name in ("samples", "noise_level", "seed"))


def comparison_job(
    ledger: Ledger, attacks: Sequence[int], parameters: Mapping[str, Any], *, queue: str = "interactive"
) -> NewJob:
    """A request for SmoothGrad before and after attacks, with the noise of the difference.

    Args:
        parameters: `samples` (2 or more), `noise_level` and `seed`, as for SmoothGrad.

    Raises:
        InvalidRequest: unknown attack or parameter, or an attack that changed nothing.
    """
    complete = parse_maps(parameters)
    return _about(ledger, "comparison", attacks, {"parameters": complete}, queue=queue)


def parse_maps(given: Mapping[str, Any]) -> dict[str, Value]:
    """The parameters of the maps before and after an attack, with defaults.

    Raises:
        InvalidRequest: unknown parameter, or a value out of range.
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
        raise InvalidRequest(
            "samples: expected 2 or more, because the difference is shown with its noise, got 1"
        )
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
    """A request to repeat the search with the most shifted channels clamped, and with equally many random ones.

    Args:
        layer: use channels of this layer only, or of the output of the module at this path; empty uses all
            indexed layers.

    Raises:
        InvalidRequest: unknown attack, an attack that changed nothing, a number out of range, or an invalid
            layer name.
    """
    for name, value, low, high in (
        ("channels", channels, 1, MAX_CHANNELS),
        ("draws", draws, 1, MAX_DRAWS),
        ("seed", seed, 0, MAX_NUMBER),
    ):
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise InvalidRequest(f"{name}: expected a whole number from {low} to {high}, got {value!r}")
    if not isinstance(layer, str) or not _LAYER.fullmatch(layer):
        raise InvalidRequest(
            "layer: expected a layer such as stage2.block1.dwconv or a module path such as layer4.1, "
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
    """A request for predictions of other models on attacked images; a model does not judge its own.

    Raises:
        InvalidRequest: unknown attack, an attack that changed nothing, or no model left to judge it.
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
    """A job with one item per attack or, with judges, one per attack and other model."""
    check_queue(queue)
    wanted = list(dict.fromkeys(attacks))
    if not 1 <= len(wanted) <= MAX_FOLLOWED:
        raise InvalidRequest(f"attacks: expected from 1 to {MAX_FOLLOWED:,} attacks, got {len(wanted):,}")
    rows = _attacks(ledger, wanted)
    for number in wanted:
        if number not in rows:
            raise InvalidRequest(f"attacks: there is no attack {number}")
        if not rows[number].attacked_epsilon:
            raise InvalidRequest(
                f"attacks: attack {number} did not change the image: there is nothing to compare"
            )
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
        raise InvalidRequest("judges: expected a model other than the attacked one, got none")
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
            for first in range(0, len(wanted), 500)  # databases limit the values in a statement
            for row in connection.execute(asked.where(Attack.attack.in_(wanted[first : first + 500])))
        }


def _model_of(row: Any) -> dict[str, Any]:
    return next(dict(model) for model in row.parameters["models"] if model["digest"] == row.model_digest)
