"""The feature maps that a network's modules return, and how the logits depend on each of them.

A module may be a layer, a block, a stage or a normalization. Three facts decide whether its map explains a
class:

- which positions the logits depend on: after the last attention of a ViT only the class token;
- whether the logits depend on this map alone (`whole`): true of a block's output after the residual join,
  false of a branch before the join, because the class may depend on the other branch;
- where its positions are: only grids that the model's own taps have count as maps.

All three come from one forward and one backward pass; nothing depends on how a library names its modules.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from workers.layers.taps import Layout, Tap, Tappable, first_tensor, rows_and_columns

# More than one image, so that a tensor whose first axis is not the batch can be recognized; noise, so that a
# ReLU that is inactive at a position for one image is active for another.
_IMAGES = 3


@dataclass(frozen=True)
class ModuleMap:
    """The map that one call of a module returns.

    Attributes:
        name: dotted path of the module inside the network; "-2" is appended for its second call in a pass.
        module, call: the same as a path and a number from 0.
        kind: the module's class, "Conv2d".
        reached: how many of the height x width positions the logits depend on.
        whole: the logits depend on the pixels only through this map.
        order: the token at each position, row by row, if tokens are in another order; else None.
    """

    name: str
    module: str
    call: int
    kind: str
    layout: Layout
    prefix_tokens: int
    channels: int
    height: int
    width: int
    reached: int
    whole: bool
    order: tuple[int, ...] | None = None

    def as_nchw(self, output: Tensor) -> Tensor:
        """The module's raw output as N,C,H,W, without prefix tokens, other tokens row by row."""
        return rows_and_columns(self, output)


def module_maps(model: Tappable, taps: Sequence[Tap]) -> tuple[ModuleMap, ...]:
    """Every map that a module of `model` returns, in the order in which the modules finish.

    `taps` are the model's own (`workers.layers.taps.find_taps`): a map must have the grid of one of them.
    Takes one forward and one backward pass of three noise images.
    """
    grids = _Grids(taps)
    found: list[tuple[str, int, nn.Module, Tensor, GradientEdge]] = []
    calls: dict[str, int] = {}

    def hook(name: str) -> Any:
        def after(module: nn.Module, _arguments: tuple[Any, ...], output: Any) -> Any:
            call = calls.get(name, 0)
            calls[name] = call + 1
            tensor, rebuilt = first_tensor(output)
            if tensor is None or not tensor.requires_grad:
                return None
            # a copy has its own node in the graph, even if the module returns its input
            copy = tensor.clone()
            found.append((name, call, module, copy.detach(), get_gradient_edge(copy)))
            return rebuilt(copy)

        return after

    height, width = model.preprocessing.input_size
    parameter = next(model.network.parameters())
    generator = torch.Generator().manual_seed(0)
    shape = (_IMAGES, model.preprocessing.channels, height, width)
    pixels = torch.rand(shape, generator=generator).to(parameter.device, parameter.dtype)
    handles = [
        module.register_forward_hook(hook(name)) for name, module in model.network.named_modules() if name
    ]
    try:
        with torch.enable_grad():
            pixels.requires_grad_()
            logits = model(pixels)
    finally:
        for handle in handles:
            handle.remove()
    if not logits.requires_grad:
        return ()
    placed = [
        (name, call, module, tensor, edge, place)
        for name, call, module, tensor, edge in found
        if (place := grids.place(module, name, call, tensor)) is not None
    ]
    if not placed:
        return ()
    weights = torch.randn(logits.shape, generator=generator).to(logits)
    gradients = torch.autograd.grad(
        logits, [entry[4] for entry in placed], grad_outputs=weights, allow_unused=True
    )
    cuts = _cuts(logits, get_gradient_edge(pixels))
    maps = []
    for (name, call, module, _tensor, edge, place), gradient in zip(placed, gradients, strict=True):
        layout, prefix, channels, rows, columns, order = place
        bare = ModuleMap(
            name=name if call == 0 else f"{name}-{call + 1}", module=name, call=call, kind=type(module).__name__,
            layout=layout, prefix_tokens=prefix, channels=channels, height=rows, width=columns,
            reached=0, whole=edge.node in cuts, order=order,
        )  # fmt: skip
        reached = 0 if gradient is None else int((bare.as_nchw(gradient) != 0).any(1).any(0).sum())
        maps.append(replace(bare, reached=reached))
    return tuple(maps)


