"""How a worker runs a job: what it stores, when it gives the job back, and what it never writes."""

import contextlib
import dataclasses
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import psycopg
import pytest
from postgres import installed_postgres
from sqlalchemy import Connection, select, update

from db.ledger import claims, jobs
from db.ledger.engine import Ledger, LedgerError, now
from db.ledger.jobs import NewItem, NewJob, Record
from db.ledger.leases import Leases
from db.ledger.tables import Job
from db.queries import jobs as job_queries
from db.settings import Settings
from workers.queue.runner import Computed, ItemFailed, Runner

Act = Callable[[Record, Callable[[int, int], None]], None]


class Counted:
    """A job kind whose items run `act`, and which records the items it computed."""

    def __init__(self, act: Act = lambda _item, _progress: None) -> None:
        self.act = act
        self.computed: list[int] = []

    def compute(
        self, item: Record, parameters: Mapping[str, Any], job: int, on_progress: Callable[[int, int], None]
    ) -> Computed:
        assert parameters == {"seed": 0}
        assert job == item["job"]
        self.computed.append(item["image_id"])
        self.act(item, on_progress)
        return Computed(lambda _connection: 100 + item["image_id"])


def submit(
    ledger: Ledger, key: str = "a", *, items: int = 3, queue: str = "batch", kind: str = "counted"
) -> int:
    listed = tuple(NewItem("m", number, f"{number:064d}") for number in range(items))
    return jobs.submit_job(ledger, NewJob(key, kind, queue, "m", "samples", {"seed": 0}, listed))[0]


def runner(
    settings: Settings, ledger: Ledger, kind: Counted, *, stopping: threading.Event | None = None
) -> Runner:
    return Runner(
        settings,
        ledger,
        {"counted": kind},
        worker="w",
        queues=("interactive", "batch"),
        stopping=stopping or threading.Event(),
    )


def state(ledger: Ledger, job: int) -> str:
    return str(job_queries.job(ledger, job)["state"])


def test_a_job_is_computed_once_however_often_it_is_delivered(settings: Settings, ledger: Ledger) -> None:
    kind = Counted()
    job = submit(ledger)
    worker = runner(settings, ledger, kind)
    for _ in range(3):
        worker.run(job)
    assert kind.computed == [0, 1, 2]
    assert state(ledger, job) == "done"
    assert [item["result"] for item in job_queries.job_items(ledger, job)] == [100, 101, 102]


def test_a_message_without_a_job_is_skipped(settings: Settings, ledger: Ledger) -> None:
    runner(settings, ledger, Counted()).run(99)


