"""Grad-CAM at its default layer and at named modules, for three libraries, against hooks written by hand."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from captum import attr
from torch import Tensor, nn
from torch.nn import functional

from workers.attribution.attribute import attribute
from workers.attribution.gradcam import choose_map
from workers.layers.module_maps import ModuleMap, module_maps
from workers.layers.taps import find_taps
from workers.models.networks import LoadedNetwork
from workers.models.preprocessing import Preprocessing
from workers.models.vision import VisionModel
from workers.models.vocabularies import vocabulary_of_labels
from workers.requests.parameters import InvalidRequest
from workers.torchvision_import import import_library

Wrap = Callable[..., VisionModel]
SIDE = 64
CLASSES = 7
TARGETS = torch.tensor([1, 0])
TINY: dict[str, Any] = {"num_classes": CLASSES}
TINY_VIT: dict[str, Any] = {"img_size": SIDE, "patch_size": 8, "depth": 3, "embed_dim": 16, "num_heads": 2}


def _transformers(family: str, **config: Any) -> nn.Module:
    library = import_library("transformers")
    made = getattr(library, f"{family}Config")(num_labels=CLASSES, **config)
    network: nn.Module = getattr(library, f"{family}ForImageClassification")(made)
    return network


def _timm(name: str, **options: Any) -> nn.Module:
    network: nn.Module = import_library("timm").create_model(name, **TINY, **options)
    return network


def _torchvision(name: str, **options: Any) -> nn.Module:
    network: nn.Module = getattr(import_library("torchvision.models"), name)(**TINY, **options)
    return network


def _vgg() -> nn.Module:
    """Return torchvision's VGG, narrow, and with one layer after the map in place of 120 million weights."""
    library = import_library("torchvision.models.vgg")
    with torch.device("meta"):
        network: nn.Module = library.vgg11(init_weights=False)
    network.features = library.make_layers(
        [8, "M", 8, "M", 16, 16, "M", 16, 16, "M", 64, 64, "M"], batch_norm=False
    )
    network.classifier = nn.Linear(64 * 7 * 7, CLASSES)
    return network


def _convnext() -> nn.Module:
    library = import_library("torchvision.models.convnext")
    blocks = [
        library.CNBlockConfig(width, wider, 1) for width, wider in ((8, 16), (16, 24), (24, 32), (32, None))
    ]
    network: nn.Module = library.ConvNeXt(blocks, **TINY)
    return network


DENSENET: dict[str, Any] = {"growth_rate": 8, "block_config": (2, 3, 2)}
VIT: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32, "image_size": SIDE,
    "patch_size": 8,
}  # fmt: skip

# Each network with the module path of its default Grad-CAM map and the layout of that map.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "transformers convnext": (
        lambda: _transformers("ConvNext", depths=[1, 1, 2, 1], hidden_sizes=[8, 16, 24, 32]),
        "convnext.encoder",
        "NCHW",
    ),
    "timm convnext": (
        lambda: _timm("convnext_atto", depths=(1, 1, 2, 1), dims=(8, 16, 24, 32)),
        "stages",
        "NCHW",
    ),
    "torchvision convnext": (_convnext, "features", "NCHW"),
    "transformers resnet": (
        lambda: _transformers(
            "ResNet", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], layer_type="basic"
        ),
        "resnet.encoder",
        "NCHW",
    ),
    "timm resnet": (lambda: _timm("resnet10t"), "layer4", "NCHW"),
    "torchvision resnet": (lambda: _torchvision("resnet18"), "layer4", "NCHW"),
    "torchvision mobilenet_v2": (lambda: _torchvision("mobilenet_v2", width_mult=0.25), "features", "NCHW"),
    "timm efficientnet": (lambda: _timm("tf_efficientnet_lite0"), "bn2", "NCHW"),
    "torchvision efficientnet": (lambda: _torchvision("efficientnet_b0"), "features", "NCHW"),
    "timm densenet": (lambda: _timm("densenet121", **DENSENET), "features", "NCHW"),
    "torchvision densenet": (lambda: _torchvision("DenseNet", **DENSENET), "features", "NCHW"),
    "torchvision vgg, whose last map is pooled": (_vgg, "features.19", "NCHW"),
    "transformers vit": (lambda: _transformers("ViT", **VIT), "vit.layers.1", "NLC"),
    "transformers deit": (lambda: _transformers("DeiT", **VIT), "deit.layers.1", "NLC"),
    "timm vit by its class token": (lambda: _timm("vit_tiny_patch16_224", **TINY_VIT), "blocks.1", "NLC"),
    "timm vit by the mean of its patches": (
        lambda: _timm("vit_tiny_patch16_224", global_pool="avg", **TINY_VIT),
        "blocks",
        "NLC",
    ),
    "timm deit with two tokens": (
        lambda: _timm("deit_tiny_distilled_patch16_224", **TINY_VIT),
        "blocks.1",
        "NLC",
    ),
    "torchvision vit": (
        lambda: _torchvision(
            "VisionTransformer", image_size=SIDE, patch_size=8, num_layers=3, num_heads=2, hidden_dim=16, mlp_dim=32
        ),
        "encoder.layers.encoder_layer_1",
        "NLC",
    ),
    "transformers swin": (
        lambda: _transformers(
            "Swin", image_size=SIDE, patch_size=2, embed_dim=8, depths=[2, 2], num_heads=[1, 2], window_size=4
        ),
        "swin.layernorm",
        "NLC",
    ),
    "timm swin": (
        lambda: _timm(
            "swin_tiny_patch4_window7_224", img_size=SIDE, patch_size=2, embed_dim=8, depths=(2, 2), num_heads=(1, 2),
            window_size=4,
        ),
        "norm",
        "NHWC",
    ),
    "torchvision swin": (
        lambda: _torchvision(
            "SwinTransformer", patch_size=[2, 2], embed_dim=8, depths=[2, 2], num_heads=[1, 2], window_size=[4, 4]
        ),
        "norm",
        "NHWC",
    ),
}  # fmt: skip


