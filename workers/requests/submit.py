"""The one door for long work: a checked request becomes a job in the ledger, and a message to the workers.

Imports no torch. A request is named by its content (models with their weights, images with their bytes, method,
parameters), so that asking twice for the same is one job.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from db.atlas.image_sets import images_by_id
from db.atlas.runs import run_of
from db.atlas.store import Atlas, NoAtlas
from db.ledger import jobs
from db.ledger.engine import Ledger
from db.ledger.jobs import NewItem, NewJob, NoSuchSubject, Record
from db.ledger.set_states import SetChanged, set_changes_of
from db.ledger.tables import QUEUES, Attack, Job, JobItem, SaliencyMap
from db.plurals import count
from db.queries.inventory import class_counts, image_sets, keeps_modules, layers, modules, runs
from db.queries.jobs import maps_of_images
from db.queries.labels import label_matches, settled_labels
from db.queries.patches import labelled_classes
from db.settings import Settings
from db.stores.results import ResultStore
from db.suggestions import choices, hint, meant
from workers.attribution.registry import ATTRIBUTION_VERSION, parse_method
from workers.queue.messages import BrokerAway, celery_app, send
from workers.requests.keys import content_key, key_in_set
from workers.requests.parameters import InvalidRequest

MAX_ITEMS = 10_000
MAX_STEPS = 224
DEFAULT_STEPS = 50  # of the curves of deletion and insertion


@dataclass(frozen=True)
class ModelRef:
    """A model by what loads it and what its numbers depend on (`VisionModel.digest`)."""

    name: str
    source: str
    digest: str


@dataclass(frozen=True)
class Submitted:
    """A job that was asked for. `queued`: there is something to do; `sent`: the workers were told."""

    job: int
    queued: bool
    sent: bool

    def sentence(self) -> str:
        """What to tell who asked."""
        if not self.queued:
            return f"job {self.job} was asked for before"
        if not self.sent:
            return f"job {self.job} is queued; the broker is away, and workers hear of it when it is back"
        return f"job {self.job} is queued"


def indexed_models(atlas: Atlas) -> dict[str, ModelRef]:
    """The models of the atlas by name."""
    try:
        found = atlas.fetch(runs())
    except NoAtlas:
        return {}
    return {row["model"]: ModelRef(row["model"], row["source"], row["digest"]) for row in found}


def choose_models(atlas: Atlas, names: Sequence[str]) -> tuple[ModelRef, ...]:
    """The indexed models of these names.

    Raises:
        InvalidRequest: none is named, or one that was not indexed.
    """
    known = indexed_models(atlas)
    for name in names:
        if name not in known:
            have = choices(name, known, nouns="indexed models are") if known else "no model was indexed yet"
            raise InvalidRequest(f"models: {name!r} was not indexed; {have}")
    if not names:
        raise InvalidRequest("models: expected at least one, got none")
    return tuple(known[name] for name in dict.fromkeys(names))


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
        target: the class that is explained: `prediction` or `label` of each image, or one index for all.

    Raises:
        InvalidRequest: something in it cannot be; the message names it.
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
    """SHA-256 over all that a map's numbers depend on."""
    return content_key(ATTRIBUTION_VERSION, digest, image_key, method, dict(parameters), target_class)


def stored_maps(atlas: Atlas, ledger: Ledger, new: NewJob, *, steps: int) -> list[Record]:
    """Of the maps that a request asks for, those that are stored, whichever job made them: as `job_maps` gives them."""
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
            # models of one digest share their maps; a map under the model's own name goes first
            if row["question"] == question and ((name, image) not in found or row["model"] == name):
                found[name, image] = row
    return [
        found[place] | {"model": item.model, "position": position}
        for position, item in enumerate(new.items)
        if (place := (item.model, item.image_id)) in found and found[place]["image_key"] == item.image_key
    ]


def check_classes(atlas: Atlas, models: Sequence[ModelRef], target: int | None) -> None:
    """Whether the indexed ones of the models have a class of that index.

    Raises:
        InvalidRequest: one has not; the message names its classes.
    """
    if target is None:
        return
    try:
        found = {row["model"]: row for row in atlas.fetch(class_counts())}
    except NoAtlas:
        return
    for model in models:
        row = found.get(model.name)
        if row is not None and row["digest"] == model.digest and target >= row["classes"]:
            raise InvalidRequest(
                f"target: {model.name} has classes 0 to {row['classes'] - 1:,}, not {target:,}"
            )


