"""The layers of a network whose channels are studied, found from the loaded module.

A tap is the output of a convolution, or of a linear layer applied at each position separately, as the layer
itself returns it: before the normalization and the activation that follow. For ConvNeXt-tiny these are the 58
layers of Liu et al., "A ConvNet for the 2020s" (CVPR 2022): patch embedding, three downsampling convolutions,
and dwconv, pwconv1 and pwconv2 of 18 blocks.
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
    """One layer whose channels are studied.

    Attributes:
        layer: unique id for use in URLs and globs, "stage2.block1.dwconv".
        label: display name, "stage 2 > block 1 > dwconv".
        module: dotted path inside the network; call: which of its calls in one forward pass, from 0.
        kind: "patch embedding", "downsampling", "dwconv", "pwconv1", "conv", "shortcut", "linear", ...
        description: "d7x7 conv, 192, stride 1": kernel (d: depthwise), channels, stride, and the activation
            that its output meets next, if any.
        layout: of the raw output. NLC is tokens; the first `prefix_tokens` of them are not patches.
        order: the token at each position, row by row, if tokens do not follow the image's rows; else None.
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
    """The part of a vision model that taps need."""

    network: nn.Module
    preprocessing: Preprocessing

    def __call__(self, pixels: Tensor, /) -> Tensor:
        """Logits of pixels N,3,H,W in [0, 1]."""


def find_taps(model: Tappable) -> tuple[Tap, ...]:
    """Every tap of `model` in forward order; the first call makes two forward passes on blank images.

    Left out, because their channels have no position on the image: classifiers on pooled features, the
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
    """Every call of a layer with channels that is not a tap, with the reason."""
    placements, _ = _survey(model)
    return placements.left_out


def by_reason(left_out: Iterable[LeftOut]) -> dict[str, list[str]]:
    """Modules by the reason for leaving them out, each with its call number if that is not the first."""
    found: dict[str, list[str]] = {}
    for entry in left_out:
        call = f" (call {entry.call + 1})" if entry.call else ""
        found.setdefault(entry.reason, []).append(f"{entry.module}{call}")
    return found


# Results of the two passes, by network and its structure, because Grad-CAM needs the taps for every map.
# Neither weights nor hooks change the result; a replaced layer does.
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
    """Pairs (source, target) of layers between which data flows with no other tap in between, in forward order.

    A residual join is an edge to the deeper of the two branches that are added: the skip over a block of
    three layers ends at the block's third layer, whose sum the next block then reads.
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
    """Within it, every forward pass of `model` passes each tap's raw output to `on_output`, in forward order.

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
        # a pass that an exception interrupted leaves its counts behind
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
    """`tap`'s raw output as N,C,H,W without prefix tokens: a view, or a copy if tokens have an order.

    H and W may differ from the tap's own if the pass had another input size, except for tokens, whose grid is
    the tap's.
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
    """A raw output as N,C,H,W without prefix tokens: a view, or a copy if tokens have an order."""
    if placed.layout == "NCHW":
        return output
    if placed.layout == "NHWC":
        return output.permute(0, 3, 1, 2)
    if placed.order is None:
        patches = output[:, placed.prefix_tokens : placed.prefix_tokens + placed.height * placed.width]
    else:
        patches = output[:, list(placed.order)]
    # splitting one axis is a view for any strides; the method is untyped in torch
    grid: Tensor = patches.unflatten(1, (placed.height, placed.width))  # type: ignore[no-untyped-call]
    return grid.permute(0, 3, 1, 2)


def first_tensor(output: Any) -> tuple[Tensor | None, Any]:
    """The first tensor in a module's output (a tensor, a tuple, a record), and a function that replaces it."""
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
