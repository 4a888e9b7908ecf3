"""One dry forward pass that sees which layers ran, in what order, on what shapes, and what fed what.

Everything here comes from execution: nothing depends on how a library names its modules.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Layout = Literal["NCHW", "NHWC", "NLC"]

# Two images, so that a tensor whose first axis is not the batch (windows, merged tokens) can be told apart.
_BATCH = 2
# Class, distillation and register tokens that may stand before the patches.
_MOST_PREFIX_TOKENS = 16

_ACTIVATIONS = {
    "relu": "ReLU",
    "gelu": "GELU",
    "silu": "SiLU",
    "hardtanh": "ReLU6",
    "hardswish": "Hardswish",
    "mish": "Mish",
    "elu": "ELU",
    "leaky_relu": "leaky ReLU",
    "_prelu_kernel": "PReLU",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
}
_NORMALISATIONS = {
    "native_batch_norm": "batch norm",
    "_native_batch_norm_legit_no_training": "batch norm",
    "cudnn_batch_norm": "batch norm",
    "native_layer_norm": "layer norm",
    "native_group_norm": "group norm",
    "_fused_rms_norm": "RMS norm",
}


@dataclass(frozen=True)
class Call:
    """One call of a layer that acts at every position of a map.

    Attributes:
        module: dotted path inside the network.
        call: which call of that module within the pass, from 0.
        layout, prefix_tokens, channels, height, width: of its output.
        sources: earlier calls whose outputs reach this one's input with no other layer between.
        before: what its output meets first, such as "batch norm and ReLU"; None where no activation follows
            directly.
    """

    module: str
    call: int
    layer: nn.Conv2d | nn.Linear
    layout: Layout
    prefix_tokens: int
    channels: int
    height: int
    width: int
    sources: frozenset[int]
    before: str | None


@dataclass(frozen=True)
class Trace:
    """`calls` in forward order; `joins` are (a, b): a's output is added to b's, beside b (a residual join)."""

    calls: tuple[Call, ...]
    joins: frozenset[tuple[int, int]]


def trace(
    network: nn.Module, forward: Callable[[Tensor], object], input_size: tuple[int, int], channels: int = 3
) -> Trace:
    """Run `forward`, which runs `network`, once on two blank images of `input_size` (height, width).

    Memory: the activations of two images, all kept until the pass ends.
    """
    flow = _Flow()
    found: list[dict[str, Any]] = []
    grids: list[tuple[int, int]] = []
    counts: dict[str, int] = {}
    fed: dict[str, frozenset[int]] = {}

    def before(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, arguments: tuple[Any, ...]) -> None:
            fed[name] = flow.sources_of(arguments)

        return hook

    def after(name: str) -> Callable[..., None]:
        def hook(layer: nn.Conv2d | nn.Linear, arguments: tuple[Any, ...], output: Any) -> None:
            call = counts.get(name, 0)
            counts[name] = call + 1
            placed = _place(layer, arguments, output, grids)
            if placed is None:
                return
            layout, prefix, channels, height, width = placed
            grids.append((height, width))
            flow.born(len(found), output, fed[name])
            found.append(
                {
                    "module": name,
                    "call": call,
                    "layer": layer,
                    "layout": layout,
                    "prefix_tokens": prefix,
                    "channels": channels,
                    "height": height,
                    "width": width,
                    "sources": fed[name],
                }
            )

        return hook

    handles = []
    parameter = next(network.parameters())
    pixels = torch.zeros(_BATCH, channels, *input_size, device=parameter.device, dtype=parameter.dtype)
    training = network.training
    try:
        for name, module in network.named_modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                handles.append(module.register_forward_pre_hook(before(name)))
                handles.append(module.register_forward_hook(after(name)))
        network.eval()
        with torch.no_grad(), flow:
            forward(pixels)
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    calls = tuple(Call(**facts, before=flow.before.get(index)) for index, facts in enumerate(found))
    return Trace(calls, frozenset(flow.joins))


def _place(
    layer: nn.Conv2d | nn.Linear, arguments: tuple[Any, ...], output: Any, grids: list[tuple[int, int]]
) -> tuple[Layout, int, int, int, int] | None:
    """(layout, prefix tokens, channels, height, width) of an output; None where it is no map of positions.

    Left out: classifiers (on pooled features), the 1x1 convolutions of squeeze-and-excitation (on a map of
    1x1), and linear layers on windows or merged tokens, whose rows cannot be placed on the picture.
    """
    given = arguments[0] if arguments else None
    if not isinstance(given, Tensor) or not isinstance(output, Tensor):
        return None
    if output.shape[0] != _BATCH or output.ndim != given.ndim:
        return None
    if isinstance(layer, nn.Conv2d):
        if output.ndim != 4 or tuple(given.shape[2:]) == (1, 1):
            return None
        assert output.shape[1] == layer.out_channels, (
            f"expected N,C,H,W from {layer}, got {tuple(output.shape)}"
        )
        return "NCHW", 0, layer.out_channels, output.shape[2], output.shape[3]
    assert output.shape[-1] == layer.out_features, f"expected ...,C from {layer}, got {tuple(output.shape)}"
    if output.ndim == 4:
        height, width = output.shape[1], output.shape[2]
        if (height, width) != (1, 1) and (height, width) in _known(grids):
            return "NHWC", 0, layer.out_features, height, width
    if output.ndim == 3:
        for height, width in _known(grids):
            prefix = output.shape[1] - height * width
            if 0 <= prefix <= _MOST_PREFIX_TOKENS:
                return "NLC", prefix, layer.out_features, height, width
    return None


def _known(grids: list[tuple[int, int]]) -> Iterable[tuple[int, int]]:
    """Grids a map can have here: those seen, the latest first, then the latest halved by merging patches."""
    yield from dict.fromkeys(reversed(grids))
    if grids:
        height, width = grids[-1]
        while height > 1 and width > 1:
            height, width = (height + 1) // 2, (width + 1) // 2
            yield height, width


class _Flow(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Carries, for every tensor, the calls it comes from with no other call between.

    A sum of two branches is carried by its deeper branch, and noted as a join of the other branch to it: so a
    residual stream through twenty blocks stays a chain with twenty joins and does not become every pair.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.joins: set[tuple[int, int]] = set()
        self.before: dict[int, str] = {}
        self._sources: dict[int, frozenset[int]] = {}
        self._norm: dict[int, str] = {}  # the normalisation a tensor has been through since its call
        self._mixed: set[int] = set()  # sums of two branches: no longer one call's own output
        self._depth: dict[int, int] = {}
        self._size: dict[int, int] = {}
        self._alive: list[Tensor] = []  # identities are only good while their tensors live

    def sources_of(self, values: object) -> frozenset[int]:
        found: frozenset[int] = frozenset()
        for leaf in tree_leaves(values):
            if isinstance(leaf, Tensor):
                found |= self._sources.get(id(leaf), frozenset())
        return found

    def born(self, index: int, output: Tensor, fed: frozenset[int]) -> None:
        """`output` is call `index`'s own: what fed it lies behind it now."""
        self._alive.append(output)
        self._sources[id(output)] = frozenset([index])
        self._norm.pop(id(output), None)
        self._mixed.discard(id(output))
        self._depth[index] = 1 + max((self._depth[source] for source in fed), default=0)
        self._size[index] = output.numel()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        operands = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        sources = self.sources_of(operands)
        norm = next((self._norm[id(operand)] for operand in operands if id(operand) in self._norm), None)
        mixed = any(id(operand) in self._mixed for operand in operands)
        name = func.overloadpacket.__name__.rstrip("_")
        if name in ("add", "sub") and len(operands) == 2:
            sources = self._joined(*(self.sources_of(operand) for operand in operands))
            mixed = mixed or len([operand for operand in operands if self.sources_of(operand)]) > 1
        if len(sources) == 1 and not mixed:
            norm = _NORMALISATIONS.get(name, norm)
            self._met(next(iter(sources)), name, norm, operands[0].numel())
        output = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor):
                self._alive.append(leaf)
                self._sources[id(leaf)] = sources
                if mixed:
                    self._mixed.add(id(leaf))
                if norm is not None:
                    self._norm[id(leaf)] = norm
        return output

    def _met(self, index: int, operation: str, norm: str | None, size: int) -> None:
        """Note the first activation that takes a call's whole map, not a pooled one (as a gate does)."""
        activation = _ACTIVATIONS.get(operation)
        if activation is not None and size == self._size[index] and index not in self.before:
            self.before[index] = f"{norm} and {activation}" if norm else activation

    def _joined(self, one: frozenset[int], other: frozenset[int]) -> frozenset[int]:
        if not one or not other or one == other:
            return one | other

        def reach(side: frozenset[int]) -> tuple[int, int]:
            return max((self._depth[index], index) for index in side)

        main, beside = (one, other) if reach(one) >= reach(other) else (other, one)
        self.joins |= {(source, target) for source in beside - main for target in main}
        return main
