"""Training of the demo model: a run that goes on is the same run, and its loss is the one of the paper."""

import itertools
from pathlib import Path
from xml.etree import ElementTree as ET

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
    distillation_loss,
    measure,
    new_network,
    train_epoch,
)
from workers.models import load_model

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


def test_the_loss_is_that_of_hinton_et_al() -> None:
    """Its gradient against the one by hand: p - q, softened ones divided by the temperature and scaled back."""
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 7, generator=draw, dtype=torch.double, requires_grad=True)
    labels = torch.eye(7, dtype=torch.double)[:5]
    answer = torch.randn(5, 7, generator=draw, dtype=torch.double).softmax(1)
    recipe = Recipe(teacher_share=0.3, temperature=4)
    said = demo_model._softened(answer, 4)
    torch.testing.assert_close(said, (answer.log() / 4).softmax(1))
    distillation_loss(logits, labels, said, recipe).backward()
    with torch.no_grad():
        hard = (logits.softmax(1) - labels) / 5
        soft = ((logits / 4).softmax(1) - said) / 4 / 5
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, 0.7 * hard + 0.3 * 16 * soft)
    plain = distillation_loss(logits, labels, said, Recipe(teacher_share=0))
    torch.testing.assert_close(plain, torch.nn.functional.cross_entropy(logits, labels))


def test_a_view_that_is_not_varied_is_the_picture() -> None:
    pixels = torch.rand(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    still = Recipe(zoom=0, light=0)
    views = demo_model._varied(pixels, SIDE, still, torch.Generator().manual_seed(1))
    for view, picture in zip(views, pixels, strict=True):
        mirrored = (view - picture).abs().max() > 0.1
        torch.testing.assert_close(view, picture.flip(2) if mirrored else picture, atol=1e-4, rtol=0)


def test_training_learns_what_it_is_told(pictures: tuple[Pictures, np.ndarray]) -> None:
    views, teacher = pictures
    recipe = Recipe(epochs=15, batch=6, warmup_epochs=1, matrix_peak=0.01, zoom=0, light=0, mixup=0,
                    teacher_share=0, average=0.5, small_share=0)  # fmt: skip
    run = Run.new(recipe)
    for _ in range(recipe.epochs):
        run.log.append(train_epoch(run, views, teacher))
    assert run.log[-1]["loss"] < 0.2 < run.log[0]["loss"]
    numbers = measure(run.average, views, teacher)
    assert numbers["top1"] == numbers["top5"] == numbers["top1_of_occurring"] == numbers["median_rank"] == 1
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


def test_the_model_card_tells_what_is_measured(shared_data: Path) -> None:
    """The numbers of `evaluate`; without the teacher's over the 5,000, whose answers take half a minute."""
    card = (demo_model.DEMO_FOLDER / "README.md").read_text().splitlines()
    network = load_model("convnext-demo").network
    boxes = demo_model.foolbox_photographs()
    said = demo_model.teacher_probabilities(boxes, load_model(demo_model.TEACHER))
    assert demo_model.card_row("photographs of Foolbox", measure(network, boxes, said)) in card
    validation = demo_model.tiny_imagenet(shared_data, "val")
    assert len(validation) == 5000
    numbers = measure(network, validation, np.zeros((5000, CLASSES)))
    expected = demo_model.card_row("Tiny-ImageNet, validation", numbers).split(" | ")[:6]
    written = next(line for line in card if line.startswith("| Tiny-ImageNet, validation |")).split(" | ")[:6]
    assert written[:2] == expected[:2]
    for told, found in zip(written[2:], expected[2:], strict=True):
        # another processor's sums may turn a picture or two
        assert float(told.rstrip("%")) == pytest.approx(float(found.rstrip("%")), abs=0.15)


def test_packed_weights_are_right_to_a_254th_of_their_row() -> None:
    weight = torch.randn(5, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    weight[2] = 0
    small = demo_model.packed({"kernel": weight, "bias": weight[:, 0, 0, 0]})
    assert small["kernel"].dtype == torch.int8
    back = small["kernel"].float() * small["kernel.scale"].view(-1, 1, 1, 1)
    assert ((back - weight).abs().amax((1, 2, 3)) <= weight.abs().amax((1, 2, 3)) / 253).all()
    assert torch.equal(small["bias"], weight[:, 0, 0, 0].half())


def test_the_checkpoints_are_the_way_to_the_weights(shared_data: Path) -> None:
    validation = demo_model.tiny_imagenet(shared_data, "val")
    few = Pictures(validation.pixels[::16], validation.labels[::16])
    folder = demo_model.DEMO_FOLDER / "checkpoints"
    assert [path.stem for path in sorted(folder.iterdir())] == [
        f"epoch-{epoch:03d}" for epoch in demo_model.KEPT_EPOCHS
    ]
    networks = [demo_model.load_checkpoint(path) for path in sorted(folder.iterdir())]
    networks.append(load_model("convnext-demo").network)
    right = [measure(network, few, np.zeros((len(few), CLASSES)))["top1"] for network in networks]
    assert right[0] > 0.1
    assert all(after > before - 0.03 for before, after in itertools.pairwise(right))
    assert right[-1] > right[0] + 0.2


def test_the_log_is_drawn() -> None:
    log = [{"top1": 0.1 * epoch, "agreement": 0.09 * epoch} for epoch in range(1, 6)]
    drawn = ET.fromstring(demo_model.curve(log))
    lines = [line.attrib["points"].split() for line in drawn.iter("{http://www.w3.org/2000/svg}polyline")]
    assert [len(points) for points in lines] == [5, 5]
    heights = [float(point.split(",")[1]) for point in lines[0]]
    assert heights == sorted(heights, reverse=True)  # it rises
    words = [text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"50 %", "right first", "as the teacher", "5"} <= set(words)


_read = demo_model._zipped


def _few(archive: Path, split: str) -> list[tuple[object, int]]:
    found = []
    for place, picture in enumerate(_read(archive, split)):
        if place % 50 == 0:
            found.append(picture)
        if len(found) == 20:
            break
    return found
