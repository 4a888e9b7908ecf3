"""The teacher, EfficientNet-Lite0: its outputs are training targets in addition to the labels."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from precompute.demo.data import Images
from precompute.demo.network import to_pixels
from precompute.demo.recipe import CLASSES, TEACHER_SIDE
from workers.models.vision import VisionModel


@dataclass(frozen=True)
class Answers:
    """The teacher's outputs for each view.

    Attributes:
        features: pooled features, the input of its classifier, float16 N,F.
        probabilities: float16 N,1000, rows that sum to one up to rounding.
    """

    features: npt.NDArray[np.float16]
    probabilities: npt.NDArray[np.float16]


def ask(teacher: VisionModel, images: Images, *, quick: bool = False) -> Answers:
    """Run the teacher; `quick` uses bfloat16, which is three times as fast."""
    classifier = classifier_of(teacher)
    features = np.empty((len(images), classifier.in_features), np.float16)
    probabilities = np.empty((len(images), CLASSES), np.float16)
    teacher = teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    read: list[Tensor] = []
    hook = classifier.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    with torch.inference_mode():
        for start in range(0, len(images), 64):
            chosen = slice(start, start + 64)
            large = F.interpolate(
                to_pixels(images.pixels[chosen]), size=(TEACHER_SIDE,) * 2, mode="bicubic", antialias=True
            ).clamp(0, 1)
            with torch.autocast("cpu", torch.bfloat16, enabled=quick):
                teacher(large.contiguous(memory_format=torch.channels_last))
            found = read.pop().float()
            features[chosen] = found.numpy()
            # in float32 even if `quick`; calling the classifier module would trigger the hook
            probabilities[chosen] = F.linear(found, classifier.weight, classifier.bias).softmax(1).numpy()
    hook.remove()
    return Answers(features, probabilities)


def classifier_of(teacher: VisionModel) -> nn.Linear:
    """The teacher's final layer."""
    classifier = teacher.network.get_submodule("classifier")
    assert isinstance(classifier, nn.Linear)
    return classifier
