"""Training of the demo model: a run that goes on is the same run, and views are mixed as their targets are."""

from pathlib import Path

import numpy as np
import pytest
import torch

from precompute import demo_model
from precompute.demo_model import (
    CLASSES,
    SIDE,
    Pictures,
    Recipe,
    Run,
    measure,
    new_network,
    train_epoch,
)

SMALL = Recipe(epochs=4, batch=4, warmup_epochs=1, seed=3)


@pytest.fixture(scope="module")
def pictures() -> tuple[Pictures, np.ndarray]:
    """Twelve views of noise with labels, and a teacher who is sure of some class."""
    random = np.random.default_rng(0)
    labels = np.arange(12) % 3
    pixels = random.integers(0, 256, (12, SIDE, SIDE, 3)).astype(np.uint8)
    teacher = np.zeros((12, CLASSES), np.float16)
    teacher[np.arange(12), (labels + 1) % 3] = 1
    return Pictures(pixels, labels), teacher


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
    stopped.log.append(train_epoch(stopped, *pictures) | measure(stopped.average, *pictures))
    stopped.save(tmp_path / "state.pt")
    gone_on = Run.load(tmp_path / "state.pt")
    gone_on.log.append(train_epoch(gone_on, *pictures))
    assert gone_on.log[0].items() >= straight.log[0].items()
    assert gone_on.log[1] == straight.log[1]
    for name in ("network", "average"):
        weights = getattr(straight, name).state_dict()
        assert all(
            torch.equal(weights[key], value) for key, value in getattr(gone_on, name).state_dict().items()
        )


@pytest.mark.parametrize("cutmix_share", [0, 1])
def test_targets_are_mixed_in_the_shares_of_the_pixels(cutmix_share: float) -> None:
    """Two views, all black and all white, with a class each: how white a mixture is tells its target."""
    pixels = torch.stack([torch.zeros(3, 24, 32), torch.ones(3, 24, 32)])
    target = torch.eye(2)
    draw = torch.Generator().manual_seed(0)
    recipe = Recipe(mixup=1, cutmix_share=cutmix_share)
    shares = []
    for _ in range(50):
        mixed, mixed_target = demo_model._mixed(pixels, target, recipe, draw)
        torch.testing.assert_close(mixed.mean((1, 2, 3)), mixed_target[:, 1])
        torch.testing.assert_close(mixed_target.sum(1), torch.ones(2))
        shares.append(mixed_target[0, 0].item())
        assert cutmix_share == 0 or set(mixed.unique().tolist()) <= {0, 1}
    assert max(shares) - min(shares) > 0.5
    unmixed, same = demo_model._mixed(pixels, target, Recipe(mixup=0), draw)
    assert torch.equal(unmixed, pixels)
    assert torch.equal(same, target)


def test_a_view_that_is_not_varied_is_the_picture() -> None:
    pixels = torch.rand(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    still = Recipe(zoom=0, light=0)
    views = demo_model._varied(pixels, SIDE, still, torch.Generator().manual_seed(1))
    for view, picture in zip(views, pixels, strict=True):
        mirrored = (view - picture).abs().max() > 0.1
        torch.testing.assert_close(view, picture.flip(2) if mirrored else picture, atol=1e-4, rtol=0)


def test_training_learns_what_it_is_told(pictures: tuple[Pictures, np.ndarray]) -> None:
    views, teacher = pictures
    recipe = Recipe(epochs=15, batch=6, warmup_epochs=1, zoom=0, light=0, mixup=0,
                    teacher_share=0, average=0.5, small_share=0)  # fmt: skip
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
