"""Rules by which each ATen operator derives the boxes of its outputs from those of its inputs.

A rule takes a `Call` and returns the boxes of the first output, or a list with those of all outputs. It
raises `NoRule` if the operator, called this way, depends on the input in a way that boxes cannot express.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from workers.layers.receptive_field.boxes import Boxes, concatenated, union


class NoRule(Exception):
    """The operator has no rule, or none for this way of calling it."""


@dataclass(frozen=True)
class Call:
    """A call of an operator: its arguments by name, with tensors that depend on the input replaced by their boxes."""

    func: Any
    arguments: dict[str, Any]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def name(self) -> str:
        """Name without namespace, overload and the trailing underscore of in-place operators."""
        name: str = self.func._schema.name.split("::")[-1]
        return name.rstrip("_")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the first output."""
        return self.shapes[0]

    @property
    def traced(self) -> list[Boxes]:
        """Boxes of all tensors that depend on the input."""
        found = []
        for value in self.arguments.values():
            values = value if isinstance(value, list | tuple) else [value]
            found += [item for item in values if isinstance(item, Boxes)]
        return found

    @property
    def source(self) -> Boxes:
        """Boxes of the first argument, which must be the only one that depends on the input."""
        first = next(iter(self.arguments.values()))
        if not isinstance(first, Boxes) or len(self.traced) > 1:
            raise NoRule
        return first

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]


Rule = Callable[[Call], Boxes | list[Boxes]]


def rule_for(call: Call) -> Rule:
    """The rule of a call's operator.

    Raises:
        NoRule: there is none.
    """
    rule = _RULES.get(call.name)
    if rule is not None:
        return rule
    if torch.Tag.pointwise in call.func.tags:
        return _pointwise
    raise NoRule


def _pointwise(call: Call) -> Boxes:
    return union(call.traced, call.shape)


def _same(call: Call) -> Boxes:
    return call.source


def _fresh(call: Call) -> list[Boxes]:
    return [call.traced[0].nothing(shape) for shape in call.shapes]


def _copy(call: Call) -> Boxes:
    source = call["src"]
    return union([source], call.shape) if isinstance(source, Boxes) else call.traced[0].nothing(call.shape)


def _moved(call: Call) -> list[Boxes]:
    first = next(iter(call.arguments))
    # boxes are on the CPU, whatever device the network runs on
    rest = {name: tree_map_only(torch.Tensor, torch.Tensor.cpu, call[name]) for name in call.arguments}
    del rest[first]
    return call.source.moved(lambda row: call.func(**{first: row}, **rest))


def _reshaped(call: Call) -> Boxes:
    return call.source.reshaped(call.shape)


def _restrided(call: Call) -> Boxes:
    """Strides of axes of length one are arbitrary: global pooling sets them to keep channels-last order."""
    shape = call.source.shape
    contiguous: list[int] = []
    length = 1
    for extent in reversed(shape):
        contiguous.insert(0, length)
        length *= extent
    same = all(
        extent == 1 or stride == expected
        for extent, stride, expected in zip(shape, call["stride"], contiguous, strict=False)
    )
    if tuple(call["size"]) != shape or call["storage_offset"] or not same:
        raise NoRule
    return call.source


def _cat(call: Call) -> Boxes:
    tensors = call["tensors"]
    known = call.traced[0]
    parts = [item if isinstance(item, Boxes) else known.nothing(item.shape) for item in tensors]
    # torch's legacy behavior: one-dimensional empty tensors are skipped
    return concatenated([part for part in parts if prod(part.shape)], call["dim"])


def _stack(call: Call) -> Boxes:
    dim = call["dim"] % len(call.shape)
    known = call.traced[0]
    parts = [item if isinstance(item, Boxes) else known.nothing(item.shape) for item in call["tensors"]]
    return concatenated([p.reshaped((*p.shape[:dim], 1, *p.shape[dim:])) for p in parts], dim)


def _glu(call: Call) -> Boxes:
    source, dim = call.source, call["dim"]
    half = source.shape[dim] // 2
    return union(source.moved(lambda row: torch.split(row, half, dim)), call.shape)


def _reduction(call: Call) -> list[Boxes]:
    source = call.source
    dims = call.arguments.get("dim")
    if dims is None or dims == []:
        return [source.hull_of_all(shape) for shape in call.shapes]
    dims = [dims] if isinstance(dims, int) else dims
    return [source.hull(dims, shape) for shape in call.shapes]