def test_two_workers_racing_for_a_job_compute_each_item_once(settings: Settings, ledger: Ledger) -> None:
    kind = Counted(lambda _item, _progress: time.sleep(0.05))
    job = submit(ledger, items=8)
    both = [threading.Thread(target=runner(settings, ledger, kind).run, args=(job,)) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert kind.computed == list(range(8))
    assert state(ledger, job) == "done"


def test_an_item_that_fails_does_not_stop_the_others(settings: Settings, ledger: Ledger) -> None:
    def act(item: Record, _progress: Callable[[int, int], None]) -> None:
        if item["image_id"] == 1:
            raise ItemFailed("the file is missing")

    job = submit(ledger)
    runner(settings, ledger, Counted(act)).run(job)
    found = job_queries.job(ledger, job)
    assert (found["state"], found["items_done"], found["items_failed"]) == ("failed", 2, 1)
    assert "image 1 with m: the file is missing" in found["error"]
    assert found["traceback"] is None


def test_an_unexpected_error_fails_the_job_with_its_traceback(settings: Settings, ledger: Ledger) -> None:
    def act(_item: Record, _progress: Callable[[int, int], None]) -> None:
        raise ZeroDivisionError("by nothing")

    job = submit(ledger)
    kind = Counted(act)
    runner(settings, ledger, kind).run(job)
    found = job_queries.job(ledger, job)
    assert (found["state"], found["error"]) == ("failed", "ZeroDivisionError: by nothing")
    assert "by nothing" in found["traceback"]
    assert kind.computed == [0], "another attempt would meet the same"


def test_a_full_disk_delays_the_job_which_then_resumes(settings: Settings, ledger: Ledger) -> None:
    full = True

    def act(item: Record, _progress: Callable[[int, int], None]) -> None:
        if full and item["image_id"] == 1:
            raise OSError(28, "No space left on device")

    job = submit(ledger)
    kind = Counted(act)
    worker = runner(settings, ledger, kind)
    worker.run(job)
    found = job_queries.job(ledger, job)
    assert (found["state"], found["error"], found["items_done"]) == ("queued", None, 1)
    assert re.fullmatch(
        r"waits for disk space \(No space left on device: .*, .* has .* free\); retry in 5 s",
        found["note"],
    )
    worker.run(job)
    assert kind.computed == [0, 1], "it waits before it tries again"
    full = False
    with ledger.write() as connection:
        connection.execute(update(Job).values(not_before=None))
    worker.run(job)
    assert kind.computed == [0, 1, 1, 2]
    assert state(ledger, job) == "done"


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        OSError(122, "Disk quota exceeded"),
        RuntimeError("IO Error: Could not write file: No space left on device"),  # as DuckDB and Arrow put it
    ],
)
def test_a_disk_that_stays_full_costs_no_attempt_and_is_looked_at_less_and_less_often(
    settings: Settings, ledger: Ledger, error: Exception
) -> None:
    def act(_item: Record, _progress: Callable[[int, int], None]) -> None:
        raise error

    job = submit(ledger)
    kind = Counted(act)
    worker = runner(dataclasses.replace(settings, attempts=2), ledger, kind)
    pauses = []
    for _ in range(14):
        with ledger.write() as connection:
            connection.execute(update(Job).values(not_before=None))
        worker.run(job)
        with ledger.read() as connection:
            row = connection.execute(select(Job.state, Job.attempts, Job.not_before)).one()
        assert (row.state, row.attempts) == ("queued", 0)
        pauses.append((row.not_before - now()).total_seconds())
    expected = [min(3600.0, 5.0 * 2**tries) for tries in range(14)]
    assert pauses == pytest.approx(expected, abs=3)
    assert len(kind.computed) == 14


def test_a_database_that_is_read_only_for_a_while_costs_nothing(settings: Settings) -> None:
    """As in a failover: the item that finished meanwhile is stored once that is possible, and computed only once."""
    with installed_postgres() as (url, _):
        ledger = Ledger(dataclasses.replace(settings, ledger_url=url))
        ledger.migrate()

        def act(item: Record, _progress: Callable[[int, int], None]) -> None:
            if item["image_id"] == 1:
                set_read_only(url, True)
                with pytest.raises(LedgerError, match="read-only transaction"):
                    submit(ledger, "b")
                threading.Timer(4, set_read_only, (url, False)).start()

        job = submit(ledger)
        kind = Counted(act)
        runner(settings, ledger, kind).run(job)
        found = job_queries.job(ledger, job)
        assert (found["state"], found["items_done"], found["attempts"]) == ("done", 3, 1)
        assert kind.computed == [0, 1, 2]
        ledger.close()


def set_read_only(url: str, on: bool) -> None:
    """Make a PostgreSQL read-only, or writable again."""
    with psycopg.connect(url, autocommit=True, options="-c default_transaction_read_only=off") as connection:
        connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {'on' if on else 'off'}")
        connection.execute("SELECT pg_reload_conf()")
        while True:
            with psycopg.connect(url) as another:
                row = another.execute("SHOW transaction_read_only").fetchone()
            if row == ("on" if on else "off",):
                return


