"""Channel shifts against NumPy over whole feature maps, and clamped channels against edited weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn

from workers.attacks.ablation import clamp_channels, clean_means, judge, random_sets
from workers.attacks.search import smallest_epsilons
from workers.attacks.shifts import Shift, shifts
from workers.attribution.gradcam import choose_map
from workers.attribution.gradients import logit_gradients
from workers.layers.module_maps import as_tap
from workers.layers.taps import Tap, as_nchw, find_taps, record_taps
from workers.models.speedups.pointwise import optimize_for_inference
from workers.models.vision import VisionModel, load_model

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


def test_an_image_compared_with_itself_shifts_nothing(
    convnext: VisionModel, pair: tuple[Tensor, Tensor]
) -> None:
    for shift in shifts(convnext, find_taps(convnext), pair[0], pair[0]):
        assert not shift.shift.any()
        assert shift.relative_change == 0
        assert torch.equal(shift.at_before, shift.at_after)


def test_layers_have_the_names_that_the_index_gave_them(small_convnext: Path) -> None:
    """Workers replace linear layers by convolutions."""
    model = load_model(str(small_convnext))
    names = [(tap.layer, tap.kind, tap.channels) for tap in find_taps(model)]
    optimize_for_inference(model.network)
    assert [(tap.layer, tap.kind, tap.channels) for tap in find_taps(model)] == names


def a_shift(before: list[float], after: list[float]) -> Shift:
    tap = Tap("l", "l", "l", 0, "conv", "", None, None, "NCHW", 0, len(before), 1, 1, 0)
    places = torch.zeros(len(before), 2, dtype=torch.int64)
    return Shift(
        tap, torch.tensor(before).double(), torch.tensor(after).double(), places, places, relative_change=0.0
    )


def test_the_most_shifted_channels_come_first_without_dead_ones() -> None:
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


def test_a_clamped_channel_equals_zero_weights_and_that_bias(network: VisionModel) -> None:
    taps = find_taps(network)
    image, others = torch.rand(3, 16, 16), torch.rand(3, 3, 16, 16)
    means = clean_means(network, taps, image)
    whole = maps(network, taps, image)
    for tap in taps:
        assert torch.allclose(means[tap.layer], whole[tap.layer].mean((1, 2)), atol=1e-6)
    units = {taps[0].layer: [1, 4], taps[1].layer: [0]}
    with clamp_channels(network, taps, [units], means):
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


def test_clamping_nothing_changes_nothing_and_leaves_no_hook(network: VisionModel) -> None:
    taps = find_taps(network)
    image = torch.rand(2, 3, 16, 16)
    plain = network(image)
    with clamp_channels(network, taps, [{taps[0].layer: []}], clean_means(network, taps, image[0])):
        assert torch.equal(network(image), plain)
    with clamp_channels(network, taps, [{taps[0].layer: [0]}], clean_means(network, taps, image[0])):
        assert not torch.equal(network(image), plain)
    assert torch.equal(network(image), plain)


def test_channels_are_clamped_in_every_layout(convnext: VisionModel, pair: tuple[Tensor, Tensor]) -> None:
    taps = find_taps(convnext)
    means = clean_means(convnext, taps, pair[0])
    assert len({tap.layout for tap in taps}) > 1
    for tap in taps:
        seen: dict[str, Tensor] = {}

        def note(tap: Tap, output: Tensor, seen: dict[str, Tensor] = seen) -> None:
            seen[tap.layer] = as_nchw(tap, output).clone()

        # hooks run in order of registration, so this one sees the output of the first
        with clamp_channels(convnext, taps, [{tap.layer: [2]}], means), record_taps(convnext, [tap], note):
            convnext(pair[1][None])
        there = seen[tap.layer][0]
        assert torch.all(there[2] == means[tap.layer][2])
        assert there[3].std() > 0


def test_each_row_has_its_own_clamped_channels(network: VisionModel) -> None:
    taps = find_taps(network)
    images = torch.rand(3, 3, 16, 16)
    means = clean_means(network, taps, images[0])
    sets = [{}, {taps[0].layer: [1, 4]}, {taps[0].layer: [2], taps[1].layer: [0, 7]}]
    order = torch.tensor([2, 0, 1])
    alone = []
    for image, number in zip(images, order.tolist(), strict=True):
        with clamp_channels(network, taps, [sets[number]], means):
            alone.append(network(image[None])[0])
    with clamp_channels(network, taps, sets, means) as rows:
        rows.choose(order)
        together = network(images)
    assert torch.allclose(together, torch.stack(alone), atol=1e-6)
    assert not torch.allclose(together, network(images), atol=1e-3)


class Pair(nn.Module):
    """A block that returns a map and another tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return the join of the branch and its input, and its sum."""
        joined = maps + self.conv(maps)
        return joined, joined.sum()


class WithBlock(nn.Module):
    """A network whose block output, after the join, is not the output of any convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.head = nn.Conv2d(3, 4, 3, padding=1), Pair(), nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.head(self.block(self.stem(images))[0].mean((2, 3)))
        return logits


