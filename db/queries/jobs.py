"""Queries for jobs, their items, maps and workers. All functions are read-only and return plain records."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, func, select

from db.ledger.engine import Ledger, present
from db.ledger.jobs import NoSuchJob, Record
from db.ledger.tables import UNFINISHED, ImageImport, Job, JobItem, MapScore, SaliencyMap, Worker

# A worker without a heartbeat for this long is reported as silent; heartbeats come every two seconds.
SILENT_SECONDS = 15.0
FORGET_SECONDS = 24 * 3600.0


def jobs(
    ledger: Ledger,
    *,
    states: Sequence[str] = (),
    kinds: Sequence[str] = (),
    model: str = "",
    image_set: str = "",
    limit: int = 100,
    offset: int = 0,
) -> list[Record]:
    """Jobs, newest first; empty filters are ignored. Each row has `item_seconds`, `seconds_left` and `age`.

    `seconds_left` estimates the remaining items from the mean time of the finished ones; None if none has
    finished.
    """
    wanted = _filtered(select(Job.__table__), states, kinds, model, image_set)
    wanted = wanted.order_by(Job.job.desc()).limit(limit).offset(offset)
    with ledger.read() as connection:
        found = [dict(row) for row in connection.execute(wanted).mappings()]
        paces = connection.execute(
            select(JobItem.job, func.avg(JobItem.seconds))
            .where(JobItem.job.in_([row["job"] for row in found]), JobItem.state == "done")
            .group_by(JobItem.job)
        ).all()
        moment = present(connection)
    pace = {number: seconds for number, seconds in paces}  # noqa: C416  # mypy does not accept rows as pairs
    return [_with_pace(row, pace.get(row["job"]), moment) for row in found]


def count_jobs(
    ledger: Ledger,
    *,
    states: Sequence[str] = (),
    kinds: Sequence[str] = (),
    model: str = "",
    image_set: str = "",
) -> int:
    """Number of jobs that `jobs` would list without a limit."""
    wanted = _filtered(select(func.count()).select_from(Job), states, kinds, model, image_set)
    with ledger.read() as connection:
        return int(connection.execute(wanted).scalar_one())


def job_counts(ledger: Ledger) -> dict[str, int]:
    """Jobs by state; states without jobs are left out."""
    with ledger.read() as connection:
        rows = connection.execute(select(Job.state, func.count()).group_by(Job.state)).all()
    return {state: count for state, count in rows}  # noqa: C416  # mypy does not accept rows as pairs


def _filtered(
    wanted: Select[Any], states: Sequence[str], kinds: Sequence[str], model: str, image_set: str
) -> Select[Any]:
    if states:
        wanted = wanted.where(Job.state.in_(states))
    if kinds:
        wanted = wanted.where(Job.kind.in_(kinds))
    if image_set:
        wanted = wanted.where(Job.image_set == image_set)
    if model:
        # match whole names in a list joined by ", "
        wanted = wanted.where((", " + Job.models + ", ").contains(f", {model}, ", autoescape=True))
    return wanted


def job(ledger: Ledger, number: int) -> Record:
    """One job, as in `jobs`.

    Raises:
        NoSuchJob: there is no job with that number.
    """
    with ledger.read() as connection:
        row = connection.execute(select(Job.__table__).where(Job.job == number)).mappings().one_or_none()
        if row is None:
            raise NoSuchJob(f"there is no job {number}")
        pace = connection.execute(
            select(func.avg(JobItem.seconds)).where(JobItem.job == number, JobItem.state == "done")
        ).scalar()
        moment = present(connection)
    return _with_pace(dict(row), pace, moment)


def job_with_key(ledger: Ledger, key: str) -> Record | None:
    """The job of a request, by the key of its content (`NewJob.key`); None if it was never submitted."""
    with ledger.read() as connection:
        number = connection.execute(select(Job.job).where(Job.key == key)).scalar_one_or_none()
    return None if number is None else job(ledger, number)


def _with_pace(row: Record, item_seconds: float | None, moment: datetime) -> Record:
    remaining = row["items"] - row["items_done"] - row["items_failed"] - row["progress"]
    ended = row["finished"] is not None
    return row | {
        "item_seconds": item_seconds,
        "seconds_left": None if item_seconds is None or ended else max(0.0, remaining * item_seconds),
        "age": (moment - row["created"]).total_seconds(),
        "silent": row["state"] == "running"
        and row["lease_until"] is not None
        and row["lease_until"] < moment,
    }


def job_items(ledger: Ledger, number: int, *, limit: int = 1_000_000, offset: int = 0) -> list[Record]:
    """A job's items from position `offset` on; `result` is a row number in the result table of the job's kind."""
    with ledger.read() as connection:
        rows = connection.execute(
            select(JobItem.__table__)
            .where(JobItem.job == number, JobItem.position.between(offset, offset + limit - 1))
            .order_by(JobItem.position)
        )
        return [dict(row) for row in rows.mappings()]


def job_maps(
    ledger: Ledger, number: int, *, steps: int, limit: int = 1_000_000, offset: int = 0
) -> list[Record]:
    """The maps of a job's items from position `offset` on, with their `position` and, if available, scores.

    Scores are of curves with that many steps. The curves themselves are left out (see `saliency_map`),
    because a page requests many maps every second.
    """
    with ledger.read() as connection:
        rows = connection.execute(
            select(
                JobItem.position,
                JobItem.model.label("asked_model"),
                SaliencyMap.__table__,
                MapScore.steps,
                MapScore.deletion_auc,
                MapScore.insertion_auc,
            )
            .join(SaliencyMap, SaliencyMap.map == JobItem.result)
            .outerjoin(MapScore, (MapScore.map == SaliencyMap.map) & (MapScore.steps == steps))
            .where(JobItem.job == number, JobItem.position.between(offset, offset + limit - 1))
            .order_by(JobItem.position)
        )
        return [named_as_asked(dict(row)) for row in rows.mappings()]


def named_as_asked(row: Record) -> Record:
    """A result renamed to the model name in its item: models with the same digest share their results."""
    asked = row.pop("asked_model")
    return row | {"model": asked}


def maps_of_images(
    ledger: Ledger, image_set: str, ids: Sequence[int], *, method: str, digests: Sequence[str], steps: int
) -> list[Record]:
    """Maps of a set's images by a method under models with these digests, with scores as in `job_maps`."""
    with ledger.read() as connection:
        rows = connection.execute(
            select(SaliencyMap.__table__, MapScore.steps, MapScore.deletion_auc, MapScore.insertion_auc)
            .outerjoin(MapScore, (MapScore.map == SaliencyMap.map) & (MapScore.steps == steps))
            .where(
                SaliencyMap.image_set == image_set,
                SaliencyMap.image_id.in_(ids),
                SaliencyMap.method == method,
                SaliencyMap.model_digest.in_(digests),
            )
            .order_by(SaliencyMap.map)
        )
        return [dict(row) for row in rows.mappings()]


