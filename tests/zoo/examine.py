"""The checks that the sweep runs on one network, and the record of what they found.

The oracle for positions is autograd: the pixels with a nonzero gradient are those that a unit sees, and the
gradient's mass shows where it looks. Neither depends on how taps were found.
"""

import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from workers.layers.receptive_field.fields import ReceptiveField, receptive_fields
from workers.layers.taps import LeftOut, Tap, as_nchw, find_left_out, find_taps, record_taps, tap_edges

# Taps whose units are checked against gradients, spread over the network: each costs one backward pass.
_TAPS = 10


@dataclass
class Finding:
    """Results for one network; `faults` are sentences, empty if every check passed.

    `moved` counts the taps, of `examined`, whose gradient mass follows the unit's position.
    """

    name: str
    taps: int = 0
    left_out: tuple[LeftOut, ...] = ()
    reordered: int = 0
    examined: int = 0
    moved: int = 0
    skipped: str | None = None
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


class Vision(nn.Module):
    """A bare network as a vision model: it takes pixels and has taps."""

    def __init__(self, network: nn.Module, size: int) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.preprocessing = _Square((size, size))

    def forward(self, pixels: Tensor) -> Tensor:
        output = self.network(pixels)
        if isinstance(output, Tensor):
            return output
        # transformers' PP-LCNet returns its logits as last_hidden_state
        logits: Tensor = output.logits if hasattr(output, "logits") else output.last_hidden_state
        return logits


@dataclass(frozen=True)
class _Square:
    input_size: tuple[int, int]
    channels: int = 3


def examine(name: str, build: Callable[[], nn.Module], size: int) -> Finding:
    """Build a network and check its taps. A network that cannot be built is skipped; any other failure is a fault."""
    torch.manual_seed(0)
    found = Finding(name)
    begun = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = Vision(build(), size)
            with torch.inference_mode():
                plain = model(torch.rand(2, 3, size, size))
        except TimeoutError:
            raise
        except Exception as error:  # anything that a library raises while it builds
            found.skipped = f"{type(error).__name__}: {error}".splitlines()[0][:100]
            return found
        _check(model, plain, found)
    found.seconds = time.perf_counter() - begun
    return found


