"""Checks a model's inputs: accuracy under other label offsets and normalizations, and a verdict.

Wrong preprocessing fails silently: a network that expects mean = std = 0.5 and gets ImageNet's loses five
points of top-1 without any other symptom. Every common alternative is tried on the same images, and one is
reported if it is better by more than chance.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from workers.models.preprocessing import HALF, IMAGENET_MEAN, IMAGENET_STD, Channels, Preprocessing, Triple
from workers.models.probabilities import check_finite
from workers.models.vocabularies import Vocabulary

OFFSETS = (0, -1, 1)
NORMALISATIONS: tuple[tuple[str, Triple, Triple], ...] = (
    ("ImageNet's mean and std", IMAGENET_MEAN, IMAGENET_STD),
    ("mean = std = 0.5", HALF, HALF),
    ("plain pixels in [0, 1]", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    ("plain pixels in [0, 255]", (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
)
MNIST: tuple[str, Channels, Channels] = ("MNIST's mean and std", (0.1307,), (0.3081,))
AS_CONFIGURED = "as configured"

# An alternative is reported if its mean cross-entropy is lower by this many standard errors of the paired
# difference: with 14 alternatives, a correct configuration is flagged less than once in 50 times.
_STANDARD_ERRORS = 3.0
_MIN_IMAGES = 20
_RARE = 0.01  # significance level of the exact binomial test, one-sided
# log(1/C) is about 7 for 1,000 classes; a label outside the classes gets the maximum loss
_IMPOSSIBLE = 50.0


class Diagnosable(Protocol):
    """The part of a vision model that `diagnose` needs."""

    network: nn.Module
    preprocessing: Preprocessing
    vocabulary: Vocabulary
    mean: Tensor
    std: Tensor

    def __call__(self, pixels: Tensor, /) -> Tensor:
        """Logits of pixels N,3,H,W in [0, 1]."""


@dataclass(frozen=True)
class Trial:
    """Results with one normalization and one label offset. top1 and top5 are fractions in [0, 1]; loss in nats.

    `offset` is added to each label before it is compared with the logits' indices.
    """

    normalization: str
    offset: int
    images: int
    top1: float
    top5: float
    loss: float


@dataclass(frozen=True)
class Diagnosis:
    """The result of `diagnose`.

    Attributes:
        images: number of labeled images.
        top1, top5: accuracies over all of them, as configured.
        trials: the configured trial first, then every alternative, all on the same images.
        best: the trial with the lowest loss among those that beat the configured one by more than chance, or
            the configured trial itself.
        healthy: nothing looks wrong.
        sentence: the verdict.
    """

    images: int
    top1: float
    top5: float
    trials: tuple[Trial, ...]
    best: Trial
    healthy: bool
    sentence: str


def diagnose(
    model: Diagnosable,
    labelled_images: Iterable[tuple[npt.NDArray[np.uint8], int]],
    *,
    batch_size: int = 32,
    trial_images: int = 200,
) -> Diagnosis:
    """Run labeled images through `model`, the first `trial_images` of them with every alternative as well.

    Images are uint8 H,W,C as `model.preprocessing` makes them. Labels are class indices of the model's
    vocabulary; leave out images whose class it does not know. Memory does not depend on the number of images.

    Raises:
        ValueError: there are no images.
        NotFinite: the logits of an image are NaN or infinite.
    """
    classes = len(model.vocabulary.classes)
    alternatives = [
        (name, mean, std)
        for name, mean, std in _normalizations(model.preprocessing.channels)
        if not _same((mean, std), (model.preprocessing.mean, model.preprocessing.std))
    ]
    names = [AS_CONFIGURED, *(name for name, _, _ in alternatives)]
    tallies = {key: _Tally() for key in itertools.product(names, OFFSETS)}
    overall = _Tally()
    stream = iter(labelled_images)
    done = 0
    while batch := list(
        itertools.islice(stream, min(batch_size, trial_images - done) if done < trial_images else batch_size)
    ):
        pixels = _pixels(model, [image for image, _ in batch])
        labels = torch.tensor([label for _, label in batch])
        trying = done < trial_images
        done += len(batch)
        with torch.inference_mode():
            logits = {AS_CONFIGURED: model(pixels).float().cpu()}
            check_finite(logits[AS_CONFIGURED])
            overall.add(logits[AS_CONFIGURED], labels)
            if not trying:
                continue
            for name, mean, std in alternatives:
                logits[name] = model(_renormalised(model, pixels, mean, std)).float().cpu()
        for (name, offset), tally in tallies.items():
            tally.add(logits[name], labels + offset)
    if done == 0:
        raise ValueError("expected labeled images of classes the model knows, got none")
    trials = tuple(tally.trial(name, offset) for (name, offset), tally in tallies.items())
    configured = tallies[AS_CONFIGURED, 0]
    better = [
        trial
        for trial, tally in zip(trials, tallies.values(), strict=True)
        if trial.images >= _MIN_IMAGES
        and trial.top1 >= trials[0].top1
        and _beats(tally.top1, trial.images, 1 / classes)
        and configured.standard_errors_above(tally) > _STANDARD_ERRORS
    ]
    best = min(better, key=lambda trial: trial.loss, default=trials[0])
    top1, top5 = overall.top1 / done, overall.top5 / done
    healthy, sentence = _verdict(
        best, trials[0], images=done, top1=overall.top1, top5=top5, chance=overall.chance(), classes=classes
    )
    return Diagnosis(done, top1, top5, trials, best, healthy, sentence)


@dataclass(frozen=True)
class Chance:
    """What blind guesses achieve.

    Attributes:
        occurring: number of classes that occur in the images.
        agreement: expected accuracy if the model's own predictions were assigned to the images at random. For
            a broken network that always predicts one class, this is that class's share of the labels.
    """

    occurring: int
    agreement: float


class _Tally:
    """Hits and losses of one trial; losses are kept because alternatives are compared image by image."""

    def __init__(self) -> None:
        self.top1 = 0
        self.top5 = 0
        self.losses: list[Tensor] = []
        self._said: Counter[int] = Counter()
        self._labels: Counter[int] = Counter()

    def add(self, logits: Tensor, labels: Tensor) -> None:
        classes = logits.shape[1]
        inside = (labels >= 0) & (labels < classes)
        ranked = logits.topk(min(5, classes), dim=1).indices == labels[:, None]
        self._said.update(logits.argmax(1).tolist())
        self._labels.update(labels.tolist())
        self.top1 += int(ranked[:, 0].sum())
        self.top5 += int(ranked.any(dim=1).sum())
        losses = nn.functional.cross_entropy(logits, labels.clamp(0, classes - 1), reduction="none")
        self.losses.append(torch.where(inside, losses, _IMPOSSIBLE).nan_to_num(_IMPOSSIBLE))

    def chance(self) -> "Chance":
        images = self._labels.total()
        agreement = sum(self._said[label] * number for label, number in self._labels.items()) / images**2
        return Chance(len(self._labels), agreement)

    def trial(self, normalization: str, offset: int) -> Trial:
        losses = torch.cat(self.losses)
        images = len(losses)
        return Trial(
            normalization, offset, images, self.top1 / images, self.top5 / images, float(losses.mean())
        )

    def standard_errors_above(self, other: "_Tally") -> float:
        """How many standard errors this trial's mean loss exceeds `other`'s, paired by image."""
        difference = torch.cat(self.losses).double() - torch.cat(other.losses).double()
        mean = float(difference.mean())
        error = (
            float(difference.std(correction=1)) / math.sqrt(len(difference)) if len(difference) > 1 else 0.0
        )
        if error == 0.0:
            return math.copysign(math.inf, mean) if mean else 0.0
        return mean / error


def _normalizations(channels: int) -> list[tuple[str, Channels, Channels]]:
    """The normalizations to try on a network of 3 channels, or of one."""
    if channels == 3:
        return [*NORMALISATIONS]
    alike = [(name, mean[:1], std[:1]) for name, mean, std in NORMALISATIONS if len(set(mean)) == 1]
    return [MNIST, *alike]


def _pixels(model: Diagnosable, images: list[npt.NDArray[np.uint8]]) -> Tensor:
    """N,C,H,W in [0, 1] on the model's device."""
    stacked = torch.from_numpy(np.stack(images))
    return stacked.permute(0, 3, 1, 2).to(model.mean.device).float() / 255