_MODELS: dict[str, VisionModel] = {}


def _made(name: str, as_model: Wrap) -> VisionModel:
    """Return the network of that name; tests share it and leave it unchanged, since its trace is cached with it."""
    if name not in _MODELS:
        _MODELS[name] = _make(name, as_model)
    return _MODELS[name]


def _make(name: str, as_model: Wrap) -> VisionModel:
    torch.manual_seed(0)
    network = NETWORKS[name][0]()
    for parameter in network.parameters():  # some heads and layer scales start at zero
        if parameter.ndim < 2 or not parameter.any():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return as_model(network, size=SIDE, classes=CLASSES)


@pytest.fixture(params=list(NETWORKS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def pixels() -> Tensor:
    return torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5))


def _by_hand(model: VisionModel, pixels: Tensor, module: str, layout: str, prefix: int) -> Tensor:
    """Return Grad-CAM at a module's first output, N,H,W at the map's own resolution, before the ReLU."""
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        kept.append(output if isinstance(output, Tensor) else next(iter(output.values())))
        return output.clone() if isinstance(output, Tensor) else None  # densenet continues in place

    with model.network.get_submodule(module).register_forward_hook(keep):
        logits = model(pixels.clone().requires_grad_())
    (gradient,) = torch.autograd.grad(logits[torch.arange(2), TARGETS].sum(), kept[0])
    activation = kept[0].detach()
    if layout == "NLC":
        side = int((activation.shape[1] - prefix) ** 0.5)
        activation, gradient = (
            tensor[:, prefix:].reshape(2, side, side, -1) for tensor in (activation, gradient)
        )
    places, channels = ((2, 3), 1) if layout == "NCHW" else ((1, 2), 3)
    return (gradient.mean(places, keepdim=True) * activation).sum(channels)


def test_the_default_map_is_that_of_the_last_join_that_reaches_the_class(
    name: str, as_model: Wrap, pixels: Tensor
) -> None:
    model = _made(name, as_model)
    _, module, layout = NETWORKS[name]
    at = choose_map(model, "")
    assert (at.name, at.layout, at.whole) == (module, layout, True)
    assert at.reached == at.height * at.width > 1
    heat = _by_hand(model, pixels, module, layout, at.prefix_tokens)
    assert bool(heat.any()), "a comparison of zeros proves nothing"
    expected = functional.interpolate(
        heat.relu()[:, None], (SIDE, SIDE), mode="bilinear", align_corners=False
    )[:, 0]
    found = attribute(model, pixels, TARGETS, "gradcam", {})
    assert found.layer == module
    assert torch.allclose(found.map, expected, atol=1e-4 * float(heat.abs().max()))


