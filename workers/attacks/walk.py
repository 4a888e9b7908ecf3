"""The walk of one image up the grid of epsilons, and its result."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.requests.epsilons import LEVELS, Epsilons, GeometricGrid

# Grid points per image in its first pass; doubled in each following pass, up to the maximum.
_FIRST_POINTS = 2
_MAX_POINTS = 16
# The same for FGSM on a geometric grid. Few images flip at its first points, so one larger pass is cheaper
# than two.
_FIRST_GEOMETRIC = 8
TOP_CLASSES = 5


@dataclass(frozen=True)
class Checked:
    """A prediction for one image at one epsilon: the `top` classes with their probabilities, highest first."""

    epsilon: float
    top: tuple[tuple[int, float], ...]
    reference_probability: float

    @property
    def predicted(self) -> int:
        """The predicted class."""
        return self.top[0][0]

    @property
    def probability(self) -> float:
        """The probability of the predicted class."""
        return self.top[0][1]


@dataclass(frozen=True)
class Search:
    """The smallest successful epsilon of one image.

    Attributes:
        outcome: `flipped`; `resisted` up to the cap, which is a censored result and no proof of robustness;
            or `no_gradient`: the gradient is zero everywhere, so FGSM has no direction, which says nothing
            about robustness.
        reference: the class to leave, or for a targeted search the class to reach.
        epsilon: the smallest success; 0 if the unchanged image is one; None without success.
        before, after: predictions at epsilon 0, and at `epsilon`.
        attacked: float32 3,H,W on the CPU, the image at `shown.epsilon`; None if there was no direction.
        direction: int8 3,H,W, the signs that FGSM follows.
        gradient_norm: Euclidean norm of d cross-entropy / d pixels.
        checked: predictions at ascending epsilons, up to the grid's first success or, in a full scan, to the
            cap.
        successes: for a full scan, first and last epsilon of each run of successes.
        last_failure: the largest failure below `epsilon`, with 0 included, or without success the largest
            epsilon tried; None if the unchanged image was a success or nothing was attacked.
        at_most: whether `epsilon` is the lowest point of the grid, so that a smaller one may also succeed.
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
        """The prediction for `attacked`: at the smallest success, else at the largest epsilon tried."""
        return None if self.attacked is None else self.after or self.checked[-1]


def checked_at(epsilon: float, row: Tensor, reference: int) -> Checked:
    """The prediction at one epsilon, from log-probabilities (C, float64)."""
    best = row.topk(min(TOP_CLASSES, len(row)))
    top = tuple(zip(best.indices.tolist(), best.values.exp().tolist(), strict=True))
    first = int(row.argmax())  # the lowest of tied classes, as everywhere else
    if top[0][0] != first:
        top = ((first, top[0][1]), *(pair for pair in top if pair[0] != first))[:TOP_CLASSES]
    return Checked(epsilon, top, math.exp(row[reference]))


class Walk:
    """One image's walk up the grid, and then through the gap below the first success."""

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
        # the epsilons of the current scan, and how many of them have been tried
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
        """Whether no epsilon is left to try."""
        return self._seen == len(self._scan)

    def wants(self, epsilon: float) -> bool:
        """Whether that epsilon is still to be tried in this scan."""
        return epsilon in self._scan[self._seen :]

    def awaits(self, epsilon: float) -> bool:
        """Whether that is the next epsilon to try."""
        return not self.ended and self._scan[self._seen] == epsilon

    def next(self) -> Sequence[float]:
        """The epsilons to try next."""
        found = self._scan[self._seen : self._seen + self._points]
        self._points = min(2 * self._points, _MAX_POINTS)
        return found

    def enter(self, checked: Checked, attacked: Tensor) -> None:
        """Record the prediction and the attacked image at the epsilon that `awaits` confirmed."""
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
        """The epsilons left to try between the grid's last failure and its first success."""
        below = [checked.epsilon for checked in self._checked if checked.epsilon < first.epsilon]
        return self._grid.between(max(below), first.epsilon) if below else ()

    def result(self, image: Tensor, direction: Tensor) -> Search:
        """The result of the walk, for `image` along `direction`."""
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
        finest = 1 / LEVELS if self._grid.integer else 0.0  # below it, whole levels do not change
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
