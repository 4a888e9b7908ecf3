"""A small set of attacks with hand-computed answers, and larger random sets against plain counting."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from ledger_rows import add_attack
from sqlalchemy import insert
from synthetic_atlas import add_run, import_pictures, painted_pictures

from db.atlas.store import Atlas, Query
from db.ledger.engine import Ledger, now
from db.ledger.jobs import NewItem, NewJob, submit_job
from db.ledger.tables import AttackTransfer
from db.queries import robustness as asked
from db.queries.federation import AtlasWithLedger
from db.settings import Settings

LABEL = "FGSM, leaves the label, step 0.001 to 0.5"
PREDICTION = "FGSM, leaves the prediction, step 0.001 to 0.5"
FIXED = "FGSM, leaves the label, epsilon 0.015686"
KEPT = "FGSM, leaves the prediction, epsilon 0.2"
Row = dict[str, Any]
FOUR = 4 / 255


def changed(image: int, epsilon: float, **more: Any) -> Row:
    # two classes with the same name must not be merged
    left = 3 + image % 2
    return {"image_id": image, "epsilon": epsilon, "class_index": left, "class_name": "crane", "class_before": left,
            "name_before": "crane", "class_after": 9, "name_after": "bird"} | more  # fmt: skip


def wrong(image: int, **more: Any) -> Row:
    return changed(image, 0.0, class_before=7, name_before="fish", class_after=7, name_after="fish") | more


def resisted(image: int, **more: Any) -> Row:
    return changed(image, 0.0) | {"outcome": "resisted"} | more


# Ten images with a label: 8 correct; 5 change, 2 resist, 1 has no gradient. Image 6 has no label.
BY_LABEL = [
    changed(0, 0.002), changed(1, 0.010), wrong(2), wrong(3), resisted(4), resisted(5) | {"outcome": "no_gradient"},
    changed(7, 0.03), changed(8, 0.5), changed(9, 0.004), resisted(10),
]  # fmt: skip
LEAVES = {"relative_to": "prediction"}
BY_PREDICTION = [
    changed(0, 0.002, **LEAVES), changed(2, 0.005, **LEAVES), resisted(3, **LEAVES), changed(6, 0.001, **LEAVES),
]  # fmt: skip
AT_FOUR = {"step": FOUR, "cap": FOUR, "minimum": FOUR, "parameters": {"mode": "fixed", "epsilon": FOUR}}
BY_FIXED = [
    changed(0, FOUR, **AT_FOUR), changed(1, FOUR, **AT_FOUR), wrong(2, **AT_FOUR), resisted(4, **AT_FOUR),
    resisted(10, **AT_FOUR),
]  # fmt: skip
AT_FIFTH = LEAVES | {"step": 0.2, "cap": 0.2, "minimum": 0.2, "parameters": {"mode": "fixed", "epsilon": 0.2}}
BY_KEPT = [changed(0, 0.2, **AT_FIFTH), resisted(1, **AT_FIFTH), changed(2, 0.2, **AT_FIFTH)]
TARGETED = [changed(0, 0.05, relative_to="target"), changed(1, 0.0, relative_to="target")]


@pytest.fixture
def both(settings: Settings, ledger: Ledger) -> AtlasWithLedger:
    import_pictures(settings, painted_pictures(12), image_set="painted")
    add_run(settings, image_set="painted")
    submit_job(ledger, NewJob("k", "attack", "batch", "m", "painted", {}, (NewItem("m", 0, "0"),)))
    return AtlasWithLedger(Atlas(settings), ledger)


def fill(ledger: Ledger, found: list[Row]) -> list[int]:
    with ledger.write() as connection:
        return [add_attack(connection, 1, **values) for values in found]


@pytest.fixture
def filled(both: AtlasWithLedger, ledger: Ledger) -> AtlasWithLedger:
    fill(ledger, [*BY_LABEL, *BY_PREDICTION, *BY_FIXED, *BY_KEPT, *TARGETED])
    return both


def test_protocols_are_apart_and_targeted_attacks_are_in_none(filled: AtlasWithLedger) -> None:
    found = {row["protocol"]: row for row in filled.fetch(asked.protocols("painted"))}
    told = {name: (row["attacks"], row["measure"], row["fixed"]) for name, row in found.items()}
    assert told == {
        LABEL: (10, "robust accuracy", False), PREDICTION: (4, "prediction kept", False),
        FIXED: (5, "robust accuracy", True), KEPT: (3, "prediction kept", True),
    }  # fmt: skip
    assert (found[LABEL]["lowest"], found[FIXED]["lowest"]) == (0.001, FOUR)


def test_outcomes_are_counted(filled: AtlasWithLedger) -> None:
    names = ("images", "wrong_before", "changed", "resisted", "no_gradient")
    for protocol, expected in (
        (LABEL, (10, 2, 5, 2, 1)), (PREDICTION, (4, None, 3, 1, 0)), (FIXED, (5, 1, 2, 2, 0)),
        (KEPT, (3, None, 2, 1, 0)),
    ):  # fmt: skip
        (row,) = filled.fetch(asked.outcomes("painted", protocol))
        assert tuple(row[name] for name in names) == expected


def test_curves_begin_at_the_clean_accuracy(filled: AtlasWithLedger) -> None:
    def curve(protocol: str) -> dict[float, float]:
        return {row["epsilon"]: row["share"] for row in filled.fetch(asked.curve("painted", protocol))}

    # 8 of 10 correct; of the 7 with a gradient, 5 change one by one, and 2 resist
    assert curve(LABEL) == pytest.approx(
        {
            0: 0.8,
            0.002: 0.8 * 6 / 7,
            0.004: 0.8 * 5 / 7,
            0.01: 0.8 * 4 / 7,
            0.03: 0.8 * 3 / 7,
            0.5: 0.8 * 2 / 7,
        }
    )
    assert curve(PREDICTION) == pytest.approx({0: 1, 0.001: 3 / 4, 0.002: 2 / 4, 0.005: 1 / 4, 0.5: 1 / 4})
    assert curve(FIXED) == pytest.approx({0: 4 / 5, FOUR: 2 / 5})
    assert curve(KEPT) == pytest.approx({0: 1, 0.2: 1 / 3})


def test_the_leaderboard_never_mixes_right_and_kept(filled: AtlasWithLedger) -> None:
    rows = {row["protocol"]: row for row in filled.fetch(Query("SELECT * FROM leaderboard"))}
    names = ("right_at_0", "right_at_1", "right_at_4", "right_at_8", "kept_at_1", "kept_at_4", "kept_at_8",
             "median_epsilon")  # fmt: skip
    for protocol, expected in (
        (LABEL, (0.8, 0.8 * 6 / 7, 0.8 * 4 / 7, 0.8 * 3 / 7, None, None, None, 0.03)),
        (PREDICTION, (None, None, None, None, 2 / 4, 1 / 4, 1 / 4, 0.002)),
        # a single epsilon says nothing about others and has no median
        (FIXED, (0.8, None, 2 / 5, None, None, None, None, None)),
        (KEPT, (None,) * 8),
    ):
        assert [rows[protocol][name] for name in names] == pytest.approx(list(expected)), protocol


def test_an_image_wrong_before_is_not_changed(filled: AtlasWithLedger) -> None:
    flips = filled.fetch(asked.flips("painted", LABEL, "synthetic", limit=None))
    ways = {
        (row["from_index"], row["from_class"], row["to_index"], row["to_class"]): row["images"]
        for row in flips
    }
    assert ways == {(3, "crane", 9, "bird"): 2, (4, "crane", 9, "bird"): 3}
    assert flips[0]["median_epsilon"] == 0.01
    (flip, _) = filled.fetch(asked.flips("painted", FIXED, "synthetic", limit=None))
    assert flip["median_epsilon"] is None
    # image 2 is wrong before the attack; under the other protocol its prediction is the class to leave
    kept = filled.fetch(asked.flips("painted", PREDICTION, "synthetic", limit=None))
    assert sum(row["images"] for row in kept) == 3
    points = filled.fetch(asked.strip("painted", LABEL))
    assert {row["image_id"] for row in points} == {0, 1, 4, 7, 8, 9, 10}
    at_zero = filled.fetch(asked.at_epsilon("painted", LABEL, "synthetic", 0.0))
    assert [(row["image_id"], row["verdict"]) for row in at_zero] == [
        (2, "wrong_before"),
        (3, "wrong_before"),
    ]
    at_cap = filled.fetch(asked.at_epsilon("painted", LABEL, "synthetic", 0.5))
    assert [(row["image_id"], row["verdict"]) for row in at_cap] == [
        (8, "changed"),
        (4, "resisted"),
        (10, "resisted"),
    ]


def test_transfer_is_of_images_that_the_attack_changed(both: AtlasWithLedger, ledger: Ledger) -> None:
    numbers = dict(zip([row["image_id"] for row in BY_LABEL], fill(ledger, BY_LABEL), strict=True))
    # image: (correct before, changed). 4 resisted and 2 was wrong before: neither fooled its own model
    told = {
        0: (True, True),
        1: (True, False),
        4: (True, True),
        2: (True, True),
        7: (None, True),
        9: (False, True),
    }
    with ledger.write() as connection:
        for image, (right, moved) in told.items():
            connection.execute(
                insert(AttackTransfer).values(
                    attack=numbers[image], judge="B", judge_digest="2" * 64, job=1, class_before=1,
                    probability_before=0.5, class_after=2, probability_after=0.5, right_before=right, moved=moved,
                    created=now(),
                )
            )  # fmt: skip
    (row,) = both.fetch(asked.transfers("painted", LABEL))
    assert row == {
        "model": "synthetic", "judge": "B", "judged": 4, "labelled": 3, "right_before": 2, "fooled": 1,
        "share_fooled": 0.5, "share_moved": 0.75,
    }  # fmt: skip


def test_attacks_of_other_weights_or_other_iterations_are_apart(
    both: AtlasWithLedger, ledger: Ledger
) -> None:
    pgd = {"method": "pgd", "parameters": {"mode": "smallest", "steps": 10, "step_size": 0.25, "seed": 0}}
    more = pgd | {"parameters": pgd["parameters"] | {"steps": 40}}  # type: ignore[operator]
    late = {"minimum": 0.1}
    fill(
        ledger,
        [changed(0, 0.3, model_digest="1" * 64), changed(1, 0.3, model_digest="1" * 64), changed(0, 0.002)],
    )
    fill(ledger, [changed(0, 0.002, **pgd), changed(0, 0.001, **more), changed(0, 0.1, **late)])
    found = {row["protocol"]: row["attacks"] for row in both.fetch(asked.protocols("painted"))}
    assert found == {
        LABEL: 1,
        f"{LABEL}, from 0.1": 1,
        LABEL.replace("FGSM", "PGD") + ", 10 iterations of 0.25 epsilon, seed 0": 1,
        LABEL.replace("FGSM", "PGD") + ", 40 iterations of 0.25 epsilon, seed 0": 1,
    }
    rows = {row["protocol"]: row for row in both.fetch(Query("SELECT * FROM leaderboard"))}
    assert rows[LABEL]["right_at_1"] == 0
    assert rows[f"{LABEL}, from 0.1"]["right_at_8"] is None, "nothing was looked at below 0.1"
    assert rows[f"{LABEL}, from 0.1"]["right_at_0"] == 1


def test_a_grid_too_coarse_for_a_level_gives_null(both: AtlasWithLedger, ledger: Ledger) -> None:
    coarse = {"step": 0.02, "cap": 0.5}
    geometric = {"step": 1 / 4080, "cap": 0.5, "grid": "geometric", "ratio": 1.2, "parts": 16}
    wide = geometric | {"ratio": 3.0}
    fill(ledger, [changed(0, 0.04, **coarse), changed(1, 0.02, **coarse)])
    fill(
        ledger, [changed(0, 0.0002451, **geometric), resisted(1, **geometric), changed(2, 0.004, **geometric)]
    )
    fill(ledger, [changed(0, 0.004, **wide)])
    rows = {row["protocol"]: row for row in both.fetch(Query("SELECT * FROM leaderboard"))}
    names = ("right_at_0", "right_at_1", "right_at_4", "right_at_8")
    told = {protocol: [row[name] for name in names] for protocol, row in rows.items()}
    assert told == {
        # the largest epsilons tried up to 0.0039, 0.0157 and 0.0314 are 0, 0 and 0.02
        "FGSM, leaves the label, step 0.02 to 0.5": [1, None, None, None],
        "FGSM, leaves the label, ratio 1.2 in 16 to 0.5": pytest.approx([1, 2 / 3, 1 / 3, 1 / 3]),
        # 9, 27 and 81 sixteenths of a level, of 16, 64 and 128
        "FGSM, leaves the label, ratio 3.0 in 16 to 0.5": [1, None, None, None],
    }
    lowest = both.fetch(Query("SELECT DISTINCT lowest, highest, fixed FROM attacked WHERE grid_ratio = 1.2"))
    assert lowest == [{"lowest": pytest.approx(1 / 4080), "highest": 0.5, "fixed": False}]


@pytest.mark.parametrize("seed", range(4))
def test_every_number_equals_a_count(both: AtlasWithLedger, ledger: Ledger, seed: int) -> None:
    random = np.random.default_rng(seed)
    rows: list[Row] = []
    for model in ("A", "B"):
        for relative in ("label", "prediction"):
            for image in random.permutation(12)[: random.integers(5, 12)].tolist():
                kind = random.choice(["changed", "resisted", "no_gradient", "wrong"], p=[0.6, 0.2, 0.1, 0.1])
                epsilon = 0.001 * float(random.integers(1, 60))
                row = {
                    "changed": changed(image, epsilon), "resisted": resisted(image),
                    "no_gradient": resisted(image) | {"outcome": "no_gradient"},
                    "wrong": wrong(image) if relative == "label" else resisted(image),
                }[kind]  # fmt: skip
                rows.append(row | {"model": model, "relative_to": relative})
    fill(ledger, rows)
    images = {row["image_id"]: row for row in both.fetch(Query("SELECT * FROM images"))}
    for relative, protocol in (("label", LABEL), ("prediction", PREDICTION)):
        mine = [row for row in rows if row["relative_to"] == relative]
        everywhere = set.intersection(*({r["image_id"] for r in mine if r["model"] == m} for m in ("A", "B")))
        curves = both.fetch(asked.curve("painted", protocol))
        board = {row["model"]: row for row in both.fetch(asked.leaderboard("painted", protocol))}
        assert bool(board) == bool(everywhere)
        for model in ("A", "B"):
            own = [row for row in mine if row["model"] == model]
            for row in curves:
                if row["model"] == model:
                    assert row["share"] == pytest.approx(share(own, row["epsilon"]))
            for name, level in (
                ("right", 1),
                ("right", 4),
                ("right", 8),
                ("kept", 1),
                ("kept", 4),
                ("kept", 8),
            ):
                if board:
                    common = [row for row in own if row["image_id"] in everywhere]
                    expected = (
                        share(common, level / 255) if (name == "right") == (relative == "label") else None
                    )
                    assert board[model][f"{name}_at_{level}"] == pytest.approx(expected)
                    assert board[model]["median_epsilon"] == median(common)
            flips = both.fetch(asked.flips("painted", protocol, model, limit=None))
            assert {(r["from_index"], r["to_index"]): r["images"] for r in flips} == Counter(
                (r["class_index"], r["class_after"]) for r in own if kind_of(r) == "changed"
            )
            for row in both.fetch(asked.by_class("painted", protocol, model, order="name", limit=None)):
                of = [
                    r
                    for r in own
                    if (images[r["image_id"]]["wnid"] or images[r["image_id"]]["label"]) == row["class"]
                ]
                kinds = Counter(map(kind_of, of))
                assert (row["images"], row["flipped"], row["resisted"], row["no_gradient"]) == (
                    len(of), kinds["changed"], kinds["resisted"], kinds["no_gradient"],
                )  # fmt: skip
                assert row["wrong_already"] == (kinds["wrong"] if relative == "label" else None)
                assert row["median_epsilon"] == median(of)


def kind_of(row: Row) -> str:
    if row.get("outcome"):
        return str(row["outcome"])
    return "changed" if row["epsilon"] else "wrong"


def share(rows: list[Row], epsilon: float) -> float | None:
    """Share correct before, times the share of those with a gradient that no epsilon up to `epsilon` changed."""
    kinds = [kind_of(row) for row in rows]
    right = 1 - kinds.count("wrong") / len(rows)
    searched = [row for row in rows if kind_of(row) in ("changed", "resisted")]
    hit = sum(kind_of(row) == "changed" and row["epsilon"] <= epsilon + 1e-12 for row in searched)
    if epsilon == 0 or not right:
        return right
    return right * (1 - hit / len(searched)) if searched else None


def median(rows: list[Row]) -> float | None:
    """Lower median of the smallest epsilons of images that were not wrong before; None beyond the cap."""
    found = sorted(row["epsilon"] if kind_of(row) == "changed" else math.inf for row in rows
                   if kind_of(row) in ("changed", "resisted"))  # fmt: skip
    return None if not found or math.isinf(found[(len(found) - 1) // 2]) else found[(len(found) - 1) // 2]
