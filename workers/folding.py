"""Batch normalisation folded into the convolutions before it: for many forward passes of a network.

In evaluation a batch normalisation is one factor and one term a channel, which the convolution can carry (Jacob et
al., Quantization and training of neural networks for efficient integer-arithmetic-only inference, CVPR 2018, section
3.2). The numbers are the same but for rounding. Layers keep their places, but what a folded convolution gives is what
the normalisation gave: not for whoever looks inside.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils.hooks import RemovableHandle

# Largest difference of logits that is rounding, as a share of the largest logit.
_ROUNDING = 1e-3


def folded(model: nn.Module, pixels: Tensor) -> nn.Module:
    """A copy of a vision model with its batch normalisations folded; `model` itself where there is nothing to fold.

    Args:
        pixels: N,3,H,W in [0, 1], to find by one pass which layer follows which, and to check the copy.
    """
    pairs = _pairs(model, pixels)
    if not pairs:
        return model
    made = copy.deepcopy(model)
    for conv_name, norm_name in pairs:
        conv, norm = made.get_submodule(conv_name), made.get_submodule(norm_name)
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        weight, bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        conv.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last), requires_grad=False)
        conv.bias = nn.Parameter(bias, requires_grad=False)
        place, _, leaf = norm_name.rpartition(".")
        setattr(made.get_submodule(place), leaf, _after(norm))
    with torch.inference_mode():
        expected, found = model(pixels), made(pixels)
    alike = (found - expected).abs().max() <= _ROUNDING * expected.abs().max()
    return made if bool(alike) else model


def _after(norm: Any) -> nn.Module:
    """What a normalisation does after it normalised: timm's have an activation of their own."""
    after = [part for name in ("drop", "act") if isinstance(part := getattr(norm, name, None), nn.Module)]
    return nn.Sequential(*after)


def _pairs(model: nn.Module, pixels: Tensor) -> list[tuple[str, str]]:
    """Convolutions and the normalisations that take what they give, each called once in a pass."""
    gave: dict[int, tuple[str, Tensor]] = {}
    pairs: list[tuple[str, str]] = []
    calls: dict[str, int] = {}
    handles: list[RemovableHandle] = []

    def of_conv(name: str) -> Any:
        def hook(_module: nn.Module, _arguments: Any, output: Tensor) -> None:
            calls[name] = calls.get(name, 0) + 1
            gave[id(output)] = (name, output)  # kept, so that no other tensor gets its id

        return hook

    def of_norm(name: str) -> Any:
        def hook(_module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            calls[name] = calls.get(name, 0) + 1
            found = gave.get(id(arguments[0]))
            if found is not None:
                pairs.append((found[0], name))

        return hook

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            handles.append(module.register_forward_hook(of_conv(name)))
        elif isinstance(module, nn.BatchNorm2d) and module.track_running_stats and not module.training:
            handles.append(module.register_forward_pre_hook(of_norm(name)))
    try:
        with torch.inference_mode():
            model(pixels)
    finally:
        for handle in handles:
            handle.remove()
    return [(conv, norm) for conv, norm in pairs if calls[conv] == calls[norm] == 1]
