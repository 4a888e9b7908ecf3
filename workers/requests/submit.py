"""Submits requests: a checked request becomes a job in the ledger and a message to the workers.

Imports no torch. A request is keyed by its content (models with their weights, images with their bytes,
method, parameters), so that identical requests share one job.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from db.atlas.store import Atlas
from db.ledger import jobs
from db.ledger.engine import Ledger
from db.ledger.jobs import NewJob, NoSuchSubject
from db.ledger.set_states import SetChanged, set_changes_of
from db.ledger.tables import Attack, Job, JobItem, SaliencyMap
from db.settings import Settings
from db.stores.results import ResultStore
from workers.queue.messages import BrokerAway, celery_app, send
from workers.requests.images import image_keys
from workers.requests.parameters import InvalidRequest


@dataclass(frozen=True)
class Submitted:
    """A submitted job. `queued`: there is work to do; `sent`: the workers were notified."""

    job: int
    queued: bool
    sent: bool

    def sentence(self) -> str:
        """A sentence for the user who submitted it."""
        if not self.queued:
            return f"job {self.job} already exists for this request"
        if not self.sent:
            return (
                f"job {self.job} is queued; the broker is unreachable, "
                "and workers will receive the job when it is back"
            )
        return f"job {self.job} is queued"


# Results that have a file: their table, number column and file column.
_FILES: dict[str, tuple[Any, Any, Any]] = {
    "map": (SaliencyMap, SaliencyMap.map, SaliencyMap.file),
    "attack": (Attack, Attack.attack, Attack.file),
}


class JobSubmitter:
    """Submits requests. One per process; safe to share between threads."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self._ledger = ledger
        self._atlas = Atlas(settings)
        self._results = ResultStore(settings)
        self._app = celery_app(settings, patient=False)

    def submit(self, new: NewJob) -> Submitted:
        """Create the job, or find the existing one for the same request, and notify the workers.

        Raises:
            LedgerError: the ledger cannot be used; nothing was submitted.
            InvalidRequest: the image set, or a result that the request is about, was renamed or removed in
                the meantime.
        """
        changes = set_changes_of(self._ledger, new.image_set)
        self._check_images(new)
        try:
            job, queued = jobs.submit_job(self._ledger, new, set_changes=changes)
            if not queued:
                gone = self._items_without_files(job, new.restores)
                queued = bool(gone) and jobs.requeue_items(self._ledger, job, gone, set_changes=changes)
        except (SetChanged, NoSuchSubject) as error:
            raise InvalidRequest(str(error)) from error
        return Submitted(job, queued, queued and self._tell(job, new.queue))

    def _check_images(self, new: NewJob) -> None:
        """Check that the set still has the images of the request, which may come from an older atlas."""
        # a result that the request is about is checked in the transaction that creates the job
        asked = [item for item in new.items if item.image_key and item.subject is None]
        if not asked:
            return
        wanted = {item.image_id: item.image_key for item in asked}
        found = image_keys(self._atlas, new.image_set, list(wanted))
        for image_id, key in wanted.items():
            if found.get(image_id) != key:
                raise InvalidRequest(
                    f"images: {new.image_set!r} now has another image {image_id}: submit the request again"
                )

    def retry(self, job: int) -> Submitted:
        """Re-queue a job that failed or was cancelled.

        Raises:
            NoSuchJob, IllegalMove: it cannot be retried.
        """
        queue = jobs.retry(self._ledger, job)
        return Submitted(job, True, self._tell(job, queue))

    def cancel(self, job: int) -> str:
        """See `db.ledger.jobs.cancel`."""
        return jobs.cancel(self._ledger, job)

    def _tell(self, job: int, queue: str) -> bool:
        try:
            send(self._app, job, queue)
        except BrokerAway:
            return False
        jobs.mark_sent(self._ledger, job)
        return True

    def _items_without_files(self, job: int, restores: str) -> list[int]:
        """Items of a finished job whose result files were removed from the disk."""
        if not restores:
            return []
        table, number, file = _FILES[restores]
        with self._ledger.read() as connection:
            rows = connection.execute(
                select(JobItem.item, file)
                .join(table, number == JobItem.result)
                .join(Job, Job.job == JobItem.job)
                .where(JobItem.job == job, Job.state == "done", file.is_not(None))
            ).all()
        return [item for item, path in rows if not self._results.path(path).exists()]
