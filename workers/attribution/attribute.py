"""Attribution: which pixels the logit of a class depends on.

All maps are about pixels in [0, 1] and about logits: the gradient of class c is d logit_c / d pixel. A method's
three colours become one value a pixel (`colours`): their largest absolute value, or their signed sum. Parameters
and references of the methods are in `workers.requests.methods`; SmoothGrad and Grad-CAM have modules of their own.

Integrated Gradients and occlusion are Captum's. Guided Backprop is not (`workers.attribution.guided`): Captum's changes
`nn.ReLU` alone, and gives the plain gradient for networks of ReLU6, GELU, SiLU or `F.relu` without saying so.

Nothing of the caller's is changed: no tensor, no parameter, no hook stays, no global random state.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from workers.attribution.baselines import baseline_pixels
from workers.attribution.gradcam import choose_map, gradcam
from workers.attribution.gradients import Progress, chunk_size, logit_gradients, precision
from workers.attribution.guided import positive_gradients
from workers.attribution.smoothgrad import smoothgrad
from workers.models.preprocessing import Preprocessing
from workers.models.probabilities import check_finite
from workers.requests.methods import Value, WrongRequest, parse_method


class AttributionError(RuntimeError):
    """A map cannot be computed; the message is one sentence."""


class Differentiable(Protocol):
    """A vision model as far as attribution is concerned."""

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
        map: float32 N,H,W; `signed`: whether its sign means for and against the class.
        standard_error: float32 N,H,W of the map's values, where it is a mean of random samples.
        samples: noisy copies drawn for each image; 1 for methods without noise.
        agreement: how alike two halves of the samples rank the pixels, see `workers.attribution.smoothgrad`.
        layer: whose map it is, for a method that reads one layer.
    """

    map: Tensor
    signed: bool
    standard_error: Tensor | None
    samples: tuple[int, ...]
    agreement: tuple[float | None, ...]
    layer: str | None = None


def attribute(
    model: Differentiable,
    pixels: Tensor,
    targets: Tensor,
    method: str,
    parameters: Mapping[str, Any],
    *,
    on_progress: Progress = lambda _done, _total: None,
    chunk: int | None = None,
) -> Attribution:
    """Maps of `pixels` (N,3,H,W in [0, 1]) for the classes `targets` (N) by a method of `workers.requests.methods`.

    Args:
        on_progress: called with (done, total) between passes; may raise to stop.
        chunk: images in one pass; by default as many as memory allows (see `workers.attribution.gradients.chunk_size`).

    Raises:
        WrongRequest: no such method, parameter, class or layer.
        NotFinite: the logits are not finite, of the first image or of one that a map is made from.
        AttributionError: the map is not finite.
    """
    options = parse_method(method, parameters)
    assert pixels.ndim == 4, f"expected pixels N,3,H,W, got {tuple(pixels.shape)}"
    assert targets.shape == pixels.shape[:1], f"expected a target an image, got {tuple(targets.shape)}"
    pixels = pixels.detach()
    _check_targets(model, pixels, targets)
    on_progress(0, 1)
    made = _METHODS[method](_Asked(model, pixels, targets, options, on_progress, chunk))
    if not torch.isfinite(made.map).all():
        raise AttributionError(f"{method} of class {targets.tolist()} is not finite: its gradient overflows")
    return made


def _check_targets(model: Differentiable, pixels: Tensor, targets: Tensor) -> None:
    with torch.inference_mode():
        logits = model(pixels[:1])
    classes = logits.shape[1]
    check_finite(logits)
    for target in targets.tolist():
        if not 0 <= target < classes:
            raise WrongRequest(f"target: expected a class from 0 to {classes - 1}, got {target}")


@dataclass(frozen=True)
class _Asked:
    """What a method gets."""

    model: Differentiable
    pixels: Tensor
    targets: Tensor
    options: dict[str, Value]
    on_progress: Progress
    chunk: int | None

    @property
    def size(self) -> int:
        """Images in one pass there and back."""
        return self.chunk or chunk_size(self.model, self.pixels)


def reduce_colours(values: Tensor, colours: Value) -> Tensor:
    """N,H,W of N,3,H,W: the largest absolute value, or the signed sum."""
    return values.abs().amax(1) if colours == "max_abs" else values.sum(1)


def _plain(values: Tensor, colours: Value) -> Attribution:
    images = len(values)
    reduced = reduce_colours(values, colours).to("cpu", torch.float32)
    return Attribution(reduced, colours == "sum", None, (1,) * images, (None,) * images)


def _gradient(asked: _Asked) -> Attribution:
    with precision(asked.options["dtype"], asked.pixels.device):
        gradient = _in_chunks(asked)
    return _plain(gradient, asked.options["colours"])


