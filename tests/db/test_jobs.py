"""The life of a job: each transition happens once, by one worker, and nothing is written without a claim."""

import contextlib
import hashlib
import itertools
import threading
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import insert, select, text, update

from db.ledger import claims, jobs
from db.ledger.claims import Claim, ItemEnded, LostClaim
from db.ledger.engine import Ledger, now
from db.ledger.jobs import IllegalMove, NewItem, NewJob, NoSuchJob
from db.ledger.leases import Leases
from db.ledger.tables import STATES, Job, JobItem, Worker
from db.queries import jobs as job_queries

ALL_QUEUES = frozenset({"interactive", "batch"})


def new_job(key: str = "a", *, items: int = 2, queue: str = "batch") -> NewJob:
    listed = tuple(NewItem("m", number, f"{number:064d}") for number in range(items))
    return NewJob(
        hashlib.sha256(key.encode()).hexdigest(), "saliency", queue, "m", "samples", {"seed": 0}, listed
    )


def submitted(ledger: Ledger, key: str = "a", **options: object) -> int:
    return jobs.submit_job(ledger, new_job(key, **options))[0]  # type: ignore[arg-type]


def claimed(ledger: Ledger, job: int, worker: str = "w", lease: float = 30.0) -> Claim:
    claim = claims.claim_job(ledger, job, worker=worker, lease=lease)
    assert claim is not None
    return claim


def state(ledger: Ledger, job: int) -> str:
    return str(job_queries.job(ledger, job)["state"])


def do_all_items(ledger: Ledger, claim: Claim) -> None:
    for item in claims.open_items(ledger, claim):
        claims.finish_item(ledger, claim, item["item"], seconds=0.5, store=lambda _connection: 7)


