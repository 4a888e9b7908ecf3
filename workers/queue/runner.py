"""Runs jobs one after another: claims a job, renews its lease, works through its items, finishes it.

Three exceptions, raised between chunks of work by `LeaseKeeper.progress`, signal what may happen to a job in
the meantime: it is to be cancelled, its claim was lost, or this worker is stopping. An error that another
attempt may not meet (out of memory) ends the attempt; an error of the item (a broken image, a missing layer)
fails the item. A job that meets a full disk waits for space.
"""

import errno
import logging
import os
import threading
import time
import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection

from db.files import file_sentence
from db.ledger import claims
from db.ledger.claims import Claim, LostClaim
from db.ledger.engine import Ledger, LedgerError
from db.ledger.jobs import Record
from db.settings import Settings
from workers.queue.events import log

# If no chunk finishes for this long, the work hangs: the process exits, and another worker takes the job.
STALL_SECONDS = 1800.0
_LATER_SECONDS = 5.0
_SECONDS_BETWEEN_LOOKS = 1.0
_FULL_DISK_SECONDS = 5.0  # first pause of a job that met a full disk; each next one is twice as long


class ItemFailed(Exception):
    """An item has no result and will never have one; the message is one sentence."""


class Postponed(Exception):
    """Another worker or job has what this job needs: retry soon, without limit. The message is one sentence."""


class RetryableError(Exception):
    """This attempt failed, and another may succeed; the message is one sentence."""


class Cancelled(Exception):
    """The job is to be cancelled."""


class Stopping(Exception):
    """This worker is stopping."""


@dataclass(frozen=True)
class Computed:
    """An item's result.

    Attributes:
        store: writes its row and returns its number, in the transaction that finishes the item; None: it has
            no row.
        after: called once the result is committed.
        value: a JSON value to store with the item, for a kind without its own table.
    """

    store: Callable[[Connection], int | None] = lambda _connection: None
    after: Callable[[], None] = lambda: None
    value: Any = None


class Report(Protocol):
    """The callback for progress between chunks: done, total and a short note on the current step. May raise to stop."""

    def __call__(self, done: int, total: int, note: str | None = None, /) -> None:
        """See `LeaseKeeper.progress`."""


_Kept = TypeVar("_Kept")


class Kind(Protocol):
    """How jobs of one kind are computed."""

    def compute(self, item: Record, parameters: Mapping[str, Any], job: int, on_progress: Report) -> Computed:
        """The result of one item. Calls `on_progress` between chunks.

        Raises:
            ItemFailed: this item will never have a result.
        """


class LeaseKeeper:
    """Renews a claim's lease in a separate thread, and signals cancellation and loss of the claim to the work."""

    def __init__(self, ledger: Ledger, claim: Claim, *, lease: float, stopping: threading.Event) -> None:
        self._ledger = ledger
        self._claim = claim
        self._lease = lease
        self._stopping = stopping
        self._ended = threading.Event()
        self._cancelled = False
        self._lost = False
        self._share = 0.0
        self._note: str | None = None
        self._moved = time.monotonic()
        self._renewed = time.monotonic()
        self.waits = False  # waits for another job that this worker runs first
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def __enter__(self) -> "LeaseKeeper":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def progress(self, done: int, total: int, note: str | None = None) -> None:
        """Record the progress of the current item, and its current step.

        Raises:
            Cancelled, LostClaim, Stopping: see the module docstring.
        """
        self._share = done / total if total else 0.0
        self._note = note
        self._moved = time.monotonic()
        if self._lost:
            raise LostClaim(f"job {self._claim.job} was reassigned to another worker")
        if self._cancelled:
            raise Cancelled
        if self._stopping.is_set():
            raise Stopping

    def keep(self, write: Callable[[], _Kept]) -> _Kept:
        """Call `write`, which writes results, and retry while the ledger is unavailable and the lease lasts.

        Raises:
            LedgerError: the ledger was unavailable until the lease ended, or this worker is stopping.
        """
        while True:
            try:
                return write()
            except LedgerError as error:
                log("result.not_kept", level=logging.WARNING, job=self._claim.job, error=error)
                self._moved = time.monotonic()
                if self._lost or self._stopping.wait(_SECONDS_BETWEEN_LOOKS):
                    raise

    def _run(self) -> None:
        pause = min(1.0, self._lease / 4)
        while not self._ended.wait(pause):
            try:
                self._cancelled |= claims.renew(
                    self._ledger, self._claim, lease=self._lease, progress=self._share, note=self._note
                )
                self._renewed = time.monotonic()
            except LostClaim:
                self._lost = True
                return
            except Exception as error:  # keep this thread alive in any case: without it the lease expires
                log("lease.not_renewed", level=logging.WARNING, job=self._claim.job, error=error)
                if time.monotonic() - self._renewed > self._lease:
                    self._lost = True
                    return
            if self.waits:
                self._moved = time.monotonic()
            if time.monotonic() - self._moved > STALL_SECONDS:
                log("job.stalled", level=logging.ERROR, job=self._claim.job)
                os._exit(70)  # a hanging thread cannot be stopped any other way