def test_an_item_that_was_kept_without_an_answer_is_kept_once(settings: Settings, ledger: Ledger) -> None:
    """The database commits a transaction, and the connection breaks before the client learns of it."""
    job = submit(ledger)
    kind = Counted()
    breaks = iter([True])

    class Breaking(Ledger):
        @contextlib.contextmanager
        def write(self) -> Iterator[Connection]:
            with super().write() as connection:
                before = connection.execute(select(Job.items_done)).scalar_one()
                yield connection
                after = connection.execute(select(Job.items_done)).scalar_one()
            if after == before + 1 and next(breaks, False):
                raise LedgerError("the connection ended")

    runner(settings, Breaking(settings), kind).run(job)
    found = job_queries.job(ledger, job)
    assert (found["state"], found["items_done"], kind.computed) == ("done", 3, [0, 1, 2])


def test_cancelling_ends_the_work_between_two_chunks_and_keeps_what_is_finished(
    settings: Settings, ledger: Ledger
) -> None:
    job = submit(ledger)

    def act(item: Record, progress: Callable[[int, int], None]) -> None:
        if item["image_id"] == 1:
            jobs.cancel(ledger, job)
            for done in range(200):
                progress(done, 200)
                time.sleep(0.05)

    kind = Counted(act)
    runner(dataclasses.replace(settings, lease=1), ledger, kind).run(job)
    found = job_queries.job(ledger, job)
    assert (found["state"], found["items_done"]) == ("cancelled", 1)
    assert kind.computed == [0, 1]


def test_a_stopping_worker_gives_its_job_back_within_a_chunk(settings: Settings, ledger: Ledger) -> None:
    stopping = threading.Event()

    def act(item: Record, progress: Callable[[int, int], None]) -> None:
        if item["image_id"] == 1:
            stopping.set()
            progress(1, 2)

    job = submit(ledger)
    kind = Counted(act)
    worker = runner(settings, ledger, kind, stopping=stopping)
    worker.run(job)
    found = job_queries.job(ledger, job)
    assert (found["state"], found["items_done"], found["attempts"]) == ("queued", 1, 0)
    worker.run(job)
    assert kind.computed == [0, 1], "a worker that stops takes nothing"


def test_a_worker_that_was_taken_for_dead_keeps_nothing_more(settings: Settings, ledger: Ledger) -> None:
    job = submit(ledger, items=1)

    def act(_item: Record, _progress: Callable[[int, int], None]) -> None:
        with ledger.write() as connection:
            connection.execute(update(Job).values(claim="another's"))

    runner(settings, ledger, Counted(act)).run(job)
    found = job_queries.job(ledger, job)
    assert (found["claim"], found["items_done"], found["state"]) == ("another's", 0, "running")


def test_the_lease_is_renewed_while_an_item_takes_long(settings: Settings, ledger: Ledger) -> None:
    shown: list[float] = []
    leases = Leases(1)

    def act(_item: Record, progress: Callable[[int, int], None]) -> None:
        for done in range(30):
            progress(done, 30)
            time.sleep(0.1)
            swept = claims.sweep(ledger, leases, attempts=3, resend_after=0, empty_queues=())
            assert swept.lapsed == ()
            shown.append(job_queries.job(ledger, job)["progress"])

    job = submit(ledger, items=1)
    runner(dataclasses.replace(settings, lease=1), ledger, Counted(act)).run(job)
    assert state(ledger, job) == "done"
    assert shown == sorted(shown)
    assert shown[-1] > 0.5


def test_interactive_jobs_overtake_batch_jobs(settings: Settings, ledger: Ledger) -> None:
    order: list[tuple[int, int]] = []

    def act(item: Record, _progress: Callable[[int, int], None]) -> None:
        order.append((item["job"], item["image_id"]))
        if item["image_id"] == 1 and item["job"] == night:
            submit(ledger, "b", items=2, queue="interactive")

    night = submit(ledger, "a")
    runner(settings, ledger, Counted(act)).run(night)
    click = night + 1
    assert order == [(night, 0), (night, 1), (click, 0), (click, 1), (night, 2)]
    assert state(ledger, night) == state(ledger, click) == "done"


def test_a_kind_that_nobody_knows_fails_in_a_sentence(settings: Settings, ledger: Ledger) -> None:
    job = submit(ledger, kind="divination")
    runner(settings, ledger, Counted()).run(job)
    assert "expected a job of kind counted, got 'divination'" in job_queries.job(ledger, job)["error"]
