"""Share of images still correct at an epsilon, when some resist up to their cap and are unknown beyond it.

Kaplan and Meier, Nonparametric estimation from incomplete observations, 1958: epsilon takes the place of
time, and an image that resists up to its cap is censored there. The band comes from bootstrap samples of the
images.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def survival(flipped: npt.NDArray[np.int64], censored: npt.NDArray[np.int64]) -> Floats:
    """Share still correct just after each epsilon, from counts by ascending epsilon along the last axis."""
    ended = flipped + censored
    at_risk = ended[..., ::-1].cumsum(-1)[..., ::-1]
    left = np.where(at_risk > 0, 1 - flipped / np.maximum(at_risk, 1), 1.0)
    shares: Floats = left.cumprod(-1)
    return shares


def band(
    flipped: npt.NDArray[np.int64],
    censored: npt.NDArray[np.int64],
    *,
    draws: int = 400,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[Floats, Floats]:
    """Lower and upper quantiles of `survival` over bootstrap samples of the images."""
    counts = np.concatenate([flipped, censored])
    images = int(counts.sum())
    drawn = np.random.default_rng(seed).multinomial(images, counts / images, size=draws)
    shares = survival(drawn[:, : len(flipped)], drawn[:, len(flipped) :])
    low, high = np.quantile(shares, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high
