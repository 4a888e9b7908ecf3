"""Effective receptive fields against gradients known analytically."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from workers.layers.receptive_field.fields import effective_sizes, receptive_fields
from workers.layers.taps import Tap


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Use one thread: with tiny operators, threads would spend their time waiting for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Vision(nn.Module):
    """The smallest thing that has taps: a network that takes pixels."""

    def __init__(self, network: nn.Module, size: int) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.preprocessing: Any = SimpleNamespace(input_size=(size, size), channels=3)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network(pixels)


def tap_on(model: Vision, module: str, **changes: Any) -> Tap:
    """Return a tap on an N,C,H,W output, unless `changes` say otherwise."""
    given_shapes: list[torch.Size] = []
    layer = model.network.get_submodule(module)
    handle = layer.register_forward_hook(lambda _module, _inputs, output: given_shapes.append(output.shape))
    model(torch.rand(1, 3, *model.preprocessing.input_size))
    handle.remove()
    shape = given_shapes[0]
    fields: dict[str, Any] = {
        "layer": module, "label": module, "module": module, "call": 0, "kind": "conv", "description": "",
        "stage": None, "block": None, "layout": "NCHW", "prefix_tokens": 0, "position": 0,
    }  # fmt: skip
    if "layout" not in changes:
        fields |= {"channels": shape[1], "height": shape[2], "width": shape[3]}
    return Tap(**(fields | changes))


def side_by_brute_force(kernel: np.ndarray) -> int:
    """Return the side of the smallest centered square with 95 % of a square map's mass, ring by ring."""
    size = len(kernel)
    for cut in range((size - 1) // 2, -1, -1):
        if kernel[cut : size - cut, cut : size - cut].sum() >= 0.95 * kernel.sum():
            return size - 2 * cut
    raise AssertionError


@settings(deadline=None, max_examples=25)
@given(size=st.integers(1, 12), stride=st.integers(1, 4), seed=st.integers(0, 1000), peak=st.booleans())
def test_a_linear_layer_has_the_effective_field_of_its_kernel(
    size: int, stride: int, seed: int, peak: bool
) -> None:
    random = np.random.default_rng(seed)
    kernel = random.standard_normal((1, 3, size, size))
    if peak:
        kernel[:, :, size // 2, size // 2] *= 100
    conv = nn.Conv2d(3, 1, size, stride, bias=False)
    conv.weight.data = torch.from_numpy(kernel).float()
    model = Vision(nn.Sequential(conv), 40)
    tap = tap_on(model, "0")
    assert effective_sizes(model, [tap], torch.rand(2, 3, 40, 40)) == {
        "0": side_by_brute_force(np.abs(kernel).sum((0, 1)))
    }


@pytest.mark.parametrize(
    ("size", "side"), [(1, 1), (2, 2), (9, 9), (21, 21), (40, 40), (41, 41), (50, 50), (90, 88)]
)
def test_a_flat_kernel_needs_95_percent_of_its_area(size: int, side: int) -> None:
    assert side == side_by_brute_force(np.ones((size, size)))
    conv = nn.Conv2d(3, 1, size, bias=False)
    nn.init.ones_(conv.weight)
    model = Vision(nn.Sequential(conv), 96)
    assert effective_sizes(model, [tap_on(model, "0")], torch.rand(1, 3, 96, 96), units=2) == {"0": side}


class Layouts(nn.Module):
    """One convolution, then identity linear layers on N,H,W,C and on tokens behind a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 9, stride=4, bias=False)
        self.last = nn.Linear(4, 4)
        self.tokens = nn.Linear(4, 4)
        for linear in (self.last, self.tokens):
            linear.weight.data = torch.eye(4)
            linear.bias.data.zero_()
        # all channels are alike, so that it does not matter which one is sampled
        blob = torch.exp(-torch.linspace(-3, 3, 9).square())
        self.conv.weight.data = (torch.rand(1, 3, 9, 9) * blob[:, None] * blob).expand(4, -1, -1, -1).clone()

    def forward(self, x: Tensor) -> Tensor:
        maps = self.last(self.conv(x).permute(0, 2, 3, 1))
        tokens = torch.cat([torch.zeros(len(x), 1, 4), maps.flatten(1, 2)], 1)
        return self.tokens(tokens)


def test_layouts_make_no_difference() -> None:
    torch.manual_seed(1)
    model = Vision(Layouts(), 61)
    grid = {"channels": 4, "height": 14, "width": 14}
    taps = [
        tap_on(model, "conv"),
        tap_on(model, "last", layout="NHWC", **grid),
        tap_on(model, "tokens", layout="NLC", prefix_tokens=1, **grid),
    ]
    sizes = effective_sizes(model, taps, torch.rand(3, 3, 61, 61))
    expected = side_by_brute_force(model.network.conv.weight[0].abs().sum(0).numpy())  # type: ignore[union-attr,operator]
    assert sizes == {"conv": expected, "last": expected, "tokens": expected}
    assert expected < 9


class Mixing(nn.Module):
    """Cells of 3 x 3 pixels, each with a share of the mean over all cells added."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.cells = nn.Conv2d(3, 1, 3, 3, bias=False)
        self.same = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.ones_(self.cells.weight)
        nn.init.ones_(self.same.weight)

    def forward(self, x: Tensor) -> Tensor:
        cells = self.cells(x)
        return self.same(cells + self.share * cells.mean((2, 3), keepdim=True))


# 27 x 27 pixels; the unit's own 3 x 3 have mass 1, the whole input `share`
@pytest.mark.parametrize(("share", "side"), [(0.01, 3), (1.0, 27), (100.0, 27), (0.06, 9)])
def test_a_global_layer_is_measured_around_its_cell(share: float, side: int) -> None:
    model = Vision(Mixing(share), 9 * 3)
    whole = 27 * 27
    held = [(s, min(s / 3, 1.0) ** 2 + share * s * s / whole) for s in range(3, 28, 2)]
    at_centre = next(s for s, mass in held if mass >= 0.95 * (1 + share))
    tap = tap_on(model, "same")
    fields = receptive_fields(model, [tap])
    assert fields["same"].is_global
    sizes = effective_sizes(model, [tap], torch.rand(1, 3, 27, 27))
    # off-center units reach the input's edge sooner on one side and later on the other
    assert abs(sizes["same"] - at_centre) <= 2
    assert abs(side - at_centre) <= 2


def deep(*, inplace: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=inplace)]
    for _ in range(9):
        layers += [nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(inplace=inplace)]
    return nn.Sequential(*layers)


def test_a_deep_stack_mostly_sees_far_less_than_it_could() -> None:
    model = Vision(deep(), 64)
    taps = [tap_on(model, str(index)) for index in range(0, 20, 2)]
    pixels = torch.rand(16, 3, 64, 64)
    theoretical = [field.size for field in receptive_fields(model, taps).values()]
    effective = list(effective_sizes(model, taps, pixels).values())
    assert theoretical == [(side, side) for side in range(3, 22, 2)]
    assert all(1 <= side <= size[0] for side, size in zip(effective, theoretical, strict=True) if size)
    assert effective[-1] <= 17
    assert all(isinstance(side, int) for side in effective)


def test_the_same_seed_gives_the_same_sizes_for_any_other_taps() -> None:
    model = Vision(deep(), 64)
    taps = [tap_on(model, str(index)) for index in range(0, 20, 2)]
    pixels = torch.rand(5, 3, 64, 64)
    together = effective_sizes(model, taps, pixels, seed=3)
    assert effective_sizes(model, taps, pixels, seed=3) == together
    assert effective_sizes(model, taps[-1:], pixels, seed=3) == {"18": together["18"]}


def test_an_activation_in_place_changes_nothing() -> None:
    pixels = torch.rand(4, 3, 64, 64)
    sizes = []
    for inplace in (False, True):
        model = Vision(deep(inplace=inplace), 64)
        sizes.append(effective_sizes(model, [tap_on(model, "8"), tap_on(model, "18")], pixels))
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_the_callers_pixels_and_weights_collect_no_gradient(mode: Any) -> None:
    model = Vision(deep(), 32)
    model.requires_grad_(True)
    pixels = torch.rand(2, 3, 32, 32)
    with mode():
        effective_sizes(model, [tap_on(model, "4")], pixels)
    assert not pixels.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_unit_that_no_gradient_reaches_counts_with_all_it_could_see() -> None:
    network = deep()
    network[0].bias.data.fill_(-1e6)
    model = Vision(network, 32)
    assert effective_sizes(model, [tap_on(model, "4")], torch.rand(2, 3, 32, 32)) == {"4": 7}


def test_no_unit_and_no_image_are_refused() -> None:
    model = Vision(deep(), 32)
    tap = tap_on(model, "4")
    with pytest.raises(ValueError, match="expected at least one unit and one image, got 0 and 2"):
        effective_sizes(model, [tap], torch.rand(2, 3, 32, 32), units=0)
    with pytest.raises(ValueError, match="expected at least one unit and one image, got 16 and 0"):
        effective_sizes(model, [tap], torch.rand(0, 3, 32, 32))
