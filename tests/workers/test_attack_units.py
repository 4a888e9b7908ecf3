"""What moves inside against NumPy over whole feature maps; channels that are held against edited weights."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from workers.ablation import clean_means, held, random_units
from workers.attack_units import Shift, shifts
from workers.gradients import logit_gradients
from workers.models import VisionModel, load_model
from workers.pointwise import quicken
from workers.taps import Tap, as_nchw, find_taps, record_taps

Wrap = Callable[..., VisionModel]


@pytest.fixture(scope="module")
def convnext(small_convnext: Path) -> VisionModel:
    return load_model(str(small_convnext))


@pytest.fixture(scope="module")
def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    before = torch.rand(3, 224, 224, generator=generator)
    return before, (before + 0.1 * torch.randn(3, 224, 224, generator=generator)).clamp(0, 1)


def maps(model: VisionModel, taps: tuple[Tap, ...], image: Tensor) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}

    def note(tap: Tap, output: Tensor) -> None:
        found[tap.layer] = as_nchw(tap, output)[0].clone()

    with torch.inference_mode(), record_taps(model, taps, note):
        model(image[None])
    return found


def test_shifts_are_those_of_the_whole_maps(convnext: VisionModel, pair: tuple[Tensor, Tensor]) -> None:
    taps = find_taps(convnext)
    found = shifts(convnext, taps, *pair)
    assert [shift.tap for shift in found] == list(taps)
    before, after = (maps(convnext, taps, image) for image in pair)
    for shift in found:
        old, new = (one[shift.tap.layer].double().numpy() for one in (before, after))
        assert np.allclose(shift.before, old.max((1, 2)), rtol=1e-3, atol=1e-4)
        assert np.allclose(shift.after, new.max((1, 2)), rtol=1e-3, atol=1e-4)
        for values, places in ((old, shift.at_before), (new, shift.at_after)):
            at = values[np.arange(len(values)), places[:, 0], places[:, 1]]
            assert np.allclose(at, values.max((1, 2)), rtol=1e-3, atol=1e-4)
        assert shift.relative_change == pytest.approx(
            np.linalg.norm(new - old) / np.linalg.norm(old), rel=1e-3
        )


def test_an_image_beside_itself_moves_nothing(convnext: VisionModel, pair: tuple[Tensor, Tensor]) -> None:
    for shift in shifts(convnext, find_taps(convnext), pair[0], pair[0]):
        assert not shift.shift.any()
        assert shift.relative_change == 0
        assert torch.equal(shift.at_before, shift.at_after)


def test_layers_have_the_names_that_the_index_gave_them(small_convnext: Path) -> None:
    """A worker's model has its linear layers taken as convolutions."""
    model = load_model(str(small_convnext))
    names = [(tap.layer, tap.kind, tap.channels) for tap in find_taps(model)]
    quicken(model.network)
    assert [(tap.layer, tap.kind, tap.channels) for tap in find_taps(model)] == names


def a_shift(before: list[float], after: list[float]) -> Shift:
    tap = Tap("l", "l", "l", 0, "conv", "", None, None, "NCHW", 0, len(before), 1, 1, 0)
    places = torch.zeros(len(before), 2, dtype=torch.int64)
    return Shift(
        tap, torch.tensor(before).double(), torch.tensor(after).double(), places, places, relative_change=0.0
    )


def test_the_most_moved_come_first_and_dead_channels_not_at_all() -> None:
    shift = a_shift([0, 0, 0, 0, 5, 0], [1, -3, 1, float("nan"), 5.5, 0])
    assert shift.most_moved(6) == [1, 0, 2, 4], (
        "ties: the lowest channel; no number, or 0 in both: not ranked"
    )
    assert shift.live() == [0, 1, 2, 4]
    spreads = torch.tensor([0.1, 10.0, float("nan"), 1.0, 0.25, 1.0]).double()
    assert shift.most_moved(6, spreads) == [0, 4, 1, 5]
    assert shift.live(spreads) == [0, 1, 4, 5], "a live channel that did not move is ranked last"
    assert shift.most_moved(2, spreads) == [0, 4]
    assert a_shift([1, 2], [3, 4]).most_moved(5, torch.full((2,), float("nan"))) == [], "all are dead"


