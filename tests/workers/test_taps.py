"""Taps are found by running the network: counts, names, layouts, calls, activations and data flow."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from workers.attacks.ablation import clamp_channels
from workers.layers.receptive_field.fields import receptive_fields
from workers.layers.taps import Tap, as_nchw, find_left_out, find_taps, record_taps, tap_edges
from workers.models.vision import VisionModel
from workers.torchvision_import import import_library

Wrap = Callable[..., VisionModel]


def transformers_net(kind: str, **settings: Any) -> nn.Module:
    library = import_library("transformers")
    config = getattr(library, f"{kind}Config")(num_labels=1000, **settings)
    network: nn.Module = getattr(library, f"{kind}ForImageClassification")(config)
    return network


def torchvision_net(name: str) -> nn.Module:
    network: nn.Module = getattr(import_library("torchvision.models"), name)(weights=None)
    return network


def timm_net(name: str, **settings: Any) -> nn.Module:
    network: nn.Module = import_library("timm").create_model(name, **settings)
    return network


# Counted by hand from the papers' tables.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "transformers ConvNeXt-tiny": (lambda: transformers_net("ConvNext"), 58),
    "transformers ConvNeXt-V2-tiny": (lambda: transformers_net("ConvNextV2"), 58),
    "timm ConvNeXt-tiny": (lambda: timm_net("convnext_tiny"), 58),
    "timm ConvNeXt-tiny of 1x1 convolutions": (lambda: timm_net("convnext_tiny", conv_mlp=True), 58),
    "torchvision ConvNeXt-tiny": (lambda: torchvision_net("convnext_tiny"), 58),
    # 1 + 3 * (3 + 4 + 6 + 3) + 4 shortcuts
    "transformers ResNet-50": (lambda: transformers_net("ResNet"), 53),
    "torchvision ResNet-50": (lambda: torchvision_net("resnet50"), 53),
    # 1 + 2 + 16 * 3 + 1
    "torchvision MobileNetV2": (lambda: torchvision_net("mobilenet_v2"), 52),
    "timm EfficientNet-Lite0": (lambda: timm_net("tf_efficientnet_lite0"), 49),
    # the same 49 layers: the 32 convolutions of squeeze-and-excitation act on pooled features
    "torchvision EfficientNet-B0": (lambda: torchvision_net("efficientnet_b0"), 49),
    "torchvision DenseNet-121": (lambda: torchvision_net("densenet121"), 120),
    # 1 + 3 * 16 + 4 shortcuts, without squeeze-and-excitation
    "torchvision RegNet-Y 400MF": (lambda: torchvision_net("regnet_y_400mf"), 53),
    "timm RegNet-Y 400MF": (lambda: timm_net("regnety_004"), 53),
    # 1 + 12 * (query, key, value, output, fc1, fc2)
    "transformers ViT": (
        lambda: transformers_net("ViT", hidden_size=48, num_attention_heads=3, intermediate_size=96),
        73,
    ),
    "torchvision VGG-11": (lambda: torchvision_net("vgg11_bn"), 8),
    "torchvision GoogLeNet": (lambda: torchvision_net("googlenet"), 57),
}


@pytest.mark.filterwarnings("ignore:The default weight initialization of GoogleNet:FutureWarning")
@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_that_acts_on_a_map_is_tapped_once(name: str, as_model: Wrap) -> None:
    build, count = NETWORKS[name]
    model = as_model(build())
    taps = find_taps(model)
    assert len(taps) == count
    assert len({tap.layer for tap in taps}) == count
    assert len({tap.label for tap in taps}) == count
    assert [tap.position for tap in taps] == list(range(count))
    for tap in taps:
        assert all(character.isalnum() or character in "._-" for character in tap.layer), tap.layer
        module = model.network.get_submodule(tap.module)
        assert tap.channels == getattr(module, "out_channels", getattr(module, "out_features", None))
    _recorded_shapes_are_the_taps_own(model, taps)
    _every_tap_is_reached_and_only_the_first_has_no_source(model, taps)


def _recorded_shapes_are_the_taps_own(model: VisionModel, taps: tuple[Tap, ...]) -> None:
    order = []

    def check(tap: Tap, output: Tensor) -> None:
        assert as_nchw(tap, output).shape == (1, tap.channels, tap.height, tap.width)
        order.append(tap)

    with record_taps(model, taps, check), torch.inference_mode():
        model(torch.rand(1, 3, 224, 224))
    assert tuple(order) == taps


def _every_tap_is_reached_and_only_the_first_has_no_source(model: VisionModel, taps: tuple[Tap, ...]) -> None:
    edges = tap_edges(model, taps)
    assert len(set(edges)) == len(edges)
    assert {tap.layer for tap in taps} - {target for _, target in edges} == {taps[0].layer}
    # acyclic: every network here is feed-forward
    left = {tap.layer for tap in taps}
    while left:
        free = {
            layer for layer in left if not any(target == layer and source in left for source, target in edges)
        }
        assert free
        left -= free


CONVNEXTS = [name for name in NETWORKS if "ConvNeXt" in name]


@pytest.mark.parametrize("name", CONVNEXTS)
def test_convnexts_of_every_library_read_like_the_paper(name: str, as_model: Wrap) -> None:
    taps = {tap.layer: tap for tap in find_taps(as_model(NETWORKS[name][0]()))}
    expected = ["patch_embedding"]
    for stage, blocks in enumerate((3, 3, 9, 3), start=1):
        expected += [f"stage{stage}.downsampling"] if stage > 1 else []
        for block, kind in itertools.product(range(1, blocks + 1), ("dwconv", "pwconv1", "pwconv2")):
            expected.append(f"stage{stage}.block{block}.{kind}")
    assert list(taps) == expected
    tap = taps["stage2.block1.dwconv"]
    assert tap.label == "stage 2 > block 1 > dwconv"
    assert tap.description == "d7x7 conv, 192, stride 1"
    assert (tap.stage, tap.block, tap.kind) == ("stage 2", "block 1", "dwconv")
    assert (tap.layout, tap.channels, tap.height, tap.width) == ("NCHW", 192, 28, 28)
    assert taps["stage2.block1.pwconv1"].description == "1x1 conv, 768, stride 1, before GELU"
    assert taps["stage2.block1.pwconv1"].layout == ("NCHW" if "1x1" in name else "NHWC")
    assert taps["stage2.downsampling"].label == "stage 2 > downsampling"
    assert taps["stage2.downsampling"].description == "2x2 conv, 192, stride 2"
    assert taps["patch_embedding"].description == "4x4 conv, 96, stride 4"


@pytest.mark.parametrize("name", ["transformers ResNet-50", "torchvision ResNet-50"])
def test_resnets_have_stages_of_blocks_with_a_shortcut_in_the_first(name: str, as_model: Wrap) -> None:
    model = as_model(NETWORKS[name][0]())
    taps = find_taps(model)
    blocks: dict[tuple[str | None, str | None], list[str]] = {(tap.stage, tap.block): [] for tap in taps}
    for tap in taps:
        blocks[tap.stage, tap.block].append(tap.layer.rsplit(".", 1)[-1])
    assert blocks.pop((None, None)) == ["stem"]
    assert [blocks[f"stage {stage}", "block 1"] for stage in range(1, 5)] == [
        ["conv1", "conv2", "conv3", "shortcut"]
    ] * 4
    assert [sum(stage == f"stage {n}" for stage, _ in blocks) for n in range(1, 5)] == [3, 4, 6, 3]
    edges = tap_edges(model, taps)
    assert ("stage1.block1.shortcut", "stage1.block1.conv3") in edges
    assert ("stage1.block1.conv3", "stage1.block2.conv1") in edges
    assert ("stage1.block1.conv3", "stage1.block2.conv3") in edges
    described = {tap.layer: tap.description for tap in taps}
    assert described["stem"] == "7x7 conv, 64, stride 2, before batch norm and ReLU"
    # the sum with the shortcut follows, so no activation takes this output directly
    assert described["stage1.block1.conv3"] == "1x1 conv, 256, stride 1"


def test_stages_without_containers_are_runs_of_one_resolution(as_model: Wrap) -> None:
    taps = find_taps(as_model(torchvision_net("mobilenet_v2")))
    resolutions: dict[str | None, set[int]] = {}
    for tap in taps:
        if tap.kind in ("pwconv", "pwconv2"):
            resolutions.setdefault(tap.stage, set()).add(tap.height)
    assert resolutions == {
        "stage 1": {112},
        "stage 2": {56},
        "stage 3": {28},
        "stage 4": {14},
        "stage 5": {7},
    }
    assert (taps[0].layer, taps[-1].layer) == ("stem", "head")
    assert [tap.layer for tap in taps[1:6]] == [
        "stage1.block1.dwconv",
        "stage1.block1.pwconv",
        "stage2.block1.pwconv1",
        "stage2.block1.dwconv",
        "stage2.block1.pwconv2",
    ]


def test_dense_connections_are_edges_from_every_earlier_block(as_model: Wrap) -> None:
    model = as_model(torchvision_net("densenet121"))
    taps = find_taps(model)
    edges = tap_edges(model, taps)
    sources = {source for source, target in edges if target == "stage1.block3.conv1"}
    assert sources == {"stem", "stage1.block1.conv2", "stage1.block2.conv2"}
    assert {source for source, target in edges if target == "stage2.block1.conv1"} == {"transition1"}


TOKEN_NETWORKS: dict[str, tuple[Callable[[], nn.Module], str, int]] = {
    "transformers ViT": (
        lambda: transformers_net(
            "ViT", hidden_size=48, num_attention_heads=3, intermediate_size=96, num_hidden_layers=2
        ),
        "block1.attention.q_proj",
        1,
    ),
    "transformers DINOv2 with registers": (
        lambda: transformers_net(
            "Dinov2WithRegisters", hidden_size=48, num_attention_heads=3, num_hidden_layers=2, image_size=224
        ),
        "block1.attention.q_proj",
        5,
    ),
    "timm ViT": (lambda: timm_net("vit_tiny_patch16_224", depth=2), "block1.attn.qkv", 1),
    "timm DeiT, distilled": (
        lambda: timm_net("deit_tiny_distilled_patch16_224", depth=2),
        "block1.attn.qkv",
        2,
    ),
}


@pytest.mark.parametrize("name", TOKEN_NETWORKS)
def test_a_tokens_position_is_its_patch(name: str, as_model: Wrap) -> None:
    """Before the first attention mixes tokens, changing one patch changes exactly the position of that patch."""
    build, layer, prefix = TOKEN_NETWORKS[name]
    model = as_model(build())
    tap = next(tap for tap in find_taps(model) if tap.layer == layer)
    assert (tap.layout, tap.prefix_tokens) == ("NLC", prefix)
    plain = torch.full((1, 3, 224, 224), 0.5)
    row, column = 3, tap.width - 2
    patch = 224 // tap.height
    changed = plain.clone()
    changed[..., row * patch : (row + 1) * patch, column * patch : (column + 1) * patch] = torch.rand(
        patch, patch
    )
    difference = (_output(model, tap, plain) - _output(model, tap, changed)).abs().amax(dim=(0, 1))
    assert difference.nonzero().tolist() == [[row, column]]


@pytest.mark.parametrize("layer", ["stage1.block1.dwconv", "stage1.block1.pwconv1", "stage1.block1.pwconv2"])
def test_map_positions_correspond_to_image_positions(layer: str, as_model: Wrap) -> None:
    model = as_model(transformers_net("ConvNext", depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32]))
    tap = next(tap for tap in find_taps(model) if tap.layer == layer)
    plain = torch.full((1, 3, 224, 224), 0.5)
    changed = plain.clone()
    changed[..., 4 * 20 : 4 * 21, 4 * 33 : 4 * 34] = torch.rand(4, 4)  # cell (20, 33) of the 4x4 patches
    difference = (_output(model, tap, plain) - _output(model, tap, changed)).abs().amax(dim=(0, 1))
    rows, columns = difference.nonzero().unbind(dim=1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (17, 23, 30, 36)  # d7x7 around it


def _output(model: VisionModel, tap: Tap, pixels: Tensor) -> Tensor:
    kept: list[Tensor] = []
    recording = record_taps(model, [tap], lambda tap, output: kept.append(as_nchw(tap, output).clone()))
    with recording, torch.inference_mode():
        model(pixels)
    (output,) = kept
    return output


class Reused(nn.Module):
    """One convolution called twice, each time followed by an in-place activation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(3, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv(x))
        x = self.relu(self.conv(x))
        logits: Tensor = self.head(x.mean(dim=(2, 3)))
        return logits


