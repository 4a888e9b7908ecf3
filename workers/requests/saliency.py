"""Requests for saliency maps, and for deletion and insertion curves. Imports no torch."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select

from db.atlas.store import Atlas
from db.ledger.engine import Ledger
from db.ledger.jobs import NewItem, NewJob, Record
from db.ledger.tables import Job, SaliencyMap
from db.queries.jobs import maps_of_images
from db.suggestions import hint
from workers.attribution.registry import ATTRIBUTION_VERSION, parse_method
from workers.requests.images import MAX_ITEMS, check_labels, check_queue, job_over, label_classes
from workers.requests.keys import content_key, key_in_set
from workers.requests.models import ModelRef, check_classes, check_layer
from workers.requests.parameters import InvalidRequest

MAX_STEPS = 224
DEFAULT_STEPS = 50  # of the deletion and insertion curves


def saliency_job(
    atlas: Atlas,
    *,
    models: Sequence[ModelRef],
    image_set: str,
    image_ids: Sequence[int],
    method: str,
    parameters: dict[str, Any],
    target: str | int = "prediction",
    queue: str = "interactive",
) -> NewJob:
    """A request for one map of each image under each model.

    Args:
        target: the class to explain: `prediction` or `label` of each image, or one index for all.

    Raises:
        InvalidRequest: something in it is invalid; the message names it.
    """
    complete = parse_method(method, parameters)
    asked = parse_target(target)
    check_queue(queue)
    ids = list(dict.fromkeys(image_ids))
    check_classes(atlas, models, asked if isinstance(asked, int) else None)
    if complete.get("layer"):
        check_layer(atlas, models, str(complete["layer"]))
    request = {
        "models": [dataclasses.asdict(model) for model in models],
        "image_set": image_set,
        "ids": ids,
        "method": method,
        "parameters": complete,
        "target": asked,
    }
    new = job_over(
        atlas,
        "saliency",
        ATTRIBUTION_VERSION,
        request,
        ids,
        models=models,
        queue=queue,
        most=MAX_ITEMS,
        noun="maps",
        restores="map",
        by_label=asked == "label",
    )
    if asked == "label":
        check_labels(atlas, new, "target")
    return new


def map_question(
    digest: str, image_key: str, method: str, parameters: Mapping[str, Any], target_class: int
) -> str:
    """SHA-256 over everything that a map's numbers depend on."""
    return content_key(ATTRIBUTION_VERSION, digest, image_key, method, dict(parameters), target_class)


def stored_maps(atlas: Atlas, ledger: Ledger, new: NewJob, *, steps: int) -> list[Record]:
    """The requested maps that are already stored, from any job, in the format of `job_maps`."""
    request = new.parameters
    digests = {model["name"]: model["digest"] for model in request["models"]}
    ids = list({item.image_id for item in new.items})
    labels: dict[str, dict[int, int]] = {name: {} for name in digests}
    if request["target"] == "label":
        labels = {name: label_classes(atlas, name, new.image_set, ids) for name in digests}
    found: dict[tuple[str, int], Record] = {}
    rows = maps_of_images(
        ledger, new.image_set, ids, method=request["method"], digests=list(set(digests.values())), steps=steps
    )
    for row in rows:
        image = row["image_id"]
        for name, digest in digests.items():
            target = {"prediction": row["predicted_class"], "label": labels[name].get(image)}.get(
                request["target"], request["target"]
            )
            if digest != row["model_digest"] or row["target_class"] != target:
                continue
            question = map_question(
                digest, row["image_key"], request["method"], request["parameters"], target
            )
            # models with the same digest share their maps; a map under the model's own name comes first
            if row["question"] == question and ((name, image) not in found or row["model"] == name):
                found[name, image] = row
    return [
        found[place] | {"model": item.model, "position": position}
        for position, item in enumerate(new.items)
        if (place := (item.model, item.image_id)) in found and found[place]["image_key"] == item.image_key
    ]


def faithfulness_job(
    ledger: Ledger, maps: Sequence[int], *, steps: int = DEFAULT_STEPS, queue: str = "batch"
) -> NewJob:
    """A request for the deletion and insertion curves of maps.

    Raises:
        InvalidRequest: no map is given, one does not exist, or the maps are from two image sets.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or not 2 <= steps <= MAX_STEPS:
        raise InvalidRequest(f"steps: expected a whole number from 2 to {MAX_STEPS}, got {steps!r}")
    check_queue(queue)
    wanted = list(dict.fromkeys(maps))
    if not 1 <= len(wanted) <= MAX_ITEMS:
        raise InvalidRequest(f"maps: expected from 1 to {MAX_ITEMS:,} maps, got {len(wanted):,}")
    with ledger.read() as connection:
        rows = {
            row.map: row
            for row in connection.execute(
                select(
                    SaliencyMap.map,
                    SaliencyMap.model,
                    SaliencyMap.model_digest,
                    SaliencyMap.image_set,
                    SaliencyMap.image_id,
                    SaliencyMap.image_key,
                    Job.parameters,
                )
                .join(Job, Job.job == SaliencyMap.job)
                .where(SaliencyMap.map.in_(wanted))
            )
        }
    missing = [number for number in wanted if number not in rows]
    if missing:
        raise InvalidRequest(f"maps: there is no map {missing[0]}")
    sets = {rows[number].image_set for number in wanted}
    if len(sets) > 1:
        raise InvalidRequest(f"maps: expected maps of one image set, got {', '.join(sorted(sets))}")
    models = {
        model["name"]: model for number in wanted for model in rows[number].parameters["models"]
        if model["digest"] == rows[number].model_digest
    }  # fmt: skip
    asked = [
        {name: rows[number].parameters[name] for name in ("method", "parameters", "target")}
        for number in wanted
    ]
    request: dict[str, Any] = {"models": list(models.values()), "maps": wanted, "steps": steps}
    if all(one == asked[0] for one in asked):  # one page shows them together
        request |= {"ids": list(dict.fromkeys(rows[number].image_id for number in wanted)), **asked[0]}
    (image_set,) = sets
    # by number: map numbers stay the same when the set is renamed
    question = content_key("faithfulness", ATTRIBUTION_VERSION, wanted, steps)
    return NewJob(
        key=key_in_set(question, image_set),
        question=question,
        kind="faithfulness",
        about="map",
        queue=queue,
        models=", ".join(models),
        image_set=image_set,
        parameters=request,
        items=tuple(
            NewItem(rows[number].model, rows[number].image_id, rows[number].image_key, subject=number)
            for number in wanted
        ),
    )


def parse_target(given: Any) -> str | int:
    """`prediction`, `label`, or a class index, typed or from JSON.

    Raises:
        InvalidRequest: it is none of these.
    """
    if given in ("prediction", "label"):
        return str(given)
    number = int(given) if isinstance(given, str) and given.isdecimal() and len(given) < 10 else given
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 10**9:
        return number
    raise InvalidRequest(
        f"target: expected prediction, label or a class index, got {given!r}"
        + hint(given, ("prediction", "label"))
    )
