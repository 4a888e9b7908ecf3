"""The epsilons that an attack tries: linear and geometric grids, and the parameters that select one.

Imports no torch: forms, commands and request validation use this module, and `workers.attacks.search` walks
the grids.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workers.requests.parameters import InvalidRequest, Parameter

MAX_POINTS = 10_000
LEVELS = 255  # of 8 bits: two levels are 1/255 apart
START = 1 / (16 * LEVELS)  # lowest epsilon of a geometric grid: a sixteenth of a level


@dataclass(frozen=True)
class Grid:
    """A linear grid: i * step, from the first point at or above `minimum` to the last at or below `cap`.

    `integer` counts in whole 8-bit levels: step, minimum and cap are multiples of 1/255, and what is
    classified is exactly what a PNG of it contains.
    """

    step: float = 0.001
    cap: float = 0.5
    minimum: float = 0.0
    integer: bool = False

    def __post_init__(self) -> None:
        """Raise InvalidRequest if the grid has no point, or too many."""
        for name, value, low in (
            ("step", self.step, None),
            ("cap", self.cap, None),
            ("minimum", self.minimum, 0),
        ):
            right = math.isfinite(value) and value <= 1 and (value > 0 if low is None else value >= low)
            if not right:
                kind = "above 0 and" if low is None else "from 0 and"
                raise InvalidRequest(f"{name}: expected a number {kind} at most 1, got {value:g}")
        if self.integer:
            for name, value in (("step", self.step), ("cap", self.cap), ("minimum", self.minimum)):
                if abs(value * LEVELS - round(value * LEVELS)) > 1e-6:
                    raise InvalidRequest(
                        f"{name}: expected a multiple of 1/255 for an 8-bit attack, got {value:g}"
                    )
        if not self.last >= self.first:
            raise InvalidRequest(
                f"cap: expected at least one step ({self.step:g}) above the minimum, got {self.cap:g}"
            )
        if self.last - self.first >= MAX_POINTS:
            raise InvalidRequest(
                f"step: expected at most {MAX_POINTS:,} points up to {self.cap:g}, got {self.step:g}"
            )

    @property
    def first(self) -> int:
        """The lowest i; epsilon 0 is always evaluated and is not part of the grid."""
        return max(1, math.ceil(self.minimum / self.step - 1e-9))

    @property
    def last(self) -> int:
        """The highest i."""
        return math.floor(self.cap / self.step + 1e-9)

    def epsilon(self, i: int) -> float:
        """The epsilon of point i: a product, because sums of steps drift."""
        return round(i * self.step * LEVELS) / LEVELS if self.integer else i * self.step

    @property
    def points(self) -> tuple[float, ...]:
        """All epsilons of the grid, ascending."""
        return tuple(self.epsilon(i) for i in range(self.first, self.last + 1))

    def between(self, _low: float, _high: float) -> tuple[float, ...]:
        """Empty: a linear grid is no finer at a success than elsewhere."""
        return ()


@dataclass(frozen=True)
class GeometricGrid:
    """Epsilons START * ratio ** k, from the first at or above `minimum` to the last below `cap`, then `cap` itself.

    After the first success, the gap down to the previous epsilon is tried in `parts` equal parts, so that the
    smallest epsilon is known with a relative error of at most (ratio - 1) / parts. Both scans ascend: success
    is not monotone.
    """

    ratio: float = 1.5
    parts: int = 8
    cap: float = 0.5
    minimum: float = 0.0
    step: float = START  # the lowest epsilon: stored where a linear grid stores its step
    integer: bool = False

    def __post_init__(self) -> None:
        """Raise InvalidRequest if the grid has no point, or too many."""
        if not (math.isfinite(self.ratio) and self.ratio > 1):
            raise InvalidRequest(f"ratio: expected a number above 1, got {self.ratio:g}")
        if self.parts < 1:
            raise InvalidRequest(f"parts: expected a whole number from 1 up, got {self.parts}")
        if not START * (1 - 1e-9) <= self.cap <= 1:
            raise InvalidRequest(
                f"cap: expected a number from {START:.6g} (1/{16 * LEVELS}) to 1 on a geometric grid, "
                f"got {self.cap:g}"
            )
        if not 0 <= self.minimum <= self.cap:
            raise InvalidRequest(f"minimum: expected a number from 0 to the cap, got {self.minimum:g}")
        if math.log(self.cap / START) / math.log(self.ratio) + self.parts >= MAX_POINTS:
            raise InvalidRequest(
                f"ratio: expected at most {MAX_POINTS:,} points up to {self.cap:g}, got {self.ratio:g}"
            )

    @property
    def points(self) -> tuple[float, ...]:
        """The epsilons that are tried up to the first success, ascending."""
        count = math.ceil(math.log(self.cap / START) / math.log(self.ratio)) + 1
        grid = (START * self.ratio**k for k in range(count))
        inside = [epsilon for epsilon in grid if self.minimum * (1 - 1e-9) <= epsilon < self.cap * (1 - 1e-9)]
        return (*inside, self.cap)

    def between(self, low: float, high: float) -> tuple[float, ...]:
        """The epsilons to try between the last failure and the first success, ascending."""
        return tuple(low + (high - low) * part / self.parts for part in range(1, self.parts))

    def number(self, epsilon: float) -> float:
        """Position of that epsilon: k for point k, from 1; k + part / parts between points k and k + 1; 0 for none."""
        points = self.points
        k = bisect_right(points, epsilon)
        if k == 0 or points[k - 1] == epsilon:
            return k
        low, high = points[k - 1], points[k]
        return k + round((epsilon - low) / (high - low) * self.parts) / self.parts

    def at(self, number: float) -> float:
        """The epsilon at position `number`, which float32 may have rounded."""
        k, part = divmod(round(number * self.parts), self.parts)
        if k == 0:
            return 0.0
        low = self.points[k - 1]
        return low if part == 0 else self.between(low, self.points[k])[part - 1]


Epsilons = Grid | GeometricGrid
GRIDS = ("geometric", "linear")


def grid_of(parameters: Mapping[str, Any]) -> Epsilons:
    """The epsilons of a parsed attack; a fixed epsilon is a grid of one point; without a grid parameter it is linear.

    Raises:
        InvalidRequest: there are no epsilons, or too many.
    """
    integer = parameters["levels"] == "8-bit"
    if parameters["mode"] == "fixed":
        epsilon = parameters["epsilon"]
        if not epsilon > 0:
            raise InvalidRequest(
                f"epsilon: expected {'1/255 or more' if integer else 'a number above 0'}, got {epsilon:g}"
            )
        return Grid(step=epsilon, cap=epsilon, minimum=epsilon, integer=integer)
    if parameters.get("grid", "linear") == "geometric":
        return GeometricGrid(
            parameters["ratio"], parameters["parts"], parameters["cap"], parameters["minimum"]
        )
    return Grid(parameters["step"], parameters["cap"], parameters["minimum"], integer)


GRID_PARAMETERS = (
    Parameter(
        "mode",
        "smallest",
        "smallest: search the grid for the smallest successful epsilon; fixed: test one epsilon.",
        choices=("smallest", "fixed"),
        label="search for",
        words=("smallest epsilon", "one epsilon"),
    ),
    Parameter(
        "epsilon", 0.01, "Maximum change of a pixel in a fixed attack, for pixels in [0, 1].", 0.0, 1.0
    ),
    Parameter(
        "grid",
        "geometric",
        "Grid of a search. geometric: from 1/4080 (1/16 of an 8-bit level) up by a ratio, then refined "
        "between the last failure and the first success; linear: every multiple of step. Giving a step "
        "selects linear; 8-bit attacks are always linear.",
        choices=GRIDS,
        label="epsilon grid",
    ),
    Parameter(
        "ratio",
        1.5,
        "Ratio of consecutive epsilons of a geometric grid.",
        1.001,
        10.0,
        label="grid ratio",
    ),
    Parameter(
        "parts",
        8,
        "Number of equal parts into which a geometric grid divides the gap below the first success; 1 does not refine.",
        1,
        1000,
        label="refinement parts",
    ),
    Parameter("step", 0.001, "Step between epsilons of a linear grid.", 0.0, 1.0, label="grid step"),
    Parameter("cap", 0.5, "Largest epsilon of a search.", 0.0, 1.0, label="upper limit"),
    Parameter(
        "minimum",
        0.0,
        "Smallest epsilon of a search: the grid starts at its first point from here.",
        0.0,
        1.0,
        label="lower limit",
    ),
    Parameter(
        "levels",
        "real",
        "real: pixels are real numbers in [0, 1]; 8-bit: pixels are whole 8-bit levels, so a PNG stores "
        "exactly what was classified, and epsilons are rounded to n/255 (the cap down, the minimum up).",
        choices=("real", "8-bit"),
        label="pixel values",
        words=("real numbers", "8-bit levels"),
    ),
    Parameter(
        "scan",
        "first",
        "first: stop at the first success; full: test the whole grid and report all ranges of success.",
        choices=("first", "full"),
        label="scan",
        words=("to first success", "whole grid"),
    ),
)
