"""What the attack jobs share: taps and folded copies of models, and completed attacks."""

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from sqlalchemy import select
from torch import Tensor

from db.atlas.runs import channel_stds
from db.ledger.jobs import Record
from db.ledger.tables import Attack
from workers.attacks.steps import perturbed
from workers.attribution.gradients import Network
from workers.jobs.context import JobContext
from workers.layers.taps import Tap, find_taps
from workers.models.speedups.folding import folded
from workers.models.vision import VisionModel
from workers.queue.runner import ItemFailed


class AttackContext:
    """What attack jobs share in addition to their job context: taps of models, and completed attacks."""

    def __init__(self, context: JobContext) -> None:
        self.context = context
        self._taps: dict[tuple[str, str], tuple[Tap, ...]] = {}
        self._folded: WeakKeyDictionary[VisionModel, Any] = WeakKeyDictionary()

    def taps(self, model: VisionModel, digest: str) -> tuple[Tap, ...]:
        """The model's taps, found once."""
        key = (model.source, digest)
        if key not in self._taps:
            self._taps[key] = find_taps(model)
        return self._taps[key]

    def folded(self, model: VisionModel, pixels: Tensor) -> Network | None:
        """A copy of the model with faster forward passes, made once; None if it has none or the setting is off."""
        if "folding" not in self.context.models.speedups:
            return None
        if model not in self._folded:
            made = folded(model, pixels)
            # a value that is its own key would keep an evicted model alive
            self._folded[model] = None if made is model else made
        quicker: Network | None = self._folded[model]
        return quicker

    def spreads(self, model: str, digest: str, image_set: str) -> dict[str, Tensor]:
        """Standard deviation of each channel over the set (`db.atlas.stds`), by layer.

        NaN for dead channels; empty if the set is not indexed.
        """
        rows = self.context.atlas.fetch(channel_stds(model, digest, image_set))
        nan = float("nan")
        return {
            row["layer"]: torch.tensor(
                [nan if spread is None else spread for spread in row["spreads"]], dtype=torch.float64
            )
            for row in rows
        }

    def found(self, number: int) -> Record:
        """The row of an attack."""
        with self.context.ledger.read() as connection:
            rows = connection.execute(select(Attack.__table__).where(Attack.attack == number)).mappings()
            return dict(rows.one())

    def images(self, found: Record) -> tuple[Tensor, Tensor]:
        """The clean and the attacked image, float32 3,H,W in [0, 1], as they were classified.

        Raises:
            ItemFailed: a file is gone.
        """
        before = self.context.pixels(self._picture(found["input_file"]))[0]
        change = found["change_file"]
        if change is None:
            return before, before.clone()
        if change.endswith(".npy"):
            moved = before + torch.from_numpy(self.context.results.read_array(change)).to(
                before.device
            ).view_as(before)
            return before, moved
        signs = (torch.from_numpy(self._picture(change).astype(np.float32)).permute(2, 0, 1) - 128) / 127
        epsilon = found["attacked_epsilon"]
        return before, perturbed(before, signs.to(before), epsilon, integer=found["eight_bit"])

    def _picture(self, file: str) -> npt.NDArray[np.uint8]:
        try:
            return self.context.results.read_picture(file)
        except OSError as error:
            raise ItemFailed(f"the file {file} is missing: repeat the attack") from error