class Clock:
    """A monotonic clock that a test sets."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def sweep(
    ledger: Ledger,
    leases: Leases | None = None,
    *,
    attempts: int = 3,
    empty: frozenset[str] = ALL_QUEUES,
) -> claims.Swept:
    return claims.sweep(ledger, leases or Leases(30), attempts=attempts, resend_after=0.0, empty_queues=empty)


def sweep_after_a_lease(ledger: Ledger, *, attempts: int = 3) -> claims.Swept:
    """Sweep as a sweeper does that has seen no heartbeat for a whole lease."""
    clock = Clock()
    leases = Leases(30, clock)
    assert sweep(ledger, leases, attempts=attempts).lapsed == ()
    clock.seconds += 30
    return sweep(ledger, leases, attempts=attempts)


def test_the_same_request_twice_is_one_job(ledger: Ledger) -> None:
    assert jobs.submit_job(ledger, new_job()) == (1, True)
    assert jobs.submit_job(ledger, new_job()) == (1, False)
    assert jobs.submit_job(ledger, new_job("b"))[0] == 2
    assert len(job_queries.job_items(ledger, 1)) == 2


def test_the_same_request_from_many_threads_is_one_job(ledger: Ledger) -> None:
    answers: list[tuple[int, bool]] = []
    start = threading.Barrier(6)

    def submit() -> None:
        start.wait()
        answers.append(jobs.submit_job(ledger, new_job()))

    threads = [threading.Thread(target=submit) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {job for job, _ in answers} == {answers[0][0]}
    assert sum(made for _, made in answers) == 1


def test_of_many_that_claim_a_job_one_gets_it(ledger: Ledger) -> None:
    job = submitted(ledger)
    got: list[Claim] = []
    start = threading.Barrier(6)

    def claim(worker: str) -> None:
        start.wait()
        taken = claims.claim_job(ledger, job, worker=worker, lease=30)
        if taken is not None:
            got.append(taken)

    threads = [threading.Thread(target=claim, args=(f"w{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1
    assert job_queries.job(ledger, job)["attempts"] == 1


def test_a_job_is_done_when_all_its_items_are(ledger: Ledger) -> None:
    job = submitted(ledger)
    claim = claimed(ledger, job)
    do_all_items(ledger, claim)
    assert claims.finish(ledger, claim) == "done"
    found = job_queries.job(ledger, job)
    assert (found["state"], found["items_done"], found["error"]) == ("done", 2, None)
    assert found["finished"] is not None
    assert {item["result"] for item in job_queries.job_items(ledger, job)} == {7}


def test_an_items_result_and_its_state_are_kept_together_or_not_at_all(ledger: Ledger) -> None:
    job = submitted(ledger)
    claim = claimed(ledger, job)
    item = claims.open_items(ledger, claim)[0]["item"]

    def half(connection: object) -> int:
        connection.execute(insert(Worker).values(  # type: ignore[attr-defined]
            worker="half", host="h", pid=1, queues="", device="cpu", started=now(), seen=now()))  # fmt: skip
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        claims.finish_item(ledger, claim, item, seconds=1, store=half)
    assert job_queries.workers(ledger) == []
    assert job_queries.job(ledger, job)["items_done"] == 0
    assert len(claims.open_items(ledger, claim)) == 2


def test_a_failed_item_fails_the_job_and_the_others_keep_their_results(ledger: Ledger) -> None:
    job = submitted(ledger)
    claim = claimed(ledger, job)
    first, second = (item["item"] for item in claims.open_items(ledger, claim))
    claims.fail_item(ledger, claim, first, seconds=0.1, error="the file is missing")
    claims.finish_item(ledger, claim, second, seconds=0.1, store=lambda _connection: 3)
    assert claims.finish(ledger, claim) == "failed"
    found = job_queries.job(ledger, job)
    assert found["error"] == "1 of 2 have no result, the first is image 0 with m: the file is missing"
    assert [item["result"] for item in job_queries.job_items(ledger, job)] == [None, 3]


def test_a_retry_computes_only_failed_items(ledger: Ledger) -> None:
    job = submitted(ledger)
    claim = claimed(ledger, job)
    first, second = (item["item"] for item in claims.open_items(ledger, claim))
    claims.fail_item(ledger, claim, first, seconds=0.1, error="no")
    claims.finish_item(ledger, claim, second, seconds=0.1, store=lambda _connection: 3)
    claims.finish(ledger, claim)
    began = job_queries.job(ledger, job)["started"]
    assert jobs.retry(ledger, job) == "batch"
    assert job_queries.job(ledger, job)["started"] is None
    again = claimed(ledger, job)
    assert job_queries.job(ledger, job)["started"] > began, "its time is that of the new attempt"
    assert [item["item"] for item in claims.open_items(ledger, again)] == [first]
    do_all_items(ledger, again)
    assert claims.finish(ledger, again) == "done"
    assert job_queries.job(ledger, job)["items_done"] == 2


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_resubmitting_a_failed_or_cancelled_job_requeues_it(ledger: Ledger, end: str) -> None:
    job = submitted(ledger)
    claim = claimed(ledger, job)
    if end == "failed":
        claims.end_attempt(ledger, claim, error="no", traceback="…", retryable=False, attempts=3)
    else:
        claims.end_cancelled(ledger, claim)
    assert jobs.submit_job(ledger, new_job()) == (job, True)
    found = job_queries.job(ledger, job)
    assert (found["state"], found["error"], found["traceback"], found["attempts"]) == (
        "queued",
        None,
        None,
        0,
    )


def test_a_waiting_job_is_cancelled_at_once_and_a_running_one_when_its_worker_looks(ledger: Ledger) -> None:
    waiting, running = submitted(ledger, "a"), submitted(ledger, "b")
    assert jobs.cancel(ledger, waiting) == "cancelled"
    assert claims.claim_job(ledger, waiting, worker="w", lease=30) is None
    claim = claimed(ledger, running)
    assert claims.renew(ledger, claim, lease=30, progress=0.5) is False
    assert jobs.cancel(ledger, running) == "running"
    assert claims.renew(ledger, claim, lease=30, progress=0.5) is True
    assert claims.end_cancelled(ledger, claim)
    assert state(ledger, running) == "cancelled"


def test_asking_for_a_job_that_is_being_cancelled_withdraws_the_cancelling(ledger: Ledger) -> None:
    job = submitted(ledger)
    claim = claimed(ledger, job)
    jobs.cancel(ledger, job)
    jobs.submit_job(ledger, new_job())
    assert claims.renew(ledger, claim, lease=30, progress=0) is False


def test_a_finished_job_cannot_be_cancelled_nor_a_queued_one_retried(ledger: Ledger) -> None:
    job = submitted(ledger)
    with pytest.raises(IllegalMove, match=f"job {job} is queued: only failed and cancelled"):
        jobs.retry(ledger, job)
    claim = claimed(ledger, job)
    do_all_items(ledger, claim)
    claims.finish(ledger, claim)
    with pytest.raises(IllegalMove, match=f"job {job} is done and can no longer be cancelled"):
        jobs.cancel(ledger, job)
    for call in (jobs.cancel, jobs.retry):
        with pytest.raises(NoSuchJob, match="there is no job 99"):
            call(ledger, 99)


def test_a_worker_that_lost_its_lease_writes_nothing(ledger: Ledger) -> None:
    job = submitted(ledger)
    late = claimed(ledger, job, worker="late")
    item = claims.open_items(ledger, late)[0]["item"]
    assert sweep_after_a_lease(ledger).lapsed == (job,)
    punctual = claimed(ledger, job, worker="punctual")
    with pytest.raises(LostClaim):
        claims.renew(ledger, late, lease=30, progress=0)
    with pytest.raises(LostClaim):
        claims.finish_item(ledger, late, item, seconds=1, store=lambda _connection: 1)
    with pytest.raises(LostClaim):
        claims.fail_item(ledger, late, item, seconds=1, error="no")
    assert claims.finish(ledger, late) is None
    assert not claims.end_cancelled(ledger, late)
    assert not claims.give_back(ledger, late)
    assert claims.end_attempt(ledger, late, error="no", traceback=None, retryable=True, attempts=3) is None
    do_all_items(ledger, punctual)
    assert claims.finish(ledger, punctual) == "done"
    assert job_queries.job(ledger, job)["worker"] == "punctual"


@pytest.mark.parametrize("hours", [-25, -1, 1, 25])
def test_a_lease_depends_on_no_clock_of_another_host(ledger: Ledger, hours: int) -> None:
    """A worker whose clock is wrong or jumps keeps its job while it sends heartbeats, and loses it without."""
    job = submitted(ledger)
    claim = claimed(ledger, job)
    clock = Clock()
    leases = Leases(30, clock)
    for beat in range(20):
        with ledger.write() as connection:  # what a heartbeat writes there
            at = now() + timedelta(hours=hours, seconds=beat)
            connection.execute(update(Job).where(Job.job == job).values(lease_until=at))
        assert sweep(ledger, leases).lapsed == ()
        clock.seconds += 20
    assert claims.renew(ledger, claim, lease=30, progress=0) is False
    assert sweep(ledger, leases).lapsed == ()
    clock.seconds += 29
    assert sweep(ledger, leases).lapsed == ()
    clock.seconds += 1
    assert sweep(ledger, leases).lapsed == (job,)


def test_a_pause_that_a_clocks_jump_made_endless_is_over(ledger: Ledger) -> None:
    job = submitted(ledger)
    for hours, claimable in ((0.5, False), (24, True)):
        with ledger.write() as connection:
            connection.execute(update(Job).values(not_before=now() + timedelta(hours=hours)))
        assert (claims.claim_job(ledger, job, worker="w", lease=30) is not None) is claimable


def test_a_message_that_a_clocks_jump_put_into_the_future_is_sent_again(ledger: Ledger) -> None:
    job = submitted(ledger)
    with ledger.write() as connection:
        connection.execute(update(Job).values(sent=now() + timedelta(hours=1)))
    assert sweep(ledger, empty=frozenset()).to_send == ((job, "batch"),)


def test_times_come_from_the_database(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """On PostgreSQL no host's clock enters a row; SQLite runs on one host."""
    if ledger.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has no clock of its own")
    monkeypatch.setattr("db.ledger.engine.now", lambda: datetime(2001, 1, 1))
    job = submitted(ledger)
    claim = claimed(ledger, job)
    do_all_items(ledger, claim)
    claims.finish(ledger, claim)
    found = job_queries.job(ledger, job)
    assert min(found[name] for name in ("created", "started", "finished")).year > 2001


