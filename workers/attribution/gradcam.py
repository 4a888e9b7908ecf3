"""Grad-CAM at any feature map.

Selvaraju et al., Grad-CAM: visual explanations from deep networks, ICCV 2017.
"""

import difflib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from workers.layers.module_maps import ModuleMap, default_map, module_maps
from workers.layers.taps import Tap, Tappable, find_taps, first_tensor
from workers.requests.parameters import InvalidRequest


def gradcam(model: Tappable, pixels: Tensor, targets: Tensor, *, at: ModuleMap) -> Tensor:
    """N,H,W: relu(sum over channels of mean gradient x activation) of a map, bilinear to the input's size.

    Zero everywhere if no position of the layer has positive evidence for the class. Captum's LayerGradCam
    assumes that dimension 1 is the channels; `ModuleMap` knows where they are (N,H,W,C in ConvNeXt's blocks,
    tokens in a ViT).
    """
    with torch.enable_grad():
        activation, logits = _tapped(model, pixels.detach().clone().requires_grad_(), at)
        chosen = logits.gather(1, targets.unsqueeze(1)).sum()
        (gradient,) = torch.autograd.grad(chosen, activation)
    channels = at.as_nchw(activation.detach())
    weights = at.as_nchw(gradient).mean((2, 3), keepdim=True)
    cam = (weights * channels).sum(1, keepdim=True).relu()
    return functional.interpolate(cam, pixels.shape[2:], mode="bilinear", align_corners=False)[:, 0]


def choose_map(model: Tappable, layer: str) -> ModuleMap:
    """The map with this name: an indexed layer, or the path of any module that returns a map.

    An empty name selects the last map whose every position affects the class, after the residual join if
    there is one; in a ViT that classifies from its class token, this is the last block but one.

    Raises:
        InvalidRequest: there is no such map, or none of its positions affects the class; the message suggests
            another.
    """
    taps = find_taps(model)
    maps = module_maps(model, taps)
    default = default_map(maps)
    if not layer:
        if default is None:
            raise InvalidRequest(
                "layer: this model has no layer with spatial positions that all reach the class"
            )
        return default
    found = _named(maps, taps, layer)
    if found is None:
        raise InvalidRequest(_no_such_layer(maps, taps, layer, default))
    if found.reached == 0:
        why = " (after it only the other tokens are used)" if found.prefix_tokens else ""
        instead = f"; {default.name} does" if default else ""
        raise InvalidRequest(f"layer: no position of {layer} reaches the class{why}{instead}")
    return found


def _named(maps: Sequence[ModuleMap], taps: Sequence[Tap], layer: str) -> ModuleMap | None:
    place = next(((tap.module, tap.call) for tap in taps if tap.layer == layer), None)
    for found in maps:
        if (found.module, found.call) == place or (place is None and found.name == layer):
            return found
    return None


def _no_such_layer(
    maps: Sequence[ModuleMap], taps: Sequence[Tap], layer: str, default: ModuleMap | None
) -> str:
    names = list(dict.fromkeys([*(tap.layer for tap in taps), *(found.name for found in maps)]))
    near = difflib.get_close_matches(layer, names, n=3, cutoff=0.6)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    shown = ", ".join(names if len(names) <= 8 else [*names[:3], "…", *names[-3:]])
    usual = f" (default {default.name})" if default else ""
    return f"layer: expected one of {shown}{usual}, got {layer!r}{hint}"


def _tapped(model: Tappable, batch: Tensor, at: ModuleMap) -> tuple[Tensor, Tensor]:
    """The module's raw output, with its graph, and the logits."""
    found: list[Tensor] = []
    calls = 0

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls - 1 != at.call:
            return None
        tensor, rebuilt = first_tensor(output)
        assert tensor is not None, f"expected a map from {at.name}, got {type(output).__name__}"
        # clone: the module's output may also be its input, which other branches read
        found.append(tensor.clone())
        return rebuilt(found[0].clone())  # later layers may work in place

    handle = model.network.get_submodule(at.module).register_forward_hook(keep)
    try:
        logits = model(batch)
    finally:
        handle.remove()
    assert len(found) == 1, f"expected {at.name} to be called {at.call + 1} times, got {calls}"
    return found[0], logits
