"""Guided Backprop guides every activation, however it is called: against the same network built of modules."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from captum import attr
from torch import Tensor, nn
from torch.nn import functional as F

from workers.attribution.attribute import attribute
from workers.models.vision import VisionModel
from workers.torchvision_import import import_library

Wrap = Callable[..., VisionModel]
SIDE, CLASSES = 64, 7
TARGETS = torch.tensor([1, 0])


class Net(nn.Module):
    """Two convolutions, each followed by `activation`."""

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.head = nn.Linear(8, CLASSES)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.second(self.activation(self.first(x))))
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


def in_place(x: Tensor) -> Tensor:
    x.relu_()  # its return value is not used
    return x


CALLS: dict[str, tuple[Callable[[], nn.Module], Callable[[Tensor], Tensor]]] = {
    "F.relu": (nn.ReLU, F.relu),
    "F.relu in place": (nn.ReLU, lambda x: F.relu(x, inplace=True)),
    "torch.relu": (nn.ReLU, torch.relu),
    "method": (nn.ReLU, lambda x: x.relu()),
    "method in place": (nn.ReLU, in_place),
    "clamp": (nn.ReLU, lambda x: x.clamp(min=0)),
    "clamp_min": (nn.ReLU, lambda x: torch.clamp_min(x, 0)),
    "maximum": (nn.ReLU, lambda x: torch.maximum(x, torch.zeros(()))),
    "F.relu6": (nn.ReLU6, F.relu6),
    "F.gelu": (nn.GELU, F.gelu),
    "F.silu": (nn.SiLU, F.silu),
    "F.hardswish": (nn.Hardswish, F.hardswish),
    "F.leaky_relu": (nn.LeakyReLU, F.leaky_relu),
    "F.mish": (nn.Mish, F.mish),
    "F.elu in place": (nn.ELU, lambda x: F.elu(x, inplace=True)),
}


def _guided(network: nn.Module, pixels: Tensor) -> Tensor:
    """By hand: hooks on activation modules."""

    def rectify(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        passed = output.clone()
        passed.register_hook(lambda gradient: gradient.clamp(min=0))  # type: ignore[no-untyped-call]
        return passed

    kinds = (nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Hardswish, nn.LeakyReLU, nn.Mish, nn.ELU)
    handles = [
        module.register_forward_hook(rectify) for module in network.modules() if isinstance(module, kinds)
    ]
    assert handles
    batch = pixels.clone().requires_grad_()
    logits = network((batch - 0.5) / 0.5)
    (gradient,) = torch.autograd.grad(logits[torch.arange(2), TARGETS].sum(), batch)
    for handle in handles:
        handle.remove()
    return gradient.sum(1)


@pytest.fixture
def pixels() -> Tensor:
    return torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", list(CALLS))
def test_a_function_is_guided_as_its_module_is(name: str, as_model: Wrap, pixels: Tensor) -> None:
    module, function = CALLS[name]
    model = as_model(Net(function), size=SIDE, classes=CLASSES)
    found = attribute(model, pixels, TARGETS, "guided_backprop", {"colours": "sum"}).map
    expected = _guided(Net(module()).requires_grad_(False), pixels)
    assert bool(expected.any())
    assert torch.allclose(found, expected, atol=1e-5 * float(expected.abs().max()))
    plain = attribute(model, pixels, TARGETS, "gradient", {"colours": "sum"}).map
    assert not torch.allclose(plain, expected, atol=0.01 * float(expected.abs().max()))


def test_densenet_which_ends_in_a_function_is_guided_as_its_rewriting_with_modules(
    as_model: Wrap, pixels: Tensor
) -> None:
    """The error is 28 % of the largest value if only modules are guided."""
    torch.manual_seed(0)
    network = import_library("torchvision.models").DenseNet(8, (2, 2), 16, num_classes=CLASSES).eval()
    network.classifier.weight.data *= 10
    rewritten = nn.Sequential(
        network.features, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), network.classifier
    )
    found = attribute(
        as_model(network, size=SIDE, classes=CLASSES), pixels, TARGETS, "guided_backprop", {"colours": "sum"}
    ).map
    model = as_model(rewritten, size=SIDE, classes=CLASSES)
    for module in rewritten.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    with pytest.warns(UserWarning, match="hooks"):
        expected = attr.GuidedBackprop(model).attribute(pixels.clone().requires_grad_(), target=TARGETS)
    expected = expected.detach().sum(1)
    assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max()))


def test_an_activation_that_is_written_out_is_guided_by_its_module(as_model: Wrap, pixels: Tensor) -> None:
    quick = import_library("transformers.activations").QuickGELUActivation
    model = as_model(Net(quick()), size=SIDE, classes=CLASSES)
    found = attribute(model, pixels, TARGETS, "guided_backprop", {"colours": "sum"}).map

    class Same(nn.ReLU):
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.sigmoid(1.702 * x)

    expected = _guided(Net(Same()).requires_grad_(False), pixels)
    assert torch.allclose(found, expected, atol=1e-5 * float(expected.abs().max()))
