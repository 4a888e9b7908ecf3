"""Jobs of kind `saliency` and `faithfulness`: one map, or the curves of one map, per item."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from sqlalchemy import Connection, delete, insert, select, update

from db.ledger.engine import now
from db.ledger.jobs import Record
from db.ledger.tables import MapScore, SaliencyMap
from workers.attribution.attribute import attribute
from workers.attribution.faithfulness import faithfulness
from workers.jobs.context import PERMANENT_ERRORS, JobContext, class_of, digest_of
from workers.jobs.stored_images import StoredImage
from workers.models.probabilities import class_probabilities
from workers.models.vision import VisionModel
from workers.queue.runner import Computed, ItemFailed
from workers.requests.keys import key_in_set
from workers.requests.saliency import map_question

FOLDER = "saliency"
_FILES = ("file", "input_file")


class SaliencyJobs:
    """Computes maps."""

    def __init__(self, context: JobContext) -> None:
        self._context = context

    def compute(
        self, item: Record, parameters: Mapping[str, Any], job: int, on_progress: Callable[[int, int], None]
    ) -> Computed:
        """See `workers.queue.runner.Kind`."""
        try:
            return self._compute(item, parameters, job, on_progress)
        except PERMANENT_ERRORS as error:
            raise ItemFailed(" ".join(str(error).split())) from error

    def _compute(
        self, item: Record, parameters: Mapping[str, Any], job: int, on_progress: Callable[[int, int], None]
    ) -> Computed:
        begun = time.monotonic()
        context = self._context
        model = context.model(item["model"], parameters)
        image = context.image(parameters["image_set"], item)
        picture = context.picture(model, image)
        pixels = context.pixels(picture)
        with torch.inference_mode():
            probabilities = class_probabilities(model(pixels))[0]
        predicted = int(probabilities.argmax())
        target = self._target_class(parameters, model, image, predicted)
        method, options = parameters["method"], parameters["parameters"]
        digest = digest_of(item["model"], parameters)
        question = map_question(digest, image.key, method, options, target)
        own: Record = {
            "key": key_in_set(question, parameters["image_set"], image.image_id),
            "job": job,
            "image_set": parameters["image_set"],
            "image_id": image.image_id,
        }
        known = self._known(question, own["key"])
        if known is not None:
            # another set's map of the same image also gets a row in this set
            copied = {name: value for name, value in known.items() if name != "map"} | own
            return Computed(lambda connection: _stored(connection, copied))
        made = attribute(
            model,
            pixels,
            torch.tensor([target], device=pixels.device),
            method,
            options,
            on_progress=on_progress,
        )
        heat = made.map[0].numpy()
        error = None if made.standard_error is None else made.standard_error[0].numpy()
        file = context.results.write_array(FOLDER, question, heat)
        error_file = None if error is None else context.results.write_array(FOLDER, f"{question}-se", error)
        classes = model.vocabulary.classes
        row = own | {
            "question": question,
            "model": model.name,
            "model_digest": digest,
            "image_key": image.key,
            "method": method,
            "target_class": target,
            "target_name": classes[target].name,
            "target_probability": float(probabilities[target]),
            "predicted_class": predicted,
            "predicted_name": classes[predicted].name,
            "predicted_probability": float(probabilities[predicted]),
            "samples": made.samples[0],
            "noise_level": options.get("noise_level"),
            "seed": options.get("seed"),
            "dtype": options.get("dtype", "float32"),
            # the layer that was used, even if the request left the choice open
            "parameters": options if made.layer is None else options | {"layer": made.layer},
            "agreement": made.agreement[0],
            "standard_error": None if error is None else float(error.mean(dtype="float64")),
            "signed": made.signed,
            "lowest": float(heat.min()),
            "highest": float(heat.max()),
            "height": heat.shape[0],
            "width": heat.shape[1],
            "file": file,
            "standard_error_file": error_file,
            "input_file": context.keep_input(model, image, picture),
            "device": str(context.models.device),
            "seconds": time.monotonic() - begun,
            "created": now(),
        }
        return Computed(lambda connection: _stored(connection, row))

    def _known(self, question: str, key: str) -> Record | None:
        """A row with that question whose files exist, preferably the one with that key."""
        with self._context.ledger.read() as connection:
            rows = connection.execute(
                select(SaliencyMap.__table__)
                .where(SaliencyMap.question == question)
                .order_by(SaliencyMap.key != key, SaliencyMap.map)
            ).mappings()
            found = [dict(row) for row in rows]
        there = self._context.results.path
        return next((row for row in found if all(there(row[file]).exists() for file in _FILES)), None)

    def _target_class(
        self, parameters: Mapping[str, Any], model: VisionModel, image: StoredImage, predicted: int
    ) -> int:
        target = parameters["target"]
        if target == "prediction":
            return predicted
        if target == "label":
            return self._context.label_of(model, parameters["image_set"], image)
        return class_of(model, int(target))


def _stored(connection: Connection, row: Record) -> int:
    """The number of the map with the row's key, inserted if there is none."""
    same = SaliencyMap.key == row["key"]
    found = connection.execute(select(SaliencyMap.map).where(same)).scalar()
    if found is None:
        return connection.execute(insert(SaliencyMap).values(row).returning(SaliencyMap.map)).scalar_one()
    # another job's, or this one's with its files restored
    files = {name: row[name] for name in ("file", "standard_error_file", "input_file")}
    connection.execute(update(SaliencyMap).where(same).values(files))
    return int(found)


class FaithfulnessJobs:
    """Computes the deletion and insertion curves of maps."""

    def __init__(self, context: JobContext) -> None:
        self._context = context

    def compute(
        self, item: Record, parameters: Mapping[str, Any], job: int, on_progress: Callable[[int, int], None]
    ) -> Computed:
        """See `workers.queue.runner.Kind`."""
        begun = time.monotonic()
        context = self._context
        number = item["subject"]
        with context.ledger.read() as connection:
            row = connection.execute(
                select(SaliencyMap.__table__).where(SaliencyMap.map == number)
            ).mappings()
            found = row.one()
        try:
            model = context.model(item["model"], parameters)
            image = context.image(found["image_set"], item)
            curves = faithfulness(
                model,
                context.pixels(context.picture(model, image)),
                found["target_class"],
                torch.from_numpy(context.results.read_array(found["file"])),
                steps=parameters["steps"],
                on_progress=on_progress,
            )
        except PERMANENT_ERRORS as error:
            raise ItemFailed(" ".join(str(error).split())) from error
        values = {
            "job": job,
            "steps": parameters["steps"],
            "deletion_auc": curves.deletion_auc,
            "insertion_auc": curves.insertion_auc,
            "deletion": list(curves.deletion),
            "insertion": list(curves.insertion),
            "seconds": time.monotonic() - begun,
            "created": now(),
        }

        def store(connection: Connection) -> int:
            same = (MapScore.map == number, MapScore.steps == parameters["steps"])
            connection.execute(delete(MapScore).where(*same))
            connection.execute(insert(MapScore).values(map=number, **values))
            return int(number)

        return Computed(store)
