"""Gradients of single units with respect to the pixels, computed cheaply for many layers."""

import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from workers.layers.taps import Tap, Tappable, as_nchw

# The faint margin of a field would be subnormal numbers, which processors compute many times more slowly.
# Scaling by a power of two changes no other digit.
_LIFT = 2.0**64
# Images whose graphs are kept at a time: more cost memory and are no faster.
_AT_ONCE = 4


def unit_gradients(
    model: Tappable,
    taps: Sequence[Tap],
    pixels: Tensor,
    on_gradient: Callable[[Tap, tuple[int, int], Tensor], None],
    *,
    units: int,
    seed: int,
) -> None:
    """Calls `on_gradient` with tap, position (y, x) and gradient for `units` units of every tap.

    The gradient is absolute, summed over colors: H,W float64 on the CPU. Unit i is in image i modulo N. One
    unit of each image shares a backward pass, since images do not interact in the network.

    Raises:
        ValueError: no unit or no image.
    """
    if units < 1 or len(pixels) < 1:
        raise ValueError(f"expected at least one unit and one image, got {units} and {len(pixels)}")
    drawn = {tap.layer: _draw(tap, units, seed) for tap in taps}
    for first in range(0, units, _AT_ONCE):
        numbers = range(first, min(first + _AT_ONCE, units))
        chosen = {layer: rows[numbers.start : numbers.stop] for layer, rows in drawn.items()}
        with torch.enable_grad():
            batch = pixels[[number % len(pixels) for number in numbers]].detach().clone().requires_grad_()
            values = _values(model, taps, batch, chosen)
        for tap in taps:
            value = values.pop(tap.layer)
            lift = value.new_tensor(_LIFT)
            (gradient,) = torch.autograd.grad(value, batch, grad_outputs=lift, retain_graph=bool(values))
            heats = gradient.to("cpu", torch.float64).abs().sum(1) / _LIFT
            for (_, y, x), heat in zip(chosen[tap.layer], heats, strict=True):
                on_gradient(tap, (int(y), int(x)), heat)


def _draw(tap: Tap, units: int, seed: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Channel, row and column of `units` units: rows and columns within the middle third, rounded outward."""
    random = np.random.default_rng([seed, zlib.crc32(tap.layer.encode())])
    low = [0, tap.height // 3, tap.width // 3]
    high = [tap.channels, -(-2 * tap.height // 3), -(-2 * tap.width // 3)]
    return random.integers(low, high, size=(units, 3))


def _values(
    model: Tappable,
    taps: Sequence[Tap],
    batch: Tensor,
    chosen: dict[str, np.ndarray[Any, np.dtype[np.int64]]],
) -> dict[str, Tensor]:
    """Sum over the batch of the chosen unit of each image, by layer, with its graph."""
    values: dict[str, Tensor] = {}
    images = torch.arange(len(batch))

    def hook(module: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        def read(_module: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> None:
            tap = by_call.get((module, calls[module]))
            calls[module] += 1
            if tap is not None:
                channel, row, column = torch.from_numpy(chosen[tap.layer]).unbind(1)
                # indexing copies, so an in-place activation that follows does not change the unit
                values[tap.layer] = as_nchw(tap, output)[images, channel, row, column].sum()

        return read

    by_call = {(tap.module, tap.call): tap for tap in taps}
    calls: Counter[str] = Counter()
    with ExitStack() as hooks:
        for module in {tap.module for tap in taps}:
            handle = model.network.get_submodule(module).register_forward_hook(hook(module))
            hooks.callback(handle.remove)
        model(batch)
    return values