def _along(call: Call) -> list[Boxes]:
    """Any mixing along one dimension: softmax, cumulative sums, sorting."""
    return [call.source.hull([call["dim"]], shape) for shape in call.shapes]


def _batch_norm(call: Call) -> Boxes:
    source = call.source
    if not call.arguments.get("training", call.name.endswith("legit")):
        return source
    others = [dim for dim in range(len(source.shape)) if dim != 1]
    return union([source, source.hull(others, source.shape)], source.shape)


def _layer_norm(call: Call) -> Boxes:
    source = call.source
    normalized = range(-len(call["normalized_shape"]), 0)
    return union([source, source.hull(normalized, source.shape)], source.shape)


def _group_norm(call: Call) -> Boxes:
    source = call.source
    return union([source, source.hull(range(1, len(source.shape)), source.shape)], source.shape)


def _product(first: str, second: str, added: str | None = None) -> Rule:
    """Matrix products: rows of the first operand with columns of the second."""

    def rule(call: Call) -> Boxes:
        left, right = call[first], call[second]
        if isinstance(left, Boxes) and isinstance(right, Boxes) and left.narrow:
            return union([_query(left, right)], call.shape)
        parts = []
        if isinstance(left, Boxes):
            parts.append(left.hull([-1], (*left.shape[:-1], 1)))
        if isinstance(right, Boxes) and len(right.shape) > 1:
            parts.append(right.hull([-2], (*right.shape[:-2], 1, right.shape[-1])))
        if len(call.shape) < 2:
            raise NoRule
        if added is not None and isinstance(call[added], Boxes):
            parts.append(call[added])
        return union(parts, call.shape)

    return rule


def _query(left: Boxes, right: Boxes) -> Boxes:
    """The place of a product of two activations: the row's if rows differ, else the column's.

    Queries are rows of Q K^T; attention weights are rows of A V, and columns of V A.
    """
    rows = left.hull([-1], (*left.shape[:-1], 1))
    columns = right.hull([-2], (*right.shape[:-2], 1, right.shape[-1]))
    return rows if any(bounds.shape[-2] > 1 for bounds in rows.bounds) else columns


def _fused_cell(call: Call) -> list[Boxes]:
    """One step of an LSTM or a GRU as a single operator: gates of all channels make a new state."""
    mixed = [boxes.hull([-1], (*boxes.shape[:-1], 1)) for boxes in call.traced]
    return [union(mixed, shape) for shape in call.shapes]


def _attention(call: Call) -> Boxes:
    parts = []
    for name, dims in (("query", [-1]), ("key", [-1, -2]), ("value", [-2])):
        boxes = call[name]
        if isinstance(boxes, Boxes):
            shape = [1 if dim - len(boxes.shape) in dims else n for dim, n in enumerate(boxes.shape)]
            parts.append(boxes.hull(dims, shape))
    if len(parts) != len(call.traced):
        raise NoRule
    return union(parts, call.shape)


def _token_mixing(call: Call) -> Boxes:
    """Attention modules as a single operator, over N,L,C: each token depends on all tokens."""
    traced = call.traced
    mixed = [boxes.hull([1, 2], (boxes.shape[0], 1, 1)) for boxes in traced]
    return union([traced[0].hull([2], (*traced[0].shape[:2], 1)), *mixed], call.shape)


def _sizes(value: Any, count: int) -> list[int]:
    sizes = [value] if isinstance(value, int) else list(value)
    return sizes * count if len(sizes) == 1 else sizes


def _axis(dim: int, count: int) -> int | None:
    """The input axis of a spatial dimension; None unless the operator is two-dimensional."""
    return dim if count == 2 else None


def _convolution(call: Call) -> Boxes:
    source: Boxes = call["input"]
    if len(call.traced) > 1 or not isinstance(source, Boxes):
        raise NoRule
    kernel = call["weight"].shape[2:]
    count = len(kernel)
    stride, dilation = _sizes(call["stride"], count), _sizes(call["dilation"], count)
    padding = _sizes(call["padding"], count)
    mixed = _mixed_channels(source, call.shape[1], call["groups"])
    for i in range(count):
        length = call.shape[2 + i]
        if call["transposed"]:
            mixed = mixed.stretched(
                2 + i, length, kernel=kernel[i], stride=stride[i], dilation=dilation[i], before=padding[i]
            )
        else:
            mixed = mixed.windowed(
                2 + i,
                length,
                kernel=kernel[i],
                stride=stride[i],
                dilation=dilation[i],
                before=padding[i],
                axis=_axis(i, count),
            )
    return mixed


