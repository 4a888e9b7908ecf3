"""What changes inside a network between two images: channels and layers.

A channel's activation is the maximum over its map, as in the top-k index, so that the two can be joined.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.attribution.gradients import precision
from workers.layers.taps import Tap, Tappable, as_nchw, record_taps


@dataclass(frozen=True)
class Shift:
    """One tap under two images, before and after; tensors are C long, on the CPU.

    Attributes:
        before, after: largest activation of each channel, float64.
        at_before, at_after: C,2: its row and column; the lowest position on ties.
        relative_change: Euclidean norm of after - before over all positions and channels, divided by that of
            before.
    """

    tap: Tap
    before: Tensor
    after: Tensor
    at_before: Tensor
    at_after: Tensor
    relative_change: float

    @property
    def shift(self) -> Tensor:
        """After minus before."""
        return self.after - self.before

    def sizes(self, spreads: Tensor | None = None) -> Tensor:
        """How far each channel shifted, C; NaN for channels that are dead or have a non-finite value.

        The absolute shift, divided by `spreads` (C, `db.atlas.stds`; NaN for a dead channel) if the set is
        indexed. Without an index, a channel is dead if its largest activation is 0 in both images.
        """
        size = self.shift.abs()
        if spreads is not None:
            size = size / spreads
        else:
            size = torch.where((self.before == 0) & (self.after == 0), torch.nan, size)
        return torch.where(torch.isfinite(size), size, torch.nan)

    def live(self, spreads: Tensor | None = None) -> list[int]:
        """The channels that are ranked: neither dead nor non-finite."""
        return [int(channel) for channel in torch.nonzero(self.sizes(spreads).isfinite()).flatten()]

    def most_moved(self, number: int, spreads: Tensor | None = None) -> list[int]:
        """At most `number` live channels with the largest `sizes`, largest first; ties go to the lowest channel."""
        size = self.sizes(spreads).nan_to_num(-1.0)
        order = torch.sort(size, descending=True, stable=True).indices
        return [int(channel) for channel in order[:number] if size[channel] >= 0]


def shifts(model: Tappable, taps: Sequence[Tap], before: Tensor, after: Tensor) -> list[Shift]:
    """The shifts at each tap, in forward order, between two images 3,H,W in [0, 1]; one forward pass of both."""
    found: list[Shift] = []

    def note(tap: Tap, output: Tensor) -> None:
        maps = as_nchw(tap, output).to(torch.float32)
        width = maps.shape[3]
        best, where = maps.flatten(2).max(2)
        places = torch.stack([where // width, where % width], dim=2).cpu()
        values = best.to("cpu", torch.float64)
        change = (maps[1] - maps[0]).to("cpu", torch.float64).norm()
        size = maps[0].to("cpu", torch.float64).norm()
        relative = float(change / size) if size > 0 else float(change > 0)
        found.append(Shift(tap, values[0], values[1], places[0], places[1], relative))

    with torch.inference_mode(), precision("float32", before.device), record_taps(model, taps, note):
        model(torch.stack([before, after]))
    return found