class Runner:
    """Runs jobs in one worker.

    `kinds` maps a job's kind to how it is computed. Kinds in `pausing` have long items and may be paused
    wherever they report progress, to run interactive jobs in between.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        kinds: Mapping[str, Kind],
        *,
        worker: str,
        queues: tuple[str, ...],
        stopping: threading.Event,
        pausing: Collection[str] = (),
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._kinds = kinds
        self._pausing = frozenset(pausing)
        self._worker = worker
        self._queues = queues
        self._stopping = stopping
        self._met_full_disk: dict[int, int] = {}  # how often in a row, by job
        self.current: int | None = None

    def run(self, job: int) -> None:
        """Run a job if it is still queued; never raises for an error of the job."""
        if self._stopping.is_set():
            return  # a sweeper sends another message
        outer = self.current
        try:
            claim = claims.claim_job(self._ledger, job, worker=self._worker, lease=self._settings.lease)
            if claim is None:
                log("job.skipped", job=job)
                return
            self.current = job
            log("job.started", job=job, kind=claim.kind, attempt=claim.attempts)
            begun = time.monotonic()
            state = self._attempt(claim)
            log("job.ended", job=job, state=state or "lost", seconds=time.monotonic() - begun)
        except LedgerError as error:
            # the lease expires, and a sweeper re-queues the job for a worker whose ledger works
            log("job.abandoned", level=logging.ERROR, job=job, error=error)
        finally:
            self.current = outer

    def _attempt(self, claim: Claim) -> str | None:
        """One attempt at a job; returns the state it leaves the job in, None if the claim was lost."""
        with LeaseKeeper(self._ledger, claim, lease=self._settings.lease, stopping=self._stopping) as keeper:
            try:
                return self._work(claim, keeper)
            except LostClaim:
                return None
            except Cancelled:
                return "cancelled" if keeper.keep(lambda: claims.end_cancelled(self._ledger, claim)) else None
            except Stopping:
                return "queued" if claims.give_back(self._ledger, claim) else None
            except Postponed as error:
                log("job.postponed", job=claim.job, error=error)
                held = claims.postpone(self._ledger, claim, seconds=_LATER_SECONDS, note=f"waits: {error}")
                return "queued" if held else None
            except LedgerError:
                raise
            except Exception as error:
                if _is_full(error):
                    return self._wait_for_space(claim, keeper, error)
                again = _may_pass(error)
                said, told = _sentence(error), traceback.format_exc()
                log("job.raised", level=logging.WARNING, job=claim.job, error=repr(error), retryable=again)
                return keeper.keep(
                    lambda: claims.end_attempt(
                        self._ledger,
                        claim,
                        error=said,
                        traceback=told,
                        retryable=again,
                        attempts=self._settings.attempts,
                    )
                )

    def _wait_for_space(self, claim: Claim, keeper: LeaseKeeper, error: Exception) -> str | None:
        """Re-queue a job that met a full disk: this is not the job's fault, so it waits without limit."""
        tries = self._met_full_disk.get(claim.job, 0)
        self._met_full_disk[claim.job] = tries + 1
        pause = min(claims.MAX_PAUSE, _FULL_DISK_SECONDS * 2.0**tries)
        log("job.waits_for_space", level=logging.WARNING, job=claim.job, error=repr(error), seconds=pause)
        note = f"waits for disk space ({_sentence(error)}); retry in {pause:,.0f} s"
        held = keeper.keep(lambda: claims.postpone(self._ledger, claim, seconds=pause, note=note))
        return "queued" if held else None

    def _work(self, claim: Claim, keeper: LeaseKeeper) -> str | None:
        kind = self._kinds.get(claim.kind)
        if kind is None:
            raise ValueError(f"expected a job of kind {', '.join(self._kinds)}, got {claim.kind!r}")
        for item in claims.open_items(self._ledger, claim):
            self._let_pass(claim, keeper)
            keeper.progress(0, 1)
            begun = time.monotonic()
            try:
                computed = kind.compute(item, claim.parameters, claim.job, self._report(claim, keeper))
            except ItemFailed as error:
                self._end_item(claim, keeper, item, claims.fail_item, begun=begun, error=str(error))
                log("item.failed", job=claim.job, item=item["position"], error=error)
            else:
                self._end_item(
                    claim,
                    keeper,
                    item,
                    claims.finish_item,
                    begun=begun,
                    store=computed.store,
                    value=computed.value,
                )
                computed.after()
                self._met_full_disk.pop(claim.job, None)
        return keeper.keep(lambda: claims.finish(self._ledger, claim))

    def _end_item(
        self,
        claim: Claim,
        keeper: LeaseKeeper,
        item: Record,
        end: Callable[..., None],
        *,
        begun: float,
        **what: Any,
    ) -> None:
        seconds = time.monotonic() - begun
        tries = 0

        def write() -> None:
            nonlocal tries
            tries += 1
            try:
                end(self._ledger, claim, item["item"], seconds=seconds, **what)
            except claims.ItemEnded:
                if tries == 1:
                    raise  # else the previous attempt was committed, and only its reply was lost

        keeper.keep(write)

    def _report(self, claim: Claim, keeper: LeaseKeeper) -> Report:
        """The progress callback for the work."""
        if claim.kind not in self._pausing:
            return keeper.progress
        looked = time.monotonic()

        def report(done: int, total: int, note: str | None = None, /) -> None:
            nonlocal looked
            keeper.progress(done, total, note)
            if time.monotonic() - looked > _SECONDS_BETWEEN_LOOKS:
                self._let_pass(claim, keeper)
                looked = time.monotonic()
                keeper.progress(done, total, note)

        return report

    def _let_pass(self, claim: Claim, keeper: LeaseKeeper) -> None:
        """Between two items of a batch job, or within a long one, run waiting interactive jobs first."""
        pauses = claim.kind in self._pausing
        if (claim.queue == "interactive" and not pauses) or "interactive" not in self._queues:
            return
        while not self._stopping.is_set():
            # a job that pauses for its own kind could never finish
            waiting = claims.next_interactive(self._ledger, but=(claim.kind,) if pauses else ())
            if waiting is None:
                return
            keeper.waits = True
            try:
                self.run(waiting)
            finally:
                keeper.waits = False


def _is_full(error: BaseException) -> bool:
    """Whether the disk or the user's quota is full; libraries may report it only in the system's message."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    words = str(error).lower()
    return any(said in words for said in ("no space left", "disk is full", "disk quota"))


def _may_pass(error: Exception) -> bool:
    """Whether another attempt may succeed after this error."""
    return isinstance(error, OSError | MemoryError | RetryableError) or "out of memory" in str(error).lower()


def _sentence(error: Exception) -> str:
    words = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        return file_sentence(error)
    if isinstance(error, RetryableError):
        return words
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
