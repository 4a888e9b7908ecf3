"""Streaming top-k: for each channel, the k images with the strongest activation.

An image counts once per channel, at its strongest position. Entries are ordered by larger value, then lower
image id; within an image the lowest position wins (row-major). Value and image id are packed into one 64-bit
integer key, so ordering is sorting integers: no ties remain, and merging is associative and commutative. The
result therefore depends neither on the size nor on the order of the batches, and shards can be merged.

NaN and infinity never rank: an image whose maximum in a channel is not finite is left out of that channel.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

# Key of an unused entry: below the key of every finite value.
EMPTY = torch.iinfo(torch.int64).min
_LARGEST_ID = 2**31 - 1
# If a larger share of (image, channel) pairs beats the k-th best, one full arg-max is faster than looking up
# their positions one by one.
_MANY = 0.02


@dataclass(frozen=True)
class TopKRows:
    """The entries of a `TopK` as parallel arrays, ordered by channel and rank; ranks count from 1.

    `positions` are y * width + x in the feature map. A channel has min(k, images with a finite value) rows.
    """

    channels: npt.NDArray[np.int32]
    ranks: npt.NDArray[np.int32]
    image_ids: npt.NDArray[np.int32]
    values: npt.NDArray[np.float32]
    positions: npt.NDArray[np.int32]


class TopK:
    """The k strongest images so far of each channel of one layer.

    Attributes:
        keys: int64 C,k, descending; the high half orders like the values, the low half is 2^31 - 1 - image
            id. `EMPTY` for entries not yet used.
        positions: int32 C,k, parallel to `keys`.
    """

    def __init__(self, channels: int, k: int, *, device: str | torch.device = "cpu") -> None:
        if channels < 1 or k < 1:
            raise ValueError(f"expected at least one channel and k of at least 1, got {channels} and {k}")
        self.channels = channels
        self.k = k
        self.keys = torch.full((channels, k), EMPTY, dtype=torch.int64, device=device)
        self.positions = torch.zeros((channels, k), dtype=torch.int32, device=device)
        self._kth = torch.full((channels,), -torch.inf, device=device)
        self._last_id = -1
        self._passed = 1.0

    def update(self, activations: Tensor, image_ids: Tensor) -> Tensor:
        """Add a batch; each image may be added only once.

        The reduction follows the memory layout; transposing first would cost several times as much. For
        channels-last memory, one max-pooling over the whole map finds values and positions at memory
        bandwidth, in half the time of `amax`. For contiguous NCHW, `amax` is as fast but returns no
        positions: these are looked up for values that beat the k-th best, which soon become rare.

        Args:
            activations: N,C,H,W in any memory format and floating-point type. Read-only.
            image_ids: int64 N on the CPU, from 0 to 2^31 - 1.

        Returns:
            float32 N,C: each image's maximum in each channel, NaN if it contains a NaN.
        """
        assert activations.ndim == 4, f"expected N,C,H,W, got {tuple(activations.shape)}"
        assert activations.shape[:2] == (len(image_ids), self.channels), (
            f"expected {len(image_ids)} images of {self.channels} channels, got {tuple(activations.shape)}"
        )
        if activations.device.type != "cpu" or self.keys.device.type != "cpu":
            # Accelerators find the position as fast as the value; counting how many passed would synchronize.
            values, positions = activations.flatten(2).max(2)
            best = _canonical(values.to(self.keys.device))
            self._merge_all(self._keys(best, image_ids), positions.to(self.keys.device, torch.int32))
            return best
        known: Tensor | None = None
        if activations.is_contiguous(memory_format=torch.channels_last):
            size = (activations.shape[2], activations.shape[3])
            pooled, known = max_pool2d(activations, size, return_indices=True)
            values, known = pooled.flatten(1), known.flatten(1)
        elif self._passed > _MANY:
            values, known = activations.flatten(2).max(2)
        else:
            values = activations.amax((2, 3))
        best = _canonical(values)
        # If all ids are higher than any before, ties lose against existing entries; otherwise a tie may win.
        first, last = int(image_ids.min()), int(image_ids.max())
        beats = best > self._kth if first > self._last_id else best >= self._kth
        self._last_id = max(self._last_id, last)
        passed = int(beats.count_nonzero())
        self._passed = passed / beats.numel()
        if passed == 0:
            return best
        if self._passed > _MANY:
            if known is None:
                known = activations.flatten(2).max(2)[1]
            self._merge_all(self._keys(best, image_ids), known.to(torch.int32))
        else:
            self._merge_some(best, image_ids, beats, known, activations)
        return best

    def _keys(self, best: Tensor, image_ids: Tensor) -> Tensor:
        """Keys (int64 N,C) of `best` (float32 N,C)."""
        assert 0 <= int(image_ids.min()) <= int(image_ids.max()) <= _LARGEST_ID, (
            "image ids must fit in 31 bits"
        )
        bits = best.view(torch.int32).to(torch.int64)
        # The bits of negative floats sort in reverse: flip all but the sign.
        ordered = bits ^ ((bits >> 63) & 0x7FFFFFFF)
        keys = (ordered << 32) | (_LARGEST_ID - image_ids.to(best.device))[:, None]
        return torch.where(best.isfinite(), keys, EMPTY)

    def _merge_all(self, keys: Tensor, positions: Tensor) -> None:
        """Merge keys and positions N,C."""
        self.keys, self.positions = _merged(self.keys, self.positions, keys.T, positions.T, self.k)
        self._kth = _values(self.keys[:, -1])

    def _merge_some(
        self, best: Tensor, image_ids: Tensor, beats: Tensor, known: Tensor | None, activations: Tensor
    ) -> None:
        """Merge only channels in which some value passed; values that did not pass lose and need no position."""
        chosen = beats.any(0).nonzero()[:, 0]
        some = best[:, chosen]
        if known is not None:
            positions = known[:, chosen].to(torch.int32)
        else:
            image, place = beats[:, chosen].nonzero(as_tuple=True)
            maps = activations[image, chosen[place]].flatten(1)
            positions = torch.zeros(some.shape, dtype=torch.int32)
            positions[image, place] = maps.argmax(1).to(torch.int32)
        keys, placed = _merged(
            self.keys[chosen],
            self.positions[chosen],
            self._keys(some, image_ids).T,
            positions.T,
            self.k,
        )
        self.keys[chosen] = keys
        self.positions[chosen] = placed
        self._kth[chosen] = _values(keys[:, -1])

    def merge(self, other: "TopK") -> None:
        """Add everything that `other` has seen; the two must have seen different images."""
        if (other.channels, other.k) != (self.channels, self.k):
            raise ValueError(
                f"expected {self.channels} channels and k={self.k}, got {other.channels} and k={other.k}"
            )
        self.restore(
            *_merged(
                self.keys,
                self.positions,
                other.keys.to(self.keys.device),
                other.positions.to(self.keys.device),
                self.k,
            )
        )

    def restore(self, keys: Tensor, positions: Tensor) -> None:
        """Restore the `keys` and `positions` of another `TopK` of the same shape."""
        assert keys.shape == positions.shape == (self.channels, self.k)
        self.keys = keys.to(self.keys.device)
        self.positions = positions.to(self.keys.device)
        self._kth = _values(self.keys[:, -1])
        taken = self.keys != EMPTY
        ids = _image_ids(self.keys)[taken]
        # Images without any entry are forgotten: only those with entries can tie with a later one.
        self._last_id = int(ids.max()) if ids.numel() else -1

    def rows(self) -> TopKRows:
        """All entries so far."""
        keys = self.keys.cpu()
        channels, places = (keys != EMPTY).nonzero(as_tuple=True)
        found = keys[channels, places]
        return TopKRows(
            channels=channels.to(torch.int32).numpy(),
            ranks=(places + 1).to(torch.int32).numpy(),
            image_ids=_image_ids(found).to(torch.int32).numpy(),
            values=_values(found).numpy(),
            positions=self.positions.cpu()[channels, places].numpy(),
        )


def _canonical(values: Tensor) -> Tensor:
    """float32 with a single zero: -0.0 equals 0.0, but its bits would rank lower."""
    return values.to(torch.float32) + 0.0


def _values(keys: Tensor) -> Tensor:
    """float32 values of `keys`; minus infinity for `EMPTY`."""
    ordered = keys >> 32
    bits = (ordered ^ ((ordered >> 63) & 0x7FFFFFFF)).to(torch.int32)
    return torch.where(keys == EMPTY, -torch.inf, bits.view(torch.float32))


def _image_ids(keys: Tensor) -> Tensor:
    return _LARGEST_ID - (keys & _LARGEST_ID)


def _merged(
    keys: Tensor, positions: Tensor, more_keys: Tensor, more_positions: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """The k largest of `keys` C,k and `more_keys` C,M, descending, with their positions."""
    both, places = torch.cat([keys, more_keys], 1).topk(k, dim=1)
    return both, torch.cat([positions, more_positions], 1).gather(1, places)
