"""Many jobs in a ledger, inserted at once."""

from datetime import timedelta
from typing import Any

from sqlalchemy import insert, update

from db.ledger.engine import Ledger, now
from db.ledger.tables import Job, JobItem


def add_jobs(ledger: Ledger, count: int, **values: Any) -> None:
    """Insert jobs of two items, all done unless overridden; the n-th was submitted n seconds after the first."""
    start = now() - timedelta(hours=10)
    common = {
        "kind": "saliency", "queue": "batch", "state": "done", "models": "synthetic", "image_set": "painted",
        "parameters": {
            "method": "gradient", "target": "prediction", "ids": [0, 1], "parameters": {"noise_level": 0.15},
        },
        "items": 2, "items_done": 2, "attempts": 1, "worker": "host:1",
    } | values  # fmt: skip
    ended = common["state"] in ("done", "failed", "cancelled")
    rows = [
        common
        | {
            "key": f"{common['kind']} {common['state']} {number}",
            "created": start + timedelta(seconds=number),
            "finished": start + timedelta(seconds=number + 1) if ended else None,
        }
        for number in range(count)
    ]
    with ledger.write() as connection:
        made = connection.execute(insert(Job).returning(Job.job), rows).scalars().all()
        items = [
            {
                "job": job,
                "position": place,
                "image_id": place,
                "model": "synthetic",
                "image_key": "0" * 64,
                "state": "queued",
            }
            for job in made
            for place in range(2)
        ]
        connection.execute(insert(JobItem), items)


def change_job(ledger: Ledger, job: int, **values: Any) -> None:
    """Change columns of a job's row, as its worker would."""
    with ledger.write() as connection:
        connection.execute(update(Job).where(Job.job == job).values(**values))
