"""One dry forward pass that records which layers run, in what order, on what shapes, and what feeds what.

Everything here comes from execution: nothing depends on how a library names its modules.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from workers.layers.places import Placement

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
        call: which call of that module in the pass, from 0.
        place: where the positions of its output are.
        sources: earlier calls whose outputs reach this one's input with no other layer in between.
        before: what its output meets first, such as "batch norm and ReLU"; None if no activation follows
            directly.
    """

    module: str
    call: int
    layer: nn.Conv2d | nn.Linear
    place: Placement
    sources: frozenset[int]
    before: str | None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the map."""
        return self.place.height, self.place.width


@dataclass(frozen=True)
class Trace:
    """`calls` in forward order; a join (a, b) is a residual join: a's output is added to b's."""

    calls: tuple[Call, ...]
    joins: frozenset[tuple[int, int]]


def trace(
    network: nn.Module,
    forward: Callable[[Tensor], object],
    input_size: tuple[int, int],
    maps: Mapping[tuple[str, int], Placement],
    channels: int = 3,
) -> Trace:
    """Run `forward`, which runs `network`, once on a blank image of `input_size` (height, width).

    Only calls in `maps`, by module and call, are recorded. Layers that are not maps are passed through, like
    operators.

    Memory: all activations of one image are kept until the pass ends.
    """
    flow = _Flow()
    found: list[dict[str, Any]] = []
    counts: dict[str, int] = {}
    fed: dict[str, frozenset[int]] = {}

    def before(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, arguments: tuple[Any, ...]) -> None:
            fed[name] = flow.sources_of(arguments)

        return hook

    def after(name: str) -> Callable[..., None]:
        def hook(layer: nn.Conv2d | nn.Linear, _arguments: tuple[Any, ...], output: Any) -> None:
            call = counts.get(name, 0)
            counts[name] = call + 1
            place = maps.get((name, call))
            if place is None:
                return
            flow.born(len(found), output, fed[name])
            found.append(
                {
                    "module": name,
                    "call": call,
                    "layer": layer,
                    "place": place,
                    "sources": fed[name],
                }
            )

        return hook

    handles = []
    parameter = next(network.parameters())
    pixels = torch.zeros(1, channels, *input_size, device=parameter.device, dtype=parameter.dtype)
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


class _Flow(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tracks, for every tensor, the calls it comes from with no other call in between.

    A sum of two branches is tracked as its deeper branch, and recorded as a join of the other branch to it:
    so a residual stream through twenty blocks stays a chain with twenty joins instead of becoming every pair.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.joins: set[tuple[int, int]] = set()
        self.before: dict[int, str] = {}
        self._sources: dict[int, frozenset[int]] = {}
        self._norm: dict[int, str] = {}  # the normalization that a tensor has passed through since its call
        self._mixed: set[int] = set()  # sums of two branches: no longer one call's own output
        self._depth: dict[int, int] = {}
        self._size: dict[int, int] = {}
        self._alive: list[Tensor] = []  # ids are valid only while their tensors are alive

    def sources_of(self, values: object) -> frozenset[int]:
        found: frozenset[int] = frozenset()
        for leaf in tree_leaves(values):
            if isinstance(leaf, Tensor):
                found |= self._sources.get(id(leaf), frozenset())
        return found

    def born(self, index: int, output: Tensor, fed: frozenset[int]) -> None:
        """`output` is call `index`'s own; whatever fed it is no longer a direct source of it."""
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
        """Record the first activation that takes a call's whole map, not a pooled one (as a gate does)."""
        activation = _ACTIVATIONS.get(operation)
        if activation is not None and size == self._size[index] and index not in self.before:
            self.before[index] = f"{norm} and {activation}" if norm else activation

    def _joined(self, one: frozenset[int], other: frozenset[int]) -> frozenset[int]:
        if not one or not other or one == other:
            return one | other

        def reach(index: int) -> tuple[int, int]:
            return self._depth[index], index

        main, beside = (one, other) if max(map(reach, one)) >= max(map(reach, other)) else (other, one)
        # only to deeper calls: a side may contain several calls, some of them before those of the other side
        self.joins |= {
            (source, target) for source in beside - main for target in main if reach(source) < reach(target)
        }
        return main
