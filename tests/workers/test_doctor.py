"""The doctor identifies what is wrong with a model on real photos, and reports when nothing is."""

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import nn

from workers.models.doctor import AS_CONFIGURED, diagnose
from workers.models.networks import LoadedNetwork
from workers.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Triple
from workers.models.probabilities import NotFinite
from workers.models.vision import VisionModel

Wrap = Callable[..., VisionModel]
Labelled = list[tuple[npt.NDArray[np.uint8], int]]


@pytest.fixture(scope="module")
def labelled(lite0: VisionModel, photographs: list[tuple[Image.Image, str]]) -> Labelled:
    found = []
    for image, wnid in photographs:
        index = lite0.vocabulary.index_of_wnid(wnid)
        assert index is not None
        found.append((lite0.preprocessing(image), index))
    return found


def with_normalization(model: VisionModel, mean: Triple, std: Triple) -> VisionModel:
    loaded = LoadedNetwork(
        network=model.network,
        source=model.source,
        architecture=model.architecture,
        preprocessing=replace(model.preprocessing, mean=mean, std=std),
        vocabulary=model.vocabulary,
    )
    return VisionModel(loaded, name="wrongly-normalized").eval()


def test_a_model_fed_as_its_weights_want_is_found_healthy(lite0: VisionModel, labelled: Labelled) -> None:
    found = diagnose(lite0, labelled[:40])
    assert found.healthy
    assert found.images == 40
    assert found.top1 >= 0.8
    assert found.top5 >= 0.93
    assert found.best is found.trials[0]
    assert found.sentence.startswith(f"Better than guessing: top-1 is {found.top1:.1%} (95 % interval ")
    assert found.sentence.endswith(
        f" and top-5 {found.top5:.1%} on 40 images; random guessing over all 1,000 classes gives 0.1%, "
        "among the 40 that "
        "occur 2.5%. No label offset or common mean and std does better."
    )


def test_top_1_and_top_5_are_counted_like_by_hand(lite0: VisionModel, labelled: Labelled) -> None:
    found = diagnose(lite0, labelled[:20], batch_size=7, trial_images=1)
    first = fifth = 0
    for image, index in labelled[:20]:
        pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            logits = lite0(pixels)[0]
        ranked = logits.argsort(descending=True).tolist()
        first += ranked[0] == index
        fifth += index in ranked[:5]
    assert (found.top1, found.top5) == (first / 20, fifth / 20)


def test_a_wrong_mean_and_std_is_named_with_the_one_that_fits(lite0: VisionModel, labelled: Labelled) -> None:
    """100 photos suffice, though top-1 drops by only a few points."""
    found = diagnose(with_normalization(lite0, IMAGENET_MEAN, IMAGENET_STD), labelled)
    assert not found.healthy
    assert (found.best.normalization, found.best.offset) == ("mean = std = 0.5", 0)
    assert found.sentence.startswith("The mean and std look wrong (mean = std = 0.5 fits better)")


@pytest.mark.parametrize(("shift", "remedy"), [(1, "1 subtracted from each"), (-1, "1 added to each")])
def test_shifted_labels_are_named_with_the_way_back(
    lite0: VisionModel, labelled: Labelled, shift: int, remedy: str
) -> None:
    found = diagnose(lite0, [(image, index + shift) for image, index in labelled[:25]])
    assert not found.healthy
    assert (found.best.normalization, found.best.offset) == (AS_CONFIGURED, -shift)
    assert found.sentence.startswith(f"The labels look shifted by one (correct with {remedy})")


def test_two_faults_at_once_are_both_named(lite0: VisionModel, labelled: Labelled) -> None:
    wrong = with_normalization(lite0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    sentence = diagnose(wrong, [(image, index + 1) for image, index in labelled[:30]]).sentence
    assert "labels look shifted by one" in sentence
    assert "mean and std look wrong" in sentence


def test_labels_that_mean_nothing_are_called_guessing_and_nothing_else_is_blamed(
    lite0: VisionModel, labelled: Labelled
) -> None:
    order = list(range(1000))
    random.Random(0).shuffle(order)
    found = diagnose(lite0, [(image, order[index]) for image, index in labelled[:25]])
    assert not found.healthy
    assert found.sentence.startswith("No better than guessing: top-1 is ")


def test_a_few_images_allow_no_verdict(lite0: VisionModel, labelled: Labelled) -> None:
    found = diagnose(lite0, labelled[:5])
    assert not found.healthy
    assert found.sentence.startswith("Too few images for a verdict (5, at least 20 needed)")


def test_alternatives_are_tried_on_the_first_images_only(lite0: VisionModel, labelled: Labelled) -> None:
    found = diagnose(lite0, labelled[:30], trial_images=10, batch_size=8)
    assert found.images == 30
    assert {trial.images for trial in found.trials} == {10}


def test_no_images_is_an_error(lite0: VisionModel) -> None:
    with pytest.raises(ValueError, match="expected labeled images of classes the model knows, got none"):
        diagnose(lite0, [])


def test_a_network_that_returns_nan_is_not_called_right(lite0: VisionModel, labelled: Labelled) -> None:
    class Broken(nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.full((len(pixels), 1000), torch.nan)

    loaded = LoadedNetwork(Broken(), "test", "Broken", lite0.preprocessing, lite0.vocabulary)
    with pytest.raises(NotFinite, match="logits are not finite"):
        diagnose(VisionModel(loaded, name="broken"), labelled[:20])


class Says(nn.Module):
    """Predicts the class encoded in the image's first pixel."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.classes = classes

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        told = (pixels[:, 0, 0, 0] * 127.5 + 127.5).round().long().clamp(0, self.classes - 1)
        return nn.functional.one_hot(told, self.classes).float() * self.scale


def told(said: list[int], labels: list[int]) -> Labelled:
    return [(np.full((8, 8, 3), number, np.uint8), label) for number, label in zip(said, labels, strict=True)]


def test_a_tenth_correct_of_a_thousand_classes_is_above_chance(as_model: Wrap) -> None:
    """2 of 20 correct: the probability by chance is 0.02 %."""
    found = diagnose(
        as_model(Says(1000), size=8), told([1, 2, *range(100, 118)], [1, 2, *range(200, 236, 2)])
    )
    assert found.healthy
    assert "top-1 is 10.0% (95 % interval 1.2% to 31.7%)" in found.sentence, "Clopper and Pearson's table"
    assert "over all 1,000 classes gives 0.1%, among the 20 that occur 5.0%" in found.sentence


def test_one_class_for_every_image_is_guessing_however_frequent_it_is(as_model: Wrap) -> None:
    found = diagnose(as_model(Says(256), size=8, classes=256), told([7] * 40, [7] * 36 + [80, 82, 84, 86]))
    assert found.top1 == 0.9
    assert not found.healthy
    assert "the same predictions in random order give 90.0%" in found.sentence


def test_a_right_answer_each_time_of_two_classes_beats_chance(as_model: Wrap) -> None:
    answers = [0, 1] * 12
    assert diagnose(as_model(Says(256), size=8, classes=256), told(answers, answers)).healthy
