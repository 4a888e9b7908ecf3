"""Folds batch normalization into the preceding convolutions, for repeated forward passes of a network.

In evaluation mode a batch normalization is one factor and one term per channel, which the convolution can
absorb (Jacob et al., Quantization and training of neural networks for efficient integer-arithmetic-only
inference, CVPR 2018, section 3.2). The results are equal up to rounding. Layers keep their names, but a
folded convolution returns what the normalization returned, so the copy is not for inspecting layers.

On a CPU the convolution also absorbs what would otherwise take separate passes over memory: the ReLU that
belongs to the normalization, as oneDNN's post-operation, and TensorFlow's asymmetric "SAME" padding, as zeros
added to the kernel. Neither changes a bit of the result.
"""

import copy
import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils.hooks import RemovableHandle

# Largest difference of logits that counts as rounding, as a fraction of the largest logit.
_ROUNDING = 1e-3


def folded(model: nn.Module, pixels: Tensor) -> nn.Module:
    """A copy of a vision model with its batch normalizations folded; `model` itself if folding is not possible.

    The copy takes batches with the height and width of `pixels`, and supports only forward passes: no
    gradients.

    Args:
        pixels: N,3,H,W in [0, 1], to find out in one pass which layer follows which, and to check the copy.
    """
    pairs, sizes = _pairs(model, pixels)
    if not pairs:
        return model
    made = copy.deepcopy(model)
    onednn: Any = torch.backends.mkldnn
    fuses = pixels.device.type == "cpu" and onednn.is_available()
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
        after = _after(norm)
        fused = _fused(conv, after, sizes[conv_name]) if fuses else None
        if fused is not None:
            _put(made, conv_name, fused)
        _put(made, norm_name, after if fused is None else nn.Identity())
    with torch.inference_mode():
        expected, found = model(pixels), made(pixels)
    alike = (found - expected).abs().max() <= _ROUNDING * expected.abs().max()
    return made if bool(alike) else model


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    place, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(place), leaf, module)


def _after(norm: Any) -> nn.Sequential:
    """What a normalization module does after normalizing: timm's have their own activation."""
    after = [part for name in ("drop", "act") if isinstance(part := getattr(norm, name, None), nn.Module)]
    return nn.Sequential(*(part for part in after if not isinstance(part, nn.Identity)))


class _FusedConvolution(nn.Module):
    """A convolution with its padding and a ReLU as one oneDNN operation; float32, forward only."""

    weight: Tensor
    bias: Tensor

    def __init__(
        self, conv: nn.Conv2d, padding: tuple[int, int, int, int], size: tuple[int, int], post: str
    ) -> None:
        super().__init__()
        left, right, top, bottom = padding
        assert right >= left
        assert bottom >= top
        assert conv.bias is not None
        weight = F.pad(conv.weight.detach(), (right - left, 0, bottom - top, 0))
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", conv.bias.detach())
        self.padding, self.size, self.post = (bottom, right), size, post
        self.stride, self.dilation, self.groups = conv.stride, conv.dilation, conv.groups

    def forward(self, batch: Tensor) -> Tensor:
        """Same as the convolution."""
        assert batch.shape[-2:] == self.size, "the padding is for another size"
        bounds = [0.0, 6.0] if self.post == "hardtanh" else []
        convolution: Any = torch.ops.mkldnn._convolution_pointwise
        given: Tensor = convolution(
            batch,
            self.weight,
            self.bias,
            self.padding,
            self.stride,
            self.dilation,
            self.groups,
            self.post,
            bounds,
            "",
        )
        return given


def _fused(conv: nn.Conv2d, after: nn.Sequential, size: tuple[int, int]) -> _FusedConvolution | None:
    """The convolution fused with what follows it; None if oneDNN has no such operation."""
    post = _post(after)
    same: Any = getattr(sys.modules.get("timm.layers"), "Conv2dSame", ())
    if post is None or conv.weight.dtype != torch.float32 or conv.padding_mode != "zeros":
        return None
    if isinstance(conv, same) and set(conv.dilation) == {1}:
        top, bottom, left, right = (
            pad for axis in (0, 1) for pad in _same(size[axis], conv.kernel_size[axis], conv.stride[axis])
        )
    elif type(conv) is nn.Conv2d and isinstance(conv.padding, tuple):
        (top, left), (bottom, right) = conv.padding, conv.padding
    else:
        return None
    return _FusedConvolution(conv, (left, right, top, bottom), size, post)


def _same(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's "SAME" padding before and after, for ceil(size / stride) outputs; the odd pixel goes after."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _post(after: nn.Sequential) -> str | None:
    """oneDNN's name of an activation; None if it has none."""
    if len(after) == 0:
        return "none"
    names = {nn.ReLU: "relu", nn.ReLU6: "hardtanh"}
    return names.get(type(after[0])) if len(after) == 1 else None


def _pairs(model: nn.Module, pixels: Tensor) -> tuple[list[tuple[str, str]], dict[str, tuple[int, int]]]:
    """Convolutions with the normalizations that take their output, each called once, and the convolutions' input sizes.

    Input sizes are (height, width).
    """
    gave: dict[int, tuple[str, Tensor]] = {}
    pairs: list[tuple[str, str]] = []
    calls: dict[str, int] = {}
    sizes: dict[str, tuple[int, int]] = {}
    handles: list[RemovableHandle] = []

    def of_conv(name: str) -> Any:
        def hook(_module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
            sizes[name] = (arguments[0].shape[-2], arguments[0].shape[-1])
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
    return [(conv, norm) for conv, norm in pairs if calls[conv] == calls[norm] == 1], sizes
