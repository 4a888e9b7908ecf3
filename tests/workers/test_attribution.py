"""Each method against Captum, autograd or brute force, on real architectures; and invariants of all methods."""

import copy
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from captum import attr
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor, nn

from workers.attribution.attribute import attribute
from workers.attribution.baselines import baseline_pixels
from workers.attribution.registry import METHODS
from workers.layers.module_maps import module_maps
from workers.layers.taps import as_nchw, find_taps
from workers.models.probabilities import NotFinite
from workers.models.vision import VisionModel
from workers.requests.parameters import InvalidRequest
from workers.torchvision_import import import_library

Wrap = Callable[..., VisionModel]
SIDE = 64
CLASSES = 7


def convnext() -> nn.Module:
    """Its blocks are N,H,W,C inside."""
    library = import_library("transformers")
    config = library.ConvNextConfig(
        depths=[1, 1, 2, 1], hidden_sizes=[8, 16, 24, 32], num_labels=CLASSES, layer_scale_init_value=1.0
    )
    network: nn.Module = library.ConvNextForImageClassification(config)
    return network


def resnet() -> nn.Module:
    """Its activations are in place."""
    network: nn.Module = import_library("timm").create_model("resnet10t", num_classes=CLASSES)
    return network


def mobilenet() -> nn.Module:
    """ReLU6."""
    models = import_library("torchvision.models")
    network: nn.Module = models.mobilenet_v2(num_classes=CLASSES, width_mult=0.25)
    return network


def vit() -> nn.Module:
    """Tokens."""
    library = import_library("transformers")
    config = library.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=SIDE,
        patch_size=8, num_labels=CLASSES,
    )  # fmt: skip
    network: nn.Module = library.ViTForImageClassification(config)
    return network


NETWORKS = {"convnext": convnext, "resnet": resnet, "mobilenet": mobilenet, "vit": vit}


@pytest.fixture(params=list(NETWORKS))
def model(request: pytest.FixtureRequest, as_model: Wrap) -> VisionModel:
    return made(request.param, as_model)


def made(name: str, as_model: Wrap) -> VisionModel:
    return as_model(copy.deepcopy(network_of(name)), size=SIDE, classes=CLASSES)


@functools.cache
def network_of(name: str) -> nn.Module:
    torch.manual_seed(3)
    network = NETWORKS[name]()
    for parameter in network.parameters():
        if parameter.ndim == 1:  # as if trained: without biases, LayerNorm breaks at the mean color
            parameter.data += 0.1 * torch.randn_like(parameter)
    with torch.no_grad():
        for _ in range(20):  # batch normalization needs statistics, or signals die out on the way
            network.train()(torch.randn(8, 3, SIDE, SIDE))
    return network


@pytest.fixture
def pixels() -> Tensor:
    return torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5))


TARGETS = torch.tensor([1, 0, 4])


def close(found: Tensor, expected: Tensor, relative: float = 1e-4) -> bool:
    """Compare relative to the largest value: sums in another order differ in the last digits."""
    scale = float(expected.abs().max())
    assert scale > 0, "a comparison with nothing but zeros proves nothing"
    return bool(((found - expected).abs() <= relative * scale).all())


def test_the_gradient_is_captums(model: VisionModel, pixels: Tensor) -> None:
    expected = (
        attr.Saliency(model).attribute(pixels.clone().requires_grad_(), target=TARGETS, abs=False).detach()
    )
    assert close(attribute(model, pixels, TARGETS, "gradient", {"colours": "sum"}).map, expected.sum(1))
    assert close(attribute(model, pixels, TARGETS, "gradient", {}).map, expected.abs().amax(1))


def test_the_gradient_is_the_slope_of_the_logit(model: VisionModel, pixels: Tensor) -> None:
    wide = model.double()
    image = pixels[:1].double()
    found = attribute(wide, image, TARGETS[:1], "gradient", {"colours": "sum"}).map.double()
    step = torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 1e-6
    with torch.no_grad():
        ahead, behind = (wide(image + sign * step)[0, 1] for sign in (1, -1))
    assert float((ahead - behind) / 2) == pytest.approx(float((found * step).sum()), rel=1e-4)


