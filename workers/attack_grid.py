"""The epsilons that an attack looks at. Imports no torch: requests are checked by it where none is."""

import math
from dataclasses import dataclass

from workers.methods import WrongRequest

MOST_POINTS = 10_000
LEVELS = 255  # of 8 bits: a step between two is 1/255


@dataclass(frozen=True)
class Grid:
    """Epsilons to look at: i * step from the first that is at least `minimum` to the last that is at most `cap`.

    `integer` counts in whole 8-bit levels: step, minimum and cap are multiples of 1/255, and what is classified is
    exactly what a PNG of it holds.
    """

    step: float = 0.001
    cap: float = 0.5
    minimum: float = 0.0
    integer: bool = False

    def __post_init__(self) -> None:
        """Raise WrongRequest where it has no point, or too many."""
        for name, value, low in (
            ("step", self.step, None),
            ("cap", self.cap, None),
            ("minimum", self.minimum, 0),
        ):
            right = math.isfinite(value) and value <= 1 and (value > 0 if low is None else value >= low)
            if not right:
                kind = "above 0 and" if low is None else "from 0 and"
                raise WrongRequest(f"{name}: expected a number {kind} at most 1, got {value:g}")
        if self.integer:
            for name, value in (("step", self.step), ("cap", self.cap), ("minimum", self.minimum)):
                if abs(value * LEVELS - round(value * LEVELS)) > 1e-6:
                    raise WrongRequest(
                        f"{name}: expected a multiple of 1/255 for an attack on 8 bits, got {value:g}"
                    )
        if not self.last >= self.first:
            raise WrongRequest(
                f"cap: expected at least one step ({self.step:g}) above the minimum, got {self.cap:g}"
            )
        if self.last - self.first >= MOST_POINTS:
            raise WrongRequest(
                f"step: expected at most {MOST_POINTS:,} points up to {self.cap:g}, got {self.step:g}"
            )

    @property
    def first(self) -> int:
        """The lowest i; epsilon 0 is looked at in any case and is none of the grid's."""
        return max(1, math.ceil(self.minimum / self.step - 1e-9))

    @property
    def last(self) -> int:
        """The highest i."""
        return math.floor(self.cap / self.step + 1e-9)

    def epsilon(self, i: int) -> float:
        """The epsilon of point i: a product, for sums of steps drift."""
        return round(i * self.step * LEVELS) / LEVELS if self.integer else i * self.step
