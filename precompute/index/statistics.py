"""Channel statistics over an image set: moments and a histogram of each image's maximum activation.

Everything is accumulated image by image in the given order, in float64, so the same images in the same order
give bit-identical results whatever the batch size.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

# Bins follow the bits of a float32: sign, exponent and the leading 3 mantissa bits give 8 bins of equal width
# per octave. Exponents range from 2^-12 to 2^16; smaller magnitudes share one bin around zero, larger ones
# one bin at either end. Bins therefore need no pass over the data and are the same for all channels.
_LOWEST, _HIGHEST = -12, 16
_SHIFT = 20  # 23 mantissa bits minus 3
_FIRST = (127 + _LOWEST) << 3  # biased exponent and mantissa of the smallest magnitude with its own bin
_LAST = (127 + _HIGHEST) << 3  # the same for the bin of all larger magnitudes
_SIDE = _LAST - _FIRST + 1  # bins on either side of the central one
BINS = 2 * _SIDE + 1


@dataclass(frozen=True)
class ChannelRows:
    """One entry per channel. Moments and extremes are NaN if no image had a finite value.

    `dead`: all images, at least two, have exactly the same value. `nonfinite`: number of images whose best
    value is NaN or infinite; they are excluded from everything else.
    """

    mean: npt.NDArray[np.float64]
    std: npt.NDArray[np.float64]
    min: npt.NDArray[np.float32]
    max: npt.NDArray[np.float32]
    dead: npt.NDArray[np.bool_]
    nonfinite: npt.NDArray[np.int64]


@dataclass(frozen=True)
class HistogramRows:
    """The non-empty bins, by channel and lower edge; bins are half-open, `low` <= value < `high`."""

    channels: npt.NDArray[np.int32]
    low: npt.NDArray[np.float32]
    high: npt.NDArray[np.float32]
    images: npt.NDArray[np.int32]


class ChannelStatistics:
    """Accumulates the best activations of images in C channels.

    Mean and standard deviation are computed from sums of the differences to each channel's first value (Chan,
    Golub and LeVeque, "Algorithms for computing the sample variance", The American Statistician, 1983). This
    avoids cancellation if the mean is far from zero, and yields a deviation of exactly zero if all values are
    equal.

    Memory: about 1.9 kB per channel, nearly all of it the histogram.
    """

    def __init__(self, channels: int, *, device: str | torch.device = "cpu") -> None:
        self.channels = channels
        self._images = torch.zeros(channels, dtype=torch.int64, device=device)  # finite ones
        self._nonfinite = torch.zeros(channels, dtype=torch.int64, device=device)
        self._first = torch.zeros(channels, dtype=torch.float64, device=device)
        self._sum = torch.zeros(channels, dtype=torch.float64, device=device)
        self._squares = torch.zeros(channels, dtype=torch.float64, device=device)
        self._min = torch.full((channels,), torch.inf, device=device)
        self._max = torch.full((channels,), -torch.inf, device=device)
        self._counts = torch.zeros(channels * BINS, dtype=torch.int32, device=device)
        self._starts = torch.arange(channels, device=device, dtype=torch.int64) * BINS
        self._begun = False

    def update(self, best: Tensor) -> None:
        """Process float32 N,C: the best value of each of N images in each channel."""
        assert best.ndim == 2, f"expected N,{self.channels}, got {tuple(best.shape)}"
        assert best.shape[1] == self.channels, f"expected N,{self.channels}, got {tuple(best.shape)}"
        if len(best) == 0:
            return
        if bool(torch.isfinite(best.sum())) and (self._begun or self._begin(best[0])):
            self._update_finite(best)
        else:
            # A sum of large finite values may overflow too; this path is slower but handles that as well.
            self._update_checked(best)

    def _begin(self, first: Tensor) -> bool:
        """Use `first` as the reference for differences, unless some channels already have one."""
        if bool(self._images.any()):
            self._begun = bool(self._images.all())
            return self._begun
        self._first = first.to(torch.float64)
        self._begun = True
        return True

    def _update_finite(self, best: Tensor) -> None:
        difference = torch.empty_like(self._sum)
        for image in best:
            torch.sub(image, self._first, out=difference)
            self._sum += difference
            difference *= difference
            self._squares += difference
        self._images += len(best)
        torch.minimum(self._min, best.amin(0), out=self._min)
        torch.maximum(self._max, best.amax(0), out=self._max)
        # the channels of one image map to distinct bins
        for places in _bins(best) + self._starts:
            self._counts[places] += 1

    def _update_checked(self, best: Tensor) -> None:
        for image in best:
            finite = image.isfinite()
            self._nonfinite += ~finite
            value = torch.where(finite, image, 0.0)
            wide = value.to(torch.float64)
            self._first = torch.where(finite & (self._images == 0), wide, self._first)
            difference = torch.where(finite, wide - self._first, 0.0)
            self._sum += difference
            self._squares += difference * difference
            self._images += finite
            self._min = torch.where(finite, torch.minimum(self._min, value), self._min)
            self._max = torch.where(finite, torch.maximum(self._max, value), self._max)
            self._counts[self._starts + _bins(value)] += finite.to(torch.int32)
        self._begun = bool(self._images.all())

    def rows(self) -> ChannelRows:
        """Moments and extremes so far."""
        images = self._images.cpu().numpy()
        count = np.where(images > 0, images, np.nan)
        mean_difference = self._sum.cpu().numpy() / count
        variance = self._squares.cpu().numpy() / count - mean_difference**2
        low = np.where(images > 0, self._min.cpu().numpy(), np.float32(np.nan))
        high = np.where(images > 0, self._max.cpu().numpy(), np.float32(np.nan))
        nonfinite = self._nonfinite.cpu().numpy()
        return ChannelRows(
            mean=self._first.cpu().numpy() + mean_difference,
            # rounding may leave a variance of -1e-20
            std=np.sqrt(np.maximum(variance, 0.0)),
            min=low,
            max=high,
            dead=(low == high) & (images >= 2) & (nonfinite == 0),
            nonfinite=nonfinite,
        )

    def histogram(self) -> HistogramRows:
        """The histogram so far."""
        counts = self._counts.cpu().numpy()
        places = counts.nonzero()[0]
        edges = histogram_edges()
        bins = places % BINS
        return HistogramRows(
            channels=(places // BINS).astype(np.int32),
            low=edges[bins],
            high=edges[bins + 1],
            images=counts[places],
        )

    def tensors(self) -> dict[str, Tensor]:
        """The complete state, for a checkpoint; the histogram without its empty bins."""
        places = self._counts.nonzero()[:, 0]
        return {
            "images": self._images,
            "nonfinite": self._nonfinite,
            "first": self._first,
            "sum": self._sum,
            "squares": self._squares,
            "min": self._min,
            "max": self._max,
            "histogram_places": places.to(torch.int32) if self.channels * BINS < 2**31 else places,
            "histogram_counts": self._counts[places],
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Restore the result of `tensors()` from statistics with the same number of channels."""
        device = self._sum.device
        for name in ("images", "nonfinite", "first", "sum", "squares", "min", "max"):
            assert tensors[name].shape == (self.channels,)
            # a copy, because updates write in place
            setattr(self, f"_{name}", tensors[name].to(device, copy=True))
        self._counts.zero_()
        places = tensors["histogram_places"].to(device, torch.int64)
        self._counts[places] = tensors["histogram_counts"].to(device)
        self._begun = bool(self._images.all())


def histogram_edges() -> npt.NDArray[np.float32]:
    """The BINS + 1 bin edges, ascending. The outermost are the largest finite float32 and its negative."""
    magnitudes = (np.arange(_FIRST, _LAST + 1, dtype=np.int32) << _SHIFT).view(np.float32)
    positive = np.append(magnitudes, np.finfo(np.float32).max)
    edges: npt.NDArray[np.float32] = np.concatenate([-positive[::-1], positive])
    return edges


def _bins(values: Tensor) -> Tensor:
    """Bin index of each float32 value, int64 in the same shape; all `values` must be finite."""
    bits = values.view(torch.int32)
    # sign and magnitude as one signed integer: ordered like the value, with bins that are half-open upward
    signed = torch.where(bits < 0, -(bits & 0x7FFFFFFF), bits) >> _SHIFT
    above = signed.clamp(_FIRST - 1, _LAST) - (_FIRST - 1)
    below = signed.clamp(-_LAST - 1, -_FIRST) + _FIRST
    return (above + below + _SIDE).to(torch.int64)