def test_gradient_times_input_is_captums_in_the_networks_own_input(
    model: VisionModel, pixels: Tensor
) -> None:
    normalised = (pixels - model.mean) / model.std

    class Bare(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return model(x * model.std + model.mean)

    expected = (
        attr.InputXGradient(Bare()).attribute(normalised.requires_grad_(), target=TARGETS).detach().sum(1)
    )
    assert close(attribute(model, pixels, TARGETS, "gradient_x_input", {}).map, expected)


@pytest.mark.parametrize("baseline", ["mean", "black", "blur"])
def test_integrated_gradients_add_up_to_the_change_of_the_logit(
    model: VisionModel, pixels: Tensor, baseline: str
) -> None:
    found = attribute(model, pixels, TARGETS, "integrated_gradients", {"steps": 200, "baseline": baseline})
    start = baseline_pixels(pixels, model.mean, baseline)
    with torch.no_grad():
        change = (model(pixels) - model(start)).gather(1, TARGETS.unsqueeze(1))[:, 0]
    assert torch.allclose(found.map.sum((1, 2)), change, rtol=0.05, atol=0.02 * float(change.abs().max()))
    assert found.signed


@pytest.mark.parametrize("name", ["resnet"])
def test_guided_backprop_is_captums_where_captum_knows_the_activation(
    name: str, as_model: Wrap, pixels: Tensor
) -> None:
    model = made(name, as_model)
    with pytest.warns(UserWarning, match="hooks"):
        expected = (
            attr.GuidedBackprop(model).attribute(pixels.clone().requires_grad_(), target=TARGETS).detach()
        )
    assert close(
        attribute(model, pixels, TARGETS, "guided_backprop", {"colours": "sum"}).map, expected.sum(1)
    )


@pytest.mark.parametrize("name", ["mobilenet", "convnext", "vit"])
def test_guided_backprop_changes_networks_of_other_activations_too(
    name: str, as_model: Wrap, pixels: Tensor
) -> None:
    model = made(name, as_model)
    guided = attribute(model, pixels, TARGETS, "guided_backprop", {}).map
    plain = attribute(model, pixels, TARGETS, "gradient", {}).map
    assert not close(guided, plain, 0.01)


def test_guided_backprop_by_hand() -> None:
    """Two layers on one pixel: of the two backward paths, the one with a negative gradient is blocked."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            first = self.act(x[:, 0].flatten(1) * 1)
            second = self.act(x[:, 1].flatten(1) * 1)
            return (2 * first - 3 * second).sum(1, keepdim=True)

    class Model:
        network = Net()
        mean, std = torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)

        def __call__(self, x: Tensor) -> Tensor:
            return self.network(x)  # type: ignore[no-any-return]

    model: Any = Model()
    found = attribute(model, torch.ones(1, 3, 1, 1), torch.tensor([0]), "guided_backprop", {"colours": "sum"})
    assert found.map.item() == 2, "and not 2 - 3"


def test_a_network_without_activations_has_no_guided_backprop(as_model: Wrap, pixels: Tensor) -> None:
    model = as_model(
        nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, CLASSES)), size=SIDE, classes=CLASSES
    )
    with pytest.raises(InvalidRequest, match="expected a model with activations"):
        attribute(model, pixels, TARGETS, "guided_backprop", {})


def test_gradcam_at_every_layer_is_the_formula(model: VisionModel, pixels: Tensor) -> None:
    """Against activations and gradients read by hand; Captum's takes dimension 1 for the channels."""
    blind = {
        (found.module, found.call) for found in module_maps(model, find_taps(model)) if found.reached == 0
    }
    for tap in find_taps(model):
        if (tap.module, tap.call) in blind:
            continue
        kept: list[Tensor] = []

        def keep(_module: nn.Module, _inputs: Any, output: Tensor, kept: list[Tensor] = kept) -> Tensor:
            kept.append(output)
            return output.clone()

        with model.network.get_submodule(tap.module).register_forward_hook(keep):
            logits = model(pixels.clone().requires_grad_())
        (gradient,) = torch.autograd.grad(logits[torch.arange(3), TARGETS].sum(), kept[tap.call])
        activation = as_nchw(tap, kept[tap.call].detach()).numpy()
        weights = as_nchw(tap, gradient).numpy().mean((2, 3))
        cam = np.maximum(np.einsum("nc,nchw->nhw", weights, activation), 0)
        expected = nn.functional.interpolate(
            torch.from_numpy(cam)[:, None], (SIDE, SIDE), mode="bilinear", align_corners=False
        )[:, 0]
        found = attribute(model, pixels, TARGETS, "gradcam", {"layer": tap.layer}).map
        assert torch.allclose(found, expected, atol=1e-4 * float(expected.max()) + 1e-12), tap.layer


def test_a_layer_that_is_not_there_is_refused_with_those_that_are(as_model: Wrap, pixels: Tensor) -> None:
    with pytest.raises(InvalidRequest, match=r"layer: expected one of patch_embedding, .*, got 'layer99'"):
        attribute(made("convnext", as_model), pixels, TARGETS, "gradcam", {"layer": "layer99"})


def test_occlusion_is_the_mean_fall_over_the_squares_that_hide_a_pixel(
    as_model: Wrap, pixels: Tensor
) -> None:
    model = made("convnext", as_model)
    window, stride = 20, 12
    found = attribute(model, pixels[:1], TARGETS[:1], "occlusion", {"window": window, "stride": stride}).map[
        0
    ]
    falls, hidden = np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE))
    starts = [*range(0, SIDE - window, stride), (-(-(SIDE - window) // stride)) * stride]
    with torch.no_grad():
        whole = float(model(pixels[:1])[0, 1])
        for top in starts:
            for left in starts:
                covered = pixels[:1].clone()
                place = (slice(top, top + window), slice(left, left + window))
                covered[0, :, *place] = model.mean.view(3, 1, 1)
                falls[place] += whole - float(model(covered)[0, 1])
                hidden[place] += 1
    assert hidden.min() >= 1
    assert close(found, torch.from_numpy(falls / hidden).float(), 1e-3)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"window": 65}, "window: expected at most 64, the input's side, got 65"),
        ({"window": 8, "stride": 9}, "stride: expected at most the window's 8, to leave no gaps, got 9"),
    ],
)
def test_squares_that_do_not_fit_are_refused(
    as_model: Wrap, pixels: Tensor, parameters: dict[str, int], sentence: str
) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        attribute(made("mobilenet", as_model), pixels, TARGETS, "occlusion", parameters)