def test_an_item_that_has_ended_is_reported_as_ended(ledger: Ledger) -> None:
    job = submitted(ledger)
    claim = claimed(ledger, job)
    item = claims.open_items(ledger, claim)[0]["item"]
    claims.finish_item(ledger, claim, item, seconds=1, store=lambda _connection: 7)
    with pytest.raises(ItemEnded):
        claims.finish_item(ledger, claim, item, seconds=1, store=lambda _connection: 8)
    assert job_queries.job(ledger, job)["items_done"] == 1
    assert job_queries.job_items(ledger, job)[0]["result"] == 7


def test_a_lapsed_job_is_retried_up_to_the_maximum_number_of_attempts(ledger: Ledger) -> None:
    job = submitted(ledger)
    for _ in range(3):
        claimed(ledger, job, worker="dies")
        assert sweep_after_a_lease(ledger, attempts=3).lapsed == (job,)
    found = job_queries.job(ledger, job)
    assert (found["state"], found["error"]) == (
        "failed",
        "worker dies stopped sending heartbeats in attempt 3 of 3",
    )


def test_a_lapsed_job_that_was_to_be_cancelled_is_cancelled(ledger: Ledger) -> None:
    job = submitted(ledger)
    claimed(ledger, job)
    jobs.cancel(ledger, job)
    sweep_after_a_lease(ledger)
    assert state(ledger, job) == "cancelled"


