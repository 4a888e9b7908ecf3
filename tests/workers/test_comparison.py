"""Maps before and after an attack against single gradients in NumPy, SmoothGrad and SciPy; and their invariants."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from workers.attacks.comparison import Panel, compare, random_signs
from workers.attribution.gradients import logit_gradients
from workers.attribution.smoothgrad import noise_of, smoothgrad
from workers.models.vision import VisionModel

Wrap = Callable[..., VisionModel]
SIDE = 32


@pytest.fixture(scope="module")
def model(as_model: Wrap) -> VisionModel:
    torch.manual_seed(2)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 5, 2), nn.ReLU(inplace=True), nn.Conv2d(8, 12, 3, 2), nn.GELU(), nn.AdaptiveAvgPool2d(3),
        nn.Flatten(), nn.Linear(108, 5),
    )  # fmt: skip
    return as_model(network, size=SIDE, classes=5)


@pytest.fixture(scope="module")
def panels() -> list[Panel]:
    image = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) * 0.9
    attacked = random_signs(image, 0.05, seed=3)
    return [Panel(image, 1, 0), Panel(attacked, 1, 0), Panel(attacked, 3, 0), Panel(image, 1, 7)]


def samples_of(model: VisionModel, panel: Panel, *, samples: int, level: float) -> np.ndarray:
    """Return n,3,H,W float64, computed one gradient at a time."""
    normalised = (panel.pixels - model.mean[0]) / model.std[0]
    sigma = level * (normalised.max() - normalised.min()) * model.std[0]
    found = []
    for sample in range(samples):
        noisy = panel.pixels + noise_of(panel.seed, sample, panel.pixels.shape) * sigma
        found.append(logit_gradients(model, noisy[None], torch.tensor([panel.target]))[0].double().numpy())
    return np.stack(found)


def test_maps_differences_and_errors_are_those_of_single_gradients(
    model: VisionModel, panels: list[Panel]
) -> None:
    made = compare(model, panels, samples=9, noise_level=0.2)
    drawn = [samples_of(model, panel, samples=9, level=0.2) for panel in panels]
    parts = []
    for gradients in drawn:
        mean = gradients.mean(0)
        colour = np.abs(mean).argmax(0)
        chosen = np.take_along_axis(gradients, colour[None, None], 1)[:, 0]  # n,H,W
        parts.append(chosen * np.sign(np.take_along_axis(mean, colour[None], 0)[0]))
    for found, part in zip(made, parts, strict=True):
        assert np.allclose(found.map, part.mean(0), rtol=1e-4, atol=1e-9)
        paired = part - parts[0]
        assert np.allclose(found.difference, paired.mean(0), rtol=1e-4, atol=1e-8)
        assert found.standard_error is not None
        expected = paired.std(0, ddof=1) / 3
        assert np.allclose(found.standard_error, expected, rtol=1e-3, atol=1e-8)
        beyond = np.mean(np.abs(paired.mean(0)) > 2 * expected)
        assert found.beyond_noise == pytest.approx(beyond, abs=0.01)


def test_each_map_is_smoothgrad(model: VisionModel, panels: list[Panel]) -> None:
    for panel, found in zip(panels, compare(model, panels, samples=5, noise_level=0.1), strict=True):
        expected = smoothgrad(
            model,
            panel.pixels[None],
            torch.tensor([panel.target]),
            samples=5,
            noise_level=0.1,
            seed=panel.seed,
        )
        assert torch.allclose(found.map.float(), expected.map[0], rtol=1e-4, atol=1e-9)


def test_distances_are_spearmans_and_the_structural_similarity(
    model: VisionModel, panels: list[Panel]
) -> None:
    made = compare(model, panels, samples=4, noise_level=0.15)
    first = made[0].map.numpy()
    for found in made:
        here = found.map.numpy()
        assert found.rank_correlation == pytest.approx(spearmanr(first.ravel(), here.ravel()).statistic)
        span = max(first.max(), here.max())
        assert found.ssim == pytest.approx(structural_similarity(first, here, data_range=span))


def test_an_image_compared_with_itself_has_no_difference(model: VisionModel, panels: list[Panel]) -> None:
    made = compare(model, [panels[0], panels[0]], samples=6, noise_level=0.3)
    for found in made:
        assert found.standard_error is not None
        assert not found.difference.any()
        assert not found.standard_error.any()
        assert (found.rank_correlation, found.ssim, found.beyond_noise) == (
            pytest.approx(1), pytest.approx(1), 0,
        )  # fmt: skip


def test_without_noise_a_difference_is_known_exactly(model: VisionModel, panels: list[Panel]) -> None:
    made = compare(model, panels[:2], samples=3, noise_level=0.0)
    gradient = logit_gradients(model, panels[1].pixels[None], torch.tensor([1]))[0]
    assert torch.allclose(made[1].map.float(), gradient.abs().amax(0), rtol=1e-4)
    assert made[1].standard_error is not None
    assert float(made[1].standard_error.max()) < 1e-6
    assert made[1].difference.abs().max() > 1e-3


def test_paired_noise_gives_a_smaller_standard_error(model: VisionModel, panels: list[Panel]) -> None:
    clean, attacked = panels[:2]
    other = Panel(attacked.pixels, attacked.target, 99)
    _, paired, unpaired = compare(model, [clean, attacked, other], samples=16, noise_level=0.3)
    assert paired.standard_error is not None
    assert unpaired.standard_error is not None
    assert float(paired.standard_error.mean()) < 0.7 * float(unpaired.standard_error.mean())


def test_one_sample_has_no_error(model: VisionModel, panels: list[Panel]) -> None:
    found = compare(model, panels[:2], samples=1, noise_level=0.1)[1]
    assert found.standard_error is None
    assert found.beyond_noise is None


def test_maps_of_nothing_are_alike(as_model: Wrap) -> None:
    class Blank(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            return pixels.flatten(1)[:, :5] * 0

    image = torch.rand(3, SIDE, SIDE)
    model = as_model(Blank(), size=SIDE, classes=5)
    found = compare(model, [Panel(image, 0, 0), Panel(image, 1, 1)], samples=2, noise_level=0.1)[1]
    assert (found.rank_correlation, found.ssim, found.beyond_noise) == (1.0, 1.0, 0.0)


def test_random_signs_are_as_large_as_the_attack_and_stay_pixels() -> None:
    image = torch.rand(3, SIDE, SIDE)
    kept = image.clone()
    moved = random_signs(image, 0.03, seed=5)
    assert torch.equal(image, kept)
    assert (moved - image).abs().max() <= 0.03 + 1e-6
    assert moved.min() >= 0
    assert moved.max() <= 1
    inside = (image > 0.03) & (image < 0.97)
    assert torch.allclose((moved - image).abs()[inside], torch.tensor(0.03), atol=1e-6)
    assert abs(float((moved - image).sign()[inside].mean())) < 0.1
    assert torch.equal(moved, random_signs(image, 0.03, seed=5))
    assert not torch.equal(moved, random_signs(image, 0.03, seed=6))
    levels = random_signs((image * 255).round() / 255, 3 / 255, seed=1, integer=True) * 255
    assert torch.allclose(levels, levels.round(), atol=1e-4)
