"""Whatever process dies, every job ends done, failed with a reason, or cancelled: real processes, really killed.

`pytest -k faults` ends with a table of faults and outcomes.
"""

import contextlib
import os
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import Running, kill_all, processes_of, wait
from sqlalchemy import select
from synthetic_atlas import import_pictures, painted_pictures

from db.atlas.store import Atlas
from db.ledger import jobs
from db.ledger.engine import Ledger
from db.ledger.tables import Job, JobItem, SaliencyMap
from db.queries import jobs as job_queries
from db.settings import Settings, read_settings
from db.stores.results import ResultStore
from workers.models.vision import load_model
from workers.queue.broker import connect, is_there
from workers.queue.messages import celery_app, send
from workers.requests.models import ModelRef
from workers.requests.saliency import saliency_job
from workers.requests.submit import JobSubmitter

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
# A dead worker is noticed once its lease expires; a short lease saves each test half a minute.
ENVIRONMENT = {"CONVSCOPE_LEASE": "2"}
LONG = {"samples": 40, "agreement": 0, "seed": 1}  # some 2 seconds on a CPU
SHORT = {"samples": 2, "agreement": 0, "seed": 1}


class Lab:
    """One home with images, its ledger and job submitter, and the commands that run in it."""

    def __init__(self, settings: Settings, model: ModelRef) -> None:
        self.settings = settings
        self.model = model
        self.ledger = Ledger(settings)
        self.ledger.migrate()
        self.submitter = JobSubmitter(settings, self.ledger)
        self.commands: list[Running] = []
        self.environment = ENVIRONMENT

    def start(self, *words: str) -> Running:
        command = Running(self.settings.home, *words, **self.environment)
        self.commands.append(command)
        return command

    def start_run(self) -> Running:
        """Start `convscope run` and wait until its worker takes jobs."""
        before = {worker["worker"] for worker in job_queries.workers(self.ledger)}
        command = self.start("run", "--port", "0")
        wait(
            lambda: {worker["worker"] for worker in job_queries.workers(self.ledger)} - before != set(),
            seconds=180,
            what=lambda: command.log.read_text(),
        )
        return command

    def submit(
        self, *, target: int, ids: tuple[int, ...] = (0,), queue: str = "batch", **parameters: Any
    ) -> int:
        """Submit a job whose target makes it distinct from the others."""
        new = saliency_job(
            Atlas(self.settings),
            models=[self.model],
            image_set="painted",
            image_ids=ids,
            method="smoothgrad" if parameters else "gradient",
            parameters=parameters,
            target=target,
            queue=queue,
        )
        return self.submitter.submit(new).job

    def state(self, job: int) -> str:
        return str(job_queries.job(self.ledger, job)["state"])

    def wait_for(self, job: int, *states: str, seconds: float = 90) -> None:
        wait(
            lambda: self.state(job) in states,
            seconds=seconds,
            what=lambda: f"{job_queries.job(self.ledger, job)}\n{self.said()}",
        )

    def wait_for_progress(self, job: int) -> None:
        wait(
            lambda: job_queries.job(self.ledger, job)["progress"] > 0,
            seconds=180,
            what=lambda: f"{job_queries.job(self.ledger, job)}\n{self.said()}",
        )

    def said(self) -> str:
        return "\n".join(f"{command.log}:\n{command.log.read_text()[-3000:]}" for command in self.commands)

    def kill(self, what: str) -> None:
        """Send SIGKILL to the process of that name; if it is just restarting, wait for it first."""
        words = {"worker": "convscope.py worker", "broker": "valkey"}[what]

        def found() -> list[int]:
            return [pid for pid, command in processes_of(self.settings.home).items() if words in command]

        wait(lambda: found() != [], seconds=90, what=lambda: f"no {what}: {processes_of(self.settings.home)}")
        for pid in found():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def check(self, *of: int) -> None:
        """Check the invariants of jobs: every result is complete, belongs to one item, and is stored once."""
        store = ResultStore(self.settings)
        asked = select(SaliencyMap.map, SaliencyMap.file, SaliencyMap.key).where(SaliencyMap.job.in_(of))
        with self.ledger.read() as connection:
            maps = connection.execute(asked).all()
            done = select(JobItem.result).where(JobItem.state == "done", JobItem.job.in_(of))
            results = connection.execute(done).scalars().all()
        for row in maps:
            array = store.read_array(row.file)
            assert array.shape == (224, 224)
            assert np.isfinite(array).all()
        assert set(results) <= {row.map for row in maps}
        assert len({row.key for row in maps}) == len(maps)

    def close(self) -> None:
        for command in self.commands:
            with contextlib.suppress(subprocess.TimeoutExpired):
                command.stop()
        kill_all(self.settings.home)
        for command in self.commands:
            command.process.wait(10)  # killed if it did not stop in time; only this process can reap it
        self.ledger.close()