def default_map(maps: Sequence[ModuleMap]) -> ModuleMap | None:
    """The last map whose every position reaches the logits, preferably one that they depend on alone.

    Identity and Dropout are skipped, so that their input is named after the module that produced it.
    """
    complete = [
        found
        for found in maps
        if found.reached == found.height * found.width and found.kind not in ("Identity", "Dropout")
    ]
    return next((found for found in reversed(complete) if found.whole), complete[-1] if complete else None)


def as_tap(found: ModuleMap) -> Tap:
    """The map as a layer whose channels can be recorded and clamped; its name is the module's."""
    return Tap(
        layer=found.name, label=found.name, module=found.module, call=found.call, kind=found.kind, description="",
        stage=None, block=None, layout=found.layout, prefix_tokens=found.prefix_tokens, channels=found.channels,
        height=found.height, width=found.width, position=0, order=found.order,
    )  # fmt: skip


class _Grids:
    """The position grids of a model's taps."""

    def __init__(self, taps: Sequence[Tap]) -> None:
        spatial = [tap for tap in taps if tap.height * tap.width > 1]
        self._taps = {(tap.module, tap.call): tap for tap in spatial}
        self._sides = {(tap.height, tap.width) for tap in spatial}
        self._tokens = {
            tap.prefix_tokens + tap.height * tap.width: (tap.prefix_tokens, tap.height, tap.width, tap.order)
            for tap in spatial
            if tap.layout == "NLC"
        }

    def place(
        self, module: nn.Module, name: str, call: int, output: Tensor
    ) -> tuple[Layout, int, int, int, int, tuple[int, ...] | None] | None:
        """(layout, prefix tokens, channels, height, width, order).

        None if the output is not a map, or if it is unclear which axes are spatial.
        """
        if (name, call) in self._taps:
            tap = self._taps[name, call]
            return tap.layout, tap.prefix_tokens, tap.channels, tap.height, tap.width, tap.order
        if len(output) != _IMAGES:
            return None
        if output.ndim == 4:
            first, last = tuple(output.shape[2:]) in self._sides, tuple(output.shape[1:3]) in self._sides
            if first and last:  # as many channels as columns: ambiguous, so go by the module's type
                last = isinstance(module, nn.Linear | nn.LayerNorm)
                first = isinstance(module, nn.modules.batchnorm._BatchNorm | nn.Conv2d)
            if first and not last:
                return "NCHW", 0, output.shape[1], output.shape[2], output.shape[3], None
            if last and not first:
                return "NHWC", 0, output.shape[3], output.shape[1], output.shape[2], None
        if output.ndim == 3 and output.shape[1] in self._tokens:
            prefix, height, width, order = self._tokens[output.shape[1]]
            return "NLC", prefix, output.shape[2], height, width, order
        return None


def _cuts(logits: Tensor, pixels: GradientEdge) -> set[Any]:
    """Graph nodes that lie on every path from the logits to the pixels.

    In a topological order of the nodes on such paths, a node lies on all of them if no edge leads from a node
    before it to a node after it.
    """
    root, sink = get_gradient_edge(logits).node, pixels.node
    order: list[Any] = []  # children first
    reaches: dict[Any, bool] = {}
    stack: list[tuple[Any, Iterator[Any]]] = [(root, _inputs(root))]
    entered = {root}
    while stack:
        node, rest = stack[-1]
        for child in rest:
            if child not in entered:
                entered.add(child)
                stack.append((child, _inputs(child)))
                break
        else:
            stack.pop()
            reaches[node] = node is sink or any(reaches[child] for child in _inputs(node))
            if reaches[node]:
                order.append(node)
    order.reverse()
    number = {node: place for place, node in enumerate(order)}
    jumps = [0] * (len(order) + 1)
    for node in order:
        for child in _inputs(node):
            if child in number:
                jumps[number[node] + 1] += 1
                jumps[number[child]] -= 1
    over = accumulate(jumps)
    return {node for node, jumping in zip(order, over, strict=False) if jumping == 0}


def _inputs(node: Any) -> Iterator[Any]:
    return (child for child, _ in node.next_functions if child is not None)
