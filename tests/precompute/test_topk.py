"""Streaming top-k against a NumPy sort over all activations."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from precompute.index.topk import TopK, TopKRows

Entry = tuple[int, int, int, int, float]  # channel, rank, image id, position, value


def entries(rows: TopKRows) -> list[Entry]:
    return [
        (int(channel), int(rank), int(image), int(position), float(value))
        for channel, rank, image, position, value in zip(
            rows.channels, rows.ranks, rows.image_ids, rows.positions, rows.values, strict=True
        )
    ]


def by_sorting(activations: npt.NDArray[np.float32], ids: npt.NDArray[np.int64], k: int) -> list[Entry]:
    """Spell out the rule: the best position of each image, then the k best images."""
    found = []
    flat = activations.reshape(*activations.shape[:2], -1)
    for channel in range(flat.shape[1]):
        candidates = []
        for image, maps in zip(ids, flat[:, channel], strict=True):
            best = max(maps) if not np.isnan(maps).any() else np.nan
            if np.isfinite(best):
                place = next(place for place, value in enumerate(maps) if value == best)
                candidates.append((-float(best), int(image), place))
        for rank, (value, image, place) in enumerate(sorted(candidates)[:k], 1):
            found.append((channel, rank, image, place, -value))
    return found


def streamed(activations: Tensor, ids: Tensor, k: int, *, batches: list[int], passed: float = 1.0) -> TopK:
    top = TopK(activations.shape[1], k)
    top._passed = passed
    for start, end in pairwise(sorted({0, *batches, len(ids)})):
        top.update(activations[start:end], ids[start:end])
    return top


# Few different values, so that ties are frequent; both zeros; and the non-finite values.
VALUES = [0.0, -0.0, 1.0, 1.0, -1.0, 2.5, -3e38, 3e38, 1e-45, -1e-45]
ODD = [float("nan"), float("inf"), float("-inf")]


@st.composite
def cases(draw: st.DrawFn) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], int, list[int]]:
    images, channels = draw(st.integers(1, 9)), draw(st.integers(1, 4))
    height, width = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    pool = VALUES + (ODD if draw(st.booleans()) else [])
    size = images * channels * height * width
    values = draw(st.lists(st.sampled_from(pool), min_size=size, max_size=size))
    ids = draw(st.permutations(range(0, 3 * images, 3)))
    cuts = draw(st.lists(st.integers(0, images), max_size=4))
    shape = (images, channels, height, width)
    return (
        np.array(values, np.float32).reshape(shape),
        np.array(ids, np.int64),
        draw(st.integers(1, 12)),
        cuts,
    )


@settings(max_examples=400, deadline=None)
@given(case=cases(), sparse=st.booleans(), channels_last=st.booleans())
def test_any_batches_in_any_order_equal_sorting_everything(
    case: tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], int, list[int]],
    sparse: bool,
    channels_last: bool,
) -> None:
    activations, ids, k, cuts = case
    tensor = torch.from_numpy(activations)
    if channels_last:
        tensor = tensor.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    top = streamed(tensor, torch.from_numpy(ids), k, batches=cuts, passed=0.0 if sparse else 1.0)
    assert entries(top.rows()) == by_sorting(activations, ids, k)
    assert not np.signbit(top.rows().values[top.rows().values == 0]).any()


@settings(max_examples=100, deadline=None)
@given(case=cases(), parts=st.permutations([0, 1, 2]))
def test_shards_merge_in_any_order_and_grouping(
    case: tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], int, list[int]], parts: list[int]
) -> None:
    activations, ids, k, _ = case
    tensor, images = torch.from_numpy(activations), torch.from_numpy(ids)

    def shard(number: int) -> TopK:
        top = TopK(tensor.shape[1], k)
        if len(ids[number::3]):
            top.update(tensor[number::3], images[number::3])
        return top

    left = shard(parts[0])
    left.merge(shard(parts[1]))
    left.merge(shard(parts[2]))
    right = shard(parts[1])
    right.merge(shard(parts[2]))
    right.merge(shard(parts[0]))
    assert entries(left.rows()) == entries(right.rows()) == by_sorting(activations, ids, k)


def test_positions_are_found_for_the_few_as_for_all() -> None:
    """Long streams switch to looking up single positions, which must not change the result."""
    torch.manual_seed(0)
    activations = torch.randn(400, 24, 5, 7).round(decimals=1)
    ids = torch.arange(400)
    expected = by_sorting(activations.numpy(), ids.numpy(), 5)
    for last in (False, True):
        given = activations.to(memory_format=torch.channels_last) if last else activations
        top = streamed(given, ids, 5, batches=list(range(0, 400, 8)))
        assert top._passed < 0.02, "the case does not reach the way it is about"
        assert entries(top.rows()) == expected


@pytest.mark.parametrize("layout", ["positions last", "channels last", "tokens"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_wide_layers_of_every_layout_and_all_odd_values_rank_alike(layout: str, dtype: torch.dtype) -> None:
    """37 channels: whole SIMD vectors, and a remainder."""
    random = np.random.default_rng(3)
    pool = [-2.0, -1.0, -0.0, 0.0, 0.5, 1.0]
    values = random.choice(pool, (30, 37, 3, 5)).astype(np.float32)
    for image, channel, odd in zip(range(30), random.permutation(37), ODD * 10, strict=False):
        values[image, channel, image % 3, channel % 5] = odd
    values[:, 36] = -np.inf
    activations = torch.from_numpy(values).to(dtype)
    if layout == "channels last":
        activations = activations.contiguous(memory_format=torch.channels_last)
    elif layout == "tokens":
        tokens = torch.cat([torch.full((30, 2, 37), 9.0, dtype=dtype), activations.flatten(2).mT], 1)
        activations = tokens[:, 2:].view(30, 3, 5, 37).permute(0, 3, 1, 2)
    for passed in (0.0, 1.0):
        top = streamed(activations, torch.arange(30), 4, batches=[1, 9, 21], passed=passed)
        assert entries(top.rows()) == by_sorting(values, np.arange(30), 4)


def test_one_kept_image_is_the_arg_max() -> None:
    torch.manual_seed(1)
    activations = torch.randn(30, 6, 4, 4)
    rows = streamed(activations, torch.arange(30), 1, batches=[7, 20]).rows()
    flat = activations.permute(1, 0, 2, 3).reshape(6, -1)
    assert rows.values.tolist() == flat.max(1).values.tolist()
    assert (rows.image_ids * 16 + rows.positions).tolist() == flat.argmax(1).tolist()


def test_a_stored_state_resumes_exactly() -> None:
    torch.manual_seed(2)
    activations = torch.randn(40, 6, 4, 4).round()
    whole = streamed(activations, torch.arange(40), 5, batches=[10, 20, 30])
    first = streamed(activations[:20], torch.arange(20), 5, batches=[10])
    second = TopK(6, 5)
    second.restore(first.keys.clone(), first.positions.clone())
    for start in (20, 30):
        second.update(activations[start : start + 10], torch.arange(start, start + 10))
    assert torch.equal(second.keys, whole.keys)
    assert torch.equal(second.positions, whole.positions)


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_an_image_that_is_not_finite_in_a_channel_ranks_in_the_others(odd: float) -> None:
    activations = torch.ones(3, 2, 2, 2)
    activations[1, 0, 1, 0] = odd
    top = TopK(2, 3)
    best = top.update(activations, torch.arange(3))
    assert not best[1, 0].isfinite()
    assert [(channel, image) for channel, _, image, _, _ in entries(top.rows())] == [
        (0, 0), (0, 2), (1, 0), (1, 1), (1, 2),
    ]  # fmt: skip


def test_minus_infinity_neither_ranks_nor_hides_finite_values() -> None:
    activations = torch.tensor([[[[-torch.inf, -5.0]]], [[[-torch.inf, -torch.inf]]]])
    top = TopK(1, 2)
    best = top.update(activations, torch.arange(2))
    assert best[:, 0].tolist() == [-5.0, -torch.inf]
    assert entries(top.rows()) == [(0, 1, 0, 1, -5.0)]


def test_half_precision_activations_are_kept_exactly() -> None:
    activations = torch.randn(9, 3, 4, 4).to(torch.bfloat16)
    rows = streamed(activations, torch.arange(9), 4, batches=[4]).rows()
    expected = by_sorting(activations.float().numpy(), np.arange(9), 4)
    assert [entry[1:] for entry in entries(rows)] == [entry[1:] for entry in expected]


def test_the_activations_are_only_read() -> None:
    activations = torch.full((4, 3, 2, 2), -0.0)
    top = TopK(3, 2)
    top.update(activations[:2], torch.arange(2))
    top.update(activations[2:], torch.arange(2, 4))
    assert torch.signbit(activations).all()


def test_a_wrong_number_of_channels_is_refused() -> None:
    with pytest.raises(AssertionError, match="expected 2 images of 3 channels"):
        TopK(3, 2).update(torch.zeros(2, 4, 1, 1), torch.arange(2))
