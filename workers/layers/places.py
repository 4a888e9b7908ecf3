"""Finds which layers' outputs are maps of the image, and where each of their positions lies.

Nothing is inferred from shapes alone: tokens may be reordered, merged or unrelated to the image. A pass on
tensors that track the place of every element (`workers.layers.receptive_field.tracing`) decides. A layer is a
map if its rows follow the image's rows and its columns the image's columns; every other layer is left out,
with a reason.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from workers.layers.receptive_field.boxes import LOW, MINUS_HIGH, Boxes
from workers.layers.receptive_field.recurrent import recurrent_rules
from workers.layers.receptive_field.tracing import TracedTensor, UntraceableWrite, trace

Layout = Literal["NCHW", "NHWC", "NLC"]

# Two images, so that a tensor whose first axis is not the batch (windows, merged tokens) can be recognized.
_BATCH = 2

# Layers with channels, whether their outputs are maps of the image or not.
_LAYERS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Linear,
    nn.RNNBase,
    nn.RNNCellBase,
)

_POOLED = "acts on features without spatial positions, such as pooled ones"
_WINDOWS = "acts on windows or merged tokens: the first axis of its output is not the batch"
_NO_PLACE = "all its units see the whole image: they have no spatial position"
_ANOTHER_ORDER = "its rows and columns do not correspond to those of the image"
_NO_PATH = "its output does not depend on the pixels"
_NOT_CALLED = "is never called as a module: its weights are used by a function or not at all"


@dataclass(frozen=True)
class Placement:
    """Where the positions of an output are.

    Attributes:
        layout: of the output. NLC is tokens.
        prefix_tokens: tokens before the patches, if the patches follow one another row by row.
        order: the token at each position, row by row, if tokens are in another order; else None.
        channels, height, width: of the map.
    """

    layout: Layout
    prefix_tokens: int
    order: tuple[int, ...] | None
    channels: int
    height: int
    width: int


@dataclass(frozen=True)
class LeftOut:
    """A call of a layer with channels that is not a tap, and why: `reason` completes a sentence about it."""

    module: str
    call: int
    layer: str
    reason: str


@dataclass(frozen=True)
class Placements:
    """The maps by module and call, in forward order, and the calls that are left out."""

    maps: dict[tuple[str, int], Placement]
    left_out: tuple[LeftOut, ...]


def find_placements(
    network: nn.Module, forward: Callable[[Tensor], object], input_size: tuple[int, int], channels: int = 3
) -> Placements:
    """Run `forward`, which runs `network`, once on two traced images of `input_size` (height, width)."""
    maps: dict[tuple[str, int], Placement] = {}
    left_out: list[LeftOut] = []
    counts: dict[str, int] = {}

    def hook_of(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(layer: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
            call = counts.get(name, 0)
            counts[name] = call + 1
            grids = [(found.height, found.width) for found in maps.values()]
            found = _placement(layer, arguments[0] if arguments else None, output, grids)
            if isinstance(found, Placement):
                maps[name, call] = found
            else:
                left_out.append(LeftOut(name, call, type(layer).__name__, found))

        return hook

    layers = {name: module for name, module in network.named_modules() if isinstance(module, _LAYERS)}
    parameter = next(network.parameters())
    pixels = torch.full((_BATCH, channels, *input_size), 0.5, device=parameter.device, dtype=parameter.dtype)
    training = network.training
    handles = [module.register_forward_hook(hook_of(name)) for name, module in layers.items()]
    missing = _NOT_CALLED
    try:
        network.eval()
        with torch.no_grad(), recurrent_rules(network):
            forward(trace(pixels, narrow=True))
    except UntraceableWrite as error:
        missing = f"follows an operation that cannot be traced ({error})"
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    left_out += [
        LeftOut(name, 0, type(module).__name__, missing)
        for name, module in layers.items()
        if name not in counts
    ]
    return Placements(maps, tuple(left_out))


def _placement(
    layer: nn.Module, given: Any, output: Any, grids: Sequence[tuple[int, int]]
) -> Placement | str:
    """The placement of an output, or the reason why it has none. `grids` are those of earlier maps."""
    if not isinstance(layer, nn.Conv2d | nn.Linear):
        return f"is not a supported kind of layer ({type(layer).__name__})"
    if not isinstance(given, Tensor) or not isinstance(output, Tensor):
        return "its input or output is not a single tensor"
    if not isinstance(output, TracedTensor):
        return _NO_PATH
    if output.ndim == 2 or (isinstance(layer, nn.Conv2d) and tuple(given.shape[2:]) == (1, 1)):
        return _POOLED
    if output.shape[0] != _BATCH or output.ndim != given.ndim:
        return _WINDOWS
    if output.ndim not in (3, 4) or (output.ndim == 3 and isinstance(layer, nn.Conv2d)):
        return f"its output has {output.ndim} axes, not a map of rows and columns"
    boxes = output.boxes
    if isinstance(layer, nn.Conv2d):
        assert output.shape[1] == layer.out_channels, (
            f"expected N,C,H,W from {layer}, got {tuple(output.shape)}"
        )
        fault = _fault(_places(boxes, (2, 3)))
        return fault or Placement("NCHW", 0, None, layer.out_channels, output.shape[2], output.shape[3])
    channels = layer.out_features
    assert output.shape[-1] == channels, f"expected ...,C from {layer}, got {tuple(output.shape)}"
    if output.ndim == 4:
        if tuple(output.shape[1:3]) == (1, 1):
            return _POOLED
        fault = _fault(_places(boxes, (1, 2)))
        return fault or Placement("NHWC", 0, None, channels, output.shape[1], output.shape[2])
    return _token_placement(boxes, channels, grids)


@dataclass(frozen=True)
class _Spans:
    """Intervals of input rows and of input columns for each position; infinite for a position without one."""

    low: tuple[Tensor, Tensor]
    high: tuple[Tensor, Tensor]

    @property
    def middle(self) -> tuple[Tensor, Tensor]:
        return (self.low[0] + self.high[0]) / 2, (self.low[1] + self.high[1]) / 2

    def reshaped(self, start: int, height: int, width: int) -> "_Spans":
        """The places of the tokens from `start` on, as rows of a map."""
        rows = slice(start, start + height * width)
        low, high = ((pair[0][rows], pair[1][rows]) for pair in (self.low, self.high))
        shape = (height, width)
        return _Spans(
            (low[0].reshape(shape), low[1].reshape(shape)), (high[0].reshape(shape), high[1].reshape(shape))
        )


def _places(boxes: Boxes, dims: tuple[int, ...]) -> _Spans:
    """The places of the positions along `dims`, over all images and channels."""
    shape = [boxes.shape[dim] for dim in dims]
    others = [1 + dim for dim in range(len(boxes.shape)) if dim not in dims]
    lines = [bounds.amin(others).expand(3, *shape) for bounds in boxes.bounds]
    low, high = ([line[row] for line in lines] for row in (LOW, MINUS_HIGH))
    return _Spans((low[0], low[1]), (-high[0], -high[1]))


def _fault(places: _Spans) -> str | None:
    """The reason why a map's places are not rows and columns of the image; None if they are."""
    for axis, middle in enumerate(places.middle):
        if not bool(middle.isfinite().all()):
            # an axis of length one may be pooled away
            if middle.shape[axis] == 1 and not bool(middle.isfinite().any()):
                continue
            return _NO_PLACE
        if bool((middle != middle.narrow(1 - axis, 0, 1)).any()):
            return _ANOTHER_ORDER
        line = middle.select(1 - axis, 0)
        if bool((line.diff() < 0).any()):
            return _ANOTHER_ORDER
        if len(line) > 1 and float(line[-1]) <= float(line[0]):
            return _NO_PLACE
    return None


