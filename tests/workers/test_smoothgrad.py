"""SmoothGrad against Captum with the same noise, against NumPy over single gradients, and its invariants."""

from collections.abc import Callable
from unittest.mock import patch

import numpy as np
import pytest
import torch
from captum import attr
from scipy.stats import spearmanr
from torch import Tensor, nn

from workers.attribution.gradients import chunk_size, logit_gradients
from workers.attribution.smoothgrad import (
    FIRST_LOOK,
    LOOK_EVERY,
    corrected_to_the_whole,
    noise_of,
    smoothgrad,
)
from workers.models.vision import VisionModel
from workers.torchvision_import import import_library

Wrap = Callable[..., VisionModel]
SIDE = 48
CLASSES = 5
TARGETS = torch.tensor([1, 3])


@pytest.fixture
def model(as_model: Wrap) -> VisionModel:
    torch.manual_seed(11)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 5, 2), nn.ReLU(inplace=True), nn.Conv2d(8, 12, 3, 2), nn.GELU(), nn.AdaptiveAvgPool2d(3),
        nn.Flatten(), nn.Linear(108, CLASSES),
    )  # fmt: skip
    return as_model(network, size=SIDE, classes=CLASSES)


@pytest.fixture
def pixels() -> Tensor:
    return torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5)) * 0.8


def sigma_of(model: VisionModel, image: Tensor, level: float) -> float:
    normalised = (image - model.mean[0]) / model.std[0]
    return level * float(normalised.max() - normalised.min())


def single_gradients(model: VisionModel, image: Tensor, target: int, *, samples: int, level: float, seed: int
) -> np.ndarray:  # fmt: skip
    """Return n,3,H,W float64, one sample at a time."""
    sigma = sigma_of(model, image, level)
    found = []
    for sample in range(samples):
        noisy = image + noise_of(seed, sample, image.shape) * sigma * model.std[0]
        found.append(logit_gradients(model, noisy[None], torch.tensor([target]))[0].double().numpy())
    return np.stack(found)


@pytest.mark.parametrize(("variant", "captums"), [("mean", "smoothgrad"), ("squared", "smoothgrad_sq"),
                                                  ("variance", "vargrad")])  # fmt: skip