def _in_chunks(
    asked: _Asked, compute: Callable[[Differentiable, Tensor, Tensor], Tensor] = logit_gradients
) -> Tensor:
    found = []
    for first in range(0, len(asked.pixels), asked.size):
        part = slice(first, first + asked.size)
        found.append(compute(asked.model, asked.pixels[part], asked.targets[part]))
        asked.on_progress(min(first + asked.size, len(asked.pixels)), len(asked.pixels))
    return torch.cat(found)


def _gradient_x_input(asked: _Asked) -> Attribution:
    """The input is the normalised one: its zero is the mean colour, and a black pixel counts."""
    gradient = _in_chunks(asked)
    return _plain((asked.pixels - asked.model.mean) * gradient, asked.options["colours"])


def _integrated_gradients(asked: _Asked) -> Attribution:
    from captum.attr import IntegratedGradients  # a second to import, which a worker's start need not take

    steps = int(asked.options["steps"])
    total = len(asked.pixels) * steps
    found = IntegratedGradients(_ticking(asked.model, asked.on_progress, total)).attribute(
        asked.pixels,
        baselines=baseline_pixels(asked.pixels, asked.model.mean, asked.options["baseline"]),
        target=asked.targets,
        n_steps=steps,
        method="gausslegendre",
        internal_batch_size=max(asked.size, len(asked.pixels)),
    )
    return _plain(found, asked.options["colours"])


def _ticking(model: Differentiable, on_progress: Progress, total: int) -> Callable[[Tensor], Tensor]:
    """`model`, which tells of its progress: Captum has no other way to be watched or stopped."""
    done = 0

    def forward(batch: Tensor) -> Tensor:
        nonlocal done
        on_progress(min(done, total), total)
        done += len(batch)
        return model(batch)

    return forward


def _guided_backprop(asked: _Asked) -> Attribution:
    with positive_gradients(asked.model.network) as found:
        guided = _in_chunks(asked)
    if not found:
        raise WrongRequest(
            "guided_backprop: expected a model with activations such as ReLU or GELU, found none"
        )
    return _plain(guided, asked.options["colours"])


def _occlusion(asked: _Asked) -> Attribution:
    """How much the logit falls when a square is hidden; a pixel gets the mean over the squares that hide it."""
    from captum.attr import Occlusion

    window, stride = int(asked.options["window"]), int(asked.options["stride"])
    height, width = asked.pixels.shape[2:]
    if window > min(height, width):
        raise WrongRequest(f"window: expected at most {min(height, width)}, the input's side, got {window}")
    if stride > window:
        raise WrongRequest(f"stride: expected at most the window's {window}, or gaps stay, got {stride}")
    size = asked.chunk or 4 * asked.size  # no graph is kept
    channels = asked.pixels.shape[1]
    squares = (-(-(height - window) // stride) + 1) * (-(-(width - window) // stride) + 1)
    with torch.no_grad():
        found = Occlusion(
            _ticking(asked.model, asked.on_progress, len(asked.pixels) * (squares + 1))
        ).attribute(
            asked.pixels,
            sliding_window_shapes=(channels, window, window),
            strides=(channels, stride, stride),
            baselines=baseline_pixels(asked.pixels, asked.model.mean, asked.options["baseline"]),
            target=asked.targets,
            perturbations_per_eval=max(1, size // len(asked.pixels)),
        )
    drop = found[:, 0].to("cpu", torch.float32)  # the same for all colours: they are hidden together
    return Attribution(drop, True, None, (1,) * len(drop), (None,) * len(drop))


def _gradcam(asked: _Asked) -> Attribution:
    at = choose_map(asked.model, str(asked.options["layer"]))
    heat = _in_chunks(asked, functools.partial(gradcam, at=at))
    heat = heat.to("cpu", torch.float32)
    layer = str(asked.options["layer"]) or at.name
    return Attribution(heat, False, None, (1,) * len(heat), (None,) * len(heat), layer)


def _smoothgrad(asked: _Asked) -> Attribution:
    made = smoothgrad(
        asked.model,
        asked.pixels,
        asked.targets,
        samples=int(asked.options["samples"]),
        noise_level=float(asked.options["noise_level"]),
        seed=int(asked.options["seed"]),
        variant=str(asked.options["variant"]),
        agreement=float(asked.options["agreement"]),
        colours=str(asked.options["colours"]),
        dtype=str(asked.options["dtype"]),
        on_progress=asked.on_progress,
        chunk=asked.chunk,
    )
    signed = asked.options["colours"] == "sum" and asked.options["variant"] == "mean"
    return Attribution(made.map, signed, made.standard_error, made.samples, made.agreement)


_METHODS: dict[str, Callable[[_Asked], Attribution]] = {
    "gradient": _gradient,
    "gradient_x_input": _gradient_x_input,
    "integrated_gradients": _integrated_gradients,
    "guided_backprop": _guided_backprop,
    "gradcam": _gradcam,
    "occlusion": _occlusion,
    "smoothgrad": _smoothgrad,
}
