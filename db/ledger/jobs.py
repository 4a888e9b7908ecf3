"""The life cycle of a job, as statements on the ledger.

    queued -> running -> done | failed | cancelled

`move` makes all transitions. A worker claims a job with one conditional UPDATE, so a job that is
delivered twice runs once. It names its claim in every write, so a worker that lost its lease writes
nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from db.ledger.engine import Ledger, moment
from db.ledger.set_states import SetChanged, check_unchanged
from db.ledger.tables import UNFINISHED, Attack, Job, JobItem, SaliencyMap

Record = dict[str, Any]
# Allowed transitions. A finished job is queued again by `retry`, or by submitting the same request again.
MOVES: dict[str, tuple[str, ...]] = {
    "queued": ("running", "cancelled"),
    "running": ("done", "failed", "cancelled", "queued"),
    "done": ("queued",),
    "failed": ("queued",),
    "cancelled": ("queued",),
}
ENDED = tuple(state for state in MOVES if state not in UNFINISHED)


class NoSuchJob(LookupError):
    """There is no job with that number; the message is one sentence."""


class NoSuchSubject(LookupError):
    """A result that a job refers to does not exist; the message is one sentence."""


class IllegalMove(ValueError):
    """The job's state does not allow the transition; the message is one sentence."""


@dataclass(frozen=True)
class NewItem:
    """An item to be added with its job; see `JobItem`. An item about a whole set has no `image_key`."""

    model: str
    image_id: int
    image_key: str
    subject: int | None = None


@dataclass(frozen=True)
class NewJob:
    """A job to be added; see `Job`.

    Attributes:
        about: what the items' subjects refer to: map or attack.
        restores: results (map or attack) to compute again if the job is done but their files are gone.
    """

    key: str
    kind: str
    queue: str
    models: str
    image_set: str
    parameters: Mapping[str, Any]
    items: tuple[NewItem, ...]
    question: str | None = None
    about: str = ""
    restores: str = ""


def move(connection: Connection, job: int, to: str, *conditions: ColumnElement[bool], **values: Any) -> bool:
    """Move a job to state `to` if the transition is allowed and the conditions hold; returns whether it did."""
    sources = [state for state, following in MOVES.items() if to in following]
    statement = update(Job).where(Job.job == job, Job.state.in_(sources), *conditions)
    return connection.execute(statement.values(state=to, **values)).rowcount == 1


def submit_job(ledger: Ledger, new: NewJob, *, set_changes: int | None = None) -> tuple[int, bool]:
    """(number, whether there is work to do) of the job with that key, which is created if needed.

    A job that failed or was cancelled is queued again; its finished items are kept.

    Args:
        set_changes: the value of `set_states.set_changes_of` from before the request was built; None skips
            the check.

    Raises:
        SetChanged: the image set was renamed or removed since, or is being changed now.
        NoSuchSubject: a result that the job refers to was removed since.
    """
    for _ in range(3):
        try:
            with ledger.write() as connection:
                check_unchanged(connection, new.image_set, set_changes)
                _check_subjects(connection, new)
                found = connection.execute(select(Job.job, Job.state).where(Job.key == new.key)).one_or_none()
                if found is None:
                    return _insert_job(connection, new), True
                if found.state in ("failed", "cancelled"):
                    return found.job, _requeue(connection, found.job)
                if found.state in UNFINISHED:
                    withdraw = update(Job).where(Job.job == found.job, Job.state.in_(UNFINISHED))
                    connection.execute(withdraw.values(cancel_requested=False))
                return found.job, False
        except IntegrityError:
            continue  # submitted concurrently by another process: find that job now
    raise RuntimeError(f"the job with key {new.key} can be neither found nor created")


# Number columns of the results that jobs can refer to.
_SUBJECTS = {"map": SaliencyMap.map, "attack": Attack.attack}


def _check_subjects(connection: Connection, new: NewJob) -> None:
    """Raise NoSuchSubject unless the results that the job refers to exist."""
    wanted = sorted({item.subject for item in new.items if item.subject is not None})
    if not wanted:
        return
    number = _SUBJECTS[new.about]
    for first in range(0, len(wanted), 500):  # databases limit the number of values per statement
        some = wanted[first : first + 500]
        found = set(connection.execute(select(number).where(number.in_(some))).scalars())
        if len(found) < len(some):
            gone = next(one for one in some if one not in found)
            raise NoSuchSubject(f"{number.key} {gone} was removed in the meantime")


