"""One pass of a network over stored images, on any device, interruptible between batches."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor

from db.stores.images import ImageStore
from precompute.index.checkpoint import Checkpoint, Progress
from precompute.index.loading import batches
from precompute.index.state import IndexState
from precompute.index.stopping import postponed_signals
from workers.jobs.stored_images import StoredImage
from workers.layers.taps import Tap, record_taps
from workers.models.vision import VisionModel

Dtype = Literal["float32", "bfloat16"]

# A batch of 16 holds about 0.2 GB of ConvNeXt-tiny's activations at a time; accelerators want more to do.
_BATCH_SIZES = {"cpu": 16, "cuda": 128, "mps": 32}


@dataclass(frozen=True)
class ForwardConfig:
    """How the network runs."""

    device: torch.device
    dtype: Dtype
    batch_size: int
    memory_format: torch.memory_format

    def precision(self) -> AbstractContextManager[Any]:
        """Within it the network computes in `dtype`.

        float32 is all of float32: cuDNN's own choice for convolutions is TF32, whose ten bits of mantissa
        change rankings as bfloat16 does, and algorithms whose sums change from call to call.
        """
        if self.dtype == "bfloat16":
            return torch.autocast(self.device.type, torch.bfloat16)
        if self.device.type == "cuda":
            flags = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
            return cast(AbstractContextManager[Any], flags)
        return nullcontext()

    def pixels(self, batch: Tensor) -> Tensor:
        """float32 N,C,H,W in [0, 1] of uint8 N,H,W,C; a quarter of the bytes travels to the device."""
        pixels = batch.to(self.device).permute(0, 3, 1, 2).to(torch.float32).div_(255)
        return pixels.contiguous(memory_format=self.memory_format)

    def hardware(self) -> str:
        """What the bits of a sum may depend on."""
        if self.device.type == "cuda":
            return f"{self.device.type} {torch.cuda.get_device_name(self.device)}"
        if self.device.type == "cpu":
            capability = torch.backends.cpu.get_cpu_capability()
            return f"cpu {capability} {torch.get_num_threads()} threads"
        return self.device.type

    def state_device(self) -> torch.device:
        """Where to accumulate: MPS has no float64."""
        return self.device if self.device.type == "cuda" else torch.device("cpu")


def manner(
    taps: Sequence[Tap], *, device: torch.device, dtype: Dtype, batch_size: int | None
) -> ForwardConfig:
    """How to run a network whose layers are `taps`.

    Channels last for networks of convolutions alone. Measured on CPUs: 1.4 times the speed on ResNet-50, 2.6
    times on MobileNetV2, nothing on ConvNeXt, whose linear layers order the memory already. A rule and not a
    trial, since the format may change last bits.
    """
    convolutional = all(tap.layout == "NCHW" for tap in taps)
    return ForwardConfig(
        device=device,
        dtype=dtype,
        batch_size=batch_size or _BATCH_SIZES.get(device.type, 16),
        memory_format=torch.channels_last if convolutional else torch.contiguous_format,
    )


def run_pass(
    model: VisionModel,
    store: ImageStore,
    images: Sequence[StoredImage],
    labels: Mapping[int, int | None],
    state: IndexState,
    done: Progress,
    *,
    manner: ForwardConfig,
    checkpoint: Checkpoint,
    seconds_between_checkpoints: float,
    tell: Callable[[int, int], None],
) -> Progress:
    """Enter all images from where `done` stands into `state`; gives where it stands then.

    Every forward pass has `batch_size` images, the last one by padding, so that a network's sums have the same
    order however often the pass was interrupted. SIGINT and SIGTERM wait for the end of the batch and its
    checkpoint. `labels` are the images' classes by image id. `tell` is called between batches, outside of torch's
    modes; what it raises comes after a checkpoint.
    """
    # torch's stubs do not know this form
    cast(Any, model.network).to(memory_format=manner.memory_format)
    saved = time.perf_counter()
    begun = saved - done.seconds
    loader = batches(store, images, model.preprocessing, batch_size=manner.batch_size, start=done.next_place)
    tell(done.next_place, len(images))
    with postponed_signals() as signals:
        for batch in loader:
            if batch.images:
                ids = [image.image_id for image in batch.images]
                state.begin(ids)
                with (
                    torch.inference_mode(),
                    manner.precision(),
                    record_taps(model, state.taps, state.take),
                ):
                    logits = model(manner.pixels(batch.pixels))
                    state.end(logits, [labels[image_id] for image_id in ids])
            done = Progress(
                next_place=batch.next_place,
                seconds=time.perf_counter() - begun,
                unreadable=(
                    *done.unreadable,
                    *((entry.image_id, entry.name, entry.reason) for entry in batch.unreadable),
                ),
            )
            try:
                tell(done.next_place, len(images))
            except BaseException:  # who is told may stop the pass
                checkpoint.save(done, state.tensors())
                raise
            is_last = done.next_place == len(images)
            if signals.noted or is_last or time.perf_counter() - saved >= seconds_between_checkpoints:
                checkpoint.save(done, state.tensors())
                saved = time.perf_counter()
            signals.obey()
    return done
