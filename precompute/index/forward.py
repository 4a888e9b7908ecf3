"""One forward pass of a network over all stored images, on any device, interruptible between batches."""

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

# A batch of 16 keeps about 0.2 GB of ConvNeXt-tiny's activations at a time; accelerators need more work per
# batch.
_BATCH_SIZES = {"cpu": 16, "cuda": 128, "mps": 32}


@dataclass(frozen=True)
class ForwardConfig:
    """Execution settings of the network."""

    device: torch.device
    dtype: Dtype
    batch_size: int
    memory_format: torch.memory_format

    def precision(self) -> AbstractContextManager[Any]:
        """A context in which the network computes in `dtype`.

        For float32 on CUDA it disables cuDNN's defaults for convolutions: TF32, whose 10-bit mantissa changes
        rankings as bfloat16 does, and algorithms whose sums vary between calls.
        """
        if self.dtype == "bfloat16":
            return torch.autocast(self.device.type, torch.bfloat16)
        if self.device.type == "cuda":
            flags = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
            return cast(AbstractContextManager[Any], flags)
        return nullcontext()

    def pixels(self, batch: Tensor) -> Tensor:
        """float32 N,C,H,W in [0, 1] from uint8 N,H,W,C; transfers a quarter of the bytes to the device."""
        pixels = batch.to(self.device).permute(0, 3, 1, 2).to(torch.float32).div_(255)
        return pixels.contiguous(memory_format=self.memory_format)

    def hardware(self) -> str:
        """Hardware properties that may affect the last bits of a sum."""
        if self.device.type == "cuda":
            return f"{self.device.type} {torch.cuda.get_device_name(self.device)}"
        if self.device.type == "cpu":
            capability = torch.backends.cpu.get_cpu_capability()
            return f"cpu {capability} {torch.get_num_threads()} threads"
        return self.device.type

    def state_device(self) -> torch.device:
        """The device to accumulate on: MPS has no float64."""
        return self.device if self.device.type == "cuda" else torch.device("cpu")


def manner(
    taps: Sequence[Tap], *, device: torch.device, dtype: Dtype, batch_size: int | None
) -> ForwardConfig:
    """Execution settings for a network whose layers are `taps`.

    Purely convolutional networks use channels last. Measured on CPUs: 1.4 times the speed on ResNet-50, 2.6
    times on MobileNetV2, no gain on ConvNeXt, whose linear layers already use that memory layout. This is a
    fixed rule rather than a benchmark at run time, because the format may change the last bits of results.
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
    """Process all images from `done` on into `state`; returns the progress at the end.

    Every forward pass has `batch_size` images (the last one is padded), so a network's sums have the same
    order however often the pass is interrupted. SIGINT and SIGTERM take effect after the current batch and
    its checkpoint. `labels` are the images' classes by image id. `tell` is called between batches, outside of
    torch's modes; if it raises, a checkpoint is written first.
    """
    # torch's stubs lack this overload
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
            except BaseException:  # the callback may stop the pass
                checkpoint.save(done, state.tensors())
                raise
            is_last = done.next_place == len(images)
            if signals.noted or is_last or time.perf_counter() - saved >= seconds_between_checkpoints:
                checkpoint.save(done, state.tensors())
                saved = time.perf_counter()
            signals.obey()
    return done
