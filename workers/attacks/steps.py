"""Building blocks of attacks: the gradient of the loss, a step along it within [0, 1], input checks."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from workers.attribution.gradients import Network, input_gradients, precision
from workers.requests.epsilons import LEVELS
from workers.requests.parameters import InvalidRequest


@dataclass(frozen=True)
class Step:
    """Images N,3,H,W in [0, 1], and how far each may be perturbed.

    Attributes:
        classes: N, the class to leave or, if `targeted`, to reach.
        epsilon: N,1,1,1 or a number, the largest change of a pixel.
        integer: epsilons and pixels are whole 8-bit levels (n/255).
    """

    model: Network
    pixels: Tensor
    classes: Tensor
    epsilon: Tensor | float
    targeted: bool = False
    integer: bool = False


# Returns the perturbed images, N,3,H,W.
Perturb = Callable[[Step], Tensor]


def loss_gradient(model: Network, pixels: Tensor, classes: Tensor) -> Tensor:
    """d cross-entropy(logits[i], classes[i]) / d pixels[i], N,3,H,W."""
    with precision("float32", pixels.device):
        return input_gradients(
            model, pixels, lambda logits: F.cross_entropy(logits, classes, reduction="sum")
        )


def sign_direction(gradient: Tensor, *, targeted: bool) -> Tensor:
    """Signs away from the class whose loss gradient this is, or toward it if targeted; 0 for a zero gradient."""
    return -gradient.sign() if targeted else gradient.sign()


def perturbed(pixels: Tensor, direction: Tensor, epsilon: Tensor | float, *, integer: bool = False) -> Tensor:
    """`pixels` shifted by `epsilon` (a number, or N,1,1,1) along signs, clamped to [0, 1].

    `integer` works in whole 8-bit levels, so that rounding to 8 bits changes nothing.
    """
    if integer:
        return ((pixels * LEVELS).round() + (epsilon * direction * LEVELS).round()).clamp(0, LEVELS) / LEVELS
    if isinstance(epsilon, Tensor):
        return torch.addcmul(pixels, direction, epsilon).clamp_(0, 1)  # one pass over memory, not two
    return (pixels + epsilon * direction).clamp(0, 1)


def to_uint8(pixels: Tensor) -> Tensor:
    """The nearest 8-bit levels of pixels in [0, 1]."""
    return (pixels * LEVELS).round().clamp(0, LEVELS).to(torch.uint8)


def check_epsilon(epsilon: float) -> None:
    """Raise InvalidRequest if `epsilon` is outside [0, 1]."""
    if not 0 <= epsilon <= 1:
        raise InvalidRequest(f"epsilon: expected a number from 0 to 1, got {epsilon:g}")


def check_inputs(model: Network, pixels: Tensor, classes: Tensor) -> None:
    """Raise InvalidRequest if the model does not have one of the classes."""
    assert pixels.ndim == 4, f"expected pixels N,3,H,W, got {tuple(pixels.shape)}"
    assert classes.shape == pixels.shape[:1], f"expected one class per image, got {tuple(classes.shape)}"
    with torch.inference_mode():
        check_classes(classes, model(pixels[:1]).shape[1])


def check_classes(classes: Tensor, known: int) -> None:
    """Raise InvalidRequest if one of `classes` is not below `known`, the number of classes."""
    for index in classes.tolist():
        if not 0 <= index < known:
            raise InvalidRequest(f"class: expected one from 0 to {known - 1}, got {index}")