def test_a_module_called_twice_is_two_taps_with_the_outputs_before_the_in_place_activation(
    as_model: Wrap,
) -> None:
    model = as_model(Reused(), size=32, classes=10)
    taps = find_taps(model)
    assert [(tap.module, tap.call, tap.description) for tap in taps] == [
        ("conv", 0, "3x3 conv, 3, stride 1, before ReLU"),
        ("conv", 1, "3x3 conv, 3, stride 1, before ReLU"),
    ]
    assert tap_edges(model, taps) == ((taps[0].layer, taps[1].layer),)
    pixels = torch.rand(2, 3, 32, 32)
    conv = model.network.conv
    assert isinstance(conv, nn.Conv2d)
    first = functional.conv2d((pixels - 0.5) / 0.5, conv.weight, conv.bias, padding=1)
    second = functional.conv2d(first.relu(), conv.weight, conv.bias, padding=1)
    assert (first < 0).any()
    kept: dict[str, Tensor] = {}
    with record_taps(model, taps, lambda tap, output: kept.update({tap.layer: output.clone()})):
        model(torch.rand(2, 3, 32, 32))
        model(pixels)  # the call count restarts with every forward pass
    torch.testing.assert_close(kept[taps[0].layer], first)
    torch.testing.assert_close(kept[taps[1].layer], second)