def _token_placement(boxes: Boxes, channels: int, grids: Sequence[tuple[int, int]]) -> Placement | str:
    """The grid of tokens: from their places if each has a distinct one, else a known grid that agrees."""
    places = _places(boxes, (1,))
    length = boxes.shape[1]
    if length == 1:
        return "acts on one token, not on a map"
    is_known = places.middle[0].isfinite() & places.middle[1].isfinite()
    if not bool(is_known.any()):
        return _NO_PLACE
    covers = [
        (low <= 0) & (high > extent - max(jump, 1.0))
        for low, high, extent, jump in zip(places.low, places.high, boxes.extent, boxes.jump, strict=True)
    ]
    tokens = (is_known & ~(covers[0] & covers[1])).nonzero().flatten()
    rows, columns = places.middle[0][tokens], places.middle[1][tokens]
    height, width = len(set(rows.tolist())), len(set(columns.tolist()))
    cells = list(zip(rows.tolist(), columns.tolist(), tokens.tolist(), strict=True))
    if 1 < height * width == len(cells) == len({cell[:2] for cell in cells}):
        order = tuple(token for _, _, token in sorted(cells))
        if order == tuple(range(order[0], order[0] + len(order))):
            return Placement("NLC", order[0], None, channels, height, width)
        return Placement("NLC", 0, order, channels, height, width)
    for height, width in _known(grids):
        prefix = length - height * width
        if prefix >= 0 and height * width > 1 and _fault(places.reshaped(prefix, height, width)) is None:
            return Placement("NLC", prefix, None, channels, height, width)
    return _ANOTHER_ORDER


def _known(grids: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Grids that tokens can have here: those seen so far, latest first, then the latest halved by merging patches."""
    yield from dict.fromkeys(reversed(grids))
    if grids:
        height, width = grids[-1]
        while height > 1 and width > 1:
            height, width = (height + 1) // 2, (width + 1) // 2
            yield height, width