def test_a_job_that_a_stopping_worker_gives_back_lost_no_attempt(ledger: Ledger) -> None:
    job = submitted(ledger)
    assert claims.give_back(ledger, claimed(ledger, job))
    found = job_queries.job(ledger, job)
    assert (found["state"], found["attempts"], found["sent"]) == ("queued", 0, None)


def test_an_attempt_that_may_succeed_later_waits_longer_each_time(ledger: Ledger) -> None:
    job = submitted(ledger)
    pauses = []
    for _ in range(2):
        with ledger.write() as connection:
            connection.execute(update(Job).values(not_before=None))
        claim = claimed(ledger, job)
        outcome = claims.end_attempt(
            ledger, claim, error="disk full", traceback="…", retryable=True, attempts=3
        )
        assert outcome == "queued"
        with ledger.read() as connection:
            pauses.append((connection.execute(select(Job.not_before)).scalar_one() - now()).total_seconds())
        assert claims.claim_job(ledger, job, worker="w", lease=30) is None, "it waits"
        assert sweep(ledger).to_send == ()
    assert 1 < pauses[0] <= 2 < pauses[1] <= 4
    with ledger.write() as connection:
        connection.execute(update(Job).values(not_before=None))
    claim = claimed(ledger, job)
    assert (
        claims.end_attempt(ledger, claim, error="disk full", traceback="…", retryable=True, attempts=3)
        == "failed"
    )


def test_unsent_messages_are_sent_and_queued_ones_are_not_sent_twice(ledger: Ledger) -> None:
    job = submitted(ledger)
    assert sweep(ledger, empty=frozenset()).to_send == ((job, "batch"),)
    assert sweep(ledger, empty=frozenset({"interactive"})).to_send == ()
    assert sweep(ledger, empty=frozenset({"batch"})).to_send == ((job, "batch"),)
    claimed(ledger, job)
    assert sweep(ledger).to_send == ()


