"""The images of a request, by number, with content and labels; and the job over them. Imports no torch."""

from collections.abc import Iterable, Sequence
from typing import Any

from db.atlas.image_sets import images_by_id
from db.atlas.runs import run_of
from db.atlas.store import Atlas, NoAtlas
from db.ledger.jobs import NewItem, NewJob
from db.ledger.tables import QUEUES
from db.plurals import count
from db.queries.inventory import image_sets
from db.queries.labels import label_matches, settled_labels
from db.queries.patches import labelled_classes
from db.suggestions import choices, hint
from workers.requests.keys import content_key, key_in_set
from workers.requests.models import ModelRef
from workers.requests.parameters import InvalidRequest

MAX_ITEMS = 10_000


def label_classes(atlas: Atlas, model: str, image_set: str, ids: Sequence[int]) -> dict[int, int]:
    """Current labels of images as classes of a model, by image: as users mapped them, else as the index matched them.

    Jobs use new mappings and labels changed by another import immediately; predictions use them from the next
    index on.
    """
    runs = atlas.fetch(run_of(model, image_set))
    matched = {
        row["wnid"] or row["label"]: row["class_index"]
        for run in runs
        for row in atlas.fetch(label_matches(run["run"]))
    }
    settled = settled_labels(atlas, model, image_set)
    classes: dict[int, int | None] = {}
    if not matched:  # an index from before matches were stored
        classes = {
            row["image_id"]: row["class_index"]
            for run in runs
            for row in atlas.fetch(labelled_classes(run["run"], list(ids)))
        }
    for row in atlas.fetch(images_by_id(image_set, list(ids))):
        key = row["wnid"] or row["label"]
        if key in settled or matched:
            classes[row["image_id"]] = settled[key] if key in settled else matched.get(key)
    return {image_id: index for image_id, index in classes.items() if index is not None}


def check_labels(atlas: Atlas, new: NewJob, name: str) -> None:
    """Check that a request that uses the images' labels can produce results.

    Raises:
        InvalidRequest: none of its images has a label, or none has a label that is a class of any of its
            models, if all of these are indexed on the set; the message begins with `name`.
    """
    ids = list({item.image_id for item in new.items})
    rows = atlas.fetch(images_by_id(new.image_set, ids))
    labels = [label for row in rows if (label := row["wnid"] or row["label"])]
    if not labels:
        raise InvalidRequest(
            f"{name}: no image of this request has a label: choose prediction or a class index"
        )
    models = sorted({item.model for item in new.items})
    if all(
        atlas.fetch(run_of(model, new.image_set)) and not label_classes(atlas, model, new.image_set, ids)
        for model in models
    ):
        raise InvalidRequest(
            f"{name}: no label of these images, such as {labels[0]!r}, is a class of {' or '.join(models)}"
            f": choose prediction or a class index, or settle them with `convscope models map-labels {models[0]} "
            f"--images {new.image_set}`"
        )


def job_over(
    atlas: Atlas,
    kind: str,
    version: int,
    request: dict[str, Any],
    ids: Sequence[int],
    *,
    models: Sequence[ModelRef],
    queue: str,
    most: int,
    noun: str,
    restores: str,
    by_label: bool = False,
) -> NewJob:
    """A job with one item for each of `ids`, in the request's image set, under each model.

    With `by_label`, the request changes when labels of the images or their mapping to classes change.

    Raises:
        InvalidRequest: no image, an image that is not in the set, or more than `most` items, which the
            message calls `noun`.
    """
    if not ids:
        raise InvalidRequest("images: expected at least one image id, got none")
    if len(ids) * len(models) > most:
        raise InvalidRequest(
            f"images: expected at most {most:,} {noun} in a job, got {count(len(ids), 'image')} by "
            f"{count(len(models), 'model')}"
        )
    keys = image_keys(atlas, request["image_set"], ids)
    unnamed = {name: value for name, value in request.items() if name != "image_set"}
    names = [model.name for model in models] if by_label else []
    settled = {name: found for name in names if (found := settled_labels(atlas, name, request["image_set"]))}
    asked = [kind, version, unnamed, [keys[image_id] for image_id in ids]]
    if by_label:
        rows = {row["image_id"]: row for row in atlas.fetch(images_by_id(request["image_set"], list(ids)))}
        asked += [[rows[image_id]["wnid"] or rows[image_id]["label"] for image_id in ids], settled]
    question = content_key(*asked)
    return NewJob(
        key=key_in_set(question, request["image_set"]),
        question=question,
        kind=kind,
        queue=queue,
        models=", ".join(model.name for model in models),
        image_set=request["image_set"],
        parameters=request,
        items=tuple(NewItem(model.name, image_id, keys[image_id]) for image_id in ids for model in models),
        restores=restores,
    )


def check_queue(queue: str) -> None:
    """Raise InvalidRequest if there is no such queue."""
    if queue not in QUEUES:
        raise InvalidRequest(
            f"queue: expected one of {', '.join(QUEUES)}, got {queue!r}{hint(queue, QUEUES)}"
        )


def parse_ids(text: str, *, most: int = MAX_ITEMS, name: str = "ids") -> list[int]:
    """Image ids in a text such as `0,1,4-7`, in the given order.

    Raises:
        InvalidRequest: the text has another format, or contains more than `most` ids.
    """
    ids: list[int] = []
    for part in text.split(","):
        first, dash, last = (word.strip() for word in part.partition("-"))
        ends = (first, last) if dash else (first, first)
        if not all(word.isdecimal() and len(word) < 10 for word in ends) or int(ends[1]) < int(ends[0]):
            raise InvalidRequest(f"{name}: expected numbers such as 0,1,4-7, got {text!r}")
        if len(ids) + int(ends[1]) - int(ends[0]) >= most:
            raise InvalidRequest(f"{name}: expected at most {most:,} numbers, got {text!r}")
        ids += range(int(ends[0]), int(ends[1]) + 1)
    return list(dict.fromkeys(ids))


def short_ids(ids: Sequence[int]) -> str:
    """Image ids as a text such as `0,1,4-7`, in their order, which `parse_ids` reads."""
    runs: list[list[int]] = []
    for image in ids:
        if runs and image == runs[-1][1] + 1:
            runs[-1][1] = image
        else:
            runs.append([image, image])
    return ",".join(f"{low}" if low == high else f"{low}-{high}" for low, high in runs)


def no_such_set(image_set: str, known: Iterable[str]) -> str:
    """An error message for a name that no image set has."""
    names = list(known)
    have = choices(image_set, names, nouns="image sets are") if names else "there is no image set yet"
    return f"images: there is no image set {image_set!r}; {have}"


def image_keys(atlas: Atlas, image_set: str, ids: Sequence[int]) -> dict[int, str]:
    """Content keys of the images with these ids.

    Raises:
        InvalidRequest: the image set or one of the images does not exist.
    """
    try:
        sets = {row["image_set"]: row["images"] for row in atlas.fetch(image_sets())}
    except NoAtlas:
        sets = {}
    if image_set not in sets:
        raise InvalidRequest(no_such_set(image_set, sets))
    for image_id in ids:
        if isinstance(image_id, bool) or not isinstance(image_id, int) or not 0 <= image_id < sets[image_set]:
            raise InvalidRequest(
                f"ids: {image_set} has images 0 to {sets[image_set] - 1:,}, not {image_id!r}"
            )
    return {row["image_id"]: row["key"] for row in atlas.fetch(images_by_id(image_set, ids))}