def test_one_call_of_several_can_be_recorded_alone(as_model: Wrap) -> None:
    model = as_model(Reused(), size=32, classes=10)
    taps = find_taps(model)
    seen: list[Tap] = []
    with record_taps(model, taps[1:], lambda tap, _: seen.append(tap)):
        model(torch.rand(1, 3, 32, 32))
    assert seen == [taps[1]]


def test_a_pass_that_fails_leaves_no_miscount_behind(as_model: Wrap) -> None:
    model = as_model(Reused(), size=32, classes=10)
    taps = find_taps(model)
    seen: list[Tap] = []

    def fail_once(tap: Tap, _: Tensor) -> None:
        seen.append(tap)
        if len(seen) == 1:
            raise KeyboardInterrupt

    with record_taps(model, taps, fail_once):
        with pytest.raises(KeyboardInterrupt):
            model(torch.rand(1, 3, 32, 32))
        model(torch.rand(1, 3, 32, 32))
    assert seen == [taps[0], *taps]


def test_nothing_stays_hooked(as_model: Wrap) -> None:
    model = as_model(Reused(), size=32, classes=10)
    taps = find_taps(model)
    tap_edges(model, taps)
    with record_taps(model, taps, lambda *_: None):
        pass
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_a_recorded_output_carries_no_gradient_and_changes_nothing(as_model: Wrap) -> None:
    model = as_model(Reused(), size=32, classes=10)
    taps = find_taps(model)
    pixels = torch.rand(1, 3, 32, 32, requires_grad=True)
    plain = model(pixels)
    tracked = []
    with record_taps(model, taps, lambda _, output: tracked.append(output.requires_grad)):
        hooked = model(pixels)
    assert tracked == [False, False]
    assert hooked.requires_grad
    assert torch.equal(plain, hooked)


