"""The sweeper: re-queues jobs of dead workers, and resends messages that a dead broker lost.

Runs in `convscope run` and in every worker; any number may run at a time.
"""

import logging
import threading
import time

from celery import Celery

from db.atlas.image_sets import UNFINISHED_SECONDS, remove_unlisted
from db.atlas.store import Atlas, AtlasError
from db.ledger.claims import Swept, sweep
from db.ledger.engine import Ledger, LedgerError
from db.ledger.leases import Leases
from db.queries.jobs import unfinished_uploads
from db.settings import Settings
from db.stores.images import ImageStore
from db.stores.results import ResultStore
from db.stores.uploads import UploadStore
from workers.queue.broker import empty_queues
from workers.queue.events import log
from workers.queue.messages import BrokerAway, celery_app, send

_SECONDS_BETWEEN = 2.0
# Long enough for a worker to claim a job that was just sent to it.
_RESEND_SECONDS = 5.0
# Longer than writing one file ever takes.
_UNFINISHED_SECONDS = 3600.0
_SECONDS_BETWEEN_CLEANINGS = 900.0


class Sweeper:
    """Sweeps every few seconds in its own thread, between `start` and `stop`."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self._settings = settings
        self._ledger = ledger
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the current sweep."""
        self._stopping.set()
        self._thread.join(5)

    def _run(self) -> None:
        app = celery_app(self._settings, patient=False)
        leases = Leases(self._settings.lease)
        away = False
        cleaned = 0.0
        while not self._stopping.wait(_SECONDS_BETWEEN):
            try:
                if not cleaned or time.monotonic() - cleaned > _SECONDS_BETWEEN_CLEANINGS:
                    cleaned = time.monotonic()
                    self._clean()
                sweep_once(self._settings, self._ledger, leases, app)
                away = False
            except (LedgerError, BrokerAway) as error:
                if not away:
                    log("sweep.failed", level=logging.WARNING, error=error)
                away = True
            except Exception as error:
                log("sweep.failed", level=logging.ERROR, error=repr(error))

    def _clean(self) -> None:
        """Remove files, uploads and images that were started and never finished."""
        try:
            files = ResultStore(self._settings).remove_unfinished(older_than=_UNFINISHED_SECONDS)
            uploads = UploadStore(self._settings).remove_stale(but=unfinished_uploads(self._ledger))
            images = remove_unlisted(
                Atlas(self._settings), ImageStore(self._settings), older_than=UNFINISHED_SECONDS
            )
        except (OSError, AtlasError) as error:
            log("sweep.failed", level=logging.WARNING, error=error)
            return
        if files or uploads or images:
            log("unfinished.removed", level=logging.WARNING, files=files, uploads=uploads, images=images)


def sweep_once(settings: Settings, ledger: Ledger, leases: Leases, app: Celery) -> Swept:
    """One sweep.

    Raises:
        LedgerError: the ledger cannot be used.
        BrokerAway: not every message could be sent; the next sweep retries.
    """
    swept = sweep(
        ledger,
        leases,
        attempts=settings.attempts,
        resend_after=_RESEND_SECONDS,
        # A queue with waiting messages may already contain that of a queued job: do not duplicate it.
        empty_queues=empty_queues(settings),
    )
    for job in swept.lapsed:
        log("job.lapsed", level=logging.WARNING, job=job)
    for job, queue in swept.to_send:
        send(app, job, queue)
        log("job.sent", job=job, queue=queue)
    return swept