def _check(model: Vision, plain: Tensor, found: Finding) -> None:
    size = model.preprocessing.input_size
    taps = find_taps(model)
    found.taps, found.left_out = len(taps), find_left_out(model)
    found.reordered = sum(tap.order is not None for tap in taps)
    if not bool(plain.isfinite().all()):
        found.faults.append("predictions are not finite")
    if not taps and not found.left_out:
        found.faults.append("no layer is a tap, and none is listed as left out")
    called = {tap.module for tap in taps} | {entry.module for entry in found.left_out}
    layers = {
        path for path, module in model.network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)
    }
    if layers - called:
        found.faults.append(f"neither a tap nor left out: {', '.join(sorted(layers - called)[:3])}")
    _check_forward(model, taps, found)
    if not _is_acyclic([tap.layer for tap in taps], tap_edges(model, taps)):
        found.faults.append("the drawing has a cycle")
    try:
        fields = receptive_fields(model, taps)
    except RuntimeError as error:
        found.faults.append(f"receptive fields: {error}")
        return
    spread = (
        sorted({number * (len(taps) - 1) // max(1, _TAPS - 1) for number in range(_TAPS)}) if taps else []
    )
    _check_places(model, [taps[number] for number in spread], fields, size, found)


def _check_forward(model: Vision, taps: Sequence[Tap], found: Finding) -> None:
    """The taps' shapes are as stated, and recording them does not change the output."""
    pixels = torch.rand(2, 3, *model.preprocessing.input_size)
    shapes: dict[str, tuple[int, ...]] = {}
    with torch.inference_mode():
        before = model(pixels)
        with record_taps(model, taps, lambda tap, raw: shapes.update({tap.layer: as_nchw(tap, raw).shape})):
            after = model(pixels)
    if not torch.equal(before, after):
        found.faults.append("taps change the predictions")
    for tap in taps:
        layer = model.network.get_submodule(tap.module)
        channels = getattr(layer, "out_channels", getattr(layer, "out_features", None))
        expected = (2, channels, tap.height, tap.width)
        if shapes.get(tap.layer) != expected:
            found.faults.append(f"{tap.layer}: expected {expected}, got {shapes.get(tap.layer)}")


def _check_places(
    model: Vision,
    taps: Sequence[Tap],
    fields: dict[str, ReceptiveField],
    size: tuple[int, int],
    found: Finding,
) -> None:
    """For two units of each tap, far apart in y and x: the pixels they see lie in their boxes, and move with them."""
    model.double()
    pixels = torch.rand(2, 3, *size, dtype=torch.float64, requires_grad=True)
    weights = torch.Generator().manual_seed(1)
    values: dict[str, Tensor] = {}

    def units(tap: Tap) -> list[tuple[int, int]]:
        return [
            (tap.height // 4, tap.width // 4),
            (tap.height - 1 - tap.height // 4, tap.width - 1 - tap.width // 4),
        ]

    by_call = {(tap.module, tap.call): tap for tap in taps}
    calls: Counter[str] = Counter()

    def hook_of(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            tap = by_call.get((name, calls[name]))
            calls[name] += 1
            if tap is not None:
                maps = as_nchw(tap, output)
                mix = torch.rand(tap.channels, generator=weights, dtype=torch.float64) + 0.5
                values[tap.layer] = sum(
                    (maps[image, :, y, x] * mix).sum() for image, (y, x) in enumerate(units(tap))
                )  # type: ignore[assignment]

        return hook

    handles = [
        model.network.get_submodule(name).register_forward_hook(hook_of(name))
        for name in {tap.module for tap in taps}
    ]
    try:
        model(pixels)
    finally:
        for handle in handles:
            handle.remove()
    for tap in taps:
        (gradient,) = torch.autograd.grad(values[tap.layer], pixels, retain_graph=True)
        heat = gradient.abs().sum(1)
        found.examined += 1
        _check_support(tap, fields[tap.layer], heat, units(tap), found)
        found.moved += _moves(tap, heat)
    model.float()


def _check_support(
    tap: Tap,
    claimed: ReceptiveField,
    heat: Tensor,
    units: Sequence[tuple[int, int]],
    found: Finding,
) -> None:
    if claimed.size is None or claimed.start is None or claimed.jump is None:
        return
    for image, position in enumerate(units):
        for axis in range(2):
            lines = (heat[image] != 0).any(dim=1 - axis).nonzero().flatten()
            if not len(lines):
                continue
            low = claimed.start[axis] + claimed.jump[axis] * position[axis]
            first, end = int(lines[0]), int(lines[-1]) + 1
            if first < low or end > low + claimed.size[axis]:
                found.faults.append(
                    f"{tap.layer}: unit {position} sees {'rows' if axis == 0 else 'columns'} {first} to {end}, "
                    f"claimed {low:g} to {low + claimed.size[axis]:g}"
                )
                return


def _moves(tap: Tap, heat: Tensor) -> bool:
    """Return whether the gradient mass of the lower right unit lies below and to the right of the upper left unit's."""
    # units that see the whole input differ only in where they look
    shares = heat / heat.sum((1, 2), keepdim=True).clamp(min=1e-300)
    for axis in range(2):
        if (tap.height, tap.width)[axis] == 1 or (tap.height, tap.width)[axis] // 4 * 2 + 1 == (
            tap.height,
            tap.width,
        )[axis]:
            continue
        line = shares.sum(2 - axis)
        centers = line @ torch.arange(line.shape[1], dtype=line.dtype)
        if float(centers[1]) <= float(centers[0]):
            return False
    return True


def _is_acyclic(layers: Sequence[str], edges: Sequence[tuple[str, str]]) -> bool:
    left = set(layers)
    while left:
        fed = {target for source, target in edges if source in left and target in left}
        if not left - fed:
            return False
        left &= fed
    return True
