"""Receptive fields of a network's layers: the theoretical field of a unit, and the effective one.

The theoretical field is derived from the loaded network by following one real forward pass, operator by
operator (`tracing` in this package). The effective field is measured by gradients, after W. Luo, Y. Li, R.
Urtasun and R. Zemel, "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks",
NeurIPS 2016 (arXiv:1701.04128).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor

import torch
from torch import Tensor

from workers.layers.effective_field import unit_gradients
from workers.layers.receptive_field.boxes import LOW, MINUS_HIGH, MINUS_WHOLE, Boxes, progression
from workers.layers.receptive_field.recurrent import recurrent_rules
from workers.layers.receptive_field.tracing import TracedTensor, trace
from workers.layers.taps import Tap, Tappable, as_nchw, record_taps

# Fraction of the gradient's mass inside the effective field.
_SHARE = 0.95


class NoPathFromInput(RuntimeError):
    """A layer's output does not depend on the pixels."""


@dataclass(frozen=True)
class ReceptiveField:
    """The input pixels on which the units of a layer depend; pairs are (y, x), in pixels of the model's input.

    Unit (y, x) sees the rows [start[0] + jump[0] * y, ... + size[0]) and the columns likewise: the smallest
    box that contains everything it depends on. Positions beyond the input are padding. A layer that is global
    along one axis only has the input's length as size, jump 0 and start 0 on that axis.

    If a layer is global, size is None, and start and jump describe the center of what unit (0, 0) sees
    through convolutions alone, ignoring operators that mix all positions; None if there is no such part.

    Attributes:
        is_global: True if every unit depends on the whole input.
        size: height and width; None if global.
        jump: pixels between the fields of neighboring units.
        start: top and left edge of the field of unit (0, 0), negative in padding.
        exact: False if the box is only an upper bound: units see boxes of different sizes (attention windows,
            uneven pooling, upsampling), or an operator is unknown.
    """

    is_global: bool
    size: tuple[int, int] | None
    jump: tuple[float, float] | None
    start: tuple[float, float] | None
    exact: bool = True

    def centre(
        self, position: tuple[int, int], *, grid: tuple[int, int], extent: tuple[int, int]
    ) -> tuple[float, float]:
        """Center (y, x) of the field of the unit at `position` of a map of `grid` units, in input pixels.

        The center of the unit's cell if the field is global and has no center of its own.
        """
        if self.start is None or self.jump is None:
            rows, columns = ((p + 0.5) * e / n for p, e, n in zip(position, extent, grid, strict=True))
            return rows, columns
        size = self.size or (0, 0)
        rows, columns = (
            s + j * p + n / 2 for s, j, p, n in zip(self.start, self.jump, position, size, strict=True)
        )
        return rows, columns


def receptive_fields(model: Tappable, taps: Sequence[Tap]) -> dict[str, ReceptiveField]:
    """Theoretical receptive field of every tap, by layer.

    Raises:
        NoPathFromInput: a tap's output does not depend on the pixels.
        UntraceableWrite: the network assembles an activation in a tensor that it allocates itself.
    """
    fields: dict[str, ReceptiveField] = {}

    def note(tap: Tap, output: Tensor) -> None:
        fields[tap.layer] = field_of(as_nchw(tap, output), name=tap.layer)

    height, width = model.preprocessing.input_size
    device = next((parameter.device for parameter in model.network.parameters()), None)
    pixels = torch.full((1, model.preprocessing.channels, height, width), 0.5, device=device)
    with torch.no_grad(), recurrent_rules(model.network), record_taps(model, taps, note):
        model(trace(pixels))
    return fields


def effective_sizes(
    model: Tappable,
    taps: Sequence[Tap],
    pixels: Tensor,
    *,
    units: int = 16,
    seed: int = 0,
    tell: Callable[[int, int], None] = lambda _done, _total: None,
) -> dict[str, int]:
    """Side of every tap's effective receptive field in input pixels, by layer.

    The side of the smallest square, centered on the theoretical field, that contains 95 % of the mean
    absolute gradient of a unit with respect to the pixels (summed over their channels). The mean is over
    `units` pairs of a unit and an image: a random channel at a random position in the middle third of the
    map, so that the input's border cuts few fields, and the images in turn. Never larger than the theoretical
    field or the input; if no gradient arrives at all, as large as these.

    Args:
        pixels: images N,3,H,W in [0, 1], of the model's input size.
        units: number of pairs.
        seed: of channels and positions; a layer's draw depends on its name, not on the other taps.
        tell: called with the number of gradients done and the total.
    """
    done = 0
    with torch.inference_mode(False):
        fields = receptive_fields(model, taps)
        extent = (pixels.shape[2], pixels.shape[3])
        mass = {tap.layer: torch.zeros(2 * max(extent) + 2, dtype=torch.float64) for tap in taps}

        def collect(tap: Tap, position: tuple[int, int], gradient: Tensor) -> None:
            nonlocal done
            centre = fields[tap.layer].centre(position, grid=(tap.height, tap.width), extent=extent)
            mass[tap.layer] += _mass_by_side(gradient, centre, len(mass[tap.layer]))
            done += 1
            tell(done, units * len(taps))

        unit_gradients(model, taps, pixels, collect, units=units, seed=seed)
    return {tap.layer: _effective(mass[tap.layer], fields[tap.layer], max(extent)) for tap in taps}