def test_the_interactive_job_that_waits_longest_comes_next(ledger: Ledger) -> None:
    assert claims.next_interactive(ledger) is None
    submitted(ledger, "a")
    first = submitted(ledger, "b", queue="interactive")
    submitted(ledger, "c", queue="interactive")
    assert claims.next_interactive(ledger) == first


def test_time_left_follows_from_the_pace_so_far(ledger: Ledger) -> None:
    job = submitted(ledger, items=5)
    claim = claimed(ledger, job)
    assert job_queries.job(ledger, job)["seconds_left"] is None
    for item, seconds in zip(claims.open_items(ledger, claim)[:2], (1.0, 3.0), strict=True):
        claims.finish_item(ledger, claim, item["item"], seconds=seconds, store=lambda _connection: 1)
    claims.renew(ledger, claim, lease=30, progress=0.5)
    assert job_queries.job(ledger, job)["seconds_left"] == pytest.approx(2.5 * 2.0)


def test_jobs_are_filtered_by_whole_model_names(ledger: Ledger) -> None:
    listed = (NewItem("net", 0, "0" * 64),)
    jobs.submit_job(ledger, NewJob("a" * 64, "saliency", "batch", "net, net-2", "samples", {}, listed))
    jobs.submit_job(ledger, NewJob("b" * 64, "saliency", "batch", "net-2", "samples", {}, listed))
    assert [row["job"] for row in job_queries.jobs(ledger, model="net-2")] == [2, 1]
    assert [row["job"] for row in job_queries.jobs(ledger, model="net")] == [1]
    assert job_queries.jobs(ledger, model="n%") == []
    assert job_queries.count_jobs(ledger, states=["queued"]) == 2


def test_the_database_refuses_an_unknown_state(ledger: Ledger) -> None:
    submitted(ledger)
    with pytest.raises(Exception, match="state_is_known"), ledger.write() as connection:
        connection.execute(text("UPDATE jobs SET state = 'lost'"))


@hypothesis_settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(st.sampled_from(["claim", "finish", "give_back", "cancel", "end_cancelled", "raise", "lapse",
                                       "retry", "submit"]), max_size=25))  # fmt: skip
def test_any_sequence_keeps_jobs_in_known_states_with_legal_transitions(
    ledger: Ledger, steps: list[str]
) -> None:
    key = next(_KEYS)
    job, _ = jobs.submit_job(ledger, new_job(key))
    held: list[Claim] = []
    before = state(ledger, job)
    for step in steps:
        last = held[-1] if held else None
        if step == "claim":
            taken = claims.claim_job(ledger, job, worker="w", lease=30)
            held += [taken] if taken else []
        elif step == "finish" and last:
            with contextlib.suppress(LostClaim):
                do_all_items(ledger, last)
            claims.finish(ledger, last)
        elif step == "give_back" and last:
            claims.give_back(ledger, last)
        elif step == "end_cancelled" and last:
            claims.end_cancelled(ledger, last)
        elif step == "raise" and last:
            claims.end_attempt(ledger, last, error="no", traceback=None, retryable=False, attempts=9)
        elif step == "lapse":
            sweep_after_a_lease(ledger, attempts=9)
        elif step == "submit":
            jobs.submit_job(ledger, new_job(key))
        elif step in ("cancel", "retry"):
            with contextlib.suppress(IllegalMove):
                getattr(jobs, step)(ledger, job)
        after = state(ledger, job)
        assert after in STATES
        assert after == before or _reachable(before, after)
        with ledger.read() as connection:
            done = connection.execute(
                select(JobItem.item).where(JobItem.job == job, JobItem.state == "done")
            ).all()
        found = job_queries.job(ledger, job)
        assert found["items_done"] == len(done)
        assert (found["claim"] is not None) == (after == "running")
        assert (found["finished"] is not None) == (after in jobs.ENDED)
        before = after


_KEYS = (str(number) for number in itertools.count())


def _reachable(before: str, after: str) -> bool:
    """In one transition, or in two if a step both sweeps and sends."""
    return after in jobs.MOVES[before] or any(after in jobs.MOVES[middle] for middle in jobs.MOVES[before])
