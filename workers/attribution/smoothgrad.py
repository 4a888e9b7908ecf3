"""SmoothGrad and its variants: moments of the gradient over noisy copies of the image.

Smilkov et al., SmoothGrad: removing noise by adding noise, 2017; squared: Hooker et al., A benchmark for
interpretability methods in deep neural networks, NeurIPS 2019; variance: Adebayo et al., Local explanation
methods for deep neural networks lack sensitivity to parameter values, 2018.

Invariants: with noise level 0 the mean is the gradient, for any number of samples; sample i of a seed has the
same noise in every image of one size, in any batch, chunk and device.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from workers.attribution.gradients import Progress, chunk_size, logit_gradients, precision

# Early stopping is checked at fixed sample counts, so that the chunk size does not affect the result.
FIRST_LOOK = 8
LOOK_EVERY = 4


class Normalising(Protocol):
    """A vision model that normalizes its input by `mean` and `std`."""

    network: nn.Module
    mean: Tensor
    std: Tensor

    def __call__(self, pixels: Tensor, /) -> Tensor:
        """Logits N,C of pixels N,3,H,W in [0, 1]."""


@dataclass(frozen=True)
class Smoothed:
    """Maps of N images, on the CPU.

    Attributes:
        map: float32 N,H,W.
        standard_error: float32 N,H,W of the map's values over the samples; None for a single sample.
        samples: number drawn for each image.
        agreement: Spearman's rank correlation between the maps of the even and the odd samples, extrapolated
            to all samples with the Spearman-Brown formula 2r / (1 + r); None for a single sample.
    """

    map: Tensor
    standard_error: Tensor | None
    samples: tuple[int, ...]
    agreement: tuple[float | None, ...]


def smoothgrad(
    model: Normalising,
    pixels: Tensor,
    targets: Tensor,
    *,
    samples: int,
    noise_level: float,
    seed: int,
    variant: str = "mean",
    agreement: float = 0.0,
    colours: str = "max_abs",
    dtype: str = "float32",
    on_progress: Progress = lambda _done, _total: None,
    chunk: int | None = None,
) -> Smoothed:
    """Moments of the gradient over `samples` noisy copies of `pixels` (N,3,H,W in [0, 1]).

    Args:
        noise_level: sigma divided by (max - min) of that image's normalized input. The noise is isotropic in
            normalized space; in pixels its sigma is multiplied by the model's std, color by color.
        variant: `mean`, `squared` (mean of squares) or `variance` (over the samples, without Bessel's
            correction).
        agreement: stop sampling an image once its halves agree at least this well; 0 disables early stopping.
        colours: `max_abs` or `sum`.
    """
    normalised = (pixels - model.mean) / model.std
    spread = normalised.amax((1, 2, 3)) - normalised.amin((1, 2, 3))
    sigma = noise_level * spread.view(-1, 1, 1, 1) * model.std  # N,3,1,1 in pixels
    size = chunk or chunk_size(model, pixels)
    tallies = [_Tally(pixels[0].shape, variant=variant, colours=colours) for _ in pixels]
    active = list(range(len(pixels)))
    drawn = done = 0
    while active and drawn < samples:
        upto = min(samples, FIRST_LOOK if drawn == 0 else drawn + LOOK_EVERY) if agreement > 0 else samples
        pairs = [(image, sample) for sample in range(drawn, upto) for image in active]
        passes = -(-len(pairs) // size)
        for number in range(passes):  # equal sizes: a last pass of one sample would be slow
            on_progress(done, len(pixels) * samples)
            group = pairs[number * len(pairs) // passes : (number + 1) * len(pairs) // passes]
            which = torch.tensor([image for image, _ in group], device=pixels.device)
            noise = torch.stack([noise_of(seed, sample, pixels[0].shape) for _, sample in group])
            noisy = pixels[which] + noise.to(pixels.device) * sigma[which]
            with precision(dtype, pixels.device):
                gradients = logit_gradients(model, noisy, targets[which])
            for (image, sample), gradient in zip(group, gradients.to("cpu", torch.float64), strict=True):
                tallies[image].add(gradient, even=sample % 2 == 0)
            done += len(group)
        drawn = upto
        if agreement > 0:
            active = [image for image in active if (tallies[image].agreement() or 0.0) < agreement]
    errors = [tally.standard_error() for tally in tallies]
    known = [error for error in errors if error is not None]
    return Smoothed(
        torch.stack([tally.map() for tally in tallies]).to(torch.float32),
        torch.stack(known).to(torch.float32) if len(known) == len(errors) else None,
        tuple(tally.count for tally in tallies),
        tuple(tally.agreement() for tally in tallies),
    )


def noise_of(seed: int, sample: int, shape: torch.Size) -> Tensor:
    """Standard normal noise of one sample, 3,H,W; drawn on the CPU so that all devices agree."""
    generator = torch.Generator().manual_seed((seed << 20) + sample)
    return torch.randn(shape, generator=generator)


class _Tally:
    """Sums over one image's samples, per half: the values that the map averages, and their powers."""

    def __init__(self, shape: torch.Size, *, variant: str, colours: str) -> None:
        self.count = 0
        self._variant = variant
        self._colours = colours
        # a signed sum over colors is linear, so it can be taken before summing over samples
        self._summed = colours == "sum" and variant == "mean"
        values = torch.Size((1, *shape[1:])) if self._summed else shape
        powers = 2 if variant == "mean" else 4
        self._halves = torch.zeros(2, powers, *values, dtype=torch.float64)
        self._counts = [0, 0]

    def add(self, gradient: Tensor, *, even: bool) -> None:
        """Add one sample's gradient, float64 3,H,W."""
        half = 0 if even else 1
        value = gradient.sum(0, keepdim=True) if self._summed else gradient
        power = value
        for sums in self._halves[half]:
            sums += power
            power = power * value
        self._counts[half] += 1
        self.count += 1

    def _moments(self, half: int | None = None) -> Tensor:
        """Means of the powers over one half, or over all samples."""
        if half is None:
            return self._halves.sum(0) / self.count
        return self._halves[half] / self._counts[half]

    def _values(self, moments: Tensor) -> Tensor:
        """The values of the variant, before colors are reduced."""
        if self._variant == "variance":
            return (moments[1] - moments[0] ** 2).clamp(min=0)
        return moments[1] if self._variant == "squared" else moments[0]

    def _reduced(self, moments: Tensor) -> Tensor:
        values = self._values(moments)
        if self._summed:
            return values[0]
        return values.abs().amax(0) if self._colours == "max_abs" else values.sum(0)

    def map(self) -> Tensor:
        """The map, H,W."""
        return self._reduced(self._moments())

    def standard_error(self) -> Tensor | None:
        """Standard error of the map, H,W; with `max_abs`, that of the color with the largest absolute value."""
        if self.count < 2:
            return None
        moments = self._moments()
        first, second = moments[0], moments[1]
        if self._variant == "mean":
            variance = second - first**2
        elif self._variant == "squared":
            variance = moments[3] - second**2
        else:  # of a variance: (m4 - m2 ** 2) / n in central moments
            third, fourth = moments[2], moments[3]
            central = fourth - 4 * first * third + 6 * first**2 * second - 3 * first**4
            variance = central - (second - first**2) ** 2
        errors = (variance.clamp(min=0) / (self.count - 1)).sqrt()
        if self._summed:
            return errors[0]
        if self._colours == "max_abs":
            largest = self._values(moments).abs().argmax(0, keepdim=True)
            return errors.gather(0, largest)[0]
        return (errors**2).sum(0).sqrt()  # treats colors as independent: an approximation for squares

    def agreement(self) -> float | None:
        """See `Smoothed`."""
        if not all(self._counts):
            return None
        halves = [self._reduced(self._moments(half)).numpy() for half in (0, 1)]
        return corrected_to_the_whole(rank_correlation(halves[0], halves[1]))


def rank_correlation(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """Spearman's, over all values: 1 for two constant maps, 0 for a constant map and another."""
    from scipy.stats import rankdata  # takes a second to import, so not at worker start

    ranks = [rankdata(values, axis=None) for values in (one, other)]
    left, right = (rank - rank.mean() for rank in ranks)
    norms = float(np.sqrt((left**2).sum() * (right**2).sum()))
    if norms == 0:
        return 1.0 if not left.any() and not right.any() else 0.0
    return float((left * right).sum() / norms)


def corrected_to_the_whole(halves: float) -> float:
    """Spearman-Brown: the reliability of all samples from the correlation of their halves."""
    return 2 * halves / (1 + halves) if halves > 0 else halves