def test_an_unexpected_channel_count_is_an_error_and_not_a_silent_broadcast(as_model: Wrap) -> None:
    tap = find_taps(as_model(Reused(), size=32, classes=10))[0]
    with pytest.raises(AssertionError, match="expected 3 channels"):
        as_nchw(tap, torch.zeros(1, 32, 32, 3))


def test_reordered_tokens_are_put_back_in_the_images_rows(as_model: Wrap) -> None:
    """Hiera orders its tokens by mask unit, so the token of position (0, 1) is not the second one."""
    model = as_model(transformers_net("Hiera", embed_dim=8, num_heads=[1, 1, 2, 2], depths=[1, 1, 1, 1]))
    tap = next(tap for tap in find_taps(model) if tap.order is not None)
    assert tap.order is not None
    assert sorted(tap.order) == list(range(tap.height * tap.width))
    plain = torch.full((1, 3, 224, 224), 0.5)
    row, column = 20, 33
    changed = plain.clone()
    changed[..., row * 4 + 1, column * 4 + 1] = (
        1.0  # only the center of one patch, because 7x7 windows overlap
    )
    difference = (_output(model, tap, plain) - _output(model, tap, changed)).abs().amax(dim=(0, 1))
    rows, columns = difference.nonzero().unbind(dim=1)
    assert rows.min() >= row - 1
    assert rows.max() <= row + 1
    assert columns.min() >= column - 1
    assert columns.max() <= column + 1


