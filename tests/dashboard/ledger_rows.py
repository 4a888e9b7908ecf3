"""Jobs and maps in a real ledger without a network: these functions play the worker."""

from typing import Any

import numpy as np
from sqlalchemy import Connection, insert, select

from db.atlas.store import Atlas
from db.ledger import claims
from db.ledger.claims import Claim
from db.ledger.engine import Ledger, now
from db.ledger.jobs import NewJob
from db.ledger.tables import Attack, Job, SaliencyMap
from db.settings import Settings
from db.stores.results import ResultStore
from workers.requests.attacks import attack_question
from workers.requests.images import label_classes
from workers.requests.keys import content_key, key_in_set
from workers.requests.saliency import map_question


def values_of(image_id: int, *, signed: bool, side: int = 224) -> np.ndarray:
    """Return a map whose values differ at every position."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    heat = np.exp(-8 * ((y - 0.3) ** 2 + (x - 0.1 * (image_id % 10)) ** 2)) + 0.1 * y
    return (heat - (0.4 if signed else 0)).astype(np.float32)


def picture_of(image_id: int, side: int = 224) -> np.ndarray:
    """Return the model's input, as an image."""
    y, x = np.mgrid[0:side, 0:side]
    return np.stack(
        [255 * x / side, 255 * y / side, np.full((side, side), (image_id * 40) % 256)], -1
    ).astype(np.uint8)


def claimed(ledger: Ledger, job: int) -> Claim:
    """Claim the job for a worker of the test, and return the claim."""
    claim = claims.claim_job(ledger, job, worker="host:1", lease=600)
    assert claim is not None
    return claim


def add_map(connection: Connection, settings: Settings, job: int, item: Any, *, signed: bool = False) -> int:
    """Insert a map's row and write its files; return its number."""
    store = ResultStore(settings)
    key = content_key(job, item["position"])
    heat = values_of(item["image_id"], signed=signed)
    asked, image_set = connection.execute(select(Job.parameters, Job.image_set).where(Job.job == job)).one()
    question = map_question("0" * 64, item["image_key"], asked["method"], asked["parameters"], 3)
    return connection.execute(
        insert(SaliencyMap)
        .values(
            key=key, question=question, job=job, model=item["model"], model_digest="0" * 64, image_set=image_set,
            image_id=item["image_id"], image_key=item["image_key"], method=asked["method"], target_class=3,
            target_name="a fish", target_probability=0.25, predicted_class=3, predicted_name="a fish",
            predicted_probability=0.25, samples=25, noise_level=0.15, seed=0, dtype="float32", parameters={},
            agreement=0.5, standard_error=0.01, signed=signed, lowest=float(heat.min()), highest=float(heat.max()),
            height=224, width=224, file=store.write_array("saliency", key, heat),
            standard_error_file=store.write_array("saliency", key + "-se", heat / 10),
            input_file=store.write_picture("inputs", key, picture_of(item["image_id"])), device="cpu", seconds=1.5,
            created=now(),
        )
        .returning(SaliencyMap.map)
    ).scalar_one()  # fmt: skip


def finish_items(
    settings: Settings, ledger: Ledger, claim: Claim, count: int = 10_000, *, signed: bool = False
) -> None:
    """Finish the next `count` items as a worker would."""
    for item in claims.open_items(ledger, claim)[:count]:
        claims.finish_item(
            ledger,
            claim,
            item["item"],
            seconds=1.5,
            store=lambda connection, item=item: add_map(connection, settings, claim.job, item, signed=signed),  # type: ignore[misc]
        )


def attack_keys(atlas: Atlas, new: NewJob) -> dict[tuple[str, int], str]:
    """Return the keys under which a worker stores the attacks of a request, by model and image."""
    keys = {}
    for item in new.items:
        labels = {}
        if new.parameters["relative_to"] == "label":
            labels = label_classes(atlas, item.model, str(new.image_set), [item.image_id])
        digest = next(model["digest"] for model in new.parameters["models"] if model["name"] == item.model)
        question = attack_question(digest, new.parameters, item.image_key, labels.get(item.image_id))
        keys[item.model, item.image_id] = key_in_set(question, str(new.image_set), item.image_id)
    return keys


def add_attack(connection: Connection, job: int, **values: Any) -> int:
    """Insert an attack's row without files, flipped at epsilon 0.01 unless overridden; return its number."""
    number = values.get("image_id", 0)
    found: dict[str, Any] = {
        "model": "synthetic", "model_digest": "0" * 64, "image_set": "painted", "image_id": 0, "image_key": "0" * 64,
        "method": "fgsm", "relative_to": "label", "class_index": 3, "class_name": "a fish", "outcome": "flipped",
        "epsilon": 0.01, "step": 0.001, "cap": 0.5, "minimum": 0.0, "eight_bit": False, "full_scan": False,
        "class_before": 3, "name_before": "a fish", "probability_before": 0.75, "class_after": 5,
        "name_after": "a bird", "probability_after": 0.5, "png_class": 5, "png_name": "a bird",
        "png_probability": 0.5, "png_succeeds": True, "gradient_norm": 1.5, "checked": 11, "successes": [],
        "file": None, "input_file": "results/inputs/none.png", "change_file": None,
        "steps_file": "results/attacks/none.npy", "parameters": {"mode": "smallest"}, "device": "cpu",
        "seconds": 0.5, "created": now(),
    } | values  # fmt: skip
    if found["outcome"] != "flipped":
        found["epsilon"] = None
    found.setdefault(
        "attacked_epsilon",
        {"flipped": found["epsilon"], "resisted": found["cap"], "no_gradient": None}[found["outcome"]],
    )
    found.setdefault("key", content_key(job, number, found["model"], repr(sorted(values.items(), key=str))))
    inserted = insert(Attack).values(job=job, **found).returning(Attack.attack)
    return connection.execute(inserted).scalar_one()
