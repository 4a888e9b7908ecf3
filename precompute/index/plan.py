"""Inputs of an index, determined before its pass: images, labels, layers, device, checkpoint settings."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import metadata
from typing import get_args

import torch

from db.atlas.runs import set_images
from db.atlas.store import Atlas
from db.queries.inventory import image_sets
from db.queries.labels import settled_labels
from db.suggestions import hint
from precompute.index.checkpoint import Checkpoint
from precompute.index.forward import Dtype, ForwardConfig, manner
from precompute.index.publish import check_publishable
from workers.jobs.stored_images import StoredImage
from workers.layers.receptive_field.fields import ReceptiveField, receptive_fields
from workers.layers.taps import LeftOut, Tap, by_reason, find_left_out, find_taps
from workers.models.devices import find_device
from workers.models.label_matching import LabelMatch, SetLabel, match_labels
from workers.models.vision import VisionModel


class CannotIndex(ValueError):
    """The requested index cannot be built; the message is one sentence for the user."""


@dataclass(frozen=True)
class Plan:
    """Inputs of a run.

    Attributes:
        model: on the device of `forward`.
        weights: SHA-256 of its weights; digest: also of its preprocessing and classes.
        images: of the set, in the order of the pass.
        matches: the model's class for each label of the set.
        taps: all layers of the model; chosen: those to index; left_out: modules that cannot be indexed.
        fields: theoretical receptive fields by layer.
        forward: execution settings of the network.
    """

    model: VisionModel
    weights: str
    digest: str
    image_set: str
    images: Sequence[StoredImage]
    matches: Mapping[SetLabel, LabelMatch]
    taps: Sequence[Tap]
    chosen: tuple[Tap, ...]
    left_out: Sequence[LeftOut]
    fields: Mapping[str, ReceptiveField]
    k: int
    forward: ForwardConfig

    @property
    def channels(self) -> int:
        """Number of channels to index."""
        return sum(tap.channels for tap in self.chosen)

    def class_of(self, image: StoredImage) -> int | None:
        """The image's label as a class of the model; None if it has none."""
        return self.matches[SetLabel(image.wnid, image.label)].index

    def checkpoint(self, atlas: Atlas) -> Checkpoint:
        """The checkpoint of this run: a later attempt resumes from it only if all of these values match."""
        return Checkpoint(
            atlas.home,
            {
                "model": self.model.name,
                "image set": self.image_set,
                "weights": self.weights,
                "preprocessing": repr(self.model.preprocessing),
                "classes": _digest(self.model.vocabulary.classes)[:8],
                "images": _digest((image.image_id, image.key) for image in self.images),
                "labels": _digest((image.wnid, image.label, self.class_of(image)) for image in self.images),
                "layers": f"{len(self.chosen)} of {len(self.taps)}, {_digest(self.chosen)[:8]}",
                "k": self.k,
                "dtype": self.forward.dtype,
                "batch size": self.forward.batch_size,
                "device": self.forward.hardware(),
                "torch": torch.__version__,
                "version": metadata.version("convscope"),
            },
        )


def plan_run(
    atlas: Atlas,
    model: VisionModel,
    image_set: str,
    *,
    k: int,
    layers: str,
    dtype: Dtype,
    batch_size: int | None,
    device: str,
    replace: bool,
    tell: Callable[[int, int | None, str], None],
    say: Callable[[str], None],
) -> Plan:
    """Determine the inputs of `run_index`; moves the model to the device. Arguments and errors as there."""
    if dtype not in get_args(Dtype):
        raise CannotIndex(f"dtype: expected one of {', '.join(get_args(Dtype))}, got {dtype!r}")
    images = _images(atlas, image_set)
    tell(0, len(images), "loading")
    weights = model.weights_sha256()
    digest = model.digest(weights)
    check_publishable(atlas.fetch, model=model.name, digest=digest, image_set=image_set, replace=replace)
    try:
        place = find_device(device)
    except ValueError as error:
        raise CannotIndex(str(error)) from error
    model.to(place)
    taps = find_taps(model)
    chosen = _matching(taps, layers)
    left_out = find_left_out(model)
    if left_out:
        say(
            f"leaving out {len(left_out)} of {len(left_out) + len(taps)} layers: "
            + "; ".join(f"{len(modules)} x {reason}" for reason, modules in by_reason(left_out).items())
        )
    return Plan(
        model=model,
        weights=weights,
        digest=digest,
        image_set=image_set,
        images=images,
        matches=_match_labels(atlas, model, image_set, images),
        taps=taps,
        chosen=chosen,
        left_out=left_out,
        fields=receptive_fields(model, taps),
        k=k,
        forward=manner(taps, device=place, dtype=dtype, batch_size=batch_size),
    )


def _images(atlas: Atlas, image_set: str) -> list[StoredImage]:
    images = [StoredImage(**row) for row in atlas.fetch(set_images(image_set))]
    if not images:
        names = [row["image_set"] for row in atlas.fetch(image_sets())]
        raise CannotIndex(
            f"expected an image set among {', '.join(names) or 'none: import one first'}, got {image_set!r}"
            f"{hint(image_set, names)}"
        )
    return images


def _match_labels(
    atlas: Atlas, model: VisionModel, image_set: str, images: Sequence[StoredImage]
) -> dict[SetLabel, LabelMatch]:
    settled = settled_labels(atlas, model.name, image_set)
    last = len(model.vocabulary.classes) - 1
    for label, index in settled.items():
        if index is not None and index > last:
            raise CannotIndex(
                f"label {label!r} of {image_set!r} was settled as class {index}, {model.name} has classes 0 to {last}: "
                f"convscope models map-labels {model.name} --images {image_set} --unset {label!r}"
            )
    return match_labels(model.vocabulary, (SetLabel(image.wnid, image.label) for image in images), settled)


def _matching(taps: Sequence[Tap], patterns: str) -> tuple[Tap, ...]:
    wanted = [pattern.strip() for pattern in patterns.split(",") if pattern.strip()]
    chosen = tuple(tap for tap in taps if any(fnmatchcase(tap.layer, pattern) for pattern in wanted))
    if not taps:
        raise CannotIndex("this model has no layer with separate channels and positions")
    if not chosen:
        examples = [taps[place].layer for place in sorted({0, len(taps) // 2, len(taps) - 1})]
        raise CannotIndex(
            f"layers: expected a pattern that matches some of {len(taps)} layers such as {', '.join(examples)}, "
            f"got {patterns!r}"
        )
    return chosen


def _digest(facts: Iterable[object]) -> str:
    whole = hashlib.sha256()
    for fact in facts:
        whole.update(f"{fact!r}\n".encode())
    return whole.hexdigest()
