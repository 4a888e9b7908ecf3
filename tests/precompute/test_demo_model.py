"""Training of the demo model: its quick convolution is the convolution, and a run that goes on is the same run."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from precompute import demo_model
from precompute.demo_model import (
    CLASSES,
    SIDE,
    DepthwiseConvolution,
    Pictures,
    Recipe,
    Run,
    measure,
    new_network,
    train_epoch,
)

SMALL = Recipe(epochs=4, batch=4, warmup_epochs=1, jitter=4, seed=3)


@pytest.fixture(scope="module")
def pictures() -> tuple[Pictures, np.ndarray]:
    """Twelve views of noise with labels, and a teacher who is sure of some class."""
    random = np.random.default_rng(0)
    labels = np.arange(12) % 3
    pixels = random.integers(0, 256, (12, SIDE, SIDE, 3)).astype(np.uint8)
    teacher = np.zeros((12, CLASSES), np.float16)
    teacher[np.arange(12), (labels + 1) % 3] = 1
    return Pictures(pixels, labels), teacher


@pytest.mark.parametrize(("height", "width"), [(16, 16), (12, 12), (5, 9), (2, 2), (1, 1)])
def test_the_quick_convolution_has_the_output_and_the_gradients_of_conv2d(height: int, width: int) -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(3, 5, height, width, dtype=torch.double, generator=draw, requires_grad=True)
    weight = torch.randn(5, 1, 7, 7, dtype=torch.double, generator=draw, requires_grad=True)
    back = torch.randn(3, 5, height, width, dtype=torch.double, generator=draw)

    def gradients(y: Tensor) -> tuple[Tensor, ...]:
        return (y, *torch.autograd.grad(y, [x, weight], back))

    plain = gradients(F.conv2d(x, weight, padding=3, groups=5))
    quick = gradients(DepthwiseConvolution.apply(x, weight))  # type: ignore[no-untyped-call]
    for one, other in zip(plain, quick, strict=True):
        torch.testing.assert_close(one, other)


def test_the_network_is_convnext_atto() -> None:
    network = new_network(0)
    assert sum(weight.numel() for weight in network.parameters()) == 3_695_520
    again, other = new_network(0), new_network(1)
    assert all(map(torch.equal, network.parameters(), again.parameters()))
    assert not all(map(torch.equal, network.parameters(), other.parameters()))


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(
    pictures: tuple[Pictures, np.ndarray], tmp_path: Path
) -> None:
    straight = Run.new(SMALL)
    for _ in range(2):
        straight.log.append(train_epoch(straight, *pictures))
    stopped = Run.new(SMALL)
    stopped.log.append(train_epoch(stopped, *pictures))
    stopped.save(tmp_path / "state.pt")
    gone_on = Run.load(tmp_path / "state.pt")
    gone_on.log.append(train_epoch(gone_on, *pictures))
    assert gone_on.log == straight.log
    for name in ("network", "average"):
        weights = getattr(straight, name).state_dict()
        assert all(
            torch.equal(weights[key], value) for key, value in getattr(gone_on, name).state_dict().items()
        )
    assert sorted(weights) == sorted(new_network(0).state_dict())  # what trains quickly is stored as it was


def test_training_learns_what_it_is_told(pictures: tuple[Pictures, np.ndarray]) -> None:
    views, teacher = pictures
    recipe = Recipe(epochs=15, batch=6, warmup_epochs=1, jitter=0, mixup=0, teacher_share=0, average=0.5,
                    small_share=0)  # fmt: skip
    run = Run.new(recipe)
    for _ in range(recipe.epochs):
        run.log.append(train_epoch(run, views, teacher))
    assert run.log[-1]["loss"] < 0.2 < run.log[0]["loss"]
    numbers = measure(run.average, views, teacher)
    assert numbers["top1"] == numbers["top5"] == numbers["top1_of_occurring"] == 1
    assert (
        numbers["agreement"] == numbers["teacher_top1"] == 0
    )  # the teacher was always wrong, and not listened to


def test_the_shared_pictures_are_read_with_their_classes(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_model, "_zipped", lambda archive, split: iter(_few(archive, split)))
    validation = demo_model.tiny_imagenet(shared_data, "val")
    assert validation.pixels.shape == (20, SIDE, SIDE, 3)
    assert len(set(validation.labels)) > 1
    boxes = demo_model.foolbox_photographs()
    assert boxes.pixels.shape == (20, SIDE, SIDE, 3)


_read = demo_model._zipped


def _few(archive: Path, split: str) -> list[tuple[object, int]]:
    found = []
    for place, picture in enumerate(_read(archive, split)):
        if place % 50 == 0:
            found.append(picture)
        if len(found) == 20:
            break
    return found