QUICK: dict[str, dict[str, Any]] = {
    "smoothgrad": {"samples": 6},
    "integrated_gradients": {"steps": 8},
    "occlusion": {"window": 32, "stride": 32},
}


@pytest.mark.parametrize("method", list(METHODS))
def test_a_map_does_not_depend_on_the_other_images_of_its_batch(
    model: VisionModel, pixels: Tensor, method: str
) -> None:
    parameters = QUICK.get(method, {})
    model, pixels = (
        model.double(),
        pixels.double(),
    )  # sums in another order never cross the threshold of a ReLU
    together = attribute(model, pixels, TARGETS, method, parameters, chunk=3)
    for number in range(3):
        part = slice(number, number + 1)
        alone = attribute(model, pixels[part], TARGETS[part], method, parameters, chunk=1)
        scale = float(alone.map.abs().max())
        assert torch.allclose(together.map[number], alone.map[0], atol=1e-5 * scale + 1e-12)


@pytest.mark.parametrize("method", list(METHODS))
def test_nothing_of_the_callers_is_changed(model: VisionModel, pixels: Tensor, method: str) -> None:
    before = pixels.clone()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    with torch.no_grad():
        attribute(model, pixels, TARGETS, method, QUICK.get(method, {}))
    assert torch.equal(pixels, before)
    assert pixels.grad is None
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(_hooks(model)), "a hook stayed"
    assert not model.training


