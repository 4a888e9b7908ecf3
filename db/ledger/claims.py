"""A claim on a job: one worker's attempt, with its lease, its items and its end; and the sweep of lapsed claims.

Every write names the claim, so a worker that lost its lease cannot write anything.
"""

import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, or_, select, update

from db.ledger.engine import Ledger, moment
from db.ledger.jobs import Record, move
from db.ledger.leases import Heartbeat, Leases
from db.ledger.tables import Job, JobItem

MAX_BACKOFF = 60.0
MAX_PAUSE = 3600.0  # of a job that waits for a resource in use, or for disk space
ERROR_LENGTH = 1000
TRACEBACK_LENGTH = 20_000


class ItemEnded(RuntimeError):
    """The item has already ended: a database may commit a transaction and disconnect before confirming it."""


class LostClaim(RuntimeError):
    """The worker lost the job: its lease lapsed, and another worker may be running it."""


@dataclass(frozen=True)
class Claim:
    """One worker's attempt at a job. Nothing is written without a claim."""

    job: int
    claim: str
    kind: str
    queue: str
    parameters: Mapping[str, Any]
    attempts: int


def claim_job(ledger: Ledger, job: int, *, worker: str, lease: float) -> Claim | None:
    """Claim a queued job for `worker`; None if the job cannot be claimed."""
    claim = str(uuid.uuid4())
    with ledger.write() as connection:
        present = moment(connection)
        taken = move(
            connection,
            job,
            "running",
            _is_due(present),
            claim=claim,
            worker=worker,
            lease_until=present + timedelta(seconds=lease),
            attempts=Job.attempts + 1,
            started=func.coalesce(Job.started, present),
            not_before=None,
        )
        if not taken:
            return None
        row = connection.execute(
            select(Job.kind, Job.queue, Job.parameters, Job.attempts).where(Job.job == job)
        ).one()
    return Claim(job, claim, row.kind, row.queue, row.parameters, row.attempts)


def next_interactive(ledger: Ledger, *, but: Collection[str] = ()) -> int | None:
    """The interactive job that has waited longest, among queued jobs of kinds not in `but`; None if there is none."""
    with ledger.read() as connection:
        return connection.execute(
            select(Job.job)
            .where(
                Job.state == "queued",
                Job.queue == "interactive",
                _is_due(moment(connection)),
                Job.kind.not_in(but),
            )
            .order_by(Job.job)
            .limit(1)
        ).scalar_one_or_none()


def _is_due(present: Any) -> ColumnElement[bool]:
    """Whether a job's pause is over; a pause longer than the maximum dates from before a clock was set back."""
    return or_(
        Job.not_before.is_(None),
        Job.not_before <= present,
        Job.not_before > present + timedelta(seconds=MAX_PAUSE + 60),
    )


def renew(ledger: Ledger, claim: Claim, *, lease: float, progress: float, note: str | None = None) -> bool:
    """Send a heartbeat with the current item's progress and note; returns whether cancellation was requested.

    Raises:
        LostClaim: the worker lost the job.
    """
    with ledger.write() as connection:
        row = connection.execute(
            update(Job)
            .where(*_held(claim))
            .values(lease_until=moment(connection) + timedelta(seconds=lease), progress=progress, note=note)
            .returning(Job.cancel_requested)
        ).one_or_none()
    if row is None:
        raise LostClaim(f"job {claim.job} was reassigned to another worker")
    return bool(row.cancel_requested)


