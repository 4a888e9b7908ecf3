"""A worker's way with a job: what it keeps, what it gives back, and what it never writes."""

import dataclasses
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import update

from db import job_queries, jobs
from db.jobs import NewItem, NewJob, Record
from db.ledger import Ledger
from db.ledger_tables import Job
from db.settings import Settings
from workers.running import Computed, ItemFailed, Runner

Act = Callable[[Record, Callable[[int, int], None]], None]


class Counted:
    """A kind whose items do what they are told to, and count how often."""

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


def test_a_number_that_is_no_job_is_passed_over(settings: Settings, ledger: Ledger) -> None:
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
            raise ItemFailed("the file is gone")

    job = submit(ledger)
    runner(settings, ledger, Counted(act)).run(job)
    found = job_queries.job(ledger, job)
    assert (found["state"], found["items_done"], found["items_failed"]) == ("failed", 2, 1)
    assert "image 1 with m: the file is gone" in found["error"]
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


def test_a_full_disk_ends_the_attempt_and_the_next_goes_on_where_it_was(
    settings: Settings, ledger: Ledger
) -> None:
    full = True

    def act(item: Record, _progress: Callable[[int, int], None]) -> None:
        if full and item["image_id"] == 1:
            raise OSError(28, "No space left on device")

    job = submit(ledger)
    kind = Counted(act)
    worker = runner(settings, ledger, kind)
    worker.run(job)
    found = job_queries.job(ledger, job)
    assert (found["state"], found["error"], found["items_done"]) == ("queued", "No space left on device", 1)
    worker.run(job)
    assert kind.computed == [0, 1], "it waits before it tries again"
    full = False
    with ledger.write() as connection:
        connection.execute(update(Job).values(not_before=None))
    worker.run(job)
    assert kind.computed == [0, 1, 1, 2]
    assert state(ledger, job) == "done"


def test_a_disk_that_stays_full_fails_the_job_after_the_stated_attempts(
    settings: Settings, ledger: Ledger
) -> None:
    def act(_item: Record, _progress: Callable[[int, int], None]) -> None:
        raise OSError(28, "No space left on device")

    job = submit(ledger)
    kind = Counted(act)
    worker = runner(dataclasses.replace(settings, attempts=3), ledger, kind)
    for _ in range(5):
        with ledger.write() as connection:
            connection.execute(update(Job).values(not_before=None))
        worker.run(job)
    found = job_queries.job(ledger, job)
    assert (found["state"], found["attempts"], len(kind.computed)) == ("failed", 3, 3)


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

    def act(_item: Record, progress: Callable[[int, int], None]) -> None:
        for done in range(30):
            progress(done, 30)
            time.sleep(0.1)
            swept = jobs.sweep(ledger, attempts=3, resend_after=0, empty_queues=())
            assert swept.lapsed == ()
            shown.append(job_queries.job(ledger, job)["progress"])

    job = submit(ledger, items=1)
    runner(dataclasses.replace(settings, lease=1), ledger, Counted(act)).run(job)
    assert state(ledger, job) == "done"
    assert shown == sorted(shown)
    assert shown[-1] > 0.5


def test_somebody_who_waits_passes_a_nights_work(settings: Settings, ledger: Ledger) -> None:
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
