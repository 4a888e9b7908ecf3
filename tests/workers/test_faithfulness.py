"""Deletion and insertion against a loop over single pixels, and their invariants."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from workers.attribution.baselines import baseline_pixels
from workers.attribution.faithfulness import faithfulness
from workers.models.vision import VisionModel

Wrap = Callable[..., VisionModel]
SIDE = 12


@pytest.fixture
def model(as_model: Wrap) -> VisionModel:
    torch.manual_seed(2)
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(600, 4))
    return as_model(network, size=SIDE, classes=4)


def image() -> Tensor:
    return torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("steps", [2, 7, 50])
def test_curves_are_those_of_a_loop_over_single_pixels(model: VisionModel, steps: int) -> None:
    pixels, heat = image(), torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    heat[3:6] = 0.5  # ties
    found = faithfulness(model, pixels, 2, heat, steps=steps)
    positions = sorted(
        ((-abs(float(heat[y, x])), y, x) for y in range(SIDE) for x in range(SIDE)),
    )
    mean, blurred = model.mean, baseline_pixels(pixels, model.mean, "blur")
    for start, end, curve in [
        (pixels, mean.expand_as(pixels), found.deletion),
        (blurred, pixels, found.insertion),
    ]:
        for step in range(steps + 1):
            mixed = start.clone()
            for _, y, x in positions[: round(step * SIDE * SIDE / steps)]:
                mixed[0, :, y, x] = end[0, :, y, x]
            with torch.no_grad():
                probability = float(model(mixed).softmax(1)[0, 2])
            assert curve[step] == pytest.approx(probability, abs=1e-5)
    assert found.deletion_auc == pytest.approx(np.trapezoid(found.deletion, dx=1 / steps))
    assert found.insertion_auc == pytest.approx(np.trapezoid(found.insertion, dx=1 / steps))


def test_curves_begin_and_end_at_whole_images_for_any_map(model: VisionModel) -> None:
    pixels = image()
    with torch.no_grad():
        whole = float(model(pixels).softmax(1)[0, 1])
        nothing = float(model(model.mean.expand_as(pixels)).softmax(1)[0, 1])
    for heat in (torch.zeros(SIDE, SIDE), torch.rand(SIDE, SIDE)):
        found = faithfulness(model, pixels, 1, heat, steps=5)
        assert (found.deletion[0], found.deletion[-1]) == (pytest.approx(whole), pytest.approx(nothing))
        assert found.insertion[-1] == pytest.approx(whole)
        assert len(found.deletion) == len(found.insertion) == 6


def test_the_sign_of_a_map_plays_no_part(model: VisionModel) -> None:
    heat = torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    assert faithfulness(model, image(), 0, heat) == faithfulness(model, image(), 0, -heat)


def test_a_correct_map_scores_better_than_its_inverse(as_model: Wrap) -> None:
    """Only the pixels of one square matter."""

    class Square(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            inside = x[:, :, 2:5, 2:5].sum((1, 2, 3))
            return torch.stack([inside, torch.zeros_like(inside)], 1)

    model = as_model(Square(), size=SIDE, classes=2)
    pixels = torch.full((1, 3, SIDE, SIDE), 0.9)
    good = torch.zeros(SIDE, SIDE)
    good[2:5, 2:5] = 1
    right, wrong = (faithfulness(model, pixels, 0, heat) for heat in (good, 1 - good))
    assert right.deletion_auc < wrong.deletion_auc
    # the blurred image has the same brightness, so insertion reveals nothing
    assert right.insertion_auc == pytest.approx(wrong.insertion_auc)


def test_it_can_be_stopped(model: VisionModel) -> None:
    class Enough(Exception):
        pass

    def stop(done: int, total: int) -> None:
        assert 0 <= done < total
        if done:
            raise Enough

    with pytest.raises(Enough):
        faithfulness(model, image(), 0, torch.rand(SIDE, SIDE), on_progress=stop)