def test_it_is_captums_with_the_same_noise(
    model: VisionModel, pixels: Tensor, variant: str, captums: str
) -> None:
    """Captum adds its noise to the network's normalized input, and draws it for all samples at once."""
    samples, level, seed = 12, 0.2, 4

    class Bare(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return model(x * model.std + model.mean)

    image = pixels[0]
    model.double()
    draws = torch.stack([noise_of(seed, sample, image.shape) for sample in range(samples)])
    normalised = (image - model.mean[0]) / model.std[0]
    sigma = sigma_of(model, image, level)
    with patch("torch.normal", lambda _mean, _std: draws.double() * sigma):
        expected = attr.NoiseTunnel(attr.Saliency(Bare())).attribute(
            normalised[None].double(), nt_type=captums, nt_samples=samples, stdevs=sigma, target=1, abs=False
        )  # fmt: skip
    # d / d pixel = d / d normalized / std; second-order moments scale by its square
    expected = expected / model.std ** (1 if variant == "mean" else 2)
    model.float()
    found = smoothgrad(model, pixels[:1], TARGETS[:1], samples=samples, noise_level=level, seed=seed,
                       variant=variant, colours="max_abs")  # fmt: skip
    reference = expected[0].abs().amax(0).float()
    assert float(((found.map[0] - reference).abs() / reference.max()).max()) < 1e-5


@pytest.mark.parametrize("samples", [1, 2, 7])
@pytest.mark.parametrize("colours", ["max_abs", "sum"])
def test_without_noise_smoothgrad_is_the_gradient(
    model: VisionModel, pixels: Tensor, samples: int, colours: str
) -> None:
    found = smoothgrad(model, pixels, TARGETS, samples=samples, noise_level=0, seed=0, colours=colours)
    gradient = logit_gradients(model, pixels, TARGETS)
    expected = gradient.abs().amax(1) if colours == "max_abs" else gradient.sum(1)
    assert torch.allclose(found.map, expected, rtol=1e-5, atol=1e-7 * float(expected.abs().max()))
    if samples > 1:
        assert found.standard_error is not None
        assert float(found.standard_error.max()) < 1e-6 * float(expected.abs().max())


@pytest.mark.parametrize("variant", ["mean", "squared", "variance"])
@pytest.mark.parametrize("colours", ["max_abs", "sum"])
def test_map_and_standard_error_are_numpys_over_single_gradients(
    model: VisionModel, pixels: Tensor, variant: str, colours: str
) -> None:
    samples = 9
    found = smoothgrad(model, pixels, TARGETS, samples=samples, noise_level=0.1, seed=2, variant=variant,
                       colours=colours)  # fmt: skip
    assert found.standard_error is not None
    for number in range(2):
        gradients = single_gradients(
            model, pixels[number], int(TARGETS[number]), samples=samples, level=0.1, seed=2
        )
        if variant == "mean":
            values, spread = gradients.mean(0), gradients.std(0, ddof=1) / np.sqrt(samples)
        elif variant == "squared":
            values, spread = (gradients**2).mean(0), (gradients**2).std(0, ddof=1) / np.sqrt(samples)
        else:
            squares = (gradients - gradients.mean(0)) ** 2
            values, spread = squares.mean(0), squares.std(0, ddof=1) / np.sqrt(samples)
        if colours == "max_abs":
            expected = np.abs(values).max(0)
            error = np.take_along_axis(spread, np.abs(values).argmax(0)[None], 0)[0]
        elif variant == "mean":
            expected = values.sum(0)
            error = gradients.sum(1).std(0, ddof=1) / np.sqrt(samples)
        else:
            expected, error = values.sum(0), np.sqrt((spread**2).sum(0))
        assert np.allclose(found.map[number], expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())
        assert np.allclose(found.standard_error[number], error, rtol=1e-3, atol=1e-4 * error.max())


@pytest.mark.parametrize("agreement", [0.0, 0.6])
def test_chunks_and_company_change_nothing(model: VisionModel, pixels: Tensor, agreement: float) -> None:
    options = {"samples": 30, "noise_level": 0.3, "seed": 1, "agreement": agreement}
    reference = smoothgrad(model, pixels, TARGETS, chunk=1, **options)  # type: ignore[arg-type]
    for chunk in (3, 7, 64):
        found = smoothgrad(model, pixels, TARGETS, chunk=chunk, **options)  # type: ignore[arg-type]
        assert found.samples == reference.samples
        assert torch.allclose(found.map, reference.map, rtol=1e-4, atol=1e-6)
    alone = smoothgrad(model, pixels[1:], TARGETS[1:], **options)  # type: ignore[arg-type]
    assert alone.samples == reference.samples[1:]
    assert torch.allclose(alone.map[0], reference.map[1], rtol=1e-4, atol=1e-6)


def test_a_seed_draws_the_same_noise_for_every_image_and_another_seed_other_noise() -> None:
    shape = torch.Size((3, 8, 8))
    assert torch.equal(noise_of(3, 1, shape), noise_of(3, 1, shape))
    drawn = [noise_of(seed, sample, shape) for seed in range(3) for sample in range(3)]
    assert len({tuple(noise.flatten().tolist()) for noise in drawn}) == 9


def test_noise_has_the_requested_level(model: VisionModel, pixels: Tensor) -> None:
    seen: list[Tensor] = []
    inner = model.network

    class Watched(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.detach().clone())
            return inner(x)  # type: ignore[no-any-return]

    model.network = Watched()
    smoothgrad(model, pixels[:1], TARGETS[:1], samples=20, noise_level=0.25, seed=0, chunk=20)
    normalised = ((pixels - model.mean) / model.std)[:1]
    noise = seen[-1] - normalised
    spread = float(normalised.max() - normalised.min())
    assert len(noise) == 20
    assert float(noise.std()) / spread == pytest.approx(0.25, rel=0.01)
    assert abs(float(noise.mean())) / spread < 0.005


def test_agreement_is_the_rank_correlation_of_two_halves(model: VisionModel, pixels: Tensor) -> None:
    found = smoothgrad(model, pixels[:1], TARGETS[:1], samples=10, noise_level=0.3, seed=0)
    gradients = single_gradients(model, pixels[0], 1, samples=10, level=0.3, seed=0)
    even, odd = (np.abs(gradients[start::2].mean(0)).max(0) for start in (0, 1))
    halves = spearmanr(even.ravel(), odd.ravel()).statistic
    assert found.agreement[0] == pytest.approx(2 * halves / (1 + halves), abs=1e-4)


def test_it_stops_at_the_first_look_at_which_the_halves_agree_well_enough(
    model: VisionModel, pixels: Tensor
) -> None:
    options = {"noise_level": 0.3, "seed": 0}
    whole = smoothgrad(model, pixels[:1], TARGETS[:1], samples=60, **options)  # type: ignore[arg-type]
    by_count = {
        count: smoothgrad(model, pixels[:1], TARGETS[:1], samples=count, **options)  # type: ignore[arg-type]
        for count in range(FIRST_LOOK, 61, LOOK_EVERY)
    }
    agreements = {count: found.agreement[0] or 0.0 for count, found in by_count.items()}
    wanted = sorted(agreements.values())[len(agreements) // 2]
    expected = next(count for count, agreed in agreements.items() if agreed >= wanted)
    early = smoothgrad(model, pixels[:1], TARGETS[:1], samples=60, agreement=wanted, **options)  # type: ignore[arg-type]
    assert early.samples == (expected,)
    assert expected < 60 == whole.samples[0]
    assert torch.allclose(early.map, by_count[expected].map)


def test_an_agreement_that_is_not_reached_takes_all_samples(model: VisionModel, pixels: Tensor) -> None:
    found = smoothgrad(model, pixels, TARGETS, samples=10, noise_level=1, seed=0, agreement=0.999)
    assert found.samples == (10, 10)


def test_one_sample_has_neither_error_nor_agreement(model: VisionModel, pixels: Tensor) -> None:
    found = smoothgrad(model, pixels, TARGETS, samples=1, noise_level=0.1, seed=0)
    assert found.standard_error is None
    assert found.agreement == (None, None)


@pytest.mark.parametrize(("halves", "whole"), [(1.0, 1.0), (0.5, 2 / 3), (0.0, 0.0), (-0.5, -0.5)])
def test_halves_are_corrected_to_the_whole(halves: float, whole: float) -> None:
    assert corrected_to_the_whole(halves) == pytest.approx(whole)


def test_more_samples_have_a_smaller_error(model: VisionModel, pixels: Tensor) -> None:
    """By the square root of their number, here within a quarter."""
    errors = []
    for samples in (16, 64):
        found = smoothgrad(model, pixels, TARGETS, samples=samples, noise_level=0.2, seed=0).standard_error
        assert found is not None
        errors.append(float(found.mean()))
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.25)


def test_bfloat16_is_near_float32(model: VisionModel, pixels: Tensor) -> None:
    options = {"samples": 8, "noise_level": 0.1, "seed": 0}
    exact = smoothgrad(model, pixels, TARGETS, **options).map  # type: ignore[arg-type]
    rounded = smoothgrad(model, pixels, TARGETS, dtype="bfloat16", **options).map  # type: ignore[arg-type]
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    assert float((exact - rounded).abs().mean()) < 0.05 * float(exact.mean())


@pytest.fixture
def big(as_model: Wrap) -> VisionModel:
    transformers = import_library("transformers")
    torch.manual_seed(0)
    config = transformers.ConvNextConfig(depths=[1, 1, 1, 1], hidden_sizes=[32, 64, 128, 256])
    return as_model(transformers.ConvNextForImageClassification(config))


def test_larger_images_are_computed_in_smaller_chunks(big: VisionModel) -> None:
    small, large = (chunk_size(big, torch.rand(1, 3, side, side)) for side in (96, 224))
    assert small > large >= 1