@pytest.mark.parametrize("method", list(METHODS))
def test_a_map_can_be_stopped_and_leaves_nothing_behind(
    model: VisionModel, pixels: Tensor, method: str
) -> None:
    class Enough(Exception):
        pass

    calls: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        calls.append((done, total))
        if len(calls) == 2:
            raise Enough

    with pytest.raises(Enough):
        attribute(model, pixels, TARGETS, method, QUICK.get(method, {}), on_progress=stop, chunk=1)
    assert all(0 <= done <= total for done, total in calls)
    assert not any(_hooks(model)), "a hook stayed"


def _hooks(model: VisionModel) -> list[int]:
    return [
        len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks)
        for module in model.modules()
    ]


@pytest.mark.parametrize("target", [CLASSES, -1])
def test_a_class_that_the_model_has_not_is_refused(model: VisionModel, pixels: Tensor, target: int) -> None:
    with pytest.raises(InvalidRequest, match=f"expected a class from 0 to {CLASSES - 1}, got {target}"):
        attribute(model, pixels[:1], torch.tensor([target]), "gradient", {})


def test_a_map_that_is_not_finite_is_refused(as_model: Wrap, pixels: Tensor) -> None:
    model = made("mobilenet", as_model)
    next(model.network.parameters()).data.fill_(float("inf"))
    with pytest.raises(NotFinite, match="7 of 7 logits are not finite"):
        attribute(model, pixels[:1], TARGETS[:1], "gradient", {})


def test_a_constant_map_is_valid(as_model: Wrap, pixels: Tensor) -> None:
    model = made("mobilenet", as_model)
    for parameter in model.network.parameters():
        parameter.data.zero_()
    found = attribute(model, pixels, TARGETS, "smoothgrad", {"samples": 4, "agreement": 0.5})
    assert found.map.abs().max() == 0
    assert found.agreement == (1.0, 1.0, 1.0)


def test_methods_and_parameters_that_are_none_are_refused_by_name(as_model: Wrap, pixels: Tensor) -> None:
    model = made("mobilenet", as_model)
    for method, parameters, sentence in [
        ("lime", {}, "method: expected one of smoothgrad, .*, got 'lime'"),
        ("gradient", {"samples": 3}, "gradient has no parameter 'samples': it has colours, dtype"),
        ("smoothgrad", {"samples": 0}, "samples: expected a whole number from 1 to 1000, got 0"),
        ("smoothgrad", {"samples": "many"}, "samples: expected a whole number from 1 to 1000, got 'many'"),
        ("smoothgrad", {"samples": 2.5}, "samples: expected a whole number"),
        ("smoothgrad", {"noise_level": float("nan")}, "noise_level: expected a number from 0 to 1, got nan"),
        ("smoothgrad", {"variant": "cubed"}, "variant: expected one of mean, squared, variance, got 'cubed'"),
        ("gradcam", {"layer": 3}, "layer: expected a layer's name, got 3"),
        ("smoothgrad", {"seed": True}, "seed: expected a whole number"),
    ]:
        with pytest.raises(InvalidRequest, match=sentence):
            attribute(model, pixels, TARGETS, method, parameters)


ANYTHING = st.one_of(
    st.none(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers(), max_size=2)
)
NAMES = st.sampled_from(["samples", "seed", "noise_level", "variant", "layer", "dtype"])


@hypothesis_settings(max_examples=60, deadline=None)
@given(given=st.dictionaries(NAMES, ANYTHING))
def test_parameters_are_complete_and_in_range_or_refused(given: dict[str, Any]) -> None:
    for method in METHODS.values():
        try:
            parsed = method.parse(given)
        except InvalidRequest:
            continue
        assert list(parsed) == [parameter.name for parameter in method.parameters]
        for parameter in method.parameters:
            value = parsed[parameter.name]
            assert type(value) is type(parameter.default)
            if not isinstance(value, str):
                assert parameter.low <= value <= parameter.high