def _held(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    return (Job.job == claim.job, Job.claim == claim.claim, Job.state == "running")


def open_items(ledger: Ledger, claim: Claim) -> list[Record]:
    """The queued items, in order."""
    with ledger.read() as connection:
        rows = connection.execute(
            select(JobItem.__table__)
            .where(JobItem.job == claim.job, JobItem.state == "queued")
            .order_by(JobItem.position)
        )
        return [dict(row) for row in rows.mappings()]


def finish_item(
    ledger: Ledger,
    claim: Claim,
    item: int,
    *,
    seconds: float,
    store: Callable[[Connection], int | None],
    value: Any = None,
) -> None:
    """Store an item's result and mark the item done, in one transaction.

    `store` writes the result's row and returns its number, or None if it writes none; `value` is stored as
    JSON.

    Raises:
        LostClaim: the worker lost the job; nothing is stored.
        ItemEnded: the item has already ended.
    """
    with ledger.write() as connection:
        _count(connection, claim, items_done=Job.items_done + 1)
        result = store(connection)
        _end_item(connection, item, "done", seconds=seconds, result=result, value=value, error=None)


def fail_item(ledger: Ledger, claim: Claim, item: int, *, seconds: float, error: str) -> None:
    """Mark an item as failed, with the reason.

    Raises:
        LostClaim: the worker lost the job.
    """
    with ledger.write() as connection:
        _count(connection, claim, items_failed=Job.items_failed + 1)
        _end_item(connection, item, "failed", seconds=seconds, result=None, error=error[:ERROR_LENGTH])


def _count(connection: Connection, claim: Claim, **values: Any) -> None:
    counted = connection.execute(update(Job).where(*_held(claim)).values(progress=0.0, note=None, **values))
    if counted.rowcount != 1:
        raise LostClaim(f"job {claim.job} was reassigned to another worker")


def _end_item(connection: Connection, item: int, state: str, **values: Any) -> None:
    ended = connection.execute(
        update(JobItem)
        .where(JobItem.item == item, JobItem.state == "queued")
        .values(state=state, finished=moment(connection), **values)
    )
    if ended.rowcount != 1:  # the claim is still ours, so this worker ended it
        raise ItemEnded(f"item {item} has already ended")


def finish(ledger: Ledger, claim: Claim) -> str | None:
    """End a job whose items have all ended; returns its state, None if the worker lost the job."""
    with ledger.write() as connection:
        failures = connection.execute(
            select(JobItem.model, JobItem.image_id, JobItem.image_key, JobItem.error)
            .where(JobItem.job == claim.job, JobItem.state == "failed")
            .order_by(JobItem.position)
        ).all()
        error = None
        if failures:
            first = failures[0]
            items = connection.execute(select(Job.items).where(Job.job == claim.job)).scalar_one()
            # an item without an image is about a whole set
            of = f"image {first.image_id} with {first.model}: " if first.image_key else ""
            what = f"{of}{first.error}"
            error = what if items == 1 else f"{len(failures)} of {items} have no result, the first is {what}"
        state = "failed" if failures else "done"
        ended = _end(connection, claim, state, error=error and error[:ERROR_LENGTH], traceback=None)
    return state if ended else None


def _end(connection: Connection, claim: Claim, state: str, **values: Any) -> bool:
    return move(
        connection,
        claim.job,
        state,
        Job.claim == claim.claim,
        claim=None,
        lease_until=None,
        finished=moment(connection),
        progress=0.0,
        note=None,
        **values,
    )


def end_cancelled(ledger: Ledger, claim: Claim) -> bool:
    """End a job whose cancellation was requested; finished items are kept."""
    with ledger.write() as connection:
        return _end(connection, claim, "cancelled", cancel_requested=False)


def give_back(ledger: Ledger, claim: Claim) -> bool:
    """Re-queue the job of a worker that is stopping. This does not count as an attempt."""
    return _queue_again(ledger, claim, note=None)


def postpone(ledger: Ledger, claim: Claim, *, seconds: float, note: str) -> bool:
    """Re-queue a job for later because a resource is in use, as `note` says. This does not count as an attempt."""
    return _queue_again(ledger, claim, pause=seconds, note=note[:ERROR_LENGTH])


def _queue_again(ledger: Ledger, claim: Claim, *, pause: float = 0.0, **values: Any) -> bool:
    """Re-queue the job without counting this attempt."""
    with ledger.write() as connection:
        if pause:
            values["not_before"] = moment(connection) + timedelta(seconds=min(MAX_PAUSE, pause))
        return move(
            connection,
            claim.job,
            "queued",
            Job.claim == claim.claim,
            claim=None,
            lease_until=None,
            attempts=Job.attempts - 1,
            sent=None,
            progress=0.0,
            **values,
        )


def end_attempt(
    ledger: Ledger, claim: Claim, *, error: str, traceback: str | None, retryable: bool, attempts: int
) -> str | None:
    """End an attempt that raised: the job is re-queued after a pause, or fails.

    Returns the job's new state, None if the claim was lost.

    Args:
        retryable: whether a retry can help.
        attempts: maximum attempts per job.
    """
    said = {
        "error": error[:ERROR_LENGTH],
        "traceback": None if traceback is None else traceback[-TRACEBACK_LENGTH:],
    }
    with ledger.write() as connection:
        if retryable and claim.attempts < attempts:
            pause = timedelta(seconds=min(MAX_BACKOFF, 2.0**claim.attempts))
            moved = move(
                connection,
                claim.job,
                "queued",
                Job.claim == claim.claim,
                claim=None,
                lease_until=None,
                not_before=moment(connection) + pause,
                sent=None,
                progress=0.0,
                note=None,
                **said,
            )
            return "queued" if moved else None
        return "failed" if _end(connection, claim, "failed", **said) else None


@dataclass(frozen=True)
class Swept:
    """What a sweep did: jobs whose lease lapsed, and jobs whose message has to be sent (again)."""

    lapsed: tuple[int, ...]
    to_send: tuple[tuple[int, str], ...]  # number, queue


def sweep(
    ledger: Ledger, leases: Leases, *, attempts: int, resend_after: float, empty_queues: Collection[str]
) -> Swept:
    """Re-queue jobs whose lease lapsed, and list queued jobs whose message is missing.

    A message is missing if none was sent, or if after `resend_after` seconds the queue is empty and the job
    is still queued. Duplicate messages do no harm. Any number of sweepers may run: each job is listed for one
    of them, and again later if that one dies before sending.

    Args:
        leases: what this sweeper has observed so far; the same object for all its sweeps.
    """
    lapsed: list[int] = []
    with ledger.write() as connection:
        present = moment(connection)
        running = {
            Heartbeat(row.job, row.claim, row.lease_until): row
            for row in connection.execute(
                select(
                    Job.job, Job.claim, Job.lease_until, Job.attempts, Job.worker, Job.cancel_requested
                ).where(Job.state == "running", Job.lease_until.is_not(None))
            )
        }
        for beat in leases.lapsed(running):
            row = running[beat]
            held = (Job.claim == beat.claim, Job.lease_until == beat.lease_until)
            freed: Record = {"claim": None, "lease_until": None, "progress": 0.0}
            silence = f"worker {row.worker} stopped sending heartbeats"
            if row.cancel_requested:
                moved = move(
                    connection, row.job, "cancelled", *held, finished=present, cancel_requested=False, **freed
                )
            elif row.attempts >= attempts:
                error = f"{silence} in attempt {row.attempts} of {attempts}"
                moved = move(connection, row.job, "failed", *held, finished=present, error=error, **freed)
            else:
                moved = move(connection, row.job, "queued", *held, error=silence, sent=None, **freed)
            if moved:
                lapsed.append(row.job)
        stale = or_(
            Job.sent.is_(None),
            (Job.sent < present - timedelta(seconds=resend_after)) & Job.queue.in_(empty_queues),
            Job.sent > present + timedelta(seconds=60),  # the clock was set back
        )
        due = connection.execute(
            select(Job.job, Job.queue, Job.sent)
            .where(Job.state == "queued", _is_due(present), stale)
            .order_by(Job.job)
            .limit(1000)
        ).all()
        to_send = [
            (row.job, row.queue)
            for row in due
            if connection.execute(
                update(Job).where(Job.job == row.job, Job.state == "queued", stale).values(sent=present)
            ).rowcount
            == 1
        ]
    return Swept(tuple(lapsed), tuple(to_send))
