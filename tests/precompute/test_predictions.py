"""Predictions: ranks, ties, probabilities, labels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from precompute.index.predictions import joined, predict


@settings(max_examples=100, deadline=None)
@given(
    logits=st.lists(st.sampled_from([-3.0, 0.0, 0.5, 0.5, 7.25]), min_size=2, max_size=12),
    data=st.data(),
)
def test_ranks_are_those_of_sorting_by_logit_then_class(logits: list[float], data: st.DataObject) -> None:
    label = data.draw(st.none() | st.integers(0, len(logits) - 1))
    rows = predict(torch.tensor([logits]), [3], [label])
    order = sorted(range(len(logits)), key=lambda index: (-logits[index], index))
    expected = [(rank, index) for rank, index in enumerate(order, 1) if rank <= 5 or index == label]
    assert list(zip(rows.ranks.tolist(), rows.class_indices.tolist(), strict=True)) == expected
    assert rows.is_label.tolist() == [index == label for _, index in expected]
    assert set(rows.image_ids.tolist()) == {3}
    shares = np.exp(np.array(logits)) / np.exp(np.array(logits)).sum()
    assert rows.probabilities == pytest.approx(shares[rows.class_indices], rel=1e-6)
    assert rows.logits.tolist() == [logits[index] for index in rows.class_indices]


def test_large_logits_do_not_overflow() -> None:
    rows = predict(torch.tensor([[1e4, 0.0, -1e4]]), [0], [None])
    assert rows.probabilities.tolist() == [1.0, 0.0, 0.0]


def test_an_image_with_logits_that_are_not_finite_has_no_prediction() -> None:
    rows = predict(torch.tensor([[1.0, torch.nan], [1.0, 2.0], [torch.inf, 0.0]]), [0, 1, 2], [0, 0, 0])
    assert rows.image_ids.tolist() == [1, 1]


def test_batches_are_joined_in_order() -> None:
    logits = torch.randn(6, 9)
    labels = [8, None, 0, 1, None, 2]
    whole = predict(logits, range(6), labels)
    parts = joined([predict(logits[:4], range(4), labels[:4]), predict(logits[4:], [4, 5], labels[4:])])
    for name in type(whole).__dataclass_fields__:
        assert np.array_equal(getattr(whole, name), getattr(parts, name)), name
    assert len(joined([]).ranks) == 0