def _renormalised(model: Diagnosable, pixels: Tensor, mean: Channels, std: Channels) -> Tensor:
    """Pixels that the model's own normalization turns into (pixels - mean) / std."""
    wanted = (pixels - pixels.new_tensor(mean).view(1, -1, 1, 1)) / pixels.new_tensor(std).view(1, -1, 1, 1)
    return wanted * model.std + model.mean


def _same(one: tuple[Channels, Channels], other: tuple[Channels, Channels]) -> bool:
    pairs = zip(itertools.chain(*one), itertools.chain(*other), strict=True)
    return all(math.isclose(a, b, abs_tol=0.01) for a, b in pairs)


def _verdict(
    best: Trial,
    configured: Trial,
    *,
    images: int,
    top1: int,
    top5: float,
    chance: Chance,
    classes: int,
) -> tuple[bool, str]:
    """(healthy, sentence). `top1` counts images."""
    interval = binomtest(top1, images).proportion_ci(0.95, method="exact")
    found = (
        f"top-1 is {top1 / images:.1%} (95 % interval {interval.low:.1%} to {interval.high:.1%}) and top-5 {top5:.1%} "
        f"on {images:,} image{'s' if images != 1 else ''}; random guessing over all {classes:,} classes gives "
        f"{1 / classes:.1%}, among the {chance.occurring:,} that occur {1 / chance.occurring:.1%}"
    )
    if images < _MIN_IMAGES:
        return (
            False,
            f"Too few images for a verdict ({images}, at least {_MIN_IMAGES} needed): {found}.",
        )
    if best is not configured:
        faults = []
        if best.offset:
            change = "1 added to" if best.offset > 0 else "1 subtracted from"
            faults.append(f"the labels look shifted by one (correct with {change} each)")
        if best.normalization != AS_CONFIGURED:
            faults.append(f"the mean and std look wrong ({best.normalization} fits better)")
        what = " and ".join(faults)
        return False, (
            f"{what[0].upper()}{what[1:]}: on {best.images} images top-1 is {configured.top1:.1%} as "
            f"configured and {best.top1:.1%} with this change; the mean cross-entropy falls from "
            f"{configured.loss:.2f} to {best.loss:.2f}."
        )
    if not _beats(top1, images, max(1 / classes, chance.agreement)):
        return False, (
            f"No better than guessing: {found}; the same predictions in random order give {chance.agreement:.1%}. "
            "No label offset or common mean and std helps; the weights may be random, or the labels from "
            "another vocabulary."
        )
    return True, f"Better than guessing: {found}. No label offset or common mean and std does better."


def _beats(hits: int, images: int, chance: float) -> bool:
    """Whether guesses with success probability `chance` reach this many hits less than once in 100 times."""
    return bool(binomtest(hits, images, min(chance, 1.0), alternative="greater").pvalue < _RARE)
