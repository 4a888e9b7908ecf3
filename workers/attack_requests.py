"""What can be asked of an attack: its method, and the epsilons that it looks at.

Imports no torch: pages, the command line and the HTTP interface offer and check attacks by this module, and
`workers.attacks` computes them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workers.methods import Method, Parameter, Value, WrongRequest

# Part of an attack's name: goes up when the same request finds another thing.
ATTACK_VERSION = 1
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


_GRID = (
    Parameter(
        "mode",
        "smallest",
        "smallest: walk the grid up to the first epsilon that succeeds; fixed: one epsilon alone.",
        choices=("smallest", "fixed"),
    ),
    Parameter(
        "epsilon", 0.01, "Of a fixed attack: largest change of a pixel, in pixels in [0, 1].", 0.0, 1.0
    ),
    Parameter("step", 0.001, "Of a search: distance of two epsilons.", 0.0, 1.0),
    Parameter("cap", 0.5, "Of a search: the largest epsilon.", 0.0, 1.0),
    Parameter(
        "minimum", 0.0, "Of a search: the grid's first point is the lowest one from here on.", 0.0, 1.0
    ),
    Parameter(
        "levels",
        "real",
        "real: pixels are numbers in [0, 1]; 8-bit: whole levels of 255, so that a PNG holds just what was "
        "classified. Epsilons then are rounded to n/255, the cap down and the minimum up.",
        choices=("real", "8-bit"),
    ),
    Parameter(
        "scan",
        "first",
        "first: end at the first success; full: look at the whole grid, and report all runs of successes.",
        choices=("first", "full"),
    ),
)

ATTACKS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            "fgsm",
            "FGSM",
            "Goodfellow et al., Explaining and harnessing adversarial examples, ICLR 2015",
            _GRID,
        ),
        Method(
            "pgd",
            "PGD",
            "Madry et al., Towards deep learning models resistant to adversarial attacks, ICLR 2018",
            (
                *_GRID,
                Parameter("steps", 10, "Steps of each attack; each is a way back.", 1, 1000),
                Parameter(
                    "step_size",
                    0.25,
                    "Length of a step as a share of epsilon; 2.5 / steps is usual.",
                    0.001,
                    2.0,
                ),
                Parameter("seed", 0, "Seed of the random start within epsilon.", 0, 2**31 - 1),
            ),
            seeded=True,
        ),
    )
}


def parse_attack(name: str, given: Mapping[str, Any]) -> dict[str, Value]:
    """All that an attack of that method depends on: what the mode does not read is left out.

    Raises:
        WrongRequest: there is no such method or parameter, or no epsilon is left to look at.
    """
    method = ATTACKS.get(name)
    if method is None:
        raise WrongRequest(f"method: expected one of {', '.join(ATTACKS)}, got {name!r}")
    values = method.parse(given)
    for unread in ("step", "cap", "minimum", "scan") if values["mode"] == "fixed" else ("epsilon",):
        if unread in given and values[unread] != _default(method, unread):
            raise WrongRequest(f"{unread}: is not read where mode is {values['mode']}")
        del values[unread]
    if values["levels"] == "8-bit":
        for part, rounded in (("epsilon", round), ("step", round), ("cap", _floor), ("minimum", _ceil)):
            if part in values:
                level = rounded(float(values[part]) * LEVELS)
                values[part] = max(level, 1 if part == "step" else 0) / LEVELS
    grid_of(values)
    return values


def _floor(value: float) -> int:
    return math.floor(value + 1e-6)


def _ceil(value: float) -> int:
    return math.ceil(value - 1e-6)


def _default(method: Method, name: str) -> Value:
    return next(parameter.default for parameter in method.parameters if parameter.name == name)


def grid_of(parameters: Mapping[str, Any]) -> Grid:
    """The epsilons of a parsed attack; a fixed one is a grid of one point.

    Raises:
        WrongRequest: there is none, or too many.
    """
    integer = parameters["levels"] == "8-bit"
    if parameters["mode"] == "fixed":
        epsilon = parameters["epsilon"]
        if not epsilon > 0:
            raise WrongRequest(
                f"epsilon: expected {'1/255 or more' if integer else 'a number above 0'}, got {epsilon:g}"
            )
        return Grid(step=epsilon, cap=epsilon, minimum=epsilon, integer=integer)
    return Grid(parameters["step"], parameters["cap"], parameters["minimum"], integer)
