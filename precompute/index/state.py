"""Accumulated state of a pass over an image set: top-k, channel statistics and predictions."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from precompute.index.predictions import PredictionRows, joined, predict
from precompute.index.statistics import ChannelStatistics
from precompute.index.topk import TopK
from workers.layers.taps import Tap, as_nchw


class IndexState:
    """Consumes each tap's output during the forward pass, and keeps nothing of its size.

    One batch is `begin`, `take` for every tap while the network runs, then `end`. The state is consistent
    between `end` and the next `begin`.

    Memory: 12 bytes for each of the k entries of each channel, about 1.9 kB per channel for its statistics,
    and about 150 bytes per image for predictions. `keep_responses` adds 4 bytes per image and channel.
    """

    def __init__(
        self,
        taps: Sequence[Tap],
        *,
        k: int,
        batch_size: int,
        device: torch.device,
        keep_responses: bool = False,
    ) -> None:
        self.taps = tuple(taps)
        self.topk = {tap.layer: TopK(tap.channels, k, device=device) for tap in taps}
        channels = sum(tap.channels for tap in taps)
        self.statistics = ChannelStatistics(channels, device=device)
        starts = np.cumsum([0, *(tap.channels for tap in taps)]).tolist()
        self._slices = {
            tap.layer: slice(start, start + tap.channels)
            for tap, start in zip(taps, starts[:-1], strict=True)
        }
        # Statistics are updated for all layers at once: a call per layer and image would cost more than the
        # sums.
        self._best = torch.zeros(batch_size, channels, device=device)
        self._image_ids = torch.zeros(0, dtype=torch.int64)
        self._taken: list[str] = []
        self._predictions: list[PredictionRows] = []
        # image ids N and best values N,C of each batch
        self._responses: list[tuple[Tensor, Tensor]] | None = [] if keep_responses else None

    def begin(self, image_ids: Sequence[int]) -> None:
        """Start a batch with these images; further images in the outputs are padding."""
        self._image_ids = torch.tensor(image_ids, dtype=torch.int64)
        self._taken = []

    def take(self, tap: Tap, output: Tensor) -> None:
        """Process a tap's raw output; `workers.layers.taps.record_taps` calls this during the forward pass."""
        maps = as_nchw(tap, output)[: len(self._image_ids)]
        best = self.topk[tap.layer].update(maps, self._image_ids)
        self._best[: len(best), self._slices[tap.layer]] = best
        self._taken.append(tap.layer)

    def end(self, logits: Tensor, labels: Sequence[int | None]) -> None:
        """Finish a batch; `logits` may include padding after the batch's images, `labels` may not."""
        assert self._taken == [tap.layer for tap in self.taps], (
            f"expected one output of each of {len(self.taps)} layers in forward order, got {self._taken}"
        )
        count = len(self._image_ids)
        self.statistics.update(self._best[:count])
        if self._responses is not None:
            self._responses.append((self._image_ids, self._best[:count].cpu().clone()))
        self._predictions.append(predict(logits[:count], self._image_ids.tolist(), labels))

    def predictions(self) -> PredictionRows:
        """Predictions of all images so far."""
        self._predictions = [joined(self._predictions)]
        return self._predictions[0]

    def responses(self) -> tuple[Tensor, Tensor] | None:
        """Ids of all images so far (int64 N) and their best values (float32 N,C); None if they are not kept."""
        if not self._responses:
            return None
        ids, best = zip(*self._responses, strict=True)
        self._responses = [(torch.cat(ids), torch.cat(best))]
        return self._responses[0]

    def tensors(self) -> dict[str, Tensor]:
        """The complete state, for a checkpoint."""
        predictions, responses = self.predictions(), self.responses()
        kept = {} if responses is None else {"image_ids": responses[0], "best": responses[1]}
        return {
            "keys": torch.cat([self.topk[tap.layer].keys for tap in self.taps]),
            "positions": torch.cat([self.topk[tap.layer].positions for tap in self.taps]),
            **{f"statistics.{name}": tensor for name, tensor in self.statistics.tensors().items()},
            **{
                f"predictions.{name}": torch.from_numpy(getattr(predictions, name))
                for name in PredictionRows.__dataclass_fields__
            },
            **{f"responses.{name}": tensor for name, tensor in kept.items()},
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Restore the result of `tensors()` from a state with the same taps and k."""
        for layer, channels in self._slices.items():
            self.topk[layer].restore(
                tensors["keys"][channels].clone(), tensors["positions"][channels].clone()
            )
        self.statistics.restore(_below("statistics.", tensors))
        arrays = {name: tensor.numpy() for name, tensor in _below("predictions.", tensors).items()}
        self._predictions = [PredictionRows(**arrays)]
        if self._responses is not None:
            kept = _below("responses.", tensors)
            self._responses = [(kept["image_ids"], kept["best"])] if kept else []


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