def test_channels_of_any_module_are_clamped(as_model: Wrap) -> None:
    torch.manual_seed(0)
    model = as_model(WithBlock(), size=16, classes=5)
    block = as_tap(choose_map(model, "block"))
    assert (block.layer, block.channels) == ("block", 4)
    image = torch.rand(3, 16, 16)
    means = clean_means(model, [block], image)
    other = torch.rand(1, 3, 16, 16)
    with clamp_channels(model, [block], [{"block": [0, 1, 2, 3]}], means):
        ours = model(other)[0]
    network = model.network
    assert isinstance(network, WithBlock)
    assert torch.allclose(ours, network.head(means["block"]), atol=1e-5), (
        "all of the map is held, the skip too"
    )
    (moved,) = shifts(model, [block], image, other[0])
    with torch.no_grad():
        stem = network.stem((torch.stack([image, other[0]]) - model.mean) / model.std)
        whole = stem + network.block.conv(stem)
    assert torch.allclose(moved.after.float(), whole[1].flatten(1).max(1).values, atol=1e-5)
    with pytest.raises(ValueError, match=r"layer: expected one of .*block.*, got 'blok'; did you mean block"):
        choose_map(model, "blok")


def test_random_sets_are_as_many_live_channels_of_the_same_layers() -> None:
    units = {"a": [0, 3], "b": [7]}
    live = {"a": [0, 1, 3, 4, 5, 9], "b": [2, 7, 8]}
    drawn, short = random_sets(live, units, draws=12, seed=0)
    assert short is None
    assert len(drawn) == 12
    assert all(set(one["a"]) <= {1, 4, 5, 9} and len(one["a"]) == 2 for one in drawn)
    assert all(set(one["b"]) <= {2, 8} and len(one["b"]) == 1 for one in drawn)
    assert len({str(one) for one in drawn}) == 12, "each once"
    assert random_sets(live, units, draws=12, seed=0)[0] == drawn
    assert random_sets(live, units, draws=12, seed=1)[0] != drawn
    some, why = random_sets(live, units, draws=13, seed=0)
    assert (len(some), why) == (12, "only 12 sets of other live channels exist")
    none, why = random_sets({"a": [0, 1, 3], "b": [7]}, units, draws=20, seed=0)
    assert (none, why) == ([], "a has 1 other live channels, but 2 are needed")


def found(epsilon: float | None, outcome: str | None = None) -> dict[str, Any]:
    return {"outcome": outcome or ("resisted" if epsilon is None else "flipped"), "epsilon": epsilon}