@pytest.fixture(scope="module")
def model() -> ModelRef:
    """EfficientNet-Lite0 with its real weights."""
    loaded = load_model("efficientnet-lite0")
    return ModelRef(loaded.name, loaded.source, loaded.digest(loaded.weights_sha256()))


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Folder for homes, in memory if possible: processes die here, not disks, and no test should wait for one."""
    memory = Path("/dev/shm")
    place = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="convscope-faults-", dir=place) as found:
        yield Path(found)


@pytest.fixture(scope="module")
def furnished(folder: Path) -> Settings:
    """A home with images and no jobs, to be copied."""
    settings = read_settings({"CONVSCOPE_HOME": str(folder / "furnished" / "home")})
    import_pictures(settings, painted_pictures(4), image_set="painted")
    return settings


def new_lab(furnished: Settings, model: ModelRef, folder: Path) -> Lab:
    settings = read_settings({"CONVSCOPE_HOME": str(Path(tempfile.mkdtemp(dir=folder)) / "home")})
    subprocess.run(["cp", "-r", str(furnished.home), str(settings.home)], check=True)
    return Lab(settings, model)


@pytest.fixture
def lab(furnished: Settings, model: ModelRef, folder: Path) -> Iterator[Lab]:
    """A home in which nothing runs yet."""
    found = new_lab(furnished, model, folder)
    yield found
    found.close()


@pytest.fixture(scope="module")
def running_lab(furnished: Settings, model: ModelRef, folder: Path) -> Iterator[Lab]:
    """A home with one `convscope run`, shared by all tests that kill only parts of it."""
    found = new_lab(furnished, model, folder)
    try:
        found.start_run()
        yield found
    finally:
        found.close()


Told = Callable[[str, Mapping[str, int]], None]


def states(lab: Lab, of: Collection[int]) -> Counter[str]:
    """Return how many of those jobs are in each state."""
    with lab.ledger.read() as connection:
        return Counter(connection.execute(select(Job.state).where(Job.job.in_(of))).scalars())


@pytest.mark.parametrize(
    ("seed", "victims"), [(5, ("worker",)), (6, ("broker",)), (7, ("worker", "broker"))], ids=str
)
def test_what_is_killed_in_the_middle_of_a_job_costs_no_job(
    running_lab: Lab, told: Told, seed: int, victims: tuple[str, ...]
) -> None:
    lab = running_lab
    running = lab.submit(target=0, **LONG | {"seed": seed})
    submitted = [running, *(lab.submit(target=target, **SHORT | {"seed": seed}) for target in (1, 2, 3))]
    lab.wait_for_progress(running)
    for victim in victims:
        lab.kill(victim)
    for job in submitted:
        lab.wait_for(job, "done", "failed")
    told(f"SIGKILL {' and '.join(victims)} in the middle of a job", states(lab, submitted))
    assert states(lab, submitted) == {"done": 4}
    lab.check(*submitted)


def test_an_emptied_broker_loses_nothing(running_lab: Lab, told: Told) -> None:
    lab = running_lab
    running = lab.submit(target=0, **LONG | {"seed": 2})
    submitted = [running, *(lab.submit(target=target, **SHORT | {"seed": 2}) for target in (1, 2, 3))]
    lab.wait_for_progress(running)
    connect(lab.settings).flushall()
    for job in submitted:
        lab.wait_for(job, "done", "failed")
    told("FLUSHALL with jobs queued", states(lab, submitted))
    assert states(lab, submitted) == {"done": 4}
    lab.check(*submitted)


def test_a_job_is_cancelled_at_whatever_stage(running_lab: Lab, told: Told) -> None:
    lab = running_lab
    running = lab.submit(target=2, **LONG | {"seed": 3})
    queued = lab.submit(target=1, **LONG | {"seed": 3})
    lab.wait_for_progress(running)
    assert jobs.cancel(lab.ledger, queued) == "cancelled"
    lab.submitter.cancel(running)
    lab.wait_for(running, "cancelled", seconds=60)
    lab.kill("worker")
    loading = lab.submit(target=0, **LONG | {"seed": 3})  # by a new process, which has no model loaded yet
    lab.wait_for(loading, "running")
    lab.submitter.cancel(loading)
    lab.wait_for(loading, "cancelled", seconds=60)
    orphaned = lab.submit(target=3, **LONG | {"seed": 3})
    lab.wait_for_progress(orphaned)
    lab.submitter.cancel(orphaned)
    lab.kill("worker")  # before or after it noticed
    lab.wait_for(orphaned, "cancelled", seconds=120)
    done = lab.submit(target=4, **SHORT | {"seed": 3})
    lab.wait_for(done, "done")
    with pytest.raises(jobs.IllegalMove):
        lab.submitter.cancel(done)
    submitted = (running, queued, loading, orphaned, done)
    told("cancel while queued, loading, running, its worker killed, done", states(lab, submitted))
    assert states(lab, submitted) == {"cancelled": 4, "done": 1}
    lab.check(*submitted)


def test_a_full_disk_delays_a_job_and_half_writes_nothing(running_lab: Lab, told: Told) -> None:
    """The results folder is on a file system too small for one map, which is enlarged later."""
    lab = running_lab
    results = lab.settings.home / "results"
    results.mkdir(exist_ok=True)
    small = ["mount", "-t", "tmpfs", "-o", "size=100k", "none", str(results)]
    if os.getuid() != 0 or subprocess.run(small, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    try:
        job = lab.submit(target=0, **SHORT | {"seed": 4})
        wait(
            lambda: (
                "no space left on the disk" in (job_queries.job(lab.ledger, job)["note"] or "")
                and lab.state(job) == "queued"
            ),
            seconds=180,
            what=lab.said,
        )
        assert job_queries.job(lab.ledger, job)["attempts"] == 0
        assert [path for path in results.rglob("*") if path.is_file()] == []
        subprocess.run(["mount", "-o", "remount,size=10m", str(results)], check=True)
        lab.wait_for(job, "done", "failed")
        told("disk full while a result is written, then space again", states(lab, [job]))
        assert states(lab, [job]) == {"done": 1}
        lab.check(job)
    finally:
        subprocess.run(["umount", "--lazy", str(results)], check=True)


def test_a_hundred_jobs_survive_five_killed_workers(running_lab: Lab, told: Told) -> None:
    lab = running_lab
    submitted = [lab.submit(target=target) for target in range(100)]
    for kills in range(1, 6):
        wait(
            lambda goal=kills * 15: states(lab, submitted)["done"] >= goal,  # type: ignore[misc]
            seconds=270,
            what=lambda: f"{states(lab, submitted)}\n{lab.said()}",
        )
        lab.kill("worker")
    for job in submitted:
        lab.wait_for(job, "done", "failed", seconds=360)
    told("100 jobs, worker killed five times", states(lab, submitted))
    assert states(lab, submitted) == {"done": 100}
    with lab.ledger.read() as connection:
        made = select(SaliencyMap.map).where(SaliencyMap.job.in_(submitted))
        assert len(connection.execute(made).all()) == 100
    lab.check(*submitted)


def test_a_restarted_command_goes_on_where_it_was(lab: Lab, told: Told) -> None:
    command = lab.start_run()
    for seed, killer in enumerate((signal.SIGINT, signal.SIGKILL)):
        running = lab.submit(target=0, ids=(0, 1, 2), samples=30, agreement=0, seed=seed)
        waiting = lab.submit(target=1, **SHORT | {"seed": seed})
        wait(
            lambda running=running: job_queries.job(lab.ledger, running)["items_done"] == 1,  # type: ignore[misc]
            seconds=180,
            what=lab.said,
        )
        command.stop(by=killer, within=30)  # a loaded machine is slow, not wrong
        wait(
            lambda: not processes_of(lab.settings.home),
            seconds=10,
            what=lambda: str(processes_of(lab.settings.home)),
        )
        kept = job_queries.job_items(lab.ledger, running)[0]
        command = lab.start_run()
        for job in (running, waiting):
            lab.wait_for(job, "done", "failed")
        told(f"{killer.name} to convscope run, started again", states(lab, (running, waiting)))
        assert states(lab, (running, waiting)) == {"done": 2}
        assert job_queries.job_items(lab.ledger, running)[0] == kept, "what was finished was computed again"
        if killer is signal.SIGINT:
            assert job_queries.job(lab.ledger, running)["attempts"] == 1, "stopping is not the job's fault"
        lab.check(running, waiting)


def test_two_workers_and_every_message_five_times_compute_each_job_once(lab: Lab, told: Told) -> None:
    early = lab.submit(target=0)
    assert not is_there(lab.settings)
    assert job_queries.job(lab.ledger, early)["sent"] is None
    lab.environment = {}  # nothing is killed here, and a busy machine may delay heartbeats by two seconds
    lab.start("worker")
    lab.start_run()
    lab.wait_for(early, "done", "failed")
    told("submitted while nothing runs, started later", states(lab, [early]))
    wait(lambda: len(job_queries.workers(lab.ledger)) == 2, seconds=180, what=lab.said)
    submitted = [lab.submit(target=target) for target in range(1, 21)]
    app = celery_app(lab.settings, patient=False)
    for job in submitted * 4:
        send(app, job, "batch")
    for job in submitted:
        lab.wait_for(job, "done", "failed")
    found = {row["job"]: row["attempts"] for row in job_queries.jobs(lab.ledger, limit=100)}
    told("two workers, each of 20 jobs delivered five times", states(lab, submitted))
    assert states(lab, [early, *submitted]) == {"done": 21}
    assert {found[job] for job in submitted} == {1}
    lab.check(early, *submitted)
