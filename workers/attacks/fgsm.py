"""FGSM at one epsilon: Goodfellow et al., Explaining and harnessing adversarial examples, ICLR 2015."""

from torch import Tensor

from workers.attacks.steps import check_epsilon, check_inputs, loss_gradient, perturbed, sign_direction
from workers.attribution.gradients import Network


def fgsm(
    model: Network,
    pixels: Tensor,
    classes: Tensor,
    epsilon: float,
    *,
    targeted: bool = False,
    integer: bool = False,
) -> Tensor:
    """Adversarial images N,3,H,W of `pixels` at one epsilon, away from `classes` or, if targeted, toward them."""
    check_epsilon(epsilon)
    check_inputs(model, pixels, classes)
    direction = sign_direction(loss_gradient(model, pixels, classes), targeted=targeted)
    return perturbed(pixels, direction, epsilon, integer=integer)
