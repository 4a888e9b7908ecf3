"""Deletion and insertion: test whether the pixels that a map ranks highest are the ones the class needs.

Petsiuk et al., RISE: randomized input sampling for explanation of black-box models, BMVC 2018.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from workers.attribution.baselines import baseline_pixels
from workers.attribution.gradients import Progress
from workers.models.probabilities import class_probabilities

_AT_ONCE = 8


class Classifier(Protocol):
    """The part of a vision model that deletion and insertion need: its logits and its mean color."""

    mean: Tensor

    def __call__(self, pixels: Tensor, /) -> Tensor:
        """Logits N,C of pixels N,3,H,W in [0, 1]."""


@dataclass(frozen=True)
class Faithfulness:
    """Probability of the class before the first step and after each step, and the areas under both curves.

    With a good map the deletion curve falls fast (small area) and the insertion curve rises fast (large
    area). Areas are over the fraction of pixels, from 0 to 1.
    """

    deletion: tuple[float, ...]
    insertion: tuple[float, ...]
    deletion_auc: float
    insertion_auc: float


def faithfulness(
    model: Classifier,
    pixels: Tensor,
    target: int,
    heat: Tensor,
    *,
    steps: int = 50,
    on_progress: Progress = lambda _done, _total: None,
) -> Faithfulness:
    """Delete pixels, then insert them, in order of a map's absolute values.

    Deleted pixels take the model's mean color; insertion starts from the blurred image (sigma 10 pixels).

    Args:
        pixels: 1,3,H,W in [0, 1]; heat: H,W. Ties go to the lowest position.
        steps: number of equal shares of the pixels, each rounded to whole pixels.

    Raises:
        NotFinite: a logit is NaN or infinite.
    """
    assert pixels.shape[0] == 1, f"expected one image, got {len(pixels)}"
    assert heat.shape == pixels.shape[2:], (
        f"expected a map of {tuple(pixels.shape[2:])}, got {tuple(heat.shape)}"
    )
    order = torch.from_numpy(np.argsort(-heat.abs().flatten().cpu().numpy(), kind="stable").copy())
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    rank = rank.view(1, 1, *heat.shape).to(pixels.device)
    counts = [round(step * len(order) / steps) for step in range(steps + 1)]
    removed = baseline_pixels(pixels, model.mean, "mean")
    blurred = baseline_pixels(pixels, model.mean, "blur")
    curves: list[tuple[float, ...]] = []
    with torch.inference_mode():
        for first, then in ((pixels, removed), (blurred, pixels)):
            found: list[float] = []
            for start in range(0, len(counts), _AT_ONCE):
                on_progress(len(curves) * len(counts) + start, 2 * len(counts))
                part = torch.tensor(counts[start : start + _AT_ONCE], device=pixels.device).view(-1, 1, 1, 1)
                logits = model(torch.where(rank < part, then, first))
                found += class_probabilities(logits)[:, target].tolist()
            curves.append(tuple(found))
    deletion, insertion = curves
    return Faithfulness(deletion, insertion, _area(deletion), _area(insertion))


def _area(curve: tuple[float, ...]) -> float:
    """Area by the trapezoid rule over [0, 1]."""
    return (sum(curve) - (curve[0] + curve[-1]) / 2) / (len(curve) - 1)
