"""Grad-CAM at any tap (Selvaraju et al., Grad-CAM: visual explanations from deep networks, ICCV 2017)."""

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from workers.methods import WrongRequest
from workers.taps import Tap, Tappable, as_nchw, find_taps


def gradcam(model: Tappable, pixels: Tensor, targets: Tensor, *, layer: str = "") -> Tensor:
    """N,H,W: relu(sum over channels of mean gradient x activation) of a layer, bilinear to the input's size.

    Captum's LayerGradCam takes dimension 1 for the channels; taps know where theirs are (N,H,W,C in ConvNeXt's
    blocks, tokens in a ViT).

    Args:
        layer: a tap's name; empty takes the last one that keeps positions apart.

    Raises:
        WrongRequest: the model has no such layer.
    """
    tap = choose_tap(find_taps(model), layer)
    with torch.enable_grad():
        activation, logits = _tapped(model, pixels.detach().clone().requires_grad_(), tap)
        chosen = logits.gather(1, targets.unsqueeze(1)).sum()
        (gradient,) = torch.autograd.grad(chosen, activation)
    channels = as_nchw(tap, activation.detach())
    weights = as_nchw(tap, gradient).mean((2, 3), keepdim=True)
    cam = (weights * channels).sum(1, keepdim=True).relu()
    return functional.interpolate(cam, pixels.shape[2:], mode="bilinear", align_corners=False)[:, 0]


def choose_tap(taps: tuple[Tap, ...], layer: str) -> Tap:
    """The tap of that name; for an empty name the last one with more than one position.

    Raises:
        WrongRequest: there is none.
    """
    if not layer:
        spatial = [tap for tap in taps if tap.height * tap.width > 1]
        if spatial:
            return spatial[-1]
        raise WrongRequest("layer: this model has no layer that keeps positions apart")
    for tap in taps:
        if tap.layer == layer:
            return tap
    names = [tap.layer for tap in taps]
    shown = ", ".join(names if len(names) <= 8 else [*names[:3], "…", *names[-3:]])
    raise WrongRequest(f"layer: expected one of {shown}, got {layer!r}")


def _tapped(model: Tappable, batch: Tensor, tap: Tap) -> tuple[Tensor, Tensor]:
    """The tap's raw output, with its graph, and the logits."""
    found: list[Tensor] = []
    calls: Counter[str] = Counter()

    def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor | None:
        calls["all"] += 1
        if calls["all"] - 1 != tap.call:
            return None
        found.append(output)
        return output.clone()  # what follows may work in place

    handle = model.network.get_submodule(tap.module).register_forward_hook(keep)
    try:
        logits = model(batch)
    finally:
        handle.remove()
    assert len(found) == 1, f"expected {tap.layer} to be called {tap.call + 1} times, got {calls['all']}"
    return found[0], logits
