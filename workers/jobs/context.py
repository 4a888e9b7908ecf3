"""What items of jobs are computed with, and the errors that fail an item for good."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from db.atlas.image_sets import images_by_id
from db.atlas.store import Atlas, AtlasError
from db.ledger.engine import Ledger
from db.ledger.jobs import Record
from db.stores.decoding import UnreadableImage
from db.stores.images import ImageStore
from db.stores.results import ResultGone, ResultStore
from workers.attribution.maps import AttributionError
from workers.jobs.loaded_models import LoadedModels
from workers.jobs.set_labels import match_set
from workers.jobs.stored_images import StoredImage, read_image
from workers.models.label_matching import SetLabel
from workers.models.networks import ModelError
from workers.models.vision import VisionModel
from workers.queue.runner import ItemFailed
from workers.requests.keys import content_key
from workers.requests.parameters import InvalidRequest

# Errors of an item that another attempt would meet again.
PERMANENT_ERRORS = (ModelError, UnreadableImage, InvalidRequest, AttributionError, ResultGone, AtlasError)


@dataclass(frozen=True)
class JobContext:
    """What items are computed with."""

    atlas: Atlas
    images: ImageStore
    results: ResultStore
    ledger: Ledger
    models: LoadedModels

    def model(self, name: str, parameters: Mapping[str, Any]) -> VisionModel:
        """The model with that name in a request."""
        reference = next(model for model in parameters["models"] if model["name"] == name)
        return self.models.get(**reference)

    def image(self, image_set: str, item: Record) -> StoredImage:
        """The image of an item, checked to be the one that the request was about."""
        rows = self.atlas.fetch(images_by_id(image_set, [item["image_id"]]))
        if not rows or rows[0]["key"] != item["image_key"]:
            raise ItemFailed(
                f"{image_set} has another image {item['image_id']} than when the job was submitted: submit it again"
            )
        return StoredImage(**rows[0])

    def label_index(self, model: VisionModel, image_set: str, image: StoredImage) -> int | None:
        """The image's label as a class of the model, as `label_matching` finds it; None if it has none."""
        wanted = SetLabel(image.wnid, image.label)
        found = match_set(self.atlas, model.vocabulary, model=model.name, image_set=image_set)
        return next((one.match.index for one in found if one.match.label.key == wanted.key), None)

    def label_of(self, model: VisionModel, image_set: str, image: StoredImage) -> int:
        """The image's label as a class of the model.

        Raises:
            ItemFailed: it has no label, or one that is not a class of the model.
        """
        label = self.label_index(model, image_set, image)
        if label is None and not image.label:
            raise ItemFailed(f"image {image.image_id}: it has no label")
        if label is None:
            raise ItemFailed(
                f"image {image.image_id}: its label {image.label!r} matches no class of {model.name}, or "
                f"several: settle it with convscope models map-labels {model.name} --images {image_set}"
            )
        return label

    def picture(self, model: VisionModel, image: StoredImage) -> npt.NDArray[np.uint8]:
        """uint8 H,W,C: what the model sees, before normalization."""
        return read_image(self.images, image, model.preprocessing)

    def keep_input(self, model: VisionModel, image: StoredImage, picture: npt.NDArray[np.uint8]) -> str:
        """Store the model's input as a PNG; returns its path below the home."""
        return self.results.write_picture(
            "inputs", content_key(image.key, repr(model.preprocessing)), picture
        )

    def pixels(self, picture: npt.NDArray[np.uint8]) -> Tensor:
        """float32 1,C,H,W in [0, 1] on the models' device, from uint8 H,W,C."""
        pixels = torch.from_numpy(picture.copy()).permute(2, 0, 1).unsqueeze(0)
        return pixels.to(self.models.device).to(torch.float32).div(255)


def digest_of(model: str, parameters: Mapping[str, Any]) -> str:
    """The digest of the model with that name in a request."""
    return next(str(found["digest"]) for found in parameters["models"] if found["name"] == model)


def class_of(model: VisionModel, index: int) -> int:
    """`index`, if the model has this class.

    Raises:
        ItemFailed: it has not.
    """
    classes = len(model.vocabulary.classes)
    if index >= classes:
        raise ItemFailed(f"target: {model.name} has classes 0 to {classes - 1}, not {index}")
    return index
