"""The views over attacks against plain Python, SciPy's Kaplan-Meier estimate and a bootstrap over whole samples."""

import math
import statistics
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from ledger_rows import add_attack
from scipy.stats import CensoredData, ecdf
from sqlalchemy import insert
from synthetic_atlas import add_run, import_pictures, painted_pictures

from dashboard.components.survival import band, survival
from db.atlas.store import Atlas, Query
from db.ledger.engine import Ledger, now
from db.ledger.jobs import NewItem, NewJob, submit_job
from db.ledger.tables import AttackTransfer
from db.queries import attacks as attack_queries
from db.queries import robustness as robustness_queries
from db.queries.federation import AtlasWithLedger
from db.settings import Settings

WAY = "FGSM, leaves the label, step 0.001 to 0.5"
IMAGES = 12


@pytest.fixture
def both(settings: Settings, ledger: Ledger) -> AtlasWithLedger:
    import_pictures(settings, painted_pictures(IMAGES), image_set="painted")
    add_run(settings, image_set="painted")
    submit_job(ledger, NewJob("k", "attack", "batch", "m", "painted", {}, (NewItem("m", 0, "0"),)))
    return AtlasWithLedger(Atlas(settings), ledger)


def fill(ledger: Ledger, found: list[dict[str, Any]]) -> list[int]:
    with ledger.write() as connection:
        return [add_attack(connection, 1, **values) for values in found]


# image, epsilon (None: resisted)
SMALLEST: list[float | None] = [0.0, 0.001, 0.001, 0.003, 0.003, 0.01, 0.02, 0.05, None, None]


def attacks(model: str = "synthetic", shift: int = 0) -> list[dict[str, Any]]:
    return [
        {
            "image_id": image,
            "model": model,
            "outcome": "resisted" if epsilon is None else "flipped",
            "epsilon": epsilon,
            "class_after": 5 + (image + shift) % 3,
            "name_after": f"after {(image + shift) % 3}",
        }
        for image, epsilon in enumerate(SMALLEST[shift:] + SMALLEST[:shift])
    ]


def test_the_curve_equals_scipys_estimate_and_the_page(both: AtlasWithLedger, ledger: Ledger) -> None:
    fill(ledger, attacks())
    rows = both.fetch(robustness_queries.curve("painted", WAY))
    data = CensoredData(
        uncensored=[e for e in SMALLEST if e is not None], right=[0.5 for e in SMALLEST if e is None]
    )
    expected = ecdf(data).sf
    assert [row["epsilon"] for row in rows] == pytest.approx(expected.quantiles)
    assert [row["share"] for row in rows] == pytest.approx(expected.probabilities)
    flipped, censored = (np.array([row[name] for row in rows]) for name in ("flipped", "censored"))
    assert survival(flipped, censored) == pytest.approx([row["share"] for row in rows])
    assert rows[0] == rows[0] | {"epsilon": 0.0, "at_risk": 10, "flipped": 1, "share": pytest.approx(0.9)}


@given(
    counts=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=8).filter(
        lambda pairs: sum(map(sum, pairs)) > 0
    )
)
@hypothesis_settings(deadline=None, max_examples=60)
def test_survival_equals_scipys_under_any_censoring(counts: list[tuple[int, int]]) -> None:
    flipped, censored = np.array(counts).T
    data = CensoredData(
        uncensored=np.repeat(np.arange(len(counts)), flipped),
        right=np.repeat(np.arange(len(counts)), censored),
    )
    expected = ecdf(data).sf
    ours = survival(flipped, censored)
    for place, share in zip(expected.quantiles, expected.probabilities, strict=True):
        assert ours[int(place)] == pytest.approx(share, abs=1e-12)


