"""Names of layers: stage, block and name within the block, from the module tree and the data flow.

A *level* is a row of sibling modules that each contain several layers: the entries of a list-like container,
or sibling attributes of one class. The outermost level whose members contain a level themselves are the
stages, and the members of that inner level are the blocks. With one level only, its members are the blocks,
and a stage is a run of blocks at one resolution. Counting starts at 1, as in the ConvNeXt paper.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn

from workers.layers.trace import Call, Trace


@dataclass(frozen=True)
class Place:
    """`stage` and `block` are "stage 2" and "block 1", each None if there is none; `name` and `kind` as in `Tap`."""

    stage: str | None
    block: str | None
    name: str
    kind: str


@dataclass
class _Node:
    """A module on the path to a traced layer."""

    path: str
    module: nn.Module
    children: dict[str, "_Node"] = field(default_factory=dict)
    calls: list[int] = field(default_factory=list)  # of layers in or below this module


@dataclass
class _Group:
    """Calls that share a stage and a block; a single layer outside all stages has its name in `alone`."""

    stage: str | None
    block: str | None
    calls: list[int]
    base: str = ""  # path of the module that contains them
    alone: str | None = None


def places(network: nn.Module, trace: Trace) -> list[Place]:
    """The place of every call of `trace`, in order. Names within one stage and block are distinct."""
    calls = trace.calls
    found: dict[int, Place] = {}
    for group in _groups(network, calls):
        kinds = {index: _kind(index, group, trace) for index in group.calls}
        names = _names(group, kinds, calls)
        for index in group.calls:
            kind = names[index] if kinds[index] == "pwconv" else kinds[index]
            found[index] = Place(group.stage, group.block, names[index], kind)
    return [found[index] for index in range(len(calls))]


def is_depthwise(layer: nn.Module) -> bool:
    """Whether a layer filters each channel separately."""
    return isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels > 1


def is_pointwise(layer: nn.Module) -> bool:
    """Whether a layer only mixes channels at one position."""
    if isinstance(layer, nn.Conv2d):
        return tuple(layer.kernel_size) == (1, 1) and layer.groups == 1
    return isinstance(layer, nn.Linear)


def stride(layer: nn.Module) -> int:
    """The larger of a convolution's two strides; 1 for a linear layer."""
    return max(layer.stride) if isinstance(layer, nn.Conv2d) else 1


# --- groups


def _groups(network: nn.Module, calls: Sequence[Call]) -> list[_Group]:
    root = _tree(network, calls)
    outer = _level(root)
    inner = {node.path: _level(node, whole=True) for node in outer}
    staged = any(inner.values())
    # a stage with a single block has no level of its own: sibling stages of the same class show what it is
    classes = {type(node.module) for node in outer if inner[node.path]}
    for node in outer:
        if not inner[node.path] and type(node.module) in classes:
            inner[node.path] = _units(node)
    stages = [node for node in outer if inner[node.path]] if staged else []
    blocks = [block for stage in stages for block in inner[stage.path]] if staged else outer

    base_of: dict[int, str] = {}
    for node in [*stages, *blocks]:
        base_of |= dict.fromkeys(node.calls, node.path)
    stage_of: dict[int, int] = {}
    block_of: dict[int, tuple[int, int]] = {}  # call -> (stage, block), both from 1
    if stages:
        for number, stage in enumerate(stages, start=1):
            stage_of |= dict.fromkeys(stage.calls, number)
            for block_number, block in enumerate(inner[stage.path], start=1):
                block_of |= dict.fromkeys(block.calls, (number, block_number))
    elif blocks:
        number, block_number, size = 0, 0, (0, 0)
        for block in blocks:
            last = calls[block.calls[-1]]
            if last.size != size:
                number, block_number, size = number + 1, 0, last.size
            block_number += 1
            stage_of |= dict.fromkeys(block.calls, number)
            block_of |= dict.fromkeys(block.calls, (number, block_number))
    else:
        number, size = 0, (0, 0)
        for index, call in enumerate(calls):
            if call.size != size:
                number, size = number + 1, call.size
            stage_of[index] = number
    return _named_groups(calls, stage_of, block_of, base_of)


