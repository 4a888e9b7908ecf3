"""Number formatting, the cache, and names of elements."""

from datetime import datetime

import pytest

from dashboard.components import formatting
from dashboard.state.cache import Cache
from dashboard.state.ids import make_id


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (12.3456, "12.35"), (0.25, "0.25"), (1204.4, "1,204"), (0.00042, "4.20e-04"), (0.0, "0"), (None, "–"),
        (float("nan"), "nan"), (-3.14159, "-3.142"),
    ],
)  # fmt: skip
def test_activations_have_four_digits(value: float | None, shown: str) -> None:
    assert formatting.activation(value) == shown


@pytest.mark.parametrize(
    ("share", "shown"), [(1.0, "100 %"), (0.65, "65 %"), (0.05, "5.0 %"), (0.0002, "< 0.1 %"), (0.0, "0.0 %")]
)
def test_small_shares_are_not_zero(share: float, shown: str) -> None:
    assert formatting.percent(share) == shown


def test_lengths_times_and_counts_read_well() -> None:
    assert formatting.pixels((43, 43)) == "43 px"
    assert formatting.pixels((43, 21)) == "43 × 21 px"
    assert formatting.pixels((None, None)) == "global"
    assert (formatting.count(1, "image"), formatting.count(1000, "image"), formatting.count(2, "class")) == (
        "1 image", "1,000 images", "2 classes",
    )  # fmt: skip
    assert (formatting.byte_size(999), formatting.byte_size(23_456), formatting.byte_size(None)) == (
        "999 bytes",
        "23 kB",
        "–",
    )
    assert formatting.byte_size(5_000_000_000) == "5.0 GB"
    assert formatting.when(datetime(2026, 1, 2, 3, 4)) == "2026-01-02 03:04 UTC"
    assert (formatting.duration(12.34), formatting.duration(600), formatting.duration(7200)) == (
        "12.3 s",
        "10 min",
        "2.0 h",
    )


def test_a_receptive_field_is_shown_as_precisely_as_it_is_known() -> None:
    layer = {"rf_global": False, "rf_exact": True, "rf_size_y": 43, "rf_size_x": 43}
    assert formatting.field_size(layer) == "43 px"
    assert formatting.field_size(layer | {"rf_exact": False}) == "≤ 43 px"
    assert formatting.field_size(layer | {"rf_global": True}) == "global"


def test_a_box_of_nothing_is_padding() -> None:
    assert formatting.box_words({"y0": 0, "y1": 4, "x0": 2, "x1": 9}) == "y 0–4, x 2–9 px"
    assert formatting.box_words({"y0": 0, "y1": 0, "x0": 2, "x1": 9}) == "in the padding"


def test_a_cache_evicts_the_least_recently_used_entry() -> None:
    cache: Cache[str, bytes] = Cache(10, len)
    cache.put("a", b"1234")
    cache.put("b", b"1234")
    assert cache.get("a") == b"1234"
    cache.put("c", b"1234")
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (b"1234", None, b"1234")
    cache.put("huge", b"x" * 11)
    assert len(cache) == 0
    cache.put("a", b"12")
    cache.put("a", b"1234567890")
    assert len(cache) == 1


def test_an_element_id_contains_page_and_selection() -> None:
    assert make_id("patches", "k") == "patches-k"
    with pytest.raises(ValueError, match="without a hyphen"):
        make_id("patches", "top-k")


@pytest.mark.parametrize(
    ("number", "noun", "shown"),
    [(1, "other", "1 other"), (2, "other", "2 others"), (0, "image", "0 images"), (1000, "class", "1,000 classes"),
     (1, "class", "1 class"), (3, "patch", "3 patches")],
)  # fmt: skip
def test_a_count_of_one_is_singular(number: int, noun: str, shown: str) -> None:
    assert formatting.count(number, noun) == shown
