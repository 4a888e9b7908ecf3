"""The walk of one image up the grid of epsilons, and what it found."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.requests.epsilons import LEVELS, Epsilons, GeometricGrid

# Points of the grid that one image puts into its first pass, each time twice as many up to the most.
_FIRST_POINTS = 2
_MAX_POINTS = 16
# The same by FGSM on a geometric grid, whose first points few images fall at: a fuller pass costs less than two.
_FIRST_GEOMETRIC = 8
TOP_CLASSES = 5


@dataclass(frozen=True)
class Checked:
    """What a network says of one image at one epsilon: its `top` classes with their probabilities, best first."""

    epsilon: float
    top: tuple[tuple[int, float], ...]
    reference_probability: float

    @property
    def predicted(self) -> int:
        """The class it names."""
        return self.top[0][0]

    @property
    def probability(self) -> float:
        """That of the class it names."""
        return self.top[0][1]


@dataclass(frozen=True)
class Search:
    """The smallest epsilon of one image.

    Attributes:
        outcome: `flipped`; `resisted`, to the cap: censored, not robust; or `no_gradient`: the gradient is zero
            everywhere, so FGSM has no direction, which says nothing of robustness.
        reference: the class to leave, or for a targeted search the class to reach.
        epsilon: the smallest success; 0 where the image was one without any change; None without success.
        before, after: at epsilon 0, and at `epsilon`.
        attacked: float32 3,H,W on the CPU, the image at `attacked_epsilon`; None where there was no direction.
        direction: int8 3,H,W, the signs that FGSM walks along.
        gradient_norm: Euclidean norm of d cross-entropy / d pixels.
        checked: ascending epsilons, up to the grid's first success or, in a full scan, to the cap.
        successes: of a full scan, first and last epsilon of each run of successes.
        last_failure: the largest failure below `epsilon`, 0 among them, or without success the largest epsilon looked
            at; None where the image was a success without any change, or nothing was attacked.
        at_most: whether `epsilon` is the lowest that the grid has, so that a smaller one may succeed too.
    """

    outcome: str
    reference: int
    epsilon: float | None
    before: Checked
    after: Checked | None
    attacked: Tensor | None
    direction: Tensor
    gradient_norm: float
    checked: tuple[Checked, ...]
    successes: tuple[tuple[float, float], ...]
    last_failure: float | None
    at_most: bool

    @property
    def shown(self) -> Checked | None:
        """What the network says of `attacked`: at the smallest success, else at the largest epsilon looked at."""
        return None if self.attacked is None else self.after or self.checked[-1]


def checked_at(epsilon: float, row: Tensor, reference: int) -> Checked:
    """What log-probabilities (C, float64) say at an epsilon."""
    best = row.topk(min(TOP_CLASSES, len(row)))
    top = tuple(zip(best.indices.tolist(), best.values.exp().tolist(), strict=True))
    first = int(row.argmax())  # of classes that are tied, the lowest, as everywhere else
    if top[0][0] != first:
        top = ((first, top[0][1]), *(pair for pair in top if pair[0] != first))[:TOP_CLASSES]
    return Checked(epsilon, top, math.exp(row[reference]))


class Walk:
    """One image's way up the grid, and then up the gap below the first success."""

    def __init__(
        self,
        reference: int,
        before: Checked,
        gradient_norm: float,
        grid: Epsilons,
        *,
        targeted: bool,
        full: bool,
        needs_gradient: bool,
    ) -> None:
        self.reference = reference
        self.gradient_norm = gradient_norm
        self._before = before
        self._grid = grid
        self._targeted = targeted
        self._full = full
        self._needs_gradient = needs_gradient
        self._attacked: Tensor | None = None
        self._first: Checked | None = before if self._succeeds(before) else None
        self._checked: list[Checked] = []
        self._in_gap = False
        # the epsilons of the present scan, and how many of them were looked at
        self._scan: Sequence[float] = grid.points
        self._seen = 0
        self._fewest = (
            _FIRST_GEOMETRIC if isinstance(grid, GeometricGrid) and needs_gradient else _FIRST_POINTS
        )
        self._points = self._fewest
        if self._without_direction or (self._first is not None and not full):
            self._scan = ()

    def _succeeds(self, checked: Checked) -> bool:
        return (checked.predicted == self.reference) == self._targeted

    @property
    def _without_direction(self) -> bool:
        return self._needs_gradient and self.gradient_norm == 0

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to look at."""
        return self._seen == len(self._scan)

    def wants(self, epsilon: float) -> bool:
        """Whether that epsilon is still to be looked at in this scan."""
        return epsilon in self._scan[self._seen :]

    def awaits(self, epsilon: float) -> bool:
        """Whether that is the next epsilon to look at."""
        return not self.ended and self._scan[self._seen] == epsilon

    def next(self) -> Sequence[float]:
        """Epsilons to look at next."""
        found = self._scan[self._seen : self._seen + self._points]
        self._points = min(2 * self._points, _MAX_POINTS)
        return found

    def enter(self, checked: Checked, attacked: Tensor) -> None:
        """Enter what was seen at the epsilon that `awaits` names, of which image."""
        self._seen += 1
        self._checked.append(checked)
        if self._succeeds(checked) and (self._first is None or checked.epsilon < self._first.epsilon):
            self._first = checked
            self._attacked = attacked.to("cpu", torch.float32, copy=True)
            if not self._full:
                self._seen = len(self._scan)
        elif self.ended and self._first is None:
            self._attacked = attacked.to("cpu", torch.float32, copy=True)  # at the cap
        if self.ended and not self._in_gap and self._first is not None and self._first.epsilon > 0:
            self._in_gap = True
            self._scan, self._seen, self._points = self._gap(self._first), 0, self._fewest

    def _gap(self, first: Checked) -> Sequence[float]:
        """What is left to look at between the last failure and the first success of the grid."""
        below = [checked.epsilon for checked in self._checked if checked.epsilon < first.epsilon]
        return self._grid.between(max(below), first.epsilon) if below else ()

    def result(self, image: Tensor, direction: Tensor) -> Search:
        """What was found for `image` along `direction`."""
        outcome = "flipped" if self._first else "no_gradient" if self._without_direction else "resisted"
        attacked = (
            image.to("cpu", torch.float32, copy=True) if self._first is self._before else self._attacked
        )
        everything = [self._before, *sorted(self._checked, key=lambda checked: checked.epsilon)]
        runs: list[tuple[float, float]] = []
        going_on = False
        for checked in everything if self._full else []:
            if self._succeeds(checked):
                runs.append((runs.pop()[0] if going_on else checked.epsilon, checked.epsilon))
            going_on = self._succeeds(checked)
        epsilon = None if self._first is None else self._first.epsilon
        failures = [
            checked.epsilon
            for checked in everything
            if not self._succeeds(checked) and (epsilon is None or checked.epsilon < epsilon)
        ]
        finest = 1 / LEVELS if self._grid.integer else 0.0  # below it there is no change of whole levels
        return Search(
            outcome=outcome,
            reference=self.reference,
            epsilon=epsilon,
            before=self._before,
            after=self._first,
            attacked=attacked,
            direction=direction,
            gradient_norm=self.gradient_norm,
            checked=tuple(everything),
            successes=tuple(runs),
            last_failure=None if outcome == "no_gradient" or not failures else failures[-1],
            at_most=epsilon is not None and epsilon > finest + 1e-9 and epsilon == self._grid.points[0],
        )
