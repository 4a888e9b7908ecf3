"""Boxes of input pixels on which the elements of a tensor depend, and how they grow.

Every element of an activation depends on a box of input pixels: an interval of rows and an interval of
columns. `Boxes` stores these intervals for all elements of one tensor; a network's operators become operators
on boxes (a convolution takes the union over its window, a reshape rearranges boxes). Because boxes belong to
elements, the layout of a tensor (N,C,H,W, N,H,W,C, tokens, attention windows) needs no special treatment.

Padding continues the boxes beyond the map's edge, as if the input were unbounded. So a unit's box is the
theoretical receptive field of a unit far from any border, even if that is larger than the input.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from math import inf, prod
from typing import Any

import torch
from torch import Tensor

# Rows of a bounds tensor. All three are chosen so that the union of two boxes is the element-wise minimum.
LOW, MINUS_HIGH, MINUS_WHOLE = range(3)
_NOTHING = (inf, inf, 0.0)


@dataclass(frozen=True)
class Boxes:
    """The boxes of the elements of a tensor of `shape`.

    Attributes:
        shape: the tensor's shape.
        bounds: for the input's rows and for its columns, a float64 tensor of shape (3, *compact): lowest
            pixel, minus the end (half-open), and -1 if the interval is the whole axis whatever the input's
            size. `compact` is `shape` with 1 wherever the bounds do not vary along that dimension. If the
            interval is the whole axis, lowest pixel and end describe the remaining, local dependence; they
            are infinite if there is none.
        jump: input pixels between neighboring positions (y, x), for maps that have only one position.
        extent: rows and columns of the input.
        exact: False if the boxes are only known to contain what the elements depend on.
        narrow: the boxes are places, not receptive fields: a sum keeps the smallest place among its operands
            (their intersection), a product of two activations the place of its query. So a residual stream
            keeps the place of its patch, however many positions its branches mix.
    """

    shape: tuple[int, ...]
    bounds: tuple[Tensor, Tensor]
    jump: tuple[float, float]
    extent: tuple[int, int]
    exact: bool = True
    narrow: bool = False

    @classmethod
    def of_pixels(cls, shape: Sequence[int], *, narrow: bool = False) -> "Boxes":
        """Boxes of an input of shape N,C,H,W: each element depends on its own pixel."""
        _, _, height, width = shape
        return cls(
            shape=tuple(shape),
            bounds=(_pixels(height).reshape(3, 1, 1, -1, 1), _pixels(width).reshape(3, 1, 1, 1, -1)),
            jump=(1.0, 1.0),
            extent=(height, width),
            narrow=narrow,
        )

    @property
    def is_uniform(self) -> bool:
        """True if all elements have the same box."""
        return all(bounds.numel() == 3 for bounds in self.bounds)

    def nothing(self, shape: Sequence[int]) -> "Boxes":
        """Boxes of a tensor of `shape` that does not depend on the input."""
        empty = torch.tensor(_NOTHING, dtype=torch.float64).reshape(3, *[1] * len(shape))
        return replace(self, shape=tuple(shape), bounds=(empty, empty))

    def everything(self, shape: Sequence[int]) -> "Boxes":
        """Boxes that cover the whole input, for a tensor whose dependence is unknown."""
        whole = torch.tensor((inf, inf, -1.0), dtype=torch.float64).reshape(3, *[1] * len(shape))
        return replace(self, shape=tuple(shape), bounds=(whole, whole), exact=False)

    def spread(self, shape: Sequence[int]) -> "Boxes":
        """The one box of uniform boxes, for all elements of another shape."""
        return replace(
            self,
            shape=tuple(shape),
            bounds=_pair(bounds.reshape(3, *[1] * len(shape)) for bounds in self.bounds),
        )

    def hull(self, dims: Sequence[int], shape: Sequence[int]) -> "Boxes":
        """Union over `dims`; `shape` is the result's, with these dimensions kept at any length or dropped.

        A union that leaves no difference between elements and spans the whole input is global.
        """
        rank = len(self.shape)
        reduced = [dim % rank for dim in dims] if rank else []
        bounds = []
        for axis, old in enumerate(self.bounds):
            new = old.amin([1 + dim for dim in reduced], keepdim=True) if reduced else old
            if new.shape != old.shape:
                new = self._snapped(new, axis)
            if len(shape) != rank:
                new = new.reshape(3, *[n for dim, n in enumerate(new.shape[1:]) if dim not in reduced])
            bounds.append(new)
        return replace(self, shape=tuple(shape), bounds=_pair(bounds))

    def hull_of_all(self, shape: Sequence[int]) -> "Boxes":
        """Union over all elements, for every element of another shape."""
        return self.hull(range(len(self.shape)), (1,) * len(self.shape)).spread(shape)

    def equals(self, other: "Boxes") -> bool:
        """True if both give every element the same box."""
        pairs = zip(self.bounds, other.bounds, strict=True)
        return self.shape == other.shape and all(bool((a == b).all()) for a, b in pairs)

    def is_irregular(self, dim: int) -> bool:
        """True if the boxes differ along `dim`, but not like positions of a map."""
        for old in self.bounds:
            if old.shape[1 + dim] > 1:
                found = progression(old.movedim(1 + dim, 0))
                if found is None or bool((found[1][LOW] + found[1][MINUS_HIGH] != 0).any()):
                    return True
        return False

    def _snapped(self, bounds: Tensor, axis: int) -> Tensor:
        if bounds.numel() != 3:
            return bounds
        low, minus_high, _ = bounds.flatten().tolist()
        # the last position of a strided map may leave less than one stride uncovered
        if low <= 0 and -minus_high > self.extent[axis] - max(self.jump[axis], 1.0):
            return torch.tensor((inf, inf, -1.0), dtype=torch.float64).reshape(bounds.shape)
        return bounds

    def moved(self, function: Callable[[Tensor], Any]) -> "list[Boxes]":
        """Boxes of the outputs of a function that only moves, repeats or drops elements."""
        outputs: list[list[list[Tensor]]] = []
        for bounds in self.bounds:
            rows = []
            for row in bounds:
                result = function(row.expand(self.shape))
                rows.append([result] if isinstance(result, Tensor) else list(result))
            outputs.append(rows)
        return [
            replace(
                self,
                shape=tuple(output.shape),
                bounds=_pair(_stacked([row[index] for row in rows]) for rows in outputs),
            )
            if output.numel()
            else self.nothing(output.shape)
            for index, output in enumerate(outputs[0][0])
        ]

    def reshaped(self, shape: Sequence[int]) -> "Boxes":
        """Boxes after a reshape; only the dimensions along which they vary are expanded."""
        groups = list(_groups(self.shape, shape))
        bounds = []
        for old in self.bounds:
            before, after = [3], [3]
            for olds, news in groups:
                varies = any(old.shape[1 + dim] > 1 for dim in olds)
                before += [self.shape[dim] if varies else 1 for dim in olds]
                after += [shape[dim] if varies else 1 for dim in news]
            bounds.append(_compact(old.expand(before).reshape(after)))
        return replace(self, shape=tuple(shape), bounds=_pair(bounds))

    def windowed(
        self, dim: int, length: int, *, kernel: int, stride: int, dilation: int, before: int, axis: int | None
    ) -> "Boxes":
        """Union over a sliding window along `dim`, as in a convolution or pooling.

        Args:
            length: number of windows.
            before: padding before the first position; after the last there is as much as the windows need.
            axis: the input axis (0 or 1) of `dim`, which cannot be inferred from a map of one position.
        """
        dim %= len(self.shape)
        size = self.shape[dim]
        after = max(0, (length - 1) * stride + (kernel - 1) * dilation + 1 - before - size)
        padded = self.padded(dim, before, after, axis=axis)
        bounds, jump = [], list(self.jump)
        for which, old in enumerate(padded.bounds):
            if old.shape[1 + dim] == 1:
                bounds.append(old)
                continue
            reach = (length - 1) * stride + 1
            shifts = [old.narrow(1 + dim, k * dilation, reach) for k in range(kernel)]
            steps = torch.arange(0, reach, stride)
            bounds.append(reduce(torch.minimum, shifts).index_select(1 + dim, steps))
            jump[which] *= stride
        if axis is not None and size == 1 and padded.shape[dim] == 1:
            jump[axis] *= stride
        return replace(
            padded, shape=_with(self.shape, dim, length), bounds=_pair(bounds), jump=(jump[0], jump[1])
        )

    def resampled(self, dim: int, starts: Sequence[int], ends: Sequence[int]) -> "Boxes":
        """Union over the positions [start, end) along `dim`, one such range for each new position."""
        dim %= len(self.shape)
        bounds, jump = [], list(self.jump)
        for which, old in enumerate(self.bounds):
            if old.shape[1 + dim] == 1:
                bounds.append(old)
                continue
            ranges = zip(starts, ends, strict=True)
            parts = [
                old.narrow(1 + dim, start, end - start).amin(1 + dim, keepdim=True) for start, end in ranges
            ]
            bounds.append(torch.cat(parts, 1 + dim))
            jump[which] *= self.shape[dim] / len(starts)
        return replace(
            self, shape=_with(self.shape, dim, len(starts)), bounds=_pair(bounds), jump=(jump[0], jump[1])
        )

    def stretched(
        self, dim: int, length: int, *, kernel: int, stride: int, dilation: int, before: int
    ) -> "Boxes":
        """Union over the inputs of a transposed convolution along `dim`; `length` is the output's."""
        dim %= len(self.shape)
        margin = ((kernel - 1) * dilation + before) // stride + 1
        tail = max(0, (length - 1 + before) // stride + 1 - self.shape[dim])
        padded = self.padded(dim, margin, tail, axis=None)
        bounds, jump = [], list(self.jump)
        for which, old in enumerate(padded.bounds):
            if old.shape[1 + dim] == 1:
                bounds.append(old)
                continue
            parts = []
            for position in range(length):
                offsets = [position + before - k * dilation for k in range(kernel)]
                sources = [margin + offset // stride for offset in offsets if offset % stride == 0]
                if sources:
                    chosen = old.index_select(1 + dim, torch.tensor(sources))
                    parts.append(chosen.amin(1 + dim, keepdim=True))
                else:
                    empty = torch.tensor(_NOTHING, dtype=old.dtype).reshape(3, *[1] * (old.dim() - 1))
                    parts.append(empty.expand(_with(tuple(old.shape), 1 + dim, 1)))
            bounds.append(torch.cat(parts, 1 + dim))
            jump[which] /= stride
        return replace(
            padded, shape=_with(self.shape, dim, length), bounds=_pair(bounds), jump=(jump[0], jump[1])
        )

    def padded(self, dim: int, before: int, after: int, *, axis: int | None) -> "Boxes":
        """Boxes continued by `before` and `after` positions along `dim`; negative numbers crop."""
        dim %= len(self.shape)
        shape = _with(self.shape, dim, self.shape[dim] + before + after)
        bounds, exact = [], self.exact
        for which, old in enumerate(self.bounds):
            step = None
            if axis == which and self.shape[dim] == 1:
                jump = self.jump[which]
                step = torch.tensor((jump, -jump, 0.0), dtype=torch.float64)
            elif old.shape[1 + dim] == 1:
                bounds.append(old)
                continue
            continued, sure = _continued(old, 1 + dim, before, after, step)
            exact = exact and sure
            bounds.append(continued)
        return replace(self, shape=shape, bounds=_pair(bounds), exact=exact)


def union(parts: Sequence[Boxes], shape: Sequence[int]) -> Boxes:
    """Boxes of an element-wise function of tensors that broadcast to `shape`."""
    bounds = []
    for axis in range(2):
        aligned = []
        for part in parts:
            old = part.bounds[axis]
            aligned.append(old.reshape(3, *[1] * (len(shape) - old.dim() + 1), *old.shape[1:]))
        bounds.append(_narrowest(aligned) if parts[0].narrow else reduce(torch.minimum, aligned))
    return replace(
        parts[0],
        shape=tuple(shape),
        bounds=_pair(bounds),
        jump=(max(part.jump[0] for part in parts), max(part.jump[1] for part in parts)),
        exact=all(part.exact for part in parts),
    )


def _narrowest(parts: Sequence[Tensor]) -> Tensor:
    """Intersection of the known intervals; their union if the intersection is empty."""
    if len(parts) == 1:
        return parts[0]
    stacked = torch.stack(torch.broadcast_tensors(*parts))  # type: ignore[no-untyped-call]
    low, minus_high, minus_whole = stacked.unbind(1)
    known = low.isfinite()
    start = torch.where(known, low, -inf).amax(0)
    minus_end = torch.where(known, minus_high, -inf).amax(0)
    is_empty = ~known.any(0) | (start >= -minus_end)
    return torch.stack(
        [
            torch.where(is_empty, low.amin(0), start),
            torch.where(is_empty, minus_high.amin(0), minus_end),
            torch.where(known.any(0), 0.0, minus_whole.amin(0)),
        ]
    )


def concatenated(parts: Sequence[Boxes], dim: int) -> Boxes:
    """Boxes of a concatenation along `dim`."""
    dim %= len(parts[0].shape)
    lengths = [part.shape[dim] for part in parts]
    shape = _with(parts[0].shape, dim, sum(lengths))
    bounds = []
    for axis in range(2):
        olds = [part.bounds[axis] for part in parts]
        common = [max(sizes) for sizes in zip(*(old.shape for old in olds), strict=True)]
        pieces = [
            old.expand(_with(tuple(common), 1 + dim, length))
            for old, length in zip(olds, lengths, strict=True)
        ]
        bounds.append(_compact(torch.cat(pieces, 1 + dim)))
    return replace(
        parts[0],
        shape=shape,
        bounds=_pair(bounds),
        jump=(max(part.jump[0] for part in parts), max(part.jump[1] for part in parts)),
        exact=all(part.exact for part in parts),
    )


def progression(bounds: Tensor) -> tuple[int, Tensor] | None:
    """Period and step of bounds that advance by the same step every `period` positions of dimension 0.

    The shortest such period; None if there is none. A period of 1 is an arithmetic progression.
    """
    for period in range(1, bounds.shape[0] // 2 + 1):
        # infinite stays infinite: no step
        steps = torch.nan_to_num(bounds[period:] - bounds[:-period], nan=0.0, posinf=inf, neginf=-inf)
        if bool((steps == steps[0]).all()) and bool(steps[0].isfinite().all()):
            return period, steps[0]
    return None


def _continued(bounds: Tensor, dim: int, before: int, after: int, step: Tensor | None) -> tuple[Tensor, bool]:
    """Bounds continued (or, with negative numbers, cropped) along `dim`, and whether that is exact."""
    moved = bounds.movedim(dim, 0)
    size = moved.shape[0]
    index = torch.arange(-before, size + after)
    if before <= 0 and after <= 0:
        return bounds.index_select(dim, index), True
    if step is not None:
        advance = index.reshape(-1, *[1] * (moved.dim() - 1)) * step.reshape(-1, *[1] * (moved.dim() - 2))
        return (moved + advance).movedim(0, dim), True
    found = progression(moved)
    if found is None:
        return _widened(moved, index).movedim(0, dim), False
    period, advance = found
    cycles = torch.where(index < 0, index.div(period, rounding_mode="floor"), 0)
    cycles = torch.where(index >= size, (index - size + period).div(period, rounding_mode="floor"), cycles)
    base = moved.index_select(0, index - cycles * period)
    return (base + cycles.reshape(-1, *[1] * (moved.dim() - 1)) * advance).movedim(0, dim), True


def _widened(moved: Tensor, index: Tensor) -> Tensor:
    """Bounds without a regular step, continued so that they contain the field whatever the step is."""
    size = moved.shape[0]
    steps = torch.nan_to_num(moved[1:] - moved[:-1], nan=0.0, posinf=0.0, neginf=0.0)
    inside = moved.index_select(0, index.clamp(0, size - 1))
    beyond = index.reshape(-1, *[1] * (moved.dim() - 1))
    left = beyond.clamp(max=0) * steps.amax(0)
    right = (beyond - (size - 1)).clamp(min=0) * steps.amin(0)
    return inside + left + right


def _pixels(length: int) -> Tensor:
    position = torch.arange(length, dtype=torch.float64)
    return torch.stack([position, -(position + 1), torch.zeros(length, dtype=torch.float64)])


def _pair(bounds: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    rows, columns = bounds
    return rows, columns


def _with(sizes: tuple[int, ...], dim: int, length: int) -> tuple[int, ...]:
    return (*sizes[:dim], length, *sizes[dim + 1 :])


def _stacked(rows: Sequence[Tensor]) -> Tensor:
    """Rows of one bounds tensor, first cut where an expanded dimension repeats one element."""
    cut = []
    for row in rows:
        for dim in range(row.dim()):
            if row.stride(dim) == 0:
                row = row.narrow(dim, 0, 1)
        cut.append(row)
    common = [max(sizes) for sizes in zip(*(row.shape for row in cut), strict=True)]
    return _compact(torch.stack([row.expand(common) for row in cut]))


def _compact(bounds: Tensor) -> Tensor:
    """The same bounds with length 1 along each dimension where they do not vary."""
    for dim in range(1, bounds.dim()):
        first = bounds.narrow(dim, 0, 1)
        if bounds.shape[dim] > 1 and bool((bounds == first).all()):
            bounds = first
    return bounds


def _groups(old: Sequence[int], new: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Shortest runs of dimensions of two shapes that contain equally many elements, in order."""
    i = j = 0
    while i < len(old) or j < len(new):
        olds, news = [], []
        if i < len(old):
            olds.append(i)
            i += 1
        if j < len(new):
            news.append(j)
            j += 1
        while prod(old[dim] for dim in olds) != prod(new[dim] for dim in news):
            if prod(old[dim] for dim in olds) < prod(new[dim] for dim in news):
                olds.append(i)
                i += 1
            else:
                news.append(j)
                j += 1
        yield olds, news
