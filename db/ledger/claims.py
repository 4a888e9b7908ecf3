"""A claim on a job: one attempt of one worker, its lease, its items and its end; and what becomes of lapsed ones.

Whoever writes names the claim, so that a worker that lost its lease writes nothing.
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
MAX_PAUSE = 3600.0  # of a job that waits for what somebody else holds, or for space on the disk
ERROR_LENGTH = 1000
TRACEBACK_LENGTH = 20_000


class ItemEnded(RuntimeError):
    """The item's end was kept before: a database that goes away may keep a transaction and not say so."""


class LostClaim(RuntimeError):
    """The job was taken from this worker: its lease lapsed, and another may run it now."""


@dataclass(frozen=True)
class Claim:
    """One attempt of one worker at a job. Nothing is written without it."""

    job: int
    claim: str
    kind: str
    queue: str
    parameters: Mapping[str, Any]
    attempts: int


def claim_job(ledger: Ledger, job: int, *, worker: str, lease: float) -> Claim | None:
    """Take a queued job for `worker`; None where there is nothing to take."""
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
    """The job that somebody waits for longest, if one is queued of another kind than those in `but`."""
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
    """Whether a job's pause is over. One that is longer than any is one that a clock's jump back left behind."""
    return or_(
        Job.not_before.is_(None),
        Job.not_before <= present,
        Job.not_before > present + timedelta(seconds=MAX_PAUSE + 60),
    )


def renew(ledger: Ledger, claim: Claim, *, lease: float, progress: float, note: str | None = None) -> bool:
    """Say that the worker lives, how far the present item is and what it is at; whether the job is to be cancelled.

    Raises:
        LostClaim: the job was taken from this worker.
    """
    with ledger.write() as connection:
        row = connection.execute(
            update(Job)
            .where(*_held(claim))
            .values(lease_until=moment(connection) + timedelta(seconds=lease), progress=progress, note=note)
            .returning(Job.cancel_requested)
        ).one_or_none()
    if row is None:
        raise LostClaim(f"job {claim.job} was taken from this worker")
    return bool(row.cancel_requested)


def _held(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    return (Job.job == claim.job, Job.claim == claim.claim, Job.state == "running")


def open_items(ledger: Ledger, claim: Claim) -> list[Record]:
    """The items that wait, in order."""
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
    """Keep an item's result, in one transaction with its being done.

    `store` writes its row and returns the row's number, None where it has none; `value` is kept as JSON.

    Raises:
        LostClaim: the job was taken from this worker; nothing is kept.
        ItemEnded: the item's end was kept before.
    """
    with ledger.write() as connection:
        _count(connection, claim, items_done=Job.items_done + 1)
        result = store(connection)
        _end_item(connection, item, "done", seconds=seconds, result=result, value=value, error=None)


def fail_item(ledger: Ledger, claim: Claim, item: int, *, seconds: float, error: str) -> None:
    """Note why an item has no result.

    Raises:
        LostClaim: the job was taken from this worker.
    """
    with ledger.write() as connection:
        _count(connection, claim, items_failed=Job.items_failed + 1)
        _end_item(connection, item, "failed", seconds=seconds, result=None, error=error[:ERROR_LENGTH])


def _count(connection: Connection, claim: Claim, **values: Any) -> None:
    counted = connection.execute(update(Job).where(*_held(claim)).values(progress=0.0, note=None, **values))
    if counted.rowcount != 1:
        raise LostClaim(f"job {claim.job} was taken from this worker")


def _end_item(connection: Connection, item: int, state: str, **values: Any) -> None:
    ended = connection.execute(
        update(JobItem)
        .where(JobItem.item == item, JobItem.state == "queued")
        .values(state=state, finished=moment(connection), **values)
    )
    if ended.rowcount != 1:  # its job's claim is held, so it was this very worker
        raise ItemEnded(f"item {item} has ended before")


def finish(ledger: Ledger, claim: Claim) -> str | None:
    """End a job whose items all ended; its state, None where the job was taken from this worker."""
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
            # an item without an image is a whole set's
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
    """End a job that was to be cancelled; what is finished stays."""
    with ledger.write() as connection:
        return _end(connection, claim, "cancelled", cancel_requested=False)


def give_back(ledger: Ledger, claim: Claim) -> bool:
    """Queue a job again that its worker cannot go on with because it stops: not the job's fault."""
    return _queue_again(ledger, claim, note=None)


def postpone(ledger: Ledger, claim: Claim, *, seconds: float, note: str) -> bool:
    """Queue a job again for later, because of what somebody else does: not the job's fault. `note` says what."""
    return _queue_again(ledger, claim, pause=seconds, note=note[:ERROR_LENGTH])


def _queue_again(ledger: Ledger, claim: Claim, *, pause: float = 0.0, **values: Any) -> bool:
    """As if this attempt had not been."""
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
    """End an attempt that raised: queued again after a pause, or failed; None where the claim was lost.

    Args:
        retryable: whether trying again can help.
        attempts: how many a job has.
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
    """What a sweep changed: jobs whose lease lapsed, and those whose message is to be sent (again)."""

    lapsed: tuple[int, ...]
    to_send: tuple[tuple[int, str], ...]  # number, queue


def sweep(
    ledger: Ledger, leases: Leases, *, attempts: int, resend_after: float, empty_queues: Collection[str]
) -> Swept:
    """Queue lapsed jobs again, and list the queued ones whose message is missing.

    A message is missing where none was sent, or where `resend_after` seconds later its queue is empty and the job
    still waits. Several messages for one job do no harm. Any number of sweepers may run: each job is listed to
    one of them, and listed again if that one dies before it sends.

    Args:
        leases: what this sweeper saw before; one for all its sweeps.
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
            silence = f"worker {row.worker} fell silent"
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
            Job.sent > present + timedelta(seconds=60),  # a clock jumped back
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
