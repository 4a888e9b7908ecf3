"""Channel statistics against NumPy over all activations."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from precompute.index.statistics import BINS, ChannelStatistics, histogram_edges


def entered(best: torch.Tensor, *, batch: int) -> ChannelStatistics:
    statistics = ChannelStatistics(best.shape[1])
    for start in range(0, len(best), batch):
        statistics.update(best[start : start + batch])
    return statistics


def test_moments_and_extremes_are_numpys() -> None:
    torch.manual_seed(0)
    best = torch.randn(100, 7) * 3 + torch.tensor([0, 1, -4, 1e6, 1e-3, 50, 0])
    rows = entered(best, batch=16).rows()
    wide = best.numpy().astype(np.float64)
    assert rows.mean == pytest.approx(wide.mean(0), rel=1e-13)
    assert rows.std == pytest.approx(wide.std(0), rel=1e-9)
    assert (rows.min == wide.min(0)).all()
    assert (rows.max == wide.max(0)).all()


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(
        st.sampled_from([0.0, 1.0, -2.5, 1e30, 3e38, float("nan"), float("inf"), float("-inf")]),
        min_size=24,
        max_size=24,
    ),
    batch=st.integers(1, 8),
)
def test_the_batch_size_changes_no_bit(values: list[float], batch: int) -> None:
    best = torch.tensor(values).reshape(8, 3)
    one, other = entered(best, batch=1), entered(best, batch=batch)
    for name, tensor in one.tensors().items():
        assert torch.equal(tensor, other.tensors()[name]), name


def test_a_stored_state_resumes_to_the_same_bits() -> None:
    torch.manual_seed(1)
    best = torch.randn(60, 5)
    whole = entered(best, batch=7)
    resumed = ChannelStatistics(5)
    resumed.restore(entered(best[:30], batch=9).tensors())
    resumed.update(best[30:])
    for name, tensor in whole.tensors().items():
        assert torch.equal(tensor, resumed.tensors()[name]), name


def test_a_channel_is_dead_where_all_images_agree_to_the_bit() -> None:
    best = torch.tensor([[0.1, 0.1, torch.nan, 0.0], [0.1, 0.1 + 1e-8, 0.1, -0.0], [0.1, 0.1, 0.1, 0.0]])
    rows = entered(best, batch=3).rows()
    assert rows.dead.tolist() == [True, False, False, True]
    assert rows.std[0] == 0.0
    assert entered(best[:1], batch=1).rows().dead.tolist() == [False] * 4


def test_nonfinite_values_are_counted_and_ignored() -> None:
    best = torch.tensor([[torch.inf, torch.nan, 1.0], [-torch.inf, 2.0, 3.0], [torch.nan, 4.0, 5.0]])
    statistics = entered(best, batch=2)
    rows = statistics.rows()
    assert rows.nonfinite.tolist() == [3, 1, 0]
    assert rows.mean[1:].tolist() == [3.0, 3.0]
    assert np.isnan([rows.mean[0], rows.std[0], rows.min[0], rows.max[0]]).all()
    assert statistics.histogram().channels.tolist() == [1, 1, 2, 2, 2]


def test_every_value_lies_in_its_half_open_bin() -> None:
    edges = histogram_edges()
    assert len(edges) == BINS + 1
    assert (np.diff(edges) > 0).all()
    around = np.concatenate([edges[1:-1], np.nextafter(edges[1:-1], -np.inf, dtype=np.float32)])
    values = np.concatenate([around, [0.0, -0.0, 1e-45, -1e-45, 3e38, -3e38]]).astype(np.float32)
    for value in values:
        statistics = ChannelStatistics(1)
        statistics.update(torch.from_numpy(np.array([[value]])))
        rows = statistics.histogram()
        assert rows.images.tolist() == [1]
        assert rows.low[0] <= value < rows.high[0]


def test_a_histogram_equals_numpys() -> None:
    torch.manual_seed(2)
    best = torch.randn(500, 3) * torch.tensor([1.0, 100.0, 1e5])
    rows = entered(best, batch=64).histogram()
    edges = histogram_edges()
    for channel in range(3):
        counts, _ = np.histogram(best[:, channel].numpy(), edges)
        mine = rows.channels == channel
        assert rows.images[mine].tolist() == counts[counts > 0].tolist()
        assert rows.low[mine].tolist() == edges[:-1][counts > 0].tolist()
