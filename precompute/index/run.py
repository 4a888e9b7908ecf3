"""The index: one forward pass over an image set that leaves, for each channel, the images that drive it most."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from importlib import metadata
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from db.atlas.runs import effective_sizes_of, set_images
from db.atlas.store import Atlas
from db.queries.inventory import image_sets
from db.queries.labels import settled_labels
from db.stores.images import ImageStore, UnreadableImage
from db.suggestions import hint
from precompute.index.checkpoint import Checkpoint, Progress
from precompute.index.forward import Dtype, manner, run_pass
from precompute.index.loading import Unreadable
from precompute.index.publish import (
    AlreadyIndexed,
    AnotherModel,
    ImagesChanged,
    ModelRows,
    Pass,
    check_publishable,
    publish_run,
)
from precompute.index.state import IndexState
from workers.jobs.stored_images import StoredImage, read_image
from workers.layers.receptive_field.fields import effective_sizes, receptive_fields
from workers.layers.taps import Tap, by_reason, find_left_out, find_taps, tap_edges
from workers.models.devices import find_device
from workers.models.label_matching import LabelMatch, SetLabel, match_labels
from workers.models.vision import VisionModel

__all__ = [
    "AlreadyIndexed",
    "AnotherModel",
    "CannotIndex",
    "ImagesChanged",
    "IndexReport",
    "Unreadable",
    "run_index",
]

Report = Callable[[int, int | None, str], None]

# Images whose gradients tell the effective fields (Luo et al. 2016 average over as many).
_FIELD_IMAGES = 16
_SECONDS_BETWEEN_CHECKPOINTS = 30.0
# Images x channels up to which every response is kept: 200 MB, the probe pictures with two networks' worth to spare.
_MOST_RESPONSES = 50_000_000


class CannotIndex(ValueError):
    """The index that was asked for cannot be made; the message is one sentence for the person who asked."""


@dataclass(frozen=True)
class IndexReport:
    """A published run.

    Attributes:
        run: its number.
        images: images that were read; unreadable: those that could not be, in the set's order.
        layers, channels: how many were indexed.
        resumed_at: images that an earlier try had done, 0 where there was none.
        seconds: time of the pass over the images, earlier tries included.
        images_per_second: over that time.
        unpredicted: images that were read and have no prediction, since their logits are not finite.
        nonfinite_channels: channels with an activation that is not finite.
    """

    run: int
    images: int
    unreadable: tuple[Unreadable, ...]
    layers: int
    channels: int
    resumed_at: int
    seconds: float
    images_per_second: float
    unpredicted: int
    nonfinite_channels: int


def run_index(
    atlas: Atlas,
    store: ImageStore,
    *,
    model: VisionModel,
    image_set: str,
    k: int = 20,
    layers: str = "*",
    dtype: Dtype = "float32",
    batch_size: int | None = None,
    device: str = "auto",
    resume: bool = False,
    replace: bool = False,
    progress: Report | None = None,
    say: Callable[[str], None] | None = None,
    seconds_between_checkpoints: float = _SECONDS_BETWEEN_CHECKPOINTS,
) -> IndexReport:
    """Index `image_set` with `model` and publish the run.

    The same images, model, batch size and machine give the same bits, interrupted or not. Another batch size
    or device may change the last bits of the network's own sums (see the README), nothing else.
    SIGINT, SIGTERM and SIGKILL leave a checkpoint below `<home>/builds`.

    Args:
        model: is moved to the device, and its convolutions to the memory format that suits it.
        k: images kept per channel.
        layers: names to match as the shell does, separated by commas: "stage1.*,*.dwconv".
        dtype: "bfloat16" runs the network under autocast: a preview, since it changes rankings.
        batch_size: images in one forward pass; default by device.
        device: "auto" takes CUDA, then MPS, then the CPU.
        resume: go on from the checkpoint of a try with the same images, model and options, if there is one.
        replace: replace the run of this model and set that is there.
        progress: is told (done, total, phase); phases are "loading", "indexing", "receptive fields" and
            "publishing".
        say: is told in a sentence, before the pass, what becomes of an earlier try's checkpoint.

    Raises:
        CannotIndex: there is no such image set, no layer matches, or no image can be read.
        AlreadyIndexed: there is a run already, and `replace` is False.
        AnotherModel: a model of this name with other weights, preprocessing or classes has runs over other sets.
        ImagesChanged: the set was removed or changed meanwhile.
        precompute.index.checkpoint.BuildBusy: another process makes the same index.
    """
    started = datetime.now(UTC).replace(tzinfo=None)
    tell = progress or (lambda _done, _total, _phase: None)
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
    if say is not None and left_out:
        say(
            f"leaves out {len(left_out)} of {len(left_out) + len(taps)} layers: "
            + "; ".join(f"{len(modules)} x {reason}" for reason, modules in by_reason(left_out).items())
        )
    fields = receptive_fields(model, taps)
    how = manner(taps, device=place, dtype=dtype, batch_size=batch_size)
    matches = _match_labels(atlas, model, image_set, images)
    checkpoint = Checkpoint(
        atlas.home,
        {
            "model": model.name,
            "image set": image_set,
            "weights": weights,
            "preprocessing": repr(model.preprocessing),
            "classes": _digest(model.vocabulary.classes)[:8],
            "images": _digest((image.image_id, image.key) for image in images),
            "labels": _digest(
                (image.wnid, image.label, matches[SetLabel(image.wnid, image.label)].index)
                for image in images
            ),
            "layers": f"{len(chosen)} of {len(taps)}, {_digest(chosen)[:8]}",
            "k": k,
            "dtype": dtype,
            "batch size": how.batch_size,
            "device": how.hardware(),
            "torch": torch.__version__,
            "version": metadata.version("convscope"),
        },
    )
    with checkpoint.held():
        state = IndexState(
            chosen,
            k=k,
            batch_size=how.batch_size,
            device=how.state_device(),
            keep_responses=len(images) * sum(tap.channels for tap in chosen) <= _MOST_RESPONSES,
        )
        done = Progress(0, 0.0, ())
        if resume:
            stored = checkpoint.load()
            if stored is not None:
                done, tensors = stored
                state.restore(tensors)
            remark = _resumption(checkpoint, done, len(images))
            if say is not None and remark is not None:
                say(remark)
        resumed_at = done.next_place
        done = run_pass(
            model,
            store,
            images,
            {image.image_id: matches[SetLabel(image.wnid, image.label)].index for image in images},
            state,
            done,
            manner=how,
            checkpoint=checkpoint,
            seconds_between_checkpoints=seconds_between_checkpoints,
            tell=lambda count, total: tell(count, total, "indexing"),
        )
        unreadable = tuple(Unreadable(*facts) for facts in done.unreadable)
        if len(unreadable) == len(images):
            checkpoint.remove()  # the images may come back, with the drive they are on
            raise CannotIndex(f"no image of {image_set!r} can be read any more; the first is {unreadable[0]}")
        tell(0, None, "receptive fields")
        # They are the layers' own, so a run over another set has measured them already.
        measured = atlas.fetch(effective_sizes_of(model.name, digest))
        sizes = {row["layer"]: row["erf_size"] for row in measured}
        if sizes.keys() != {tap.layer for tap in taps}:
            gone = {entry.image_id for entry in unreadable}
            sample = _sample(store, [image for image in images if image.image_id not in gone], model)
            sizes = effective_sizes(
                model,
                taps,
                how.pixels(sample),
                tell=lambda count, total: tell(count, total, "receptive fields"),
            )
        tell(0, None, "publishing")
        run = publish_run(
            atlas,
            described=ModelRows(
                model, weights, digest, taps, tap_edges(model, taps), fields, sizes, left_out
            ),
            made=Pass(
                image_set=image_set,
                listed=images,
                matches=matches,
                k=k,
                dtype=dtype,
                device=str(place),
                images=len(images) - len(unreadable),
                unreadable=len(unreadable),
                seconds=done.seconds,
                started=started,
                finished=datetime.now(UTC).replace(tzinfo=None),
            ),
            state=state,
            replace=replace,
        )
        checkpoint.remove()
    read = len(images) - len(unreadable)
    return IndexReport(
        run=run,
        images=read,
        unreadable=unreadable,
        layers=len(chosen),
        channels=sum(tap.channels for tap in chosen),
        resumed_at=resumed_at,
        seconds=done.seconds,
        images_per_second=read / done.seconds,
        unpredicted=read - len(np.unique(state.predictions().image_ids)),
        nonfinite_channels=int(np.count_nonzero(state.statistics.rows().nonfinite)),
    )


def _resumption(checkpoint: Checkpoint, done: Progress, images: int) -> str | None:
    if done.next_place:
        return f"goes on after {done.next_place:,} of {images:,} images"
    why = checkpoint.why_not_used()
    return None if why is None else f"starts with the first image: {why}"


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
        raise CannotIndex("this model has no layer that keeps its channels and positions apart")
    if not chosen:
        examples = [taps[place].layer for place in sorted({0, len(taps) // 2, len(taps) - 1})]
        raise CannotIndex(
            f"layers: expected a pattern that matches some of {len(taps)} layers such as {', '.join(examples)}, "
            f"got {patterns!r}"
        )
    return chosen


def _sample(store: ImageStore, images: Sequence[StoredImage], model: VisionModel) -> Tensor:
    """uint8 N,H,W,C of up to `_FIELD_IMAGES` images, spread evenly over the set."""
    count = min(_FIELD_IMAGES, len(images))
    read = []
    for number in range(count):
        try:
            picture = read_image(store, images[number * len(images) // count], model.preprocessing)
        except UnreadableImage:
            continue
        read.append(torch.from_numpy(picture.copy()))
    if not read:
        raise CannotIndex("the images went away while they were indexed; the checkpoint is kept")
    return torch.stack(read)


def _digest(facts: Iterable[object]) -> str:
    whole = hashlib.sha256()
    for fact in facts:
        whole.update(f"{fact!r}\n".encode())
    return whole.hexdigest()
