"""Guided Backprop for every activation of a network, whether a module, a function or a tensor method.

Only positive gradients pass backward through an activation. Springenberg et al., Striving for simplicity: the
all convolutional net, 2015.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# torch functions and tensor methods; in-place variants are matched without their trailing underscore.
# Sigmoid, tanh and softmax are excluded: networks use them as gates and weights.
_ACTIVATIONS = {
    "relu", "relu6", "hardtanh", "leaky_relu", "rrelu", "prelu", "threshold", "elu", "celu", "selu", "gelu", "silu",
    "hardswish", "mish", "softplus",
}  # fmt: skip


@contextmanager
def positive_gradients(network: nn.Module) -> Iterator[list[str]]:
    """Context in which only positive gradients pass backward through an activation; yields the names met so far.

    Activations that a library implements in arithmetic (transformers' `NewGELUActivation`, timm's
    `QuickGELU`) are recognized by their module.
    """
    met: list[str] = []

    def hook(module: nn.Module, _inputs: Any, output: Any) -> None:
        _rectify(output, type(module).__name__, met)

    with ExitStack() as stack:
        for module in network.modules():
            if _is_activation(module):
                stack.callback(module.register_forward_hook(hook).remove)
        stack.enter_context(_Functions(met))
        yield met


def _is_activation(module: nn.Module) -> bool:
    kind = type(module)
    if kind.__name__.endswith("Activation"):  # transformers.activations
        return True
    of_timm = kind.__module__.startswith("timm.layers.activations")
    return of_timm and not kind.__name__.lower().startswith(("sigmoid", "tanh", "hardsigmoid"))


def _rectify(output: Any, name: str, met: list[str]) -> None:
    # a tensor hook also works where a later layer continues in place: it sees the gradient of the value that
    # the tensor had when the hook was registered
    if isinstance(output, Tensor) and output.requires_grad:
        met.append(name)
        cast(Any, output).register_hook(lambda gradient: gradient.clamp(min=0))  # untyped in torch


class _Functions(TorchFunctionMode):
    """Rectifies the gradients of what functions and methods return; `nn.ReLU` and similar modules call them too."""

    def __init__(self, met: list[str]) -> None:
        super().__init__()
        self._met = met

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "").rstrip("_")
        if name in _ACTIVATIONS or _is_relu(name, args, kwargs or {}):
            _rectify(output, name, self._met)
        return output


def _is_relu(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether this is a ReLU under another name: a clamp at zero, or the maximum of something and zero."""
    if name in ("clamp", "clip", "clamp_min"):
        return _is_zero(kwargs.get("min", args[1] if len(args) > 1 else None))
    return name in ("maximum", "max") and len(args) == 2 and _is_zero(args[1])


def _is_zero(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1 and not value.requires_grad and float(value.detach()) == 0
    return isinstance(value, int | float) and value == 0