def _mass_by_side(gradient: Tensor, centre: tuple[float, float], sides: int) -> Tensor:
    """Mass of an H,W map by s: the sum over pixels inside the square of side s at `centre` but no smaller one."""
    offsets = [
        (torch.arange(length, dtype=torch.float64) + 0.5 - middle).abs()
        for length, middle in zip(gradient.shape, centre, strict=True)
    ]
    distance = torch.maximum(offsets[0][:, None], offsets[1][None, :])
    # a pixel is one wide; the tolerance is for centers that are not multiples of one half
    side = (2 * distance + 1 - 1e-9).ceil().long().clamp(max=sides - 1)
    return torch.bincount(side.flatten(), weights=gradient.flatten(), minlength=sides)


def _effective(mass: Tensor, field: ReceptiveField, extent: int) -> int:
    largest = extent if field.size is None else min(extent, max(field.size))
    held = mass.cumsum(0)
    if not float(held[-1]) > 0:
        return largest
    side = int((held >= _SHARE * held[-1]).nonzero()[0])
    return max(1, min(side, largest))


def field_of(activation: Tensor, *, name: str = "the activation") -> ReceptiveField:
    """Receptive field of the units of an N,C,H,W activation that was computed from `trace(pixels)`.

    The union over images and channels.
    """
    if not isinstance(activation, TracedTensor):
        raise NoPathFromInput(f"expected an output that depends on the pixels, got {name}, which does not")
    boxes = activation.boxes
    rows, columns = (_line(boxes, axis, name) for axis in range(2))
    exact = boxes.exact and rows.exact and columns.exact
    if rows.is_global and columns.is_global:
        if rows.middle is None or columns.middle is None:
            return ReceptiveField(is_global=True, size=None, jump=None, start=None, exact=exact)
        return ReceptiveField(
            is_global=True,
            size=None,
            jump=(rows.middle[1], columns.middle[1]),
            start=(rows.middle[0], columns.middle[0]),
            exact=exact,
        )
    return ReceptiveField(
        is_global=False,
        size=(rows.size, columns.size),
        jump=(rows.jump, columns.jump),
        start=(rows.start, columns.start),
        exact=exact,
    )


@dataclass(frozen=True)
class _Line:
    """A field along one axis."""

    size: int
    jump: float
    start: float
    exact: bool
    is_global: bool = False
    middle: tuple[float, float] | None = None  # of a global field: local center at unit 0, and step


def _line(boxes: Boxes, axis: int, name: str) -> _Line:
    bounds = boxes.bounds[axis].amin([1 + dim for dim in range(4) if dim != 2 + axis])
    extent = boxes.extent[axis]
    low, high, whole = bounds[LOW], -bounds[MINUS_HIGH], bounds[MINUS_WHOLE] < 0
    jump = boxes.jump[axis]
    if bool(whole.all()):
        local = _straight(low, high, boxes.shape[2 + axis], jump)
        middle = None if local is None else (local.start + local.size / 2, local.jump)
        return _Line(extent, 0.0, 0.0, exact=True, is_global=True, middle=middle)
    low = torch.where(whole, low.clamp(max=0), low)
    high = torch.where(whole, high.clamp(min=extent), high)
    if not bool(low.isfinite().any()):
        raise NoPathFromInput(f"expected an output that depends on the pixels, got {name}, which does not")
    straight = _straight(low, high, boxes.shape[2 + axis], jump)
    if straight is not None:
        return straight
    if bool(low.max() <= 0) and bool(high.min() >= extent):
        return _Line(extent, 0.0, 0.0, exact=len(low) == 1, is_global=True)
    if len(low) == 1:
        return _Line(int(high[0] - low[0]), 0.0, float(low[0]), exact=True)
    return _fitted(low, high, jumps=[jump, extent / len(low)])


def _straight(low: Tensor, high: Tensor, count: int, jump: float) -> _Line | None:
    """The field if all units' intervals have one length and advance by one jump; else None."""
    if len(low) != count or not bool(low.isfinite().all()):
        return None
    steps, sizes = low.diff(), high - low
    if count > 1:
        jump = float(steps[0])
    if not bool((steps == jump).all() and (sizes == sizes[0]).all()):
        return None
    return _Line(int(sizes[0]), jump, float(low[0]), exact=True)


def _fitted(low: Tensor, high: Tensor, *, jumps: list[float]) -> _Line:
    """The smallest field that advances by one jump and contains the intervals of all units."""
    found = progression(torch.stack([low, -high], 1))
    if found is not None:
        period, step = found
        jumps = [float(step[0]) / period, *jumps]
    seen = low.isfinite()
    position = torch.arange(len(low), dtype=low.dtype)[seen]
    fits = []
    for jump in jumps:
        start = floor(float((low[seen] - jump * position).min()))
        end = ceil(float((high[seen] - jump * position).max()))
        fits.append(_Line(end - start, jump, float(start), exact=False))
    return min(fits, key=lambda line: line.size)
