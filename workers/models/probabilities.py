"""From logits to probabilities, in float64 on the CPU, with a clear error for non-finite logits."""

import torch
from torch import Tensor

from workers.models.networks import ModelError


class NotFinite(ModelError):
    """A model's logits are NaN or infinite, so no class can be predicted."""


def check_finite(logits: Tensor) -> None:
    """Raise NotFinite if a logit is NaN or infinite: an arg-max would return a class anyway."""
    wrong = int((~torch.isfinite(logits)).sum())
    if wrong:
        raise NotFinite(
            f"{wrong:,} of {logits.numel():,} logits are not finite (NaN or infinite): "
            "the model's weights are damaged, or its activations overflow on this image"
        )


def class_probabilities(logits: Tensor) -> Tensor:
    """N,C float64 on the CPU: the softmax of `logits` N,C.

    Raises:
        NotFinite: a logit is NaN or infinite.
    """
    check_finite(logits)
    return logits.detach().to("cpu", torch.float64).softmax(1)