def saliency_map(ledger: Ledger, number: int, *, steps: int) -> Record | None:
    """One map, with its curves of that many steps if available; None if there is no map with that number."""
    with ledger.read() as connection:
        row = connection.execute(
            select(
                SaliencyMap.__table__,
                MapScore.steps,
                MapScore.deletion_auc,
                MapScore.insertion_auc,
                MapScore.deletion,
                MapScore.insertion,
            )
            .outerjoin(MapScore, (MapScore.map == SaliencyMap.map) & (MapScore.steps == steps))
            .where(SaliencyMap.map == number)
        ).mappings()
        found = row.one_or_none()
    return None if found is None else dict(found)


def scored_steps(ledger: Ledger, number: int) -> list[int]:
    """The distinct step counts for which a map has curves."""
    with ledger.read() as connection:
        asked = select(MapScore.steps).where(MapScore.map == number).order_by(MapScore.steps)
        return list(connection.execute(asked).scalars())


def unfinished_uploads(ledger: Ledger) -> set[str]:
    """Keys of the uploads that unfinished jobs need."""
    with ledger.read() as connection:
        rows = connection.execute(
            select(Job.parameters).where(Job.kind == "import", Job.state.in_(UNFINISHED))
        ).scalars()
        return {str(asked["upload"]) for asked in rows if "upload" in asked}


def image_import(ledger: Ledger, job: int) -> Record | None:
    """The result of an import job; None if it is not done."""
    with ledger.read() as connection:
        row = connection.execute(
            select(ImageImport.__table__)
            .where(ImageImport.job == job)
            .order_by(ImageImport.image_import.desc())
        ).mappings()
        found = row.first()
    return None if found is None else dict(found)


def workers(ledger: Ledger) -> list[Record]:
    """Workers with a heartbeat in the last day, most recent first; `silent` if the heartbeat is too old."""
    with ledger.read() as connection:
        moment = present(connection)
        rows = connection.execute(
            select(Worker.__table__)
            .where(Worker.seen > moment - timedelta(seconds=FORGET_SECONDS))
            .order_by(Worker.started)
        )
        found = [dict(row) for row in rows.mappings()]
    return [row | {"silent": (moment - row["seen"]).total_seconds() > SILENT_SECONDS} for row in found]
