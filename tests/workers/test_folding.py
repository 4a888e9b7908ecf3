"""Folded networks give the same output; layers that cannot be folded are left as they are."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from workers.models.speedups.folding import folded
from workers.models.vision import VisionModel
from workers.torchvision_import import import_library

Wrap = Callable[..., VisionModel]
PIXELS = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def with_statistics(network: nn.Module) -> nn.Module:
    """Give normalization layers nontrivial statistics."""
    torch.manual_seed(4)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    return network.eval()


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


class Residual(nn.Module):
    """A convolution whose output goes into a normalization and around it; or one that is called twice."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.last = nn.Linear(3, 5)

    def forward(self, pixels: Tensor) -> Tensor:
        given = self.conv(pixels)
        given = self.norm(given) + given if self.kind == "past" else self.norm(self.conv(given))
        logits: Tensor = self.last(given.mean((2, 3)))
        return logits


@pytest.mark.parametrize("library", ["plain", "torchvision", "timm", "lite0"])
def test_a_folded_network_gives_the_same_outputs(as_model: Wrap, lite0: VisionModel, library: str) -> None:
    if library == "plain":
        network: nn.Module = nn.Sequential(
            nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3, groups=8),
            nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
        )  # fmt: skip
        model = as_model(with_statistics(network), size=32, classes=5)
    elif library == "torchvision":
        model = as_model(with_statistics(import_library("torchvision").models.mobilenet_v2()), size=32)
    elif library == "timm":
        network = import_library("timm").create_model("mobilenetv3_small_100", pretrained=False)
        model = as_model(with_statistics(network), size=32)
    else:
        model = lite0
    before = norms(model)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    made = folded(model, PIXELS)
    assert (norms(model), before > 0) == (before, True)
    assert norms(made) == 0
    with torch.inference_mode():
        expected, found = model(PIXELS), made(PIXELS)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("size", [15, 16, 17])
@pytest.mark.parametrize("kernel", [2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 8])
def test_padding_and_relu_equal_the_convolutions(
    as_model: Wrap, size: int, kernel: int, stride: int, groups: int
) -> None:
    """TensorFlow's padding is wider on one side; folding saves passes over memory, and the result is bit-identical."""
    layers = import_library("timm").layers
    for act in (nn.ReLU6, nn.ReLU, nn.SiLU):
        network = nn.Sequential(
            nn.Conv2d(3, 8, 1), layers.Conv2dSame(8, 8, kernel, stride, groups=groups, bias=False),
            layers.BatchNormAct2d(8, act_layer=act), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
        with_statistics(network)
        network[2].weight.data.fill_(9)  # or nothing would reach 6
        model = as_model(network, size=size, classes=8)
        pixels = torch.rand(2, 3, size, size)
        made = folded(model, pixels)
        assert norms(made) == 0
        assert any("Fused" in type(module).__name__ for module in made.modules()) == (act is not nn.SiLU)
        with torch.inference_mode():
            expected, found = model(pixels), made(pixels)
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_batch_of_another_size_is_not_taken_for_one(lite0: VisionModel) -> None:
    made = folded(lite0, PIXELS)
    with torch.inference_mode(), pytest.raises(AssertionError, match="another size"):
        made(torch.rand(1, 3, 40, 40))


def test_without_normalizations_there_is_no_copy(as_model: Wrap) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = as_model(network, size=32, classes=4)
    assert folded(model, PIXELS) is model


@pytest.mark.parametrize("kind", ["past", "twice"])
def test_shared_outputs_are_not_folded(as_model: Wrap, kind: str) -> None:
    model = as_model(with_statistics(Residual(kind)), size=32, classes=5)
    assert folded(model, PIXELS) is model
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