@pytest.mark.parametrize(
    ("chosen", "random", "verdict", "words"),
    [
        (found(0.04), [0.01] * 20, "carry", "20 of 20 random draws need a smaller epsilon (95 % interval of that share "
         "83% to 100%, chance 0.048)"),
        (found(None), [0.01] * 20, "carry", "20 of 20"),
        (found(0.04), [0.01] * 19 + [0.04], "cannot_say", "19 of 20"),
        (found(None), [0.01] * 19 + [None], "cannot_say", "19 of 20"),
        (found(0.04), [0.01] * 39 + [0.05], "carry", "39 of 40"),
        (found(0.04), [0.01] * 10 + [0.05] * 10, "no_more_than_random", "10 of 20"),
        (found(0.01), [0.009] * 20, "no_more_than_random", "does not need a larger epsilon"),
        (found(0.04), [0.01] * 18, "cannot_say", "18 of 18 random draws keep the class before any attack; at "
         "least 19 are needed"),
        (found(0.04), [0.0] * 2 + [0.01] * 18, "cannot_say", "18 of 20 random draws keep the class"),
        (found(0.0), [0.01] * 20, "cannot_say", "class changes before any attack"),
        (found(None, "no_gradient"), [0.01] * 20, "cannot_say", "the gradient is zero"),
    ],
)  # fmt: skip
def test_the_verdict_goes_by_the_rank_among_random_draws(
    chosen: dict[str, Any], random: list[float | None], verdict: str, words: str
) -> None:
    said = judge(found(0.01), chosen, [found(epsilon) for epsilon in random])
    assert said.verdict == verdict
    assert words in said.reason
    if said.share_low is not None:
        # Clopper-Pearson bounds from the beta distribution
        n, k = said.counted, said.less
        low = scipy.stats.beta.ppf(0.025, k, n - k + 1) if k else 0
        high = scipy.stats.beta.ppf(0.975, k + 1, n - k) if k < n else 1
        assert (said.share_low, said.share_high) == (pytest.approx(low), pytest.approx(high))


def test_without_a_changed_class_or_enough_channels_there_is_no_verdict() -> None:
    draws = [found(0.01)] * 20
    for attack in (found(None), found(0.0), found(None, "no_gradient")):
        assert judge(attack, found(0.04), draws).verdict == "cannot_say"
    said = judge(found(0.01), found(0.04), [], short="a has 1 other live channels, but 2 are needed")
    assert said.verdict == "cannot_say"
    assert said.reason.startswith("a has 1 other live channels")


def test_a_channel_that_carries_the_attack_is_distinguished_from_others(as_model: Wrap) -> None:
    """The class depends almost entirely on the first of 24 channels that copy the mean color."""
    conv, head = nn.Conv2d(3, 24, 1), nn.Linear(24, 2)
    with torch.no_grad():
        conv.weight.fill_(1 / 3)
        conv.bias.zero_()
        head.weight.zero_()
        head.weight[1] = 0.02
        head.weight[1, 0] = 10.0
        head.bias[:] = torch.tensor([0.0, 0.0])
    network = nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    model = as_model(network, size=8, classes=2)
    (tap,) = [tap for tap in find_taps(model) if tap.channels == 24]
    image = torch.full((3, 8, 8), 0.5)
    with torch.no_grad():
        head.bias[0] = (model(image[None])[0, 1] + 0.2).item()  # class 0 by a small margin
    (attack,) = smallest_epsilons(model, image[None])
    assert attack.outcome == "flipped"
    verdicts = {}
    for channel in (0, 5):
        others = [one for one in range(24) if one not in (0, 5)]
        random, short = random_sets({tap.layer: [channel, *others]}, {tap.layer: [channel]}, draws=20, seed=0)
        sets = [{tap.layer: [channel]}, *random]
        with clamp_channels(model, [tap], sets, clean_means(model, [tap], image)) as rows:
            together = smallest_epsilons(
                model, image.expand(21, -1, -1, -1), torch.zeros(21, dtype=torch.int64), on_pass=rows.choose
            )
        for number in (0, 1, 20):
            with clamp_channels(model, [tap], [sets[number]], clean_means(model, [tap], image)):
                (alone,) = smallest_epsilons(model, image[None], torch.zeros(1, dtype=torch.int64))
            assert alone.epsilon == together[number].epsilon, "searched together as alone"
        records = [found(search.epsilon, search.outcome) for search in together]
        verdicts[channel] = judge(found(attack.epsilon), records[0], records[1:], short=short).verdict
    assert verdicts == {0: "carry", 5: "no_more_than_random"}