def test_the_band_is_the_bootstrap_over_images() -> None:
    random = np.random.default_rng(5)
    times = random.integers(1, 6, 80)
    ends = random.random(80) < 0.7
    counted = [np.array([np.sum((times == t) & (ends == e)) for t in range(1, 6)]) for e in (True, False)]
    low, high = band(counted[0], counted[1], draws=4000)
    drawn = []
    for _ in range(4000):  # resampling images one by one
        which = random.integers(0, 80, 80)
        t, e = times[which], ends[which]
        drawn.append(
            survival(*(np.array([np.sum((t == k) & (e == v)) for k in range(1, 6)]) for v in (True, False)))
        )
    expected = np.quantile(drawn, [0.025, 0.975], axis=0)
    assert low == pytest.approx(expected[0], abs=0.03)
    assert high == pytest.approx(expected[1], abs=0.03)
    share = survival(counted[0], counted[1])
    assert np.all((low <= share) & (share <= high))


def test_identical_images_give_no_band() -> None:
    low, high = band(np.array([5]), np.array([0]))
    assert (low.tolist(), high.tolist()) == ([0.0], [0.0])
    low, high = band(np.array([0]), np.array([5]))
    assert (low.tolist(), high.tolist()) == ([1.0], [1.0])


def test_an_image_attacked_again_counts_once_and_a_target_never(
    both: AtlasWithLedger, ledger: Ledger
) -> None:
    old = {"image_id": 0, "epsilon": 0.4, "model_digest": "1" * 64}
    fill(ledger, [old, *attacks(), {"image_id": 1, "relative_to": "target"}])
    rows = both.fetch(Query("SELECT * FROM attacked ORDER BY image_id"))
    assert [row["epsilon"] for row in rows] == SMALLEST
    other = {"image_id": 2, "relative_to": "prediction"}
    fill(ledger, [other])
    ways = both.fetch(robustness_queries.protocols("painted"))
    assert [(way["protocol"], way["attacks"]) for way in ways] == [
        (WAY, 10), ("FGSM, leaves the prediction, step 0.001 to 0.5", 1),
    ]  # fmt: skip


def test_new_rows_are_read(both: AtlasWithLedger, ledger: Ledger) -> None:
    asked = Query("SELECT count(*) AS n FROM attacked")
    assert both.fetch(asked) == [{"n": 0}]
    fill(ledger, attacks()[:3])
    assert both.fetch(asked) == [{"n": 3}]


def test_a_zero_gradient_is_not_robustness(both: AtlasWithLedger, ledger: Ledger) -> None:
    fill(ledger, [*attacks(), {"image_id": 11, "outcome": "no_gradient"}])
    rows = both.fetch(robustness_queries.curve("painted", WAY))
    # known at epsilon 0 only, where it is correct
    assert (rows[0]["at_risk"], rows[0]["censored"], rows[1]["at_risk"]) == (11, 1, 9)
    (row,) = both.fetch(robustness_queries.leaderboard("painted", WAY))
    assert (row["images"], row["no_gradient"], row["wrong_before"]) == (11, 1, 1)


def test_classes_and_flips_are_counted(both: AtlasWithLedger, ledger: Ledger) -> None:
    fill(ledger, attacks())
    images = {row["image_id"]: row for row in both.fetch(Query("SELECT * FROM images"))}
    by_class: dict[str, list[float]] = {}
    pairs: dict[tuple[str, str], int] = {}
    for image, epsilon in enumerate(SMALLEST):
        row = images[image]
        name = "a fish"  # the class that the attack leaves
        if row["wnid"] or row["label"]:
            by_class.setdefault(row["wnid"] or row["label"], []).append(
                math.inf if epsilon is None else epsilon
            )
        if epsilon:  # at 0 it was wrong before any attack
            key = (name, f"after {image % 3}")
            pairs[key] = pairs.get(key, 0) + 1
    found = both.fetch(robustness_queries.by_class("painted", WAY, "synthetic", order="name", limit=None))
    assert {row["class"]: row["images"] for row in found} == {k: len(v) for k, v in by_class.items()}
    for row in found:
        searched = [e for e in by_class[row["class"]] if e > 0]
        median = statistics.median_low(searched) if searched else math.inf
        assert row["median_epsilon"] == (None if math.isinf(median) else median)
        assert row["resisted"] == sum(map(math.isinf, by_class[row["class"]]))
        assert row["wrong_already"] == sum(e == 0 for e in by_class[row["class"]])
    flips = both.fetch(robustness_queries.flips("painted", WAY, "synthetic", limit=None))
    assert {(row["from_class"], row["to_class"]): row["images"] for row in flips} == pairs
    for order in robustness_queries.CLASS_ORDERS:
        rows = both.fetch(robustness_queries.by_class("painted", WAY, "synthetic", order=order, limit=3))
        assert len(rows) == 3


