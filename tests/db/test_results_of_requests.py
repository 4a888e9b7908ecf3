"""Revision 0006 gives each result the identity of its request: up, down and up again, with data in the tables."""

import hashlib
import json
from typing import Any

from sqlalchemy import MetaData, Table, insert, select

from db.ledger.engine import Ledger, now
from db.settings import Settings

MOMENT = now()
JOB = {
    "queue": "batch", "state": "done", "models": "m", "parameters": {}, "items": 1, "items_done": 1, "items_failed": 0,
    "progress": 0.0, "attempts": 1, "cancel_requested": False, "created": MOMENT,
}  # fmt: skip
MAP = {
    "model": "m", "model_digest": "d", "image_key": "i", "method": "gradient", "target_class": 1,
    "target_probability": 0.5, "predicted_class": 1, "predicted_probability": 0.5, "samples": 1, "dtype": "float32",
    "parameters": {"a": 1}, "signed": False, "lowest": 0.0, "highest": 1.0, "height": 2, "width": 2,
    "file": "results/f", "input_file": "results/i", "device": "cpu", "seconds": 1.0, "created": MOMENT,
}  # fmt: skip
ATTACK = {
    "model": "m", "model_digest": "d", "image_key": "i", "method": "fgsm", "class_index": 3, "outcome": "flipped",
    "epsilon": 0.1, "step": 0.1, "cap": 0.5, "minimum": 0.0, "eight_bit": False, "full_scan": False, "class_before": 3,
    "probability_before": 0.5, "gradient_norm": 1.0, "checked": 2, "successes": [], "input_file": "results/i",
    "steps_file": "results/s", "parameters": {"cap": 0.5, "step": 0.1}, "device": "cpu", "seconds": 1.0,
    "created": MOMENT,
}  # fmt: skip


def key(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def rows(ledger: Ledger, name: str) -> list[dict[str, Any]]:
    with ledger.read() as connection:
        table = Table(name, MetaData(), autoload_with=connection)
        found = connection.execute(select(table).order_by(*table.primary_key.columns)).mappings()
        return [dict(row) for row in found]


def test_results_keep_their_numbers_and_gain_their_request(ledger_settings: Settings) -> None:
    ledger = Ledger(ledger_settings)
    ledger.migrate("0005")
    with ledger.write() as connection:
        meta = MetaData()

        def add(name: str, *values: dict[str, Any]) -> None:
            connection.execute(insert(Table(name, meta, autoload_with=connection)), list(values))

        # one map shared by jobs over two sets
        add(
            "jobs",
            JOB | {"key": "1", "kind": "saliency", "image_set": "a"},
            JOB | {"key": "2", "kind": "saliency", "image_set": "b"},
        )
        add("saliency_maps", MAP | {"key": "asked", "job": 1, "image_set": "a", "image_id": 4})
        item = {"position": 0, "model": "m", "image_key": "i", "state": "done", "result": 1}
        add("job_items", item | {"job": 1, "image_id": 4}, item | {"job": 2, "image_id": 9})
        score = {
            "deletion_auc": 0.5,
            "insertion_auc": 0.5,
            "deletion": [1.0],
            "insertion": [0.0],
            "seconds": 1.0,
        }
        add("map_scores", score | {"map": 1, "job": 1, "steps": 20, "created": MOMENT})
        add(
            "attacks",
            ATTACK | {"key": "x", "job": 1, "image_set": "a", "image_id": 4, "relative_to": "prediction"},
            ATTACK | {"key": "y", "job": 1, "image_set": "a", "image_id": 5, "relative_to": "target"},
            ATTACK | {"key": "z", "job": 1, "image_set": "a", "image_id": 6, "relative_to": "label"},
        )
        held = {"attack": 1, "channels": 10, "job": 1, "seed": 5, "units": [["l", 1]], "outcome": "resisted"}
        add(
            "attack_ablations",
            held
            | {
                "probability": 0.5,
                "random": [{"epsilon": 1}, {"epsilon": 2}],
                "seconds": 1.0,
                "created": MOMENT,
            },
        )
        said = {"attack": 1, "judge": "j", "judge_digest": "e", "job": 1, "class_before": 1, "class_after": 2}
        add(
            "attack_transfers",
            said | {"probability_before": 0.5, "probability_after": 0.5, "moved": True, "created": MOMENT},
        )
    before = {name: rows(ledger, name) for name in ("jobs", "map_scores", "attack_transfers")}

    for _ in range(2):
        ledger.migrate()
        maps = rows(ledger, "saliency_maps")
        assert [(row["image_set"], row["image_id"], row["question"]) for row in maps] == [
            ("a", 4, "asked"),
            ("b", 9, "asked"),
        ]
        assert [row["key"] for row in maps] == [key("asked", "a", 4), key("asked", "b", 9)]
        assert [row["result"] for row in rows(ledger, "job_items")] == [maps[0]["map"], maps[1]["map"]]
        assert {row["parameters"]["a"] for row in maps} == {1}
        found = rows(ledger, "attacks")
        aim = {
            "method": "fgsm",
            "parameters": ATTACK["parameters"],
            "relative_to": "prediction",
            "target": None,
        }
        asked = key(1, "d", "i", aim, None)
        assert (found[0]["question"], found[0]["key"]) == (asked, key(asked, "a", 4))
        reached = key(1, "d", "i", aim | {"relative_to": "target", "target": 3}, None)
        assert found[1]["question"] == reached
        assert found[2]["question"] == key(1, "d", "i", aim | {"relative_to": "label"}, 3)
        (held_now,) = rows(ledger, "attack_ablations")
        assert (held_now["draws"], held_now["seed"], held_now["random"][1]) == (2, 5, {"epsilon": 2})
        assert (held_now["layer"], held_now["verdict"]) == ("", "cannot_say"), "an earlier rule chose"
        assert rows(ledger, "map_scores") == before["map_scores"]
        assert rows(ledger, "attack_transfers") == before["attack_transfers"]
        assert [row | {"question": None} for row in rows(ledger, "jobs")] == [
            row | {"question": None} for row in before["jobs"]
        ]
        with ledger.write() as connection:  # what only this revision can store
            scores = Table("map_scores", MetaData(), autoload_with=connection)
            connection.execute(
                insert(scores).values(score | {"map": 1, "job": 1, "steps": 50, "created": now()})
            )
        ledger.migrate("0005")
        assert [(row["key"], row["image_set"]) for row in rows(ledger, "saliency_maps")] == [("asked", "a")]
        assert [row["result"] for row in rows(ledger, "job_items")] == [1, 1]
        assert [row["steps"] for row in rows(ledger, "map_scores")] == [50], "the newest"
        with ledger.write() as connection:
            scores = Table("map_scores", MetaData(), autoload_with=connection)
            connection.execute(scores.update().values(steps=20, created=MOMENT))
    ledger.close()