def check_layer(atlas: Atlas, models: Sequence[ModelRef], layer: str) -> None:
    """Whether the indexed ones of the models have a layer or a module of that name.

    Of a module's later calls the names are its path with "-2" and so on. The atlas does not know how often it is
    called, nor whether what it returns is a map: the worker does.

    Raises:
        InvalidRequest: one has none.
    """
    try:
        if not atlas.fetch(keeps_modules()):
            return
        for model in models:
            known = [row["module"] for row in atlas.fetch(modules(model.name, model.digest))]
            named = [row["layer"] for row in atlas.fetch(layers(model.name))]
            if not known or layer in named or re.sub(r"-[2-9]\d*$", "", layer) in known:
                continue
            examples = [named[at] for at in sorted({0, len(named) // 2, len(named) - 1})]
            near = meant(layer, [*named, *known])
            raise InvalidRequest(
                f"layer: {model.name} has no layer or module {layer!r}; its layers are such as "
                f"{', '.join(examples)}" + ("" if near is None else f"; did you mean {near!r}?")
            )
    except NoAtlas:
        return


def label_classes(atlas: Atlas, model: str, image_set: str, ids: Sequence[int]) -> dict[int, int]:
    """The present labels of images as classes of a model, by image: as people settled them, else as the index matched.

    Jobs go by what is settled, and by labels that another import has changed, at once; predictions by the next index.
    """
    runs = atlas.fetch(run_of(model, image_set))
    matched = {
        row["wnid"] or row["label"]: row["class_index"]
        for run in runs
        for row in atlas.fetch(label_matches(run["run"]))
    }
    settled = settled_labels(atlas, model, image_set)
    classes: dict[int, int | None] = {}
    if not matched:  # an index from before matches were kept
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
    """Whether a request that goes by the images' labels can make anything.

    Raises:
        InvalidRequest: no image of it has a label, or none a label that is a class of any of its models, as far as
            these were indexed over the set; the message begins with `name`.
    """
    ids = list({item.image_id for item in new.items})
    rows = atlas.fetch(images_by_id(new.image_set, ids))
    labels = [label for row in rows if (label := row["wnid"] or row["label"])]
    if not labels:
        raise InvalidRequest(
            f"{name}: no image of this request has a label: choose prediction or the index of a class"
        )
    models = sorted({item.model for item in new.items})
    if all(
        atlas.fetch(run_of(model, new.image_set)) and not label_classes(atlas, model, new.image_set, ids)
        for model in models
    ):
        raise InvalidRequest(
            f"{name}: no label of these images, such as {labels[0]!r}, is a class of {' or '.join(models)}: choose "
            f"prediction or the index of a class, or settle them by `convscope models map-labels {models[0]} "
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
    """A job with an item for each of `ids` of the request's image set under each model.

    One that goes `by_label` is another request once images have other labels, or somebody has settled what they are.

    Raises:
        InvalidRequest: no image, an image that the set has not, or more than `most` items, which are called `noun`.
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


def faithfulness_job(
    ledger: Ledger, maps: Sequence[int], *, steps: int = DEFAULT_STEPS, queue: str = "batch"
) -> NewJob:
    """A request for the deletion and insertion curves of maps.

    Raises:
        InvalidRequest: no map, one that is not there, or maps of two image sets.
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
    # by number: the rows keep theirs when the set is renamed
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


def check_queue(queue: str) -> None:
    """Raise InvalidRequest where there is no such queue."""
    if queue not in QUEUES:
        raise InvalidRequest(
            f"queue: expected one of {', '.join(QUEUES)}, got {queue!r}{hint(queue, QUEUES)}"
        )


def parse_target(given: Any) -> str | int:
    """`prediction`, `label`, or an index of a class, typed or from JSON.

    Raises:
        InvalidRequest: it is none of these.
    """
    if given in ("prediction", "label"):
        return str(given)
    number = int(given) if isinstance(given, str) and given.isdecimal() and len(given) < 10 else given
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 10**9:
        return number
    raise InvalidRequest(
        f"target: expected prediction, label or the index of a class, got {given!r}"
        + hint(given, ("prediction", "label"))
    )


def parse_ids(text: str, *, most: int = MAX_ITEMS, name: str = "ids") -> list[int]:
    """Image ids in a text such as `0,1,4-7`, in the order in which they are named.

    Raises:
        InvalidRequest: it is not such a text, or names more than `most`.
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
    """`0,1,4-7` of image numbers, in their order: what `parse_ids` reads."""
    runs: list[list[int]] = []
    for image in ids:
        if runs and image == runs[-1][1] + 1:
            runs[-1][1] = image
        else:
            runs.append([image, image])
    return ",".join(f"{low}" if low == high else f"{low}-{high}" for low, high in runs)


def no_such_set(image_set: str, known: Iterable[str]) -> str:
    """A sentence for a name that no image set has."""
    names = list(known)
    have = choices(image_set, names, nouns="image sets are") if names else "there is no image set yet"
    return f"images: there is no image set {image_set!r}; {have}"


def image_keys(atlas: Atlas, image_set: str, ids: Sequence[int]) -> dict[int, str]:
    """The content of the images of these ids.

    Raises:
        InvalidRequest: there is no such image set, or it has no such image.
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


# Of results that have a file: their table, its number and its file.
_FILES: dict[str, tuple[Any, Any, Any]] = {
    "map": (SaliencyMap, SaliencyMap.map, SaliencyMap.file),
    "attack": (Attack, Attack.attack, Attack.file),
}


class JobSubmitter:
    """Where requests are handed in. One per process; safe to share between threads."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self._ledger = ledger
        self._atlas = Atlas(settings)
        self._results = ResultStore(settings)
        self._app = celery_app(settings, patient=False)

    def submit(self, new: NewJob) -> Submitted:
        """Make the job, or find the one that was asked for before, and tell the workers.

        Raises:
            LedgerError: the ledger cannot be used; nothing was asked for.
            InvalidRequest: the image set, or a result that it is about, was renamed or removed meanwhile.
        """
        changes = set_changes_of(self._ledger, new.image_set)
        self._check_images(new)
        try:
            job, queued = jobs.submit_job(self._ledger, new, set_changes=changes)
            if not queued:
                gone = self._items_without_files(job, new.restores)
                queued = bool(gone) and jobs.requeue_items(self._ledger, job, gone, set_changes=changes)
        except (SetChanged, NoSuchSubject) as error:
            raise InvalidRequest(str(error)) from error
        return Submitted(job, queued, queued and self._tell(job, new.queue))

    def _check_images(self, new: NewJob) -> None:
        """Whether the set still has the images that the request is about: it was made from an older atlas."""
        # what is about a result is held together with it, in the transaction that makes the job
        asked = [item for item in new.items if item.image_key and item.subject is None]
        if not asked:
            return
        wanted = {item.image_id: item.image_key for item in asked}
        found = image_keys(self._atlas, new.image_set, list(wanted))
        for image_id, key in wanted.items():
            if found.get(image_id) != key:
                raise InvalidRequest(
                    f"images: {new.image_set!r} has another image {image_id} by now: ask again"
                )

    def retry(self, job: int) -> Submitted:
        """Queue a job again that failed or was cancelled.

        Raises:
            NoSuchJob, IllegalMove: it cannot be tried again.
        """
        queue = jobs.retry(self._ledger, job)
        return Submitted(job, True, self._tell(job, queue))

    def cancel(self, job: int) -> str:
        """See `db.ledger.jobs.cancel`."""
        return jobs.cancel(self._ledger, job)

    def _tell(self, job: int, queue: str) -> bool:
        try:
            send(self._app, job, queue)
        except BrokerAway:
            return False
        jobs.mark_sent(self._ledger, job)
        return True

    def _items_without_files(self, job: int, restores: str) -> list[int]:
        """Items of a job that is done whose results were removed from the disk."""
        if not restores:
            return []
        table, number, file = _FILES[restores]
        with self._ledger.read() as connection:
            rows = connection.execute(
                select(JobItem.item, file)
                .join(table, number == JobItem.result)
                .join(Job, Job.job == JobItem.job)
                .where(JobItem.job == job, Job.state == "done", file.is_not(None))
            ).all()
        return [item for item, path in rows if not self._results.path(path).exists()]
