"""PGD within one epsilon: Madry et al., Towards deep learning models resistant to adversarial attacks, ICLR 2018."""

from dataclasses import dataclass

import torch
from torch import Tensor

from workers.attacks.steps import Step, check_epsilon, check_inputs, loss_gradient, sign_direction
from workers.attribution.gradients import Network
from workers.requests.epsilons import LEVELS
from workers.requests.parameters import InvalidRequest


@dataclass(frozen=True)
class Pgd:
    """Parameters of projected gradient descent. `step_size` is a fraction of epsilon.

    `seed` is that of the random start within the epsilon box; None starts at the image itself.
    """

    steps: int = 10
    step_size: float = 0.25
    seed: int | None = 0

    def __call__(self, step: Step) -> Tensor:
        """The perturbed images of `step`."""
        pixels, epsilon = step.pixels, step.epsilon
        low, high = (pixels - epsilon).clamp(0, 1), (pixels + epsilon).clamp(0, 1)
        moved = pixels.detach()
        if self.seed is not None:
            generator = torch.Generator().manual_seed(self.seed)
            start = torch.rand(pixels.shape[1:], generator=generator).to(pixels) * 2 - 1
            moved = (moved + epsilon * start).clamp(low, high)
        for _ in range(self.steps):
            gradient = loss_gradient(step.model, moved, step.classes)
            direction = sign_direction(gradient, targeted=step.targeted)
            moved = (moved + self.step_size * epsilon * direction).clamp(low, high)
        return (moved * LEVELS).round() / LEVELS if step.integer else moved


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

    The stronger attack, for comparison: it costs `how.steps` backward passes where FGSM costs one.
    """
    check_epsilon(float(torch.as_tensor(epsilon).max()))
    check_inputs(model, pixels, classes)
    how = how or Pgd()
    if how.steps < 1:
        raise InvalidRequest(f"steps: expected a whole number from 1 up, got {how.steps}")
    return how(Step(model, pixels, classes, epsilon, targeted, integer))
