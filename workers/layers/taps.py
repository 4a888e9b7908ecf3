"""The layers of a network whose channels are looked at, found from the loaded module.

A tap is the output of a convolution, or of a linear layer that acts at each position alone, as the layer itself
returns it: before the normalisation and the activation that follow. For ConvNeXt-tiny these are the 58 layers
of Liu et al., "A ConvNet for the 2020s" (CVPR 2022): patch embedding, three downsampling convolutions, and
dwconv, pwconv1 and pwconv2 of 18 blocks.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.hooks import RemovableHandle

from workers.layers.names import Place, is_depthwise, places
from workers.layers.places import Layout, LeftOut, Placements, find_placements
from workers.layers.trace import Call, Trace, trace
from workers.models.preprocessing import Preprocessing

__all__ = [
    "Layout",
    "LeftOut",
    "Tap",
    "Tappable",
    "as_nchw",
    "by_reason",
    "find_left_out",
    "find_taps",
    "first_tensor",
    "record_taps",
    "rows_and_columns",
    "tap_edges",
]


@dataclass(frozen=True)
class Tap:
    """One layer whose channels are looked at.

    Attributes:
        layer: unique id fit for addresses and globs, "stage2.block1.dwconv".
        label: for people, "stage 2 > block 1 > dwconv".
        module: dotted path inside the network; call: which of its calls in one forward pass, from 0.
        kind: "patch embedding", "downsampling", "dwconv", "pwconv1", "conv", "shortcut", "linear", ...
        description: "d7x7 conv, 192, stride 1": kernel (d: depthwise), channels, stride, and the activation that
            its output meets next, if one does.
        layout: of the raw output. NLC is tokens, the first `prefix_tokens` of which are no patches.
        order: the token of each position, row by row, where tokens do not follow the image's rows; else None.
        position: place in forward order, from 0.
    """

    layer: str
    label: str
    module: str
    call: int
    kind: str
    description: str
    stage: str | None
    block: str | None
    layout: Layout
    prefix_tokens: int
    channels: int
    height: int
    width: int
    position: int
    order: tuple[int, ...] | None = None


class Tappable(Protocol):
    """A vision model as far as taps are concerned."""

    network: nn.Module
    preprocessing: Preprocessing

    def __call__(self, pixels: Tensor, /) -> Tensor:
        """Logits of pixels N,3,H,W in [0, 1]."""


def find_taps(model: Tappable) -> tuple[Tap, ...]:
    """Every tap of `model` in forward order; makes two forward passes on two blank images, the first time.

    Left out, since a channel of theirs has no position on the image: classifiers on pooled features, the
    convolutions of squeeze-and-excitation, linear layers on windows of tokens, and functions called without a
    module. `find_left_out` lists them.
    """
    _, seen = _survey(model)
    found = places(model.network, seen)
    layers = _unique([_layer_id(place) for place in found])
    return tuple(
        Tap(
            layer=layer,
            label=" > ".join(part for part in (place.stage, place.block, place.name) if part is not None),
            module=call.module,
            call=call.call,
            kind=place.kind,
            description=_description(call),
            stage=place.stage,
            block=place.block,
            layout=call.place.layout,
            prefix_tokens=call.place.prefix_tokens,
            channels=call.place.channels,
            height=call.place.height,
            width=call.place.width,
            position=position,
            order=call.place.order,
        )
        for position, (layer, place, call) in enumerate(zip(layers, found, seen.calls, strict=True))
    )


def find_left_out(model: Tappable) -> tuple[LeftOut, ...]:
    """Every call of a layer with channels that is no tap, each with its reason."""
    placements, _ = _survey(model)
    return placements.left_out


def by_reason(left_out: Iterable[LeftOut]) -> dict[str, list[str]]:
    """Modules by the reason they are left out for, each with the number of its call where that is not the first."""
    found: dict[str, list[str]] = {}
    for entry in left_out:
        call = f" (call {entry.call + 1})" if entry.call else ""
        found.setdefault(entry.reason, []).append(f"{entry.module}{call}")
    return found


# What two passes found, by network and what it is made of: Grad-CAM asks for the taps once a map. Neither weights
# nor hooks change the answer; a layer that is replaced does.
_surveys: WeakKeyDictionary[nn.Module, tuple[object, Placements, Trace]] = WeakKeyDictionary()


def _survey(model: Tappable) -> tuple[Placements, Trace]:
    network, size, channels = model.network, model.preprocessing.input_size, model.preprocessing.channels
    made_of = (size, channels, tuple((name, type(module)) for name, module in network.named_modules()))
    known = _surveys.get(network)
    if known is not None and known[0] == made_of:
        return known[1], known[2]
    placements = find_placements(network, model, size, channels)
    seen = trace(network, model, size, placements.maps, channels)
    _surveys[network] = (made_of, placements, seen)
    return placements, seen


def tap_edges(model: Tappable, taps: Sequence[Tap]) -> tuple[tuple[str, str], ...]:
    """(source, target) layers between which data flows with no other tap between, in forward order.

    A residual join is an edge to the deeper of the two branches that are added: the skip over a block of three
    layers ends at the block's third, whose sum the next block then reads.
    """
    _, seen = _survey(model)
    layer_of = {(tap.module, tap.call): tap.layer for tap in taps}
    layers = [layer_of.get((call.module, call.call)) for call in seen.calls]
    pairs = {
        (source, target) for target, call in enumerate(seen.calls) for source in call.sources
    } | seen.joins
    edges = []
    for source, target in sorted(pairs, key=lambda pair: (pair[1], pair[0])):
        start, end = layers[source], layers[target]
        if start is not None and end is not None and start != end:
            edges.append((start, end))
    return tuple(dict.fromkeys(edges))


class record_taps:
    """While open, every forward pass of `model` hands each tap's raw output to `on_output`, in forward order.

    The tensor is detached and shares the layer's memory: an in-place activation may overwrite it as soon as
    `on_output` returns. Reduce it there, or clone it to keep it.
    """

    def __init__(
        self, model: Tappable, taps: Sequence[Tap], on_output: Callable[[Tap, Tensor], None]
    ) -> None:
        self._network = model.network
        self._on_output = on_output
        self._taps: dict[str, dict[int, Tap]] = {}
        for tap in taps:
            self._taps.setdefault(tap.module, {})[tap.call] = tap
        self._calls: Counter[str] = Counter()
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> "record_taps":
        self._handles.append(self._network.register_forward_pre_hook(self._begin))
        for name in self._taps:
            self._handles.append(self._network.get_submodule(name).register_forward_hook(self._hook(name)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _begin(self, _network: nn.Module, _arguments: tuple[Any, ...]) -> None:
        # a pass that an exception ended has left its counts behind
        self._calls.clear()

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(_module: nn.Module, _arguments: tuple[Any, ...], output: Any) -> None:
            tap = self._taps[name].get(self._calls[name])
            self._calls[name] += 1
            if tap is not None:
                tensor, _ = first_tensor(output)
                assert tensor is not None, f"expected a map from {tap.layer}, got {type(output).__name__}"
                self._on_output(tap, tensor.detach())

        return hook


def as_nchw(tap: Tap, output: Tensor) -> Tensor:
    """`tap`'s raw output as N,C,H,W, its prefix tokens left out: a view, or a copy where tokens have an order.

    H and W may differ from the tap's own where the pass had another input size, except for tokens, whose grid
    is the tap's.
    """
    channels = output.shape[1] if tap.layout == "NCHW" else output.shape[-1]
    assert channels == tap.channels, (
        f"expected {tap.channels} channels from {tap.layer}, got {tuple(output.shape)}"
    )
    return rows_and_columns(tap, output)


class Placed(Protocol):
    """Where the positions of a raw output are; see `Tap`."""

    @property
    def layout(self) -> Layout: ...
    @property
    def prefix_tokens(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def order(self) -> tuple[int, ...] | None: ...


def rows_and_columns(placed: Placed, output: Tensor) -> Tensor:
    """A raw output as N,C,H,W, its prefix tokens left out: a view, or a copy where tokens have an order."""
    if placed.layout == "NCHW":
        return output
    if placed.layout == "NHWC":
        return output.permute(0, 3, 1, 2)
    if placed.order is None:
        patches = output[:, placed.prefix_tokens : placed.prefix_tokens + placed.height * placed.width]
    else:
        patches = output[:, list(placed.order)]
    # splitting one axis is a view of any strides; torch gives this method no types
    grid: Tensor = patches.unflatten(1, (placed.height, placed.width))  # type: ignore[no-untyped-call]
    return grid.permute(0, 3, 1, 2)


def first_tensor(output: Any) -> tuple[Tensor | None, Any]:
    """The first tensor of what a module returned (a tensor, a tuple, a record), and how to put another in its place."""
    if isinstance(output, Tensor):
        return output, lambda tensor: tensor
    leaves, spec = tree_flatten(output)
    place = next((place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)), None)
    if place is None:
        return None, None
    return leaves[place], lambda tensor: tree_unflatten([*leaves[:place], tensor, *leaves[place + 1 :]], spec)


def _layer_id(place: Place) -> str:
    parts = [part.replace(" ", "") for part in (place.stage, place.block) if part is not None]
    # "transition 1" is one word, "patch embedding" two
    name = place.name.replace(" ", "" if place.name[-1].isdigit() else "_")
    return ".".join([*parts, name])


def _unique(layers: Sequence[str]) -> list[str]:
    counts = Counter(layers)
    seen: Counter[str] = Counter()
    unique = []
    for layer in layers:
        seen[layer] += 1
        unique.append(f"{layer}-{seen[layer]}" if counts[layer] > 1 else layer)
    return unique


def _description(call: Call) -> str:
    layer = call.layer
    if isinstance(layer, nn.Linear):
        parts = (
            [f"linear, {call.place.channels}"]
            if call.place.layout == "NLC"
            else [f"1x1 conv, {call.place.channels}", "stride 1"]
        )
    else:
        height, width = layer.kernel_size
        depthwise = is_depthwise(layer)
        parts = [f"{'d' if depthwise else ''}{height}x{width} conv, {call.place.channels}"]
        parts.append(f"stride {_side(layer.stride)}")
        if tuple(layer.dilation) != (1, 1):
            parts.append(f"dilation {_side(layer.dilation)}")
        if layer.groups > 1 and not depthwise:
            parts.append(f"{layer.groups} groups")
    if call.before is not None:
        parts.append(f"before {call.before}")
    return ", ".join(parts)


def _side(pair: tuple[int, ...]) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}x{pair[1]}"
