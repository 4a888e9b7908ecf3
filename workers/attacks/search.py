"""Attacks: the smallest change of an image that changes what a network says.

Everything is in pixels in [0, 1], normalisation happens inside the model, and epsilon is the largest change of a pixel
(L-infinity). FGSM: Goodfellow et al., Explaining and harnessing adversarial examples, ICLR 2015; PGD: Madry et al.,
Towards deep learning models resistant to adversarial attacks, ICLR 2018.

FGSM's direction, the sign of the gradient of the cross-entropy on logits, does not depend on epsilon: one way back per
image, then forward passes alone. Success is not monotone in epsilon, so the grid is walked from its lowest point up;
halving intervals would find some later success, and call it the smallest. A geometric grid is then scanned once more
between the last failure and the first success, from below too.

All passes are float32: bfloat16 changes the smallest epsilon of a third of all images. Nothing of the caller's is
changed.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from workers.attribution.gradients import Network, chunk_size, input_gradients, precision
from workers.models.probabilities import check_finite
from workers.requests.attacks import LEVELS, Epsilons, GeometricGrid
from workers.requests.methods import WrongRequest

# Images in one forward pass of a search.
_FORWARD_IMAGES = {"cpu": 16, "cuda": 128, "mps": 64}
# Points of the grid that one image puts into its first pass, each time twice as many up to the most.
_FIRST_POINTS = 2
_MOST_POINTS = 16
# The same by FGSM on a geometric grid, whose first points few images fall at: a fuller pass costs less than two.
_FIRST_GEOMETRIC = 8
_TOP = 5


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
class Pgd:
    """How projected gradient descent walks: `step_size` is a share of epsilon.

    `seed` is that of the random start in the box; None starts at the image itself.
    """

    steps: int = 10
    step_size: float = 0.25
    seed: int | None = 0


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


def loss_gradient(model: Network, pixels: Tensor, classes: Tensor) -> Tensor:
    """d cross-entropy(logits[i], classes[i]) / d pixels[i], N,3,H,W."""
    with precision("float32", pixels.device):
        return input_gradients(
            model, pixels, lambda logits: F.cross_entropy(logits, classes, reduction="sum")
        )


def _direction(gradient: Tensor, *, targeted: bool) -> Tensor:
    """Signs away from the class whose loss `gradient` is or, targeted, towards it; 0 where there is no gradient."""
    return -gradient.sign() if targeted else gradient.sign()


def perturbed(pixels: Tensor, direction: Tensor, epsilon: Tensor | float, *, integer: bool = False) -> Tensor:
    """`pixels` moved by `epsilon` (a number, or N,1,1,1) along signs, kept in [0, 1].

    `integer` works on whole levels of 255, so that rounding to 8 bits changes nothing.
    """
    if integer:
        return ((pixels * LEVELS).round() + (epsilon * direction * LEVELS).round()).clamp(0, LEVELS) / LEVELS
    if isinstance(epsilon, Tensor):
        return torch.addcmul(pixels, direction, epsilon).clamp_(0, 1)  # one pass over memory instead of two
    return (pixels + epsilon * direction).clamp(0, 1)


def to_uint8(pixels: Tensor) -> Tensor:
    """The nearest 8-bit levels of pixels in [0, 1]."""
    return (pixels * LEVELS).round().clamp(0, LEVELS).to(torch.uint8)


def fgsm(
    model: Network,
    pixels: Tensor,
    classes: Tensor,
    epsilon: float,
    *,
    targeted: bool = False,
    integer: bool = False,
) -> Tensor:
    """Adversarial images N,3,H,W of `pixels` at one epsilon, away from `classes` or, targeted, towards them."""
    _check_epsilon(epsilon)
    _check(model, pixels, classes)
    direction = _direction(loss_gradient(model, pixels, classes), targeted=targeted)
    return perturbed(pixels, direction, epsilon, integer=integer)


def pgd(
    model: Network,
    pixels: Tensor,
    classes: Tensor,
    epsilon: float | Tensor,
    how: Pgd | None = None,
    *,
    targeted: bool = False,
    integer: bool = False,
) -> Tensor:
    """Projected gradient descent within L-infinity `epsilon` (a number, or N,1,1,1) of `pixels`.

    The stronger attack to compare with: it takes `how.steps` ways back where FGSM takes one.
    """
    _check_epsilon(float(torch.as_tensor(epsilon).max()))
    _check(model, pixels, classes)
    how = how or Pgd()
    if how.steps < 1:
        raise WrongRequest(f"steps: expected a whole number from 1 up, got {how.steps}")
    return _pgd(model, pixels, classes, epsilon, how, targeted=targeted, integer=integer)


def _pgd(
    model: Network,
    pixels: Tensor,
    classes: Tensor,
    epsilon: float | Tensor,
    how: Pgd,
    *,
    targeted: bool,
    integer: bool,
) -> Tensor:
    low, high = (pixels - epsilon).clamp(0, 1), (pixels + epsilon).clamp(0, 1)
    moved = pixels.detach()
    if how.seed is not None:
        generator = torch.Generator().manual_seed(how.seed)
        start = torch.rand(pixels.shape[1:], generator=generator).to(pixels) * 2 - 1
        moved = (moved + epsilon * start).clamp(low, high)
    for _ in range(how.steps):
        direction = _direction(loss_gradient(model, moved, classes), targeted=targeted)
        moved = (moved + how.step_size * epsilon * direction).clamp(low, high)
    return (moved * LEVELS).round() / LEVELS if integer else moved


def smallest_epsilons(
    model: Network,
    pixels: Tensor,
    classes: Tensor | None = None,
    *,
    grid: Epsilons | None = None,
    how: Pgd | None = None,
    targeted: bool = False,
    full_scan: bool = False,
    on_checked: Callable[[int, Checked], None] = lambda _image, _checked: None,
    on_pass: Callable[[Tensor], None] = lambda _images: None,
    batch: int | None = None,
    forward: Network | None = None,
) -> list[Search]:
    """The smallest epsilon of `grid` at which an attack succeeds, for each of `pixels` (N,3,H,W in [0, 1]).

    `grid.points` are looked at in ascending order; from the first that succeeds, so is what `grid.between` gives for it
    and the point before it.

    A success is a prediction other than the reference class or, targeted, that class itself.

    Args:
        classes: N; the label, or any class; None takes each image's own prediction.
        how: attack by projected gradient descent, anew at each epsilon; None attacks by FGSM.
        full_scan: look at the whole grid, and report all runs of successes.
        on_checked: told of image and point after each pass, the latest of each image; may raise to stop.
        on_pass: told before each pass which of `pixels` each of its rows is made from.
        batch: images in one forward pass. The result does not depend on it, but for the network's rounding.
        forward: the same model with quicker forward passes (`speedups.folding`), not asked for gradients.

    Raises:
        WrongRequest: a class that the model has not, or a targeted search without classes.
    """
    if targeted and classes is None:
        raise WrongRequest("target: expected a class to reach, got none")
    grid = grid or GeometricGrid()
    pixels = pixels.detach()
    size = batch or _FORWARD_IMAGES.get(pixels.device.type, _FORWARD_IMAGES["cpu"])
    walks: list[_Walk] = []
    directions = torch.zeros_like(pixels)
    references: list[Tensor] = []
    back = chunk_size(model, pixels)
    for first in range(0, len(pixels), back):
        part = slice(first, first + back)
        on_pass(torch.arange(len(pixels), device=pixels.device)[part])
        gradient, clean = _clean(model, pixels[part], None if classes is None else classes[part])
        directions[part] = _direction(gradient, targeted=targeted)
        references.append(clean.argmax(1).to(pixels.device) if classes is None else classes[part])
        norms = gradient.flatten(1).to("cpu", torch.float64).norm(dim=1)
        for reference, row, norm in zip(references[-1].tolist(), clean, norms.tolist(), strict=True):
            walks.append(
                _Walk(
                    reference,
                    _checked(0.0, row, reference),
                    norm,
                    grid,
                    targeted=targeted,
                    full=full_scan,
                    needs_gradient=how is None,
                )
            )
    classes = torch.cat(references)
    while waiting := [(image, walk.next()) for image, walk in enumerate(walks) if not walk.ended]:
        points = [(image, value) for image, wanted in waiting for value in wanted]
        for first in range(0, len(points), size):
            group = [pair for pair in points[first : first + size] if walks[pair[0]].wants(pair[1])]
            if not group:
                continue
            which = torch.tensor([image for image, _ in group], device=pixels.device)
            epsilon = torch.tensor([value for _, value in group], device=pixels.device).view(-1, 1, 1, 1)
            if how is None:
                alone = len({image for image, _ in group}) == 1  # broadcast instead of copied
                chosen = which[:1] if alone else which
                moved = perturbed(pixels[chosen], directions[chosen], epsilon, integer=grid.integer)
            else:
                moved = torch.empty_like(pixels[which])
                for start in range(0, len(which), back):
                    part = slice(start, start + back)
                    on_pass(which[part])
                    moved[part] = _pgd(
                        model,
                        pixels[which[part]],
                        classes[which[part]],
                        epsilon[part],
                        how,
                        targeted=targeted,
                        integer=grid.integer,
                    )
            latest: dict[int, Checked] = {}
            on_pass(which)
            for (image, value), row, after in zip(
                group, _log_probabilities(forward or model, moved), moved, strict=True
            ):
                if walks[image].awaits(value):  # not behind a success
                    latest[image] = _checked(value, row, walks[image].reference)
                    walks[image].enter(latest[image], after)
            for image, found in latest.items():
                on_checked(image, found)
    return [
        walk.result(image, direction.to("cpu", torch.int8))
        for walk, image, direction in zip(walks, pixels, directions, strict=True)
    ]


def _clean(model: Network, pixels: Tensor, classes: Tensor | None) -> tuple[Tensor, Tensor]:
    """`loss_gradient` of `classes`, or of the predictions, and log-probabilities, by one pass there and back."""
    seen: list[Tensor] = []

    def objective(logits: Tensor) -> Tensor:
        seen.append(logits.detach())
        if classes is not None:
            _check_classes(classes, logits.shape[1])
        return F.cross_entropy(logits, logits.argmax(1) if classes is None else classes, reduction="sum")

    with precision("float32", pixels.device):
        gradient = input_gradients(model, pixels, objective)
    return gradient, _as_log_probabilities(seen[0])


def _log_probabilities(model: Network, pixels: Tensor) -> Tensor:
    with torch.inference_mode(), precision("float32", pixels.device):
        return _as_log_probabilities(model(pixels))


def _as_log_probabilities(logits: Tensor) -> Tensor:
    """Logarithms of probabilities on the CPU, N,C, float64: the softmax of float32 saturates at 1."""
    check_finite(logits)
    return logits.to("cpu", torch.float32).to(torch.float64).log_softmax(1)


def _checked(epsilon: float, row: Tensor, reference: int) -> Checked:
    best = row.topk(min(_TOP, len(row)))
    top = tuple(zip(best.indices.tolist(), best.values.exp().tolist(), strict=True))
    first = int(row.argmax())  # of classes that are tied, the lowest, as everywhere else
    if top[0][0] != first:
        top = ((first, top[0][1]), *(pair for pair in top if pair[0] != first))[:_TOP]
    return Checked(epsilon, top, math.exp(row[reference]))


def _check_epsilon(epsilon: float) -> None:
    if not 0 <= epsilon <= 1:
        raise WrongRequest(f"epsilon: expected a number from 0 to 1, got {epsilon:g}")


def _check(model: Network, pixels: Tensor, classes: Tensor) -> None:
    assert pixels.ndim == 4, f"expected pixels N,3,H,W, got {tuple(pixels.shape)}"
    assert classes.shape == pixels.shape[:1], f"expected a class an image, got {tuple(classes.shape)}"
    with torch.inference_mode():
        _check_classes(classes, model(pixels[:1]).shape[1])


def _check_classes(classes: Tensor, known: int) -> None:
    for index in classes.tolist():
        if not 0 <= index < known:
            raise WrongRequest(f"class: expected one from 0 to {known - 1}, got {index}")


class _Walk:
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
        self._points = min(2 * self._points, _MOST_POINTS)
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
