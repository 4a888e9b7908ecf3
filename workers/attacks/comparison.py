"""Maps of an image before and after an attack, and how much of their difference is SmoothGrad's own noise.

Both maps use the same noise draws (common random numbers), so that their common effect cancels; the standard
error of the difference is that of the paired differences. The size of a difference is compared with two
nulls: the clean image with other draws, and the clean image perturbed by random signs with the attack's
epsilon.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from workers.attacks.steps import perturbed
from workers.attribution.gradients import Progress, chunk_size, logit_gradients, precision
from workers.attribution.smoothgrad import Normalising, noise_of, rank_correlation

_ssim: Any = structural_similarity  # untyped in scikit-image


@dataclass(frozen=True)
class Panel:
    """An image 3,H,W in [0, 1], the class that is explained, and the seed of its noise."""

    pixels: Tensor
    target: int
    seed: int


@dataclass(frozen=True)
class Compared:
    """One panel's map compared with the first panel's; float64 H,W on the CPU.

    Attributes:
        map: SmoothGrad's mean, the largest absolute value of three colors.
        difference: this map minus the first.
        standard_error: of the difference, over paired samples; None for a single sample.
        rank_correlation: Spearman's with the first map, over pixels.
        ssim: structural similarity to the first map over their shared range (Wang et al., Image quality
            assessment: from error visibility to structural similarity, 2004; windows of 7 x 7).
    """

    map: Tensor
    difference: Tensor
    standard_error: Tensor | None
    rank_correlation: float
    ssim: float

    @property
    def beyond_noise(self) -> float | None:
        """Fraction of pixels that differ by more than two standard errors."""
        if self.standard_error is None:
            return None
        return float((self.difference.abs() > 2 * self.standard_error).double().mean())


def compare(
    model: Normalising,
    panels: Sequence[Panel],
    *,
    samples: int,
    noise_level: float,
    on_progress: Progress = lambda _done, _total: None,
) -> list[Compared]:
    """Compare SmoothGrad of each panel, as `workers.attribution.smoothgrad` computes it, with that of the first.

    Args:
        noise_level: sigma divided by (max - min) of the normalized input of each panel.
    """
    pixels = torch.stack([panel.pixels for panel in panels])
    targets = torch.tensor([panel.target for panel in panels], device=pixels.device)
    normalised = (pixels - model.mean) / model.std
    spread = normalised.amax((1, 2, 3)) - normalised.amin((1, 2, 3))
    sigma = noise_level * spread.view(-1, 1, 1, 1) * model.std
    size = chunk_size(model, pixels)
    shape = pixels.shape
    sums = torch.zeros(shape, dtype=torch.float64)
    squares = torch.zeros(shape, dtype=torch.float64)
    # first panel's color by this panel's color
    products = torch.zeros(shape[0], 3, 3, *shape[2:], dtype=torch.float64)
    for sample in range(samples):
        on_progress(sample, samples)
        noise = torch.stack([noise_of(panel.seed, sample, shape[1:]) for panel in panels])
        noisy = pixels + noise.to(pixels.device) * sigma
        with precision("float32", pixels.device):
            gradients = torch.cat(
                [
                    logit_gradients(model, noisy[first : first + size], targets[first : first + size])
                    for first in range(0, len(panels), size)
                ]
            ).to("cpu", torch.float64)
        sums += gradients
        squares += gradients**2
        products += gradients[0, None, :, None] * gradients[:, None]
    on_progress(samples, samples)
    means = sums / samples
    variances = squares / samples - means**2
    covariances = products / samples - means[0, None, :, None] * means[:, None]
    maps = means.abs().amax(1)
    colours = means.abs().argmax(1, keepdim=True)  # the color that each pixel's value comes from
    signs = means.gather(1, colours).sign()[:, 0]
    return [
        _compared(maps, panel, _paired_error(variances, covariances[panel], colours, signs, panel, samples))
        for panel in range(len(panels))
    ]


def _paired_error(
    variances: Tensor, covariances: Tensor, colours: Tensor, signs: Tensor, panel: int, samples: int
) -> Tensor | None:
    """H,W: standard error of map[panel] - map[0], each the absolute mean of its largest color there."""
    if samples < 2:
        return None
    here, first = colours[panel], colours[0]
    own = variances[panel].gather(0, here)[0]
    its = variances[0].gather(0, first)[0]
    # [first color, this color, H, W] at each pixel's own pair
    of_first = covariances.gather(0, first.unsqueeze(0).expand(1, 3, *first.shape[1:]))[0]
    shared = of_first.gather(0, here)[0] * signs[panel] * signs[0]
    return ((own + its - 2 * shared).clamp(min=0) / (samples - 1)).sqrt()


def _compared(maps: Tensor, panel: int, error: Tensor | None) -> Compared:
    first, here = maps[0], maps[panel]
    span = float(torch.maximum(first.max(), here.max()))
    alike = _ssim(first.numpy(), here.numpy(), data_range=span) if span > 0 else 1.0
    return Compared(here, here - first, error, rank_correlation(first.numpy(), here.numpy()), float(alike))


def random_signs(pixels: Tensor, epsilon: float, *, seed: int, integer: bool = False) -> Tensor:
    """`pixels` (3,H,W) perturbed by random signs: as large as FGSM's change at this epsilon, but without direction."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, pixels.shape, generator=generator).to(pixels) * 2 - 1
    return perturbed(pixels, signs, epsilon, integer=integer)
