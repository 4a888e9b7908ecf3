"""Attribution: which pixels the logit of a class depends on.

Maps are computed on pixels in [0, 1] and on logits: the gradient of class c is d logit_c / d pixel. A
method's three color values are reduced to one value per pixel (`colours`): their largest absolute value or
their signed sum. `workers.attribution.registry` lists the methods.

The caller's state is left unchanged: tensors, parameters, hooks and the global random state.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from workers.attribution.gradients import Progress
from workers.attribution.maps import Attribution, AttributionError, Differentiable, Inputs
from workers.attribution.registry import METHODS, parse_method
from workers.models.probabilities import check_finite
from workers.requests.parameters import InvalidRequest


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
    """Compute maps of `pixels` (N,3,H,W in [0, 1]) for the classes `targets` (N) with one of `METHODS`.

    Args:
        on_progress: called with (done, total) between passes; may raise to stop.
        chunk: images per pass; by default as many as fit in memory (see
            `workers.attribution.gradients.chunk_size`).

    Raises:
        InvalidRequest: unknown method, parameter, class or layer.
        NotFinite: the logits of the first image, or of an image that a map is computed from, are not finite.
        AttributionError: the map is not finite.
    """
    options = parse_method(method, parameters)
    assert pixels.ndim == 4, f"expected pixels N,3,H,W, got {tuple(pixels.shape)}"
    assert targets.shape == pixels.shape[:1], f"expected one target per image, got {tuple(targets.shape)}"
    pixels = pixels.detach()
    _check_targets(model, pixels, targets)
    on_progress(0, 1)
    made = METHODS[method].compute(Inputs(model, pixels, targets, options, on_progress, chunk))
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
            raise InvalidRequest(f"target: expected a class from 0 to {classes - 1}, got {target}")