def test_channels_of_reordered_tokens_are_clamped_everywhere(as_model: Wrap) -> None:
    model = as_model(transformers_net("Hiera", embed_dim=8, num_heads=[1, 1, 2, 2], depths=[1, 1, 1, 1]))
    tap = next(tap for tap in find_taps(model) if tap.order is not None)
    with clamp_channels(model, [tap], [{tap.layer: [2]}], {tap.layer: torch.full((tap.channels,), 7.0)}):
        output = _output(model, tap, torch.rand(1, 3, 224, 224))
    assert bool((output[:, 2] == 7).all())
    assert not bool((output[:, 1] == 7).any())


class Pooling(nn.Module):
    """A convolution, a vector that does not depend on the pixels, and a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 2, stride=2)
        self.up = nn.ConvTranspose2d(4, 4, 2, stride=2)
        self.query = nn.Linear(4, 4)
        self.unused = nn.Linear(4, 4)
        self.head = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(self.conv(x))
        query = self.query(torch.ones(len(x), 1, 4))
        logits: Tensor = self.head(x.mean(dim=(2, 3)) * query[:, 0])
        return logits


def test_every_layer_left_out_is_listed_with_its_reason(as_model: Wrap) -> None:
    model = as_model(Pooling(), size=32, classes=10)
    assert [tap.module for tap in find_taps(model)] == ["conv"]
    assert {entry.module: entry.reason.split(":")[0] for entry in find_left_out(model)} == {
        "up": "is not a supported kind of layer (ConvTranspose2d)",
        "query": "its output does not depend on the pixels",
        "head": "acts on features without spatial positions, such as pooled ones",
        "unused": "is never called as a module",
    }


class Scanned(nn.Module):
    """A network that scans the rows of its map with a recurrent layer in each direction."""

    def __init__(self, kind: type[nn.RNNBase], **settings: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 4, stride=4)
        self.scan = kind(4, 6, batch_first=True, **settings)
        self.mix = nn.Linear(12 if settings.get("bidirectional") else 6, 5)
        self.head = nn.Linear(5, 10)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.conv(x).permute(0, 2, 3, 1)
        read = self.scan(rows.flatten(0, 1))[0].unflatten(0, rows.shape[:2])
        logits: Tensor = self.head(self.mix(read).mean((1, 2)))
        return logits


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("both", [True, False])
def test_layers_after_a_recurrent_layer_keep_their_positions(
    as_model: Wrap, kind: type[nn.RNNBase], both: bool
) -> None:
    model = as_model(Scanned(kind, bidirectional=both), size=32, classes=10)
    conv, mix = find_taps(model)
    assert (mix.module, mix.layout, mix.height, mix.width, mix.order) == ("mix", "NHWC", 8, 8, None)
    left_out = {entry.module: entry.reason for entry in find_left_out(model)}
    assert left_out["scan"] == f"is not a supported kind of layer ({kind.__name__})"
    fields = receptive_fields(model, [conv, mix])
    rows, columns = fields[mix.layer].size or (0, 0)
    assert rows == 4, "a row of the map does not see the others"
    assert columns >= 32


@pytest.mark.filterwarnings("ignore")
def test_networks_of_rotated_queries_without_prefix_tokens_have_taps(as_model: Wrap) -> None:
    network = timm_net("qwen3_vit_88m", num_classes=10, depth=1)
    model = as_model(network, size=224, classes=10)
    assert len(find_taps(model)) >= 5