def test_a_curve_of_one_class_is_of_its_images(both: AtlasWithLedger, ledger: Ledger) -> None:
    fill(ledger, attacks())
    row = both.fetch(Query("SELECT coalesce(wnid, label) AS class FROM images WHERE image_id = 3"))[0]
    found = both.fetch(robustness_queries.curve("painted", WAY, image_class=row["class"]))
    strip = both.fetch(robustness_queries.strip("painted", WAY, image_class=row["class"]))
    assert sum(one["flipped"] + one["censored"] for one in found) == len(strip) < len(SMALLEST)


def test_the_leaderboard_is_over_the_images_that_all_have(both: AtlasWithLedger, ledger: Ledger) -> None:
    fill(ledger, attacks())
    fill(ledger, attacks("other", shift=2)[:6])
    rows = {row["model"]: row for row in both.fetch(robustness_queries.leaderboard("painted", WAY))}
    assert {row["images"] for row in rows.values()} == {6}
    for model, smallest in (("synthetic", SMALLEST[:6]), ("other", (SMALLEST[2:] + SMALLEST[:2])[:6])):
        values = [math.inf if e is None else e for e in smallest]
        assert rows[model]["median_epsilon"] == statistics.median_low([v for v in values if v > 0])
        for level in (0, 1, 4, 8):
            share = sum(value > level / 255 for value in values) / 6
            assert rows[model][f"right_at_{level}"] == pytest.approx(share)
    shares = [row["right_at_1"] for row in rows.values()]
    assert shares == sorted(shares, reverse=True), "the most robust model first"


def test_beyond_the_cap_nothing_is_known(both: AtlasWithLedger, ledger: Ledger) -> None:
    fill(ledger, [{"image_id": image, "outcome": "resisted", "cap": 0.01} for image in range(3)])
    (row,) = both.fetch(Query("SELECT * FROM leaderboard"))
    assert (row["right_at_0"], row["right_at_1"], row["right_at_4"], row["right_at_8"]) == (
        1.0,
        1.0,
        None,
        None,
    )
    assert row["median_epsilon"] is None


def test_transfer_counts_those_that_the_judge_had_right(both: AtlasWithLedger, ledger: Ledger) -> None:
    numbers = fill(ledger, attacks()[1:6])
    told = [(True, True), (True, False), (False, True), (None, True), (True, True)]
    with ledger.write() as connection:
        connection.execute(
            insert(AttackTransfer),
            [
                {
                    "attack": number, "judge": "B", "judge_digest": "2" * 64, "job": 1, "class_before": 1,
                    "probability_before": 0.5, "class_after": 2, "probability_after": 0.5, "right_before": right,
                    "moved": moved, "created": now(),
                }
                for number, (right, moved) in zip(numbers, told, strict=True)
            ],
        )  # fmt: skip
    (row,) = both.fetch(robustness_queries.transfers("painted", WAY))
    assert (row["judged"], row["right_before"], row["fooled"]) == (5, 3, 2)
    assert row["share_fooled"] == pytest.approx(2 / 3)
    assert row["share_moved"] == pytest.approx(4 / 5)
    # another digest of the judge's weights gave another result, later
    with ledger.write() as connection:
        connection.execute(
            insert(AttackTransfer).values(
                attack=numbers[0], judge="B", judge_digest="1" * 64, job=1, class_before=1, probability_before=0.5,
                class_after=1, probability_after=0.5, right_before=True, moved=False, created=now(),
            )
        )  # fmt: skip
    # the page of an attack and the view share one rule: the weights with which the judge last judged any image
    assert [one["moved"] for one in attack_queries.attack_transfers(ledger, numbers[0])] == [False]
    assert attack_queries.attack_transfers(ledger, numbers[1]) == []
    (row,) = both.fetch(robustness_queries.transfers("painted", WAY))
    assert (row["judged"], row["right_before"], row["fooled"]) == (1, 1, 0)