@pytest.mark.parametrize("name", ["torchvision resnet", "transformers resnet", "timm resnet"])
def test_a_residual_branch_has_a_part_and_the_block_has_all(name: str, as_model: Wrap) -> None:
    """By brute force: with a map detached, does the class still depend on the pixels?"""
    model = _made(name, as_model)
    maps = module_maps(model, find_taps(model))
    again = {at.module for at in maps if at.call}
    for at in maps:
        module = model.network.get_submodule(at.module)

        def cut(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            return output.detach() if isinstance(output, Tensor) else None

        if at.module in again or at.kind.endswith("Model") or at.kind.endswith("Encoder"):
            continue  # they return records
        batch = torch.rand(
            1, 3, SIDE // 2, SIDE // 2
        ).requires_grad_()  # dependence is a property of the graph
        with module.register_forward_hook(cut):
            logits = model(batch)
        around = logits.requires_grad and bool(torch.autograd.grad(logits.sum(), batch)[0].any())
        assert at.whole is not around, at.name


def test_any_module_can_be_named(as_model: Wrap, pixels: Tensor) -> None:
    model = _made("torchvision resnet", as_model)
    for module in ("layer3.1", "layer3.1.bn2", "layer2", "maxpool"):
        cam = attr.LayerGradCam(model, model.network.get_submodule(module)).attribute(
            pixels, target=TARGETS, relu_attributions=True
        )
        expected = functional.interpolate(cam.detach(), (SIDE, SIDE), mode="bilinear", align_corners=False)[
            :, 0
        ]
        found = attribute(model, pixels, TARGETS, "gradcam", {"layer": module})
        assert found.layer == module
        assert torch.allclose(found.map, expected, atol=1e-4 * float(expected.max()) + 1e-12), module


def test_a_module_that_is_called_twice_has_two_maps(as_model: Wrap, pixels: Tensor) -> None:
    """torchvision's blocks use one in-place ReLU both before and after the join."""
    model = _made("torchvision resnet", as_model)
    second = attribute(model, pixels, TARGETS, "gradcam", {"layer": "layer4.1.relu-2"})
    block = attribute(model, pixels, TARGETS, "gradcam", {"layer": "layer4.1"})
    assert torch.equal(second.map, block.map)
    first = attribute(model, pixels, TARGETS, "gradcam", {"layer": "layer4.1.relu"})
    assert not torch.equal(first.map, block.map)


@pytest.mark.parametrize(
    "name",
    ["transformers vit", "timm vit by its class token", "timm deit with two tokens", "torchvision vit"],
)
def test_a_layer_behind_the_last_attention_is_refused_with_one_that_reaches(
    name: str, as_model: Wrap, pixels: Tensor
) -> None:
    model = _made(name, as_model)
    blind = find_taps(model)[-1].layer
    with pytest.raises(InvalidRequest, match=f"no position of {blind} reaches the class.*; .* does"):
        attribute(model, pixels, TARGETS, "gradcam", {"layer": blind})


def test_a_layer_that_is_misspelled_is_refused_with_the_nearest(as_model: Wrap, pixels: Tensor) -> None:
    model = _made("torchvision resnet", as_model)
    with pytest.raises(InvalidRequest, match=r"default layer4\), got 'layr4.1'; did you mean layer4.1"):
        attribute(model, pixels, TARGETS, "gradcam", {"layer": "layr4.1"})


def test_a_model_without_a_map_that_reaches_the_class_has_no_grad_cam(as_model: Wrap, pixels: Tensor) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, CLASSES))
    with pytest.raises(InvalidRequest, match="this model has no layer with spatial positions"):
        attribute(as_model(network, size=SIDE, classes=CLASSES), pixels, TARGETS, "gradcam", {})


def test_listing_the_maps_leaves_nothing_behind(as_model: Wrap, pixels: Tensor) -> None:
    model = _made("torchvision resnet", as_model)
    state = torch.get_rng_state()
    before = model(pixels)
    maps: tuple[ModuleMap, ...] = module_maps(model, find_taps(model))
    assert len({at.name for at in maps}) == len(maps)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(model(pixels), before)
    assert not any(len(module._forward_hooks) for module in model.modules())


def test_a_gray_network_has_maps_too() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES)
    )
    loaded = LoadedNetwork(
        network=network,
        source="test",
        architecture="test",
        preprocessing=Preprocessing((SIDE, SIDE), SIDE, "bilinear", (0.5,), (0.5,)),
        vocabulary=vocabulary_of_labels([f"class {index}" for index in range(CLASSES)], model="test"),
    )
    model = VisionModel(loaded, name="test").eval().requires_grad_(False)
    assert choose_map(model, "").name == "1"
    assert attribute(model, torch.rand(2, 1, SIDE, SIDE), TARGETS, "gradcam", {}).map.shape == (2, SIDE, SIDE)