def _insert_job(connection: Connection, new: NewJob) -> int:
    made = connection.execute(
        insert(Job)
        .values(
            key=new.key,
            question=new.question,
            kind=new.kind,
            queue=new.queue,
            state="queued",
            models=new.models,
            image_set=new.image_set,
            parameters=dict(new.parameters),
            items=len(new.items),
            created=moment(connection),
        )
        .returning(Job.job)
    ).scalar_one()
    connection.execute(
        insert(JobItem),
        [
            {
                "job": made,
                "position": position,
                "model": item.model,
                "image_id": item.image_id,
                "image_key": item.image_key,
                "subject": item.subject,
                "state": "queued",
            }
            for position, item in enumerate(new.items)
        ],
    )
    return int(made)


def _requeue(connection: Connection, job: int) -> bool:
    connection.execute(
        update(JobItem)
        .where(JobItem.job == job, JobItem.state == "failed")
        .values(state="queued", error=None, finished=None)
    )
    return move(
        connection,
        job,
        "queued",
        items_failed=0,
        items_done=_counted(job, "done"),
        attempts=0,
        error=None,
        traceback=None,
        claim=None,
        lease_until=None,
        not_before=None,
        cancel_requested=False,
        sent=None,
        started=None,
        finished=None,
        progress=0.0,
        note=None,
    )


def _counted(job: int, state: str) -> Any:
    return (
        select(func.count())
        .select_from(JobItem)
        .where(JobItem.job == job, JobItem.state == state)
        .scalar_subquery()
    )


def requeue_items(ledger: Ledger, job: int, items: Sequence[int], *, set_changes: int | None = None) -> bool:
    """Queue items of a finished job again, because their results are gone; returns whether there is work to do.

    Raises:
        SetChanged: see `submit_job`.
    """
    with ledger.write() as connection:
        check_unchanged(connection, _set_of(connection, job), set_changes)
        connection.execute(
            update(JobItem)
            .where(JobItem.job == job, JobItem.item.in_(items))
            .values(state="queued", result=None, value=None, error=None, finished=None)
        )
        return _requeue(connection, job)


def mark_sent(ledger: Ledger, job: int) -> None:
    """Record that a message with the job's number was sent."""
    with ledger.write() as connection:
        connection.execute(update(Job).where(Job.job == job).values(sent=moment(connection)))


def cancel(ledger: Ledger, job: int) -> str:
    """Cancel a job: at once if it is queued, otherwise at its worker's next heartbeat. Returns its new state.

    Raises:
        NoSuchJob: there is no job with that number.
        IllegalMove: the job has ended.
    """
    with ledger.write() as connection:
        if move(
            connection,
            job,
            "cancelled",
            Job.state == "queued",
            finished=moment(connection),
            cancel_requested=False,
        ):
            return "cancelled"
        asked = connection.execute(
            update(Job).where(Job.job == job, Job.state == "running").values(cancel_requested=True)
        )
        if asked.rowcount == 1:
            return "running"
        state = _state(connection, job)
    raise IllegalMove(f"job {job} is {state} and can no longer be cancelled")


def retry(ledger: Ledger, job: int) -> str:
    """Queue a job that failed or was cancelled again; finished items are kept. Returns its queue.

    Raises:
        NoSuchJob: there is no job with that number.
        IllegalMove: the job is queued, running or done.
    """
    with ledger.write() as connection:
        state = _state(connection, job)
        if state not in ("failed", "cancelled"):
            raise IllegalMove(f"job {job} is {state}: only failed and cancelled jobs can be retried")
        try:
            check_unchanged(connection, _set_of(connection, job))
        except SetChanged as error:
            raise IllegalMove(f"job {job} cannot be retried: {error}") from error
        _requeue(connection, job)
        return connection.execute(select(Job.queue).where(Job.job == job)).scalar_one()


def _set_of(connection: Connection, job: int) -> str:
    return connection.execute(select(Job.image_set).where(Job.job == job)).scalar_one()


def _state(connection: Connection, job: int) -> str:
    state = connection.execute(select(Job.state).where(Job.job == job)).scalar_one_or_none()
    if state is None:
        raise NoSuchJob(f"there is no job {job}")
    return state
