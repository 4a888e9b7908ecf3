"""A model's predictions for each image: its five most probable classes, and the labeled class at any rank."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

KEPT = 5


@dataclass(frozen=True)
class PredictionRows:
    """Parallel arrays, by image and rank; ranks count from 1, ties go to the lower class index."""

    image_ids: npt.NDArray[np.int32]
    ranks: npt.NDArray[np.int32]
    class_indices: npt.NDArray[np.int32]
    probabilities: npt.NDArray[np.float32]
    logits: npt.NDArray[np.float32]
    is_label: npt.NDArray[np.bool_]


def predict(logits: Tensor, image_ids: Sequence[int], labels: Sequence[int | None]) -> PredictionRows:
    """Rows for a batch. An image with a non-finite logit has none.

    Args:
        logits: N,classes.
        labels: index of each image's class among the logits; None if it has no such label.
    """
    assert len(logits) == len(image_ids) == len(labels)
    wide = logits.detach().to("cpu", torch.float64)
    finite = wide.isfinite().all(1).tolist()
    shares = wide.softmax(1)
    order = wide.sort(dim=1, descending=True, stable=True).indices
    rows: list[tuple[int, int, int, float, float, bool]] = []
    for place, (image_id, label) in enumerate(zip(image_ids, labels, strict=True)):
        if not finite[place]:
            continue
        ranked = list(enumerate(order[place, :KEPT].tolist(), 1))
        if label is not None and label not in [index for _, index in ranked]:
            ranked.append((int((order[place] == label).nonzero()[0, 0]) + 1, label))
        rows.extend(
            (image_id, rank, index, float(shares[place, index]), float(wide[place, index]), index == label)
            for rank, index in ranked
        )
    columns = list(zip(*rows, strict=True)) if rows else [()] * 6
    return PredictionRows(
        image_ids=np.array(columns[0], np.int32),
        ranks=np.array(columns[1], np.int32),
        class_indices=np.array(columns[2], np.int32),
        probabilities=np.array(columns[3], np.float32),
        logits=np.array(columns[4], np.float32),
        is_label=np.array(columns[5], np.bool_),
    )


def joined(parts: Sequence[PredictionRows]) -> PredictionRows:
    """The rows of several batches, concatenated."""
    return PredictionRows(
        **{
            name: np.concatenate([getattr(part, name) for part in [_NONE, *parts]])
            for name in PredictionRows.__dataclass_fields__
        }
    )


_NONE = PredictionRows(
    image_ids=np.empty(0, np.int32),
    ranks=np.empty(0, np.int32),
    class_indices=np.empty(0, np.int32),
    probabilities=np.empty(0, np.float32),
    logits=np.empty(0, np.float32),
    is_label=np.empty(0, np.bool_),
)