@pytest.fixture
def network(as_model: Wrap) -> VisionModel:
    torch.manual_seed(1)
    layers = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(6, 8, 3, 2), nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4),
    )  # fmt: skip
    return as_model(layers, size=16, classes=4)


def test_a_held_channel_is_one_with_no_weights_and_that_bias(network: VisionModel) -> None:
    taps = find_taps(network)
    image, others = torch.rand(3, 16, 16), torch.rand(3, 3, 16, 16)
    means = clean_means(network, taps, image)
    whole = maps(network, taps, image)
    for tap in taps:
        assert torch.allclose(means[tap.layer], whole[tap.layer].mean((1, 2)), atol=1e-6)
    units = {taps[0].layer: [1, 4], taps[1].layer: [0]}
    with held(network, taps, units, means):
        ours = network(others)
        gradients = logit_gradients(network, others, torch.tensor([0, 1, 2]))
    assert isinstance(network.network, nn.Sequential)
    with torch.no_grad():
        for tap, place in ((taps[0], 0), (taps[1], 2)):
            layer = network.network[place]
            assert isinstance(layer, nn.Conv2d)
            assert layer.bias is not None
            layer.weight[units[tap.layer]] = 0
            layer.bias[units[tap.layer]] = means[tap.layer][units[tap.layer]]
    assert torch.allclose(network(others), ours, atol=1e-6)
    expected = logit_gradients(network, others, torch.tensor([0, 1, 2]))
    assert torch.allclose(gradients, expected, atol=1e-7), "nothing flows through it backwards"


def test_holding_nothing_changes_nothing_and_no_hook_stays(network: VisionModel) -> None:
    taps = find_taps(network)
    image = torch.rand(2, 3, 16, 16)
    plain = network(image)
    with held(network, taps, {taps[0].layer: []}, clean_means(network, taps, image[0])):
        assert torch.equal(network(image), plain)
    with held(network, taps, {taps[0].layer: [0]}, clean_means(network, taps, image[0])):
        assert not torch.equal(network(image), plain)
    assert torch.equal(network(image), plain)


def test_channels_are_held_in_every_layout(convnext: VisionModel, pair: tuple[Tensor, Tensor]) -> None:
    taps = find_taps(convnext)
    means = clean_means(convnext, taps, pair[0])
    assert len({tap.layout for tap in taps}) > 1
    for tap in taps:
        seen: dict[str, Tensor] = {}

        def note(tap: Tap, output: Tensor, seen: dict[str, Tensor] = seen) -> None:
            seen[tap.layer] = as_nchw(tap, output).clone()

        # hooks run in the order in which they came: this one sees what the first gives
        with held(convnext, taps, {tap.layer: [2]}, means), record_taps(convnext, [tap], note):
            convnext(pair[1][None])
        there = seen[tap.layer][0]
        assert torch.all(there[2] == means[tap.layer][2])
        assert there[3].std() > 0


def test_random_channels_are_as_many_of_the_same_layers_and_others(network: VisionModel) -> None:
    taps = find_taps(network)
    units = {taps[0].layer: [0, 3], taps[1].layer: [7]}
    drawn = random_units(taps, units, seed=0)
    assert {layer: len(channels) for layer, channels in drawn.items()} == {taps[0].layer: 2, taps[1].layer: 1}
    assert not any(set(drawn[layer]) & set(units[layer]) for layer in units)
    assert drawn == random_units(taps, units, seed=0)
    assert any(random_units(taps, units, seed=seed) != drawn for seed in range(1, 5))
    all_but_one = {taps[0].layer: [0, 1, 2, 3, 4]}
    assert 5 in random_units(taps, all_but_one, seed=0)[taps[0].layer]
