"""Linear layers as 1 x 1 convolutions: the same numbers, the same names, the same weights."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from workers.attribution.gradients import chunk_size, logit_gradients
from workers.layers.taps import find_taps
from workers.models.speedups.pointwise import PointwiseLinear, optimize_for_inference
from workers.models.vision import VisionModel
from workers.torchvision_import import import_library

Wrap = Callable[..., VisionModel]


@pytest.fixture
def model(as_model: Wrap) -> VisionModel:
    """A ConvNeXt whose blocks contribute: its layer scale starts at 1."""
    library = import_library("transformers")
    torch.manual_seed(0)
    config = library.ConvNextConfig(
        depths=[1, 1, 2, 1], hidden_sizes=[8, 16, 24, 32], num_labels=7, layer_scale_init_value=1.0
    )
    return as_model(library.ConvNextForImageClassification(config), size=64, classes=7)


def test_logits_and_gradients_are_the_linear_layers(model: VisionModel) -> None:
    quick = copy.deepcopy(model)
    optimize_for_inference(quick.network)
    layers = [module for module in quick.network.modules() if isinstance(module, PointwiseLinear)]
    assert len(layers) == 11, "two a block, and the classifier"
    pixels, targets = torch.rand(3, 3, 64, 64), torch.tensor([0, 3, 6])
    torch.testing.assert_close(quick(pixels), model(pixels), rtol=1e-5, atol=1e-6)
    expected = logit_gradients(model, pixels, targets)
    found = logit_gradients(quick, pixels, targets)
    assert (found - expected).norm() / expected.norm() < 1e-5


def test_the_layer_alone_is_the_formula_in_float64() -> None:
    layer = nn.Sequential(nn.Linear(5, 9)).requires_grad_(False)
    weight, bias = layer[0].weight.double(), layer[0].bias.double()
    optimize_for_inference(layer)
    x = torch.randn(2, 3, 4, 5, requires_grad=True)
    y = layer(x)
    torch.testing.assert_close(y.double(), x.double() @ weight.t() + bias, rtol=1e-6, atol=1e-6)
    upstream = torch.randn_like(y)
    (gradient,) = torch.autograd.grad(y, x, upstream)
    torch.testing.assert_close(gradient.double(), upstream.double() @ weight, rtol=1e-6, atol=1e-6)
    for other in (torch.randn(4, 5), torch.randn(2, 7, 5)):  # classifiers and tokens
        torch.testing.assert_close(
            layer(other).double(), other.double() @ weight.t() + bias, rtol=1e-6, atol=1e-6
        )


def test_copied_weights_do_not_count_as_memory_per_image(model: VisionModel) -> None:
    quick = copy.deepcopy(model)
    optimize_for_inference(quick.network)
    pixels = torch.rand(1, 3, 64, 64)
    assert chunk_size(quick, pixels) >= chunk_size(model, pixels)


def test_weights_and_taps_are_unchanged(model: VisionModel) -> None:
    quick = copy.deepcopy(model)
    optimize_for_inference(quick.network)
    assert quick.weights_sha256() == model.weights_sha256()
    assert quick.state_dict().keys() == model.state_dict().keys()
    assert [tap.layer for tap in find_taps(quick)] == [tap.layer for tap in find_taps(model)]


def test_bfloat16_and_networks_that_learn_are_left_alone(model: VisionModel) -> None:
    quick = copy.deepcopy(model)
    optimize_for_inference(quick.network)
    pixels = torch.rand(1, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(quick(pixels), model(pixels), rtol=2e-2, atol=2e-2)
    learning = nn.Sequential(nn.Linear(3, 3))
    optimize_for_inference(learning)
    assert type(learning[0]) is nn.Linear
