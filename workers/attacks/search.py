"""Attacks: the smallest perturbation of an image that changes the prediction.

Pixels are in [0, 1], normalization happens inside the model, and epsilon is the largest change of a pixel
(L-infinity). FGSM: Goodfellow et al., Explaining and harnessing adversarial examples, ICLR 2015; PGD: Madry
et al., Towards deep learning models resistant to adversarial attacks, ICLR 2018.

FGSM's direction, the sign of the gradient of the cross-entropy on logits, does not depend on epsilon: one
backward pass per image, then only forward passes. Success is not monotone in epsilon, so the grid is walked
from its lowest point up; bisection would find some later success and call it the smallest. A geometric grid
is then scanned again between the last failure and the first success, also from below.

All passes are float32: bfloat16 changes the smallest epsilon of a third of all images. The caller's state is
left unchanged.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from workers.attacks.steps import Perturb, Step, check_classes, perturbed, sign_direction
from workers.attacks.walk import Checked, Search, Walk, checked_at
from workers.attribution.gradients import Network, chunk_size, input_gradients, precision
from workers.models.probabilities import check_finite
from workers.requests.epsilons import Epsilons, GeometricGrid
from workers.requests.parameters import InvalidRequest

# Images per forward pass of a search.
_FORWARD_IMAGES = {"cpu": 16, "cuda": 128, "mps": 64}


def smallest_epsilons(
    model: Network,
    pixels: Tensor,
    classes: Tensor | None = None,
    *,
    grid: Epsilons | None = None,
    perturb: Perturb | None = None,
    targeted: bool = False,
    full_scan: bool = False,
    on_checked: Callable[[int, Checked], None] = lambda _image, _checked: None,
    on_pass: Callable[[Tensor], None] = lambda _images: None,
    batch: int | None = None,
    forward: Network | None = None,
) -> list[Search]:
    """The smallest epsilon of `grid` at which an attack succeeds, for each of `pixels` (N,3,H,W in [0, 1]).

    Tries `grid.points` in ascending order up to the first success, then the points of `grid.between` that
    success and the last failure below it.

    A success is a prediction other than the reference class or, if targeted, a prediction of that class.

    Args:
        classes: N; the label, or any class; None uses each image's own prediction.
        perturb: perturbs the images again at each epsilon; None attacks with FGSM.
        full_scan: try the whole grid, and report all runs of successes.
        on_checked: called after each pass with each image and its latest point; may raise to stop.
        on_pass: called before each pass with the index in `pixels` that each row is made from.
        batch: images per forward pass. It does not affect the result, except for the network's rounding.
        forward: the same model with faster forward passes (`speedups.folding`); not used for gradients.

    Raises:
        InvalidRequest: the model does not have the class, or a targeted search has no classes.
    """
    if targeted and classes is None:
        raise InvalidRequest("target: expected a target class, got none")
    grid = grid or GeometricGrid()
    pixels = pixels.detach()
    size = batch or _FORWARD_IMAGES.get(pixels.device.type, _FORWARD_IMAGES["cpu"])
    walks: list[Walk] = []
    directions = torch.zeros_like(pixels)
    references: list[Tensor] = []
    back = chunk_size(model, pixels)
    for first in range(0, len(pixels), back):
        part = slice(first, first + back)
        on_pass(torch.arange(len(pixels), device=pixels.device)[part])
        gradient, clean = _clean(model, pixels[part], None if classes is None else classes[part])
        directions[part] = sign_direction(gradient, targeted=targeted)
        references.append(clean.argmax(1).to(pixels.device) if classes is None else classes[part])
        norms = gradient.flatten(1).to("cpu", torch.float64).norm(dim=1)
        for reference, row, norm in zip(references[-1].tolist(), clean, norms.tolist(), strict=True):
            walks.append(
                Walk(
                    reference,
                    checked_at(0.0, row, reference),
                    norm,
                    grid,
                    targeted=targeted,
                    full=full_scan,
                    needs_gradient=perturb is None,
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
            if perturb is None:
                alone = len({image for image, _ in group}) == 1  # broadcast instead of copied
                chosen = which[:1] if alone else which
                moved = perturbed(pixels[chosen], directions[chosen], epsilon, integer=grid.integer)
            else:
                moved = torch.empty_like(pixels[which])
                for start in range(0, len(which), back):
                    part = slice(start, start + back)
                    on_pass(which[part])
                    moved[part] = perturb(
                        Step(
                            model,
                            pixels[which[part]],
                            classes[which[part]],
                            epsilon[part],
                            targeted,
                            grid.integer,
                        )
                    )
            latest: dict[int, Checked] = {}
            on_pass(which)
            for (image, value), row, after in zip(
                group, _log_probabilities(forward or model, moved), moved, strict=True
            ):
                if walks[image].awaits(value):  # skip points above a success
                    latest[image] = checked_at(value, row, walks[image].reference)
                    walks[image].enter(latest[image], after)
            for image, found in latest.items():
                on_checked(image, found)
    return [
        walk.result(image, direction.to("cpu", torch.int8))
        for walk, image, direction in zip(walks, pixels, directions, strict=True)
    ]


def _clean(model: Network, pixels: Tensor, classes: Tensor | None) -> tuple[Tensor, Tensor]:
    """`loss_gradient` of `classes` or of the predictions, and log-probabilities, in one forward and backward pass."""
    seen: list[Tensor] = []

    def objective(logits: Tensor) -> Tensor:
        seen.append(logits.detach())
        if classes is not None:
            check_classes(classes, logits.shape[1])
        return F.cross_entropy(logits, logits.argmax(1) if classes is None else classes, reduction="sum")

    with precision("float32", pixels.device):
        gradient = input_gradients(model, pixels, objective)
    return gradient, _as_log_probabilities(seen[0])


def _log_probabilities(model: Network, pixels: Tensor) -> Tensor:
    with torch.inference_mode(), precision("float32", pixels.device):
        return _as_log_probabilities(model(pixels))


def _as_log_probabilities(logits: Tensor) -> Tensor:
    """Log-probabilities on the CPU, N,C, float64: the softmax of float32 saturates at 1."""
    check_finite(logits)
    return logits.to("cpu", torch.float32).to(torch.float64).log_softmax(1)