def _mixed_channels(source: Boxes, channels: int, groups: int) -> Boxes:
    batch, inputs, *space = source.shape
    grouped = source.reshaped((batch, groups, inputs // groups, *space))
    hull = grouped.hull([2], (batch, groups, 1, *space))
    repeated = union([hull], (batch, groups, channels // groups, *space))
    return repeated.reshaped((batch, channels, *space))


def _pool(call: Call) -> Boxes:
    source = call.source
    count = 3 if "3d" in call.name else 2
    kernel = _sizes(call["kernel_size"], count)
    stride = _sizes(call["stride"] or kernel, count)
    padding = _sizes(call["padding"], count)
    dilation = _sizes(call.arguments.get("dilation", 1), count)
    for i in range(count):
        source = source.windowed(
            i - count,
            call.shape[i - count],
            kernel=kernel[i],
            stride=stride[i],
            dilation=dilation[i],
            before=padding[i],
            axis=_axis(i, count),
        )
    return source


def _adaptive_pool(call: Call) -> Boxes:
    source = call.source
    count = 3 if "3d" in call.name else 2
    for dim in range(-count, 0):
        size, length = source.shape[dim], call.shape[dim]
        if length == 1:
            source = source.hull([dim], _with(source.shape, dim % len(source.shape), 1))
            continue
        starts = [k * size // length for k in range(length)]
        ends = [-(-(k + 1) * size // length) for k in range(length)]
        source = source.resampled(dim, starts, ends)
    return source


def _interpolation(call: Call) -> Boxes:
    """Resampling: the operator itself, applied to unit vectors, shows which positions contribute to each new one."""
    source = call.source
    first = next(iter(call.arguments))
    count = len(call.shape) - 2
    for i in range(count):
        size = source.shape[2 + i]
        sizes = [1] * count
        sizes[i] = size
        unit = torch.eye(size, dtype=torch.float64).reshape(1, size, *sizes)
        answer = call.func(**{**call.arguments, first: unit})
        support = answer.movedim(2 + i, 2).flatten(3)[0, :, :, 0] != 0
        rows = [column.nonzero().flatten().tolist() for column in support.T]
        source = source.resampled(2 + i, [r[0] for r in rows], [r[-1] + 1 for r in rows])
    return source


def _unfolding(call: Call) -> Boxes:
    """N,C,H,W to columns N,C*h*w,L: sliding windows laid out one after the other."""
    source = call.source
    sizes = {name: _sizes(call[name], 2) for name in ("kernel_size", "dilation", "padding", "stride")}
    for i, amount in enumerate(sizes["padding"]):
        source = source.padded(i - 2, amount, amount, axis=i)
    spans = (sizes["kernel_size"], sizes["dilation"], [0, 0], sizes["stride"])
    return source.moved(lambda row: call.func(row, *spans))[0]


def _folding(call: Call) -> Boxes:
    """Columns N,C*h*w,L to N,C,H,W: overlapping windows are added."""
    sizes = {
        name: _sizes(call[name], 2)
        for name in ("output_size", "kernel_size", "dilation", "padding", "stride")
    }
    (height, width), kernel, dilation, padding, stride = sizes.values()
    counts = [
        (extent + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1
        for i, extent in enumerate((height, width))
    ]
    batch, channels = call.shape[0], call.shape[1]
    windows = call.source.reshaped((batch, channels, *kernel, *counts))
    margins = [2 * padding[i] + dilation[i] * kernel[i] + stride[i] for i in range(2)]
    parts = []
    for y, x in product(range(kernel[0]), range(kernel[1])):
        one = windows.moved(lambda row, y=y, x=x: row[:, :, y, x])[0]  # type: ignore[misc]
        nothing = windows.nothing((batch, channels, height + margins[0], width + margins[1]))
        bounds = []
        for empty, given in zip(nothing.bounds, one.bounds, strict=True):
            full = empty.expand(3, *given.shape[1:3], *nothing.shape[2:]).clone()
            rows = torch.arange(counts[0]) * stride[0] + y * dilation[0]
            columns = torch.arange(counts[1]) * stride[1] + x * dilation[1]
            full[:, :, :, rows[:, None], columns] = given.expand(*given.shape[:3], *counts)
            bounds.append(full[..., padding[0] : padding[0] + height, padding[1] : padding[1] + width])
        parts.append(replace(one, shape=call.shape, bounds=(bounds[0], bounds[1])))
    return union(parts, call.shape)


def _padding(call: Call) -> Boxes:
    source = call.source
    amounts = call.arguments["pad"] if "pad" in call.arguments else call.arguments["padding"]
    count = len(amounts) // 2
    for i in range(count):
        before, after = amounts[2 * i], amounts[2 * i + 1]
        if before or after:
            axis = 1 - i if len(source.shape) >= 4 and i < 2 and count >= 2 else None
            source = source.padded(-1 - i, before, after, axis=axis)
    return source


def _constant_padding(call: Call) -> Boxes:
    """Zeros around a map continue it; zero channels depend on nothing."""
    source = call.source
    amounts = list(call["pad"])
    for i in range(len(amounts) // 2):
        dim = len(source.shape) - 1 - i
        before, after = amounts[2 * i], amounts[2 * i + 1]
        if (before > 0 or after > 0) and source.is_irregular(dim):
            amounts[2 * i], amounts[2 * i + 1] = min(before, 0), min(after, 0)
            parts = [source]
            if before > 0:
                parts.insert(0, source.nothing(_with(source.shape, dim, before)))
            if after > 0:
                parts.append(source.nothing(_with(source.shape, dim, after)))
            source = concatenated(parts, dim)
    return _padding(Call(call.func, {**call.arguments, "self": source, "pad": amounts}, call.shapes))


def _with(sizes: Sequence[int], dim: int, length: int) -> tuple[int, ...]:
    return (*sizes[:dim], length, *sizes[dim + 1 :])


def _table() -> dict[str, Rule]:
    families: list[tuple[Rule, str]] = [
        (
            _pointwise,
            "hardswish _prelu_kernel where rsub floor_divide masked_fill native_dropout log_sigmoid_forward",
        ),
        (_same, "clone detach alias _to_copy lift lift_fresh contiguous"),
        (
            _fresh,
            "zeros_like ones_like empty_like full_like rand_like randn_like new_zeros new_ones new_empty",
        ),
        (_fresh, "new_full new_empty_strided fill zero"),
        (_copy, "copy"),
        (_reshaped, "view reshape _unsafe_view _reshape_alias unsqueeze squeeze"),
        (_moved, "permute transpose t select slice unbind split split_with_sizes expand flip roll index"),
        (_moved, "index_select gather repeat unfold diagonal pixel_shuffle pixel_unshuffle channel_shuffle"),
        (_moved, "native_channel_shuffle"),
        (_restrided, "as_strided"),
        (_cat, "cat"),
        (_stack, "stack"),
        (_glu, "glu"),
        (
            _reduction,
            "mean sum amax amin max min var std var_mean std_mean linalg_vector_norm norm logsumexp",
        ),
        (_reduction, "prod any all argmax argmin nansum aminmax"),
        (_along, "_softmax _log_softmax _safe_softmax cumsum cumprod logcumsumexp sort topk kthvalue"),
        (_batch_norm, "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training"),
        (_batch_norm, "cudnn_batch_norm"),
        (_layer_norm, "native_layer_norm"),
        (_layer_norm, "_fused_rms_norm"),
        (_group_norm, "native_group_norm"),
        (_product("self", "mat2"), "mm bmm"),
        (_product("mat1", "mat2", "self"), "addmm"),
        (_product("batch1", "batch2", "self"), "baddbmm"),
        (_attention, "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention"),
        (_attention, "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention"),
        (_attention, "_scaled_dot_product_fused_attention_overrideable"),
        (_token_mixing, "_native_multi_head_attention _transformer_encoder_layer_fwd"),
        (_fused_cell, "_thnn_fused_lstm_cell _thnn_fused_gru_cell"),
        (_convolution, "convolution"),
        (_pool, "max_pool2d_with_indices avg_pool2d max_pool3d_with_indices avg_pool3d"),
        (_adaptive_pool, "_adaptive_avg_pool2d adaptive_max_pool2d _adaptive_avg_pool3d adaptive_max_pool3d"),
        (_interpolation, "upsample_nearest1d upsample_nearest2d _upsample_nearest_exact2d upsample_linear1d"),
        (
            _interpolation,
            "upsample_bilinear2d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa",
        ),
        (_unfolding, "im2col"),
        (_folding, "col2im"),
        (_padding, "reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d"),
        (_constant_padding, "constant_pad_nd"),
    ]
    return {name: rule for rule, names in families for name in names.split()}


_RULES = _table()
