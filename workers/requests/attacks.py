"""Requests for attacks. Imports no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from db.atlas.image_sets import images_by_id
from db.atlas.store import Atlas
from db.ledger.engine import Ledger
from db.ledger.jobs import NewJob, Record
from db.queries.attacks import attacks_with_keys
from db.suggestions import hint
from workers.attacks.registry import ATTACK_VERSION, parse_attack
from workers.requests.images import check_labels, check_queue, job_over, label_classes, short_ids
from workers.requests.keys import content_key, key_in_set
from workers.requests.models import ModelRef, check_classes
from workers.requests.parameters import InvalidRequest

# Of jobs only: increasing it completes what is stored for an attack, and keeps the attack.
_JOB_VERSION = 3
MAX_ATTACKS = 200_000
RELATIVE_TO = ("prediction", "label")


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
        target: index of a class to reach instead; `relative_to` is then ignored.

    Raises:
        InvalidRequest: something in it is invalid; the message names it.
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
    """SHA-256 over everything that the result of an attack depends on; the row's key is `key_in_set` of it.

    An image in two sets has two rows, because channels are compared by their standard deviation over the set.

    Args:
        digest: digest of the model.
        parameters: parameters of the job.
        image_key: content of the image.
        label: the image's label as a class of the model, if the attack is relative to it.
    """
    aim = {name: parameters[name] for name in ("method", "parameters", "relative_to", "target")}
    return content_key(ATTACK_VERSION, digest, image_key, aim, label)


def stored_attacks(atlas: Atlas, ledger: Ledger, new: NewJob, *, most: int) -> list[Record]:
    """Those of the first `most` attacks of a request that are already stored, in the format of `job_attacks`."""
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
    # models with the same digest share their attacks
    asked = zip(keys, items, strict=True)
    return [
        found[key] | {"model": item.model, "position": position}
        for position, (key, item) in enumerate(asked)
        if key in found
    ]


def parse_class(given: Any) -> int | None:
    """A class index, typed or from JSON; None for None or an empty text.

    Raises:
        InvalidRequest: it is anything else.
    """
    if given is None or given == "":
        return None
    number = int(given) if isinstance(given, str) and given.isdecimal() and len(given) < 10 else given
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 10**9:
        return number
    raise InvalidRequest(f"target: expected a class index, got {given!r}")
