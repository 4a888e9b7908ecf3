"""Building blocks of attribution methods: their inputs, the maps they return and the passes they share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from workers.attribution.gradients import Progress, chunk_size, logit_gradients
from workers.models.preprocessing import Preprocessing
from workers.requests.parameters import Value


class AttributionError(RuntimeError):
    """A map cannot be computed. The message is one sentence."""


class Differentiable(Protocol):
    """The part of a vision model that attribution needs."""

    network: nn.Module
    preprocessing: Preprocessing
    mean: Tensor
    std: Tensor

    def __call__(self, pixels: Tensor, /) -> Tensor:
        """Logits N,C of pixels N,3,H,W in [0, 1]."""


@dataclass(frozen=True)
class Attribution:
    """Maps of N images, on the CPU.

    Attributes:
        map: float32 N,H,W.
        signed: whether the sign means evidence for or against the class.
        standard_error: float32 N,H,W of the map's values, if the map is a mean over random samples.
        samples: noisy copies drawn for each image; 1 for methods without noise.
        agreement: how similarly two halves of the samples rank the pixels, see
            `workers.attribution.smoothgrad`.
        layer: the layer that the map is from, for a method that reads one layer.
    """

    map: Tensor
    signed: bool
    standard_error: Tensor | None
    samples: tuple[int, ...]
    agreement: tuple[float | None, ...]
    layer: str | None = None


@dataclass(frozen=True)
class Inputs:
    """Inputs of a method; see `workers.attribution.attribute.attribute`."""

    model: Differentiable
    pixels: Tensor
    targets: Tensor
    options: dict[str, Value]
    on_progress: Progress
    chunk: int | None

    @property
    def size(self) -> int:
        """Images per forward and backward pass."""
        return self.chunk or chunk_size(self.model, self.pixels)


def reduce_colours(values: Tensor, colours: Value) -> Tensor:
    """Reduce N,3,H,W to N,H,W: the largest absolute value, or the signed sum."""
    return values.abs().amax(1) if colours == "max_abs" else values.sum(1)


def as_maps(values: Tensor, colours: Value) -> Attribution:
    """Maps from N,3,H,W values of a method without noise; signed if the colors are summed."""
    images = len(values)
    reduced = reduce_colours(values, colours).to("cpu", torch.float32)
    return Attribution(reduced, colours == "sum", None, (1,) * images, (None,) * images)


def in_chunks(
    inputs: Inputs, compute: Callable[[Differentiable, Tensor, Tensor], Tensor] = logit_gradients
) -> Tensor:
    """Results of `compute` over the inputs, in passes of as many images as fit in memory."""
    found = []
    for first in range(0, len(inputs.pixels), inputs.size):
        part = slice(first, first + inputs.size)
        found.append(compute(inputs.model, inputs.pixels[part], inputs.targets[part]))
        inputs.on_progress(min(first + inputs.size, len(inputs.pixels)), len(inputs.pixels))
    return torch.cat(found)


def watched(model: Differentiable, on_progress: Progress, total: int) -> Callable[[Tensor], Tensor]:
    """`model`, wrapped to report progress: Captum offers no other way to monitor or stop a run."""
    done = 0

    def forward(batch: Tensor) -> Tensor:
        nonlocal done
        on_progress(min(done, total), total)
        done += len(batch)
        return model(batch)

    return forward
