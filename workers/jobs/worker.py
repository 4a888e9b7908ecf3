"""A worker process: takes job numbers from the broker and runs them, one at a time, in its main thread.

One process, one device: torch's own threads use the cores, and more workers are more processes or hosts.
Celery's pool is `solo`, because a fork would break torch's threads and CUDA.
"""

import logging
import os
import platform
import socket
import threading
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from celery import signals
from celery.exceptions import SecurityWarning
from sqlalchemy import delete, insert, update

from db.atlas.store import Atlas
from db.home import check_writable, open_home
from db.ledger.engine import Ledger, LedgerError, moment
from db.ledger.tables import QUEUES, Worker
from db.settings import Settings
from db.stores.images import ImageStore
from db.stores.results import ResultStore
from workers.jobs.kind import WorkerContext
from workers.jobs.registry import JOB_KINDS
from workers.models.devices import find_device
from workers.queue.events import log
from workers.queue.messages import TASK, celery_app
from workers.queue.runner import Kind, Runner
from workers.queue.sweeper import Sweeper

_SECONDS_BETWEEN_HEARTBEATS = 2.0


# Makes, by name, the kinds that are computed outside this package.
ExtraKinds = Callable[[Settings, Any], Mapping[str, Kind]]


def run_worker(
    settings: Settings,
    *,
    queues: tuple[str, ...] = QUEUES,
    device: str = "auto",
    extra_kinds: ExtraKinds = lambda _settings, _device: {},
) -> int:
    """Work until SIGTERM or SIGINT, then return current work to the ledger. Returns the exit code.

    Args:
        extra_kinds: given the settings and the device, makes kinds in addition to those of this package.

    Raises:
        HomeError, AtlasError, LedgerError: the home cannot be used.
        ValueError: there is no such device.
    """
    place = find_device(device)
    check_writable(settings, "a worker writes results there")
    ledger = open_home(settings)
    stopping = threading.Event()
    name = f"{socket.gethostname()}:{os.getpid()}"
    runner = Runner(
        settings,
        ledger,
        {**_kinds(settings, ledger, place), **extra_kinds(settings, place)},
        worker=name,
        queues=queues,
        stopping=stopping,
        pausing=[kind.name for kind in JOB_KINDS.values() if kind.long],
    )
    app = celery_app(settings, patient=True)
    app.task(name=TASK, ignore_result=True)(runner.run)

    def stop(**_: Any) -> None:
        stopping.set()

    signals.worker_shutting_down.connect(stop, weak=False)
    signals.setup_logging.connect(lambda **_: None, weak=False)  # logging is already set up
    sweeper = Sweeper(settings, ledger)
    heartbeat = _Heartbeat(ledger, runner, name=name, queues=queues, device=str(place), stopping=stopping)
    heartbeat.start()
    sweeper.start()
    log("worker.started", worker=name, queues=",".join(queues), device=place)
    # Celery warns about root because other applications accept pickles; our messages are JSON only
    warnings.filterwarnings("ignore", category=SecurityWarning)
    worker = app.Worker(
        pool="solo",
        concurrency=1,
        queues=[queue for queue in QUEUES if queue in queues],  # the interactive one first
        hostname=f"convscope@{platform.node()}.{os.getpid()}",
        loglevel="WARNING",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    try:
        worker.start()
    finally:
        stopping.set()
        sweeper.stop()
        heartbeat.stop()
        ledger.close()
        log("worker.ended", worker=name)
    return int(worker.exitcode or 0)


def _kinds(settings: Settings, ledger: Ledger, device: Any) -> dict[str, Kind]:
    """How to compute each kind of job that is not passed in from outside."""
    from workers.jobs.attack_context import AttackContext
    from workers.jobs.context import JobContext
    from workers.jobs.loaded_models import LoadedModels

    job = JobContext(
        Atlas(settings),
        ImageStore(settings),
        ResultStore(settings),
        ledger,
        LoadedModels(settings, device),
    )
    context = WorkerContext(settings, device, job, AttackContext(job))
    return {kind.name: kind.compute(context) for kind in JOB_KINDS.values() if kind.compute is not None}


class _Heartbeat(threading.Thread):
    """Records in the ledger every few seconds that this worker is alive, and its current job."""

    def __init__(
        self,
        ledger: Ledger,
        runner: Runner,
        *,
        name: str,
        queues: tuple[str, ...],
        device: str,
        stopping: threading.Event,
    ) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self._ledger = ledger
        self._runner = runner
        self._worker = name
        self._facts = {
            "host": platform.node(),
            "pid": os.getpid(),
            "queues": ", ".join(queues),
            "device": device,
        }
        self._ended = threading.Event()
        self._stopping = stopping

    def run(self) -> None:
        """The thread's loop."""
        is_new = True
        while True:
            try:
                with self._ledger.write() as connection:
                    present = moment(connection)
                    if is_new:  # a killed process with the same id may have left a row
                        connection.execute(delete(Worker).where(Worker.worker == self._worker))
                    heartbeat = {"seen": present, "job": self._runner.current}
                    known = connection.execute(
                        update(Worker).where(Worker.worker == self._worker).values(**heartbeat)
                    )
                    if not known.rowcount:
                        connection.execute(
                            insert(Worker).values(
                                worker=self._worker, started=present, **self._facts, **heartbeat
                            )
                        )
                is_new = False
            except Exception as error:  # if this thread died, a living worker would look dead
                log("heartbeat.failed", level=logging.WARNING, error=error)
            if self._ended.wait(_SECONDS_BETWEEN_HEARTBEATS):
                return

    def stop(self) -> None:
        """Stop, and delete the worker's row."""
        self._ended.set()
        self.join(5)
        try:
            with self._ledger.write() as connection:
                connection.execute(delete(Worker).where(Worker.worker == self._worker))
        except LedgerError as error:
            log("heartbeat.failed", level=logging.WARNING, error=error)