def _named_groups(
    calls: Sequence[Call],
    stage_of: dict[int, int],
    block_of: dict[int, tuple[int, int]],
    base_of: dict[int, str],
) -> list[_Group]:
    """Groups in forward order; layers outside all stages become stem, transitions, downsampling or head."""
    several = len(set(stage_of.values())) > 1
    first, last = min(stage_of, default=0), max(stage_of, default=-1)
    keyed: dict[tuple[str | None, str | None], list[int]] = {}
    passed = 0
    for index, call in enumerate(calls):
        stage: str | None
        block: str | None = None
        if index in stage_of:
            passed = stage_of[index]
            stage = f"stage {passed}" if several else None
            if index in block_of:
                block = f"block {block_of[index][1]}"
        elif index < first:
            stage = "stem"
        elif index > last:
            stage = "head"
        elif stride(call.layer) > 1 and several:
            following = next(stage_of[later] for later in range(index, last + 1) if later in stage_of)
            stage = f"stage {following}"
        else:
            stage = f"transition {passed}"
        keyed.setdefault((stage, block), []).append(index)
    groups = []
    for (stage, block), indices in keyed.items():
        if stage is not None and not stage.startswith("stage ") and len(indices) == 1:
            groups.append(_Group(None, None, indices, alone=stage))
        else:
            groups.append(_Group(stage, block, indices, base=base_of.get(indices[0], "")))
    return groups


def _tree(network: nn.Module, calls: Sequence[Call]) -> _Node:
    root = _Node("", network)
    for index, call in enumerate(calls):
        node = root
        node.calls.append(index)
        parts = call.module.split(".")
        for depth, part in enumerate(parts, start=1):
            path = ".".join(parts[:depth])
            node = node.children.setdefault(part, _Node(path, network.get_submodule(path)))
            node.calls.append(index)
    return root


def _level(node: _Node, *, whole: bool = False) -> list[_Node]:
    """The nearest level below `node`, in forward order; empty if there is none.

    With `whole`, attributes of one class count only if the module contains nothing else: the branches of an
    Inception block sit next to single layers, and are not consecutive blocks.
    """
    units = _units(node)
    if not units:
        return []
    if isinstance(node.module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        return units
    classes = Counter(type(unit.module) for unit in units)
    if max(classes.values()) > 1 and not (whole and (len(classes) > 1 or len(units) < len(node.children))):
        return units
    return [member for unit in units for member in _level(unit, whole=whole)]


def _units(node: _Node) -> list[_Node]:
    """Modules directly below `node` that contain several layers, in forward order."""
    holders = (child for child in node.children.values() if child.children and len(child.calls) > 1)
    return sorted(holders, key=lambda child: child.calls[0])


# --- names


def _kind(index: int, group: _Group, trace: Trace) -> str:
    call = trace.calls[index]
    layer = call.layer
    if (
        index == 0
        and isinstance(layer, nn.Conv2d)
        and tuple(layer.kernel_size) == tuple(layer.stride) != (1, 1)
    ):
        return "patch embedding"
    if group.block is None and stride(layer) > 1 and index > 0 and (group.stage or "").startswith("stage "):
        return "downsampling"
    if _is_shortcut(index, group, trace):
        return "shortcut"
    if is_depthwise(layer):
        return "dwconv"
    if call.place.layout == "NLC" or (isinstance(layer, nn.Linear) and not _has_depthwise(group, trace)):
        return "linear"
    return "pwconv" if is_pointwise(layer) and _has_depthwise(group, trace) else "conv"


def _has_depthwise(group: _Group, trace: Trace) -> bool:
    return group.block is not None and any(is_depthwise(trace.calls[index].layer) for index in group.calls)


def _is_shortcut(index: int, group: _Group, trace: Trace) -> bool:
    """A pointwise layer parallel to the block's other layers: fed by the block's input, added to their output."""
    call = trace.calls[index]
    others = [other for other in group.calls if other != index]
    return (
        group.block is not None
        and is_pointwise(call.layer)
        and any(trace.calls[other].sources == call.sources for other in others)
        and not any(index in trace.calls[other].sources for other in others)
        and any((index, other) in trace.joins for other in others)
    )


def _names(group: _Group, kinds: dict[int, str], calls: Sequence[Call]) -> dict[int, str]:
    """A name for each call of a group: its kind, numbered if the kind repeats; linear layers by module."""
    if group.alone is not None:
        (index,) = group.calls
        return {index: kinds[index] if kinds[index] == "patch embedding" else group.alone}
    names = {
        index: _module_name(calls[index].module, group.base) if kind == "linear" else kind
        for index, kind in kinds.items()
    }
    counts = Counter(names.values())
    seen: Counter[str] = Counter()
    for index in group.calls:
        name = names[index]
        if counts[name] > 1:
            seen[name] += 1
            names[index] = f"{name}{seen[name]}"
    return names


def _module_name(module: str, base: str) -> str:
    """`module`'s path below `base`, without list positions and without consecutive repeats of a word."""
    parts = [part for part in module.removeprefix(base).split(".") if part and not part.isdigit()]
    said_once = [part for place, part in enumerate(parts) if place == 0 or part != parts[place - 1]]
    return ".".join(said_once) or "linear"
