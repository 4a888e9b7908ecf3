"""Boxes of the outputs of recurrent layers (nn.LSTM, nn.GRU, nn.RNN and their cells) over parts of an image.

Their operators differ between devices and kinds, and some of them write in ways that would lose the boxes. So
the layer computes on plain values, and the rule is that of the layer: step t depends on the steps up to t, or
on all steps if the layer is bidirectional.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from workers.layers.receptive_field.boxes import Boxes, union
from workers.layers.receptive_field.tracing import TracedTensor


@contextlib.contextmanager
def recurrent_rules(network: nn.Module) -> Iterator[None]:
    """Within it, outputs of a network's recurrent layers get their boxes by the rule of the layer."""
    layers = [one for one in network.modules() if isinstance(one, nn.RNNBase | nn.RNNCellBase)]
    for layer in layers:
        layer.forward = _forward_of(layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _forward_of(layer: nn.Module) -> Callable[..., Any]:
    own = layer.forward

    def forward(input: Any, hx: Any = None) -> Any:  # parameter names as in torch
        states = [leaf for leaf in tree_leaves(hx) if isinstance(leaf, TracedTensor)]
        is_cell = isinstance(layer, nn.RNNCellBase)
        if not isinstance(input, TracedTensor) or (states and not is_cell):
            return own(input, hx)  # includes packed sequences: the operators' own rules apply
        output = own(input.plain, tree_map_only(TracedTensor, lambda one: one.plain, hx))
        if is_cell:
            mixed = [one.boxes.hull([-1], (*one.shape[:-1], 1)) for one in (input, *states)]
            return tree_map_only(Tensor, lambda one: input.derived(one, union(mixed, one.shape)), output)
        assert isinstance(layer, nn.RNNBase), "a layer or a cell"
        steps, last = output
        along = 1 if layer.batch_first and input.ndim == 3 else 0
        final = tree_map_only(
            Tensor, lambda one: input.derived(one, _of_state(input.boxes, tuple(one.shape), along)), last
        )
        return input.derived(steps, _of_steps(layer, input.boxes, tuple(steps.shape), along)), final

    return forward


def _of_steps(layer: nn.RNNBase, given: Boxes, shape: tuple[int, ...], along: int) -> Boxes:
    channels = len(shape) - 1
    one = given.hull([channels], (*shape[:-1], 1))
    if given.narrow:  # the place of a step is that of its input
        return replace(one, shape=shape)
    if layer.bidirectional:
        return replace(given.hull([along, channels], one.shape), shape=shape)
    rows, columns = (
        bounds.cummin(1 + along).values if bounds.shape[1 + along] > 1 else bounds for bounds in one.bounds
    )
    return replace(one, shape=shape, bounds=(rows, columns))


def _of_state(given: Boxes, shape: tuple[int, ...], along: int) -> Boxes:
    """The last state, (layers and directions, N, C) or without N: it depends on all steps."""
    batch = tuple(n for dim, n in enumerate(given.shape[:-1]) if dim != along)
    kept = given.hull([along, len(given.shape) - 1], batch)
    return replace(kept.reshaped((1, *batch, 1)), shape=shape)
