"""Build an index: one forward pass over an image set that finds, for each channel, its top-activating images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import torch
from torch import Tensor

from db.atlas.runs import effective_sizes_of
from db.atlas.store import Atlas
from db.stores.decoding import UnreadableImage
from db.stores.images import ImageStore
from precompute.index.checkpoint import Checkpoint, Progress
from precompute.index.forward import Dtype, run_pass
from precompute.index.loading import Unreadable
from precompute.index.plan import CannotIndex, Plan, plan_run
from precompute.index.publish import (
    AlreadyIndexed,
    AnotherModel,
    ImagesChanged,
    ModelRows,
    RunMetadata,
    publish_run,
)
from precompute.index.state import IndexState
from workers.jobs.stored_images import StoredImage, read_image
from workers.layers.receptive_field.fields import effective_sizes
from workers.layers.taps import tap_edges
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

# Images whose gradients determine the effective receptive fields (Luo et al. 2016 average over as many).
_FIELD_IMAGES = 16
_SECONDS_BETWEEN_CHECKPOINTS = 30.0
# Maximum images x channels for keeping every response: 200 MB, ample for the probe images with two networks.
_MAX_RESPONSES = 50_000_000


@dataclass(frozen=True)
class IndexReport:
    """A published run.

    Attributes:
        run: its number.
        images: number of images read; unreadable: those that could not be, in the set's order.
        layers, channels: numbers of indexed ones.
        resumed_at: number of images done by an earlier attempt, 0 without one.
        seconds: duration of the pass over the images, earlier attempts included.
        images_per_second: over that time.
        unpredicted: number of images that were read but have no prediction because their logits are not
            finite.
        nonfinite_channels: number of channels with a non-finite activation.
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

    The same images, model, batch size and machine give bit-identical results, interrupted or not. Another
    batch size or device may change the last bits of the network's own sums (see docs/methods.md), and nothing
    else. SIGINT, SIGTERM and SIGKILL leave a checkpoint below `<home>/builds`.

    Args:
        model: is moved to the device, and its convolutions to the most suitable memory format.
        k: images kept per channel.
        layers: layer names as shell patterns, separated by commas: "stage1.*,*.dwconv".
        dtype: "bfloat16" runs the network under autocast: only a preview, since it changes rankings.
        batch_size: images per forward pass; the default depends on the device.
        device: "auto" selects CUDA, then MPS, then the CPU.
        resume: resume from the checkpoint of an attempt with the same images, model and options, if there is
            one.
        replace: replace an existing run of this model and set.
        progress: called with (done, total, phase); phases are "loading", "indexing", "receptive fields" and
            "publishing".
        say: called before the pass with a sentence on whether an earlier attempt's checkpoint is used.

    Raises:
        CannotIndex: the image set does not exist, no layer matches, or no image can be read.
        AlreadyIndexed: a run already exists, and `replace` is False.
        AnotherModel: a model of this name with other weights, preprocessing or classes has runs over other
            sets.
        ImagesChanged: the set was removed or changed meanwhile.
        precompute.index.checkpoint.BuildBusy: another process builds the same index.
    """
    started = datetime.now(UTC).replace(tzinfo=None)
    tell = progress or (lambda _done, _total, _phase: None)
    comment = say or (lambda _sentence: None)
    plan = plan_run(
        atlas,
        model,
        image_set,
        k=k,
        layers=layers,
        dtype=dtype,
        batch_size=batch_size,
        device=device,
        replace=replace,
        tell=tell,
        say=comment,
    )
    checkpoint = plan.checkpoint(atlas)
    with checkpoint.held():
        state = _new_state(plan)
        before = _resume(checkpoint, state, plan, comment) if resume else Progress(0, 0.0, ())
        done = run_pass(
            model,
            store,
            plan.images,
            {image.image_id: plan.class_of(image) for image in plan.images},
            state,
            before,
            manner=plan.forward,
            checkpoint=checkpoint,
            seconds_between_checkpoints=seconds_between_checkpoints,
            tell=lambda count, total: tell(count, total, "indexing"),
        )
        unreadable = tuple(Unreadable(*facts) for facts in done.unreadable)
        if len(unreadable) == len(plan.images):
            checkpoint.remove()  # the images may come back, when their drive does
            raise CannotIndex(f"no image of {image_set!r} can still be read; the first is {unreadable[0]}")
        tell(0, None, "receptive fields")
        sizes = _effective_sizes(atlas, store, plan, unreadable, tell)
        tell(0, None, "publishing")
        run = publish_run(
            atlas,
            described=_model_rows(plan, sizes),
            made=_pass(plan, done, started),
            state=state,
            replace=replace,
        )
        checkpoint.remove()
    read = len(plan.images) - len(unreadable)
    return IndexReport(
        run=run,
        images=read,
        unreadable=unreadable,
        layers=len(plan.chosen),
        channels=plan.channels,
        resumed_at=before.next_place,
        seconds=done.seconds,
        images_per_second=read / done.seconds,
        unpredicted=read - len(np.unique(state.predictions().image_ids)),
        nonfinite_channels=int(np.count_nonzero(state.statistics.rows().nonfinite)),
    )


def _new_state(plan: Plan) -> IndexState:
    return IndexState(
        plan.chosen,
        k=plan.k,
        batch_size=plan.forward.batch_size,
        device=plan.forward.state_device(),
        keep_responses=len(plan.images) * plan.channels <= _MAX_RESPONSES,
    )


def _resume(checkpoint: Checkpoint, state: IndexState, plan: Plan, say: Callable[[str], None]) -> Progress:
    """Restore the state from the checkpoint if it belongs to the same run; returns the progress of that run."""
    done = Progress(0, 0.0, ())
    stored = checkpoint.load()
    if stored is not None:
        done, tensors = stored
        state.restore(tensors)
    remark = _resumption(checkpoint, done, len(plan.images))
    if remark is not None:
        say(remark)
    return done


def _effective_sizes(
    atlas: Atlas, store: ImageStore, plan: Plan, unreadable: Sequence[Unreadable], tell: Report
) -> Mapping[str, int]:
    """Sizes of the effective receptive fields by layer, reused from a run over another set if there is one."""
    measured = atlas.fetch(effective_sizes_of(plan.model.name, plan.digest))
    sizes: dict[str, int] = {row["layer"]: row["erf_size"] for row in measured}
    if sizes.keys() == {tap.layer for tap in plan.taps}:
        return sizes
    gone = {entry.image_id for entry in unreadable}
    sample = _sample(store, [image for image in plan.images if image.image_id not in gone], plan.model)
    return effective_sizes(
        plan.model,
        plan.taps,
        plan.forward.pixels(sample),
        tell=lambda count, total: tell(count, total, "receptive fields"),
    )


def _model_rows(plan: Plan, sizes: Mapping[str, int]) -> ModelRows:
    return ModelRows(
        plan.model,
        plan.weights,
        plan.digest,
        plan.taps,
        tap_edges(plan.model, plan.taps),
        plan.fields,
        sizes,
        plan.left_out,
    )


def _pass(plan: Plan, done: Progress, started: datetime) -> RunMetadata:
    return RunMetadata(
        image_set=plan.image_set,
        listed=plan.images,
        matches=plan.matches,
        k=plan.k,
        dtype=plan.forward.dtype,
        device=str(plan.forward.device),
        images=len(plan.images) - len(done.unreadable),
        unreadable=len(done.unreadable),
        seconds=done.seconds,
        started=started,
        finished=datetime.now(UTC).replace(tzinfo=None),
    )


def _resumption(checkpoint: Checkpoint, done: Progress, images: int) -> str | None:
    if done.next_place:
        return f"resuming after {done.next_place:,} of {images:,} images"
    why = checkpoint.why_not_used()
    return None if why is None else f"starting with the first image: {why}"


def _sample(store: ImageStore, images: Sequence[StoredImage], model: VisionModel) -> Tensor:
    """uint8 N,H,W,C of up to `_FIELD_IMAGES` images, evenly spaced over the set."""
    count = min(_FIELD_IMAGES, len(images))
    read = []
    for number in range(count):
        try:
            picture = read_image(store, images[number * len(images) // count], model.preprocessing)
        except UnreadableImage:
            continue
        read.append(torch.from_numpy(picture.copy()))
    if not read:
        raise CannotIndex("the images disappeared during indexing; the checkpoint is kept")
    return torch.stack(read)
