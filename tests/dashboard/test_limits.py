"""Token buckets: how often one user may request what is costly."""

import dataclasses
import threading
import time
import types
from collections.abc import Iterator

import flask
import pytest
from flask.testing import FlaskClient

from dashboard.app import create_app
from dashboard.pages import images_add_steps, job_progress, jobs, robustness, saliency_request, sql_run
from dashboard.pages.images_add_steps import Adding
from dashboard.pages.request import filling, picking
from dashboard.security.access import TooManyRequests, Visitor, spend
from dashboard.security.limits import MAX_KNOWN, Limits, spent_by
from dashboard.state.context import EXTENSION, Context
from dashboard.state.sql_address import Asked
from db.queries.jobs import count_jobs
from db.settings import Settings
from workers.jobs.kind import Stores
from workers.jobs.registry import read_request

ADA, BEN = {"REMOTE_ADDR": "10.0.0.1"}, {"REMOTE_ADDR": "10.0.0.2"}


@pytest.fixture
def server(filled_settings: Settings) -> flask.Flask:
    """A dashboard that lets each user submit 3 jobs and run 2 statements a minute."""
    return create_app(dataclasses.replace(filled_settings, jobs_per_minute=3, sql_per_minute=2)).server


def test_a_bucket_gives_a_minute_s_worth_at_once_and_then_one_at_a_time() -> None:
    limits = Limits(jobs=600, sql=120)
    assert [limits.spend("SQL statements", "ada") for _ in range(121)] == [0] * 120 + [1]
    assert limits.spend("SQL statements", "ben") == 0, "each has their own"
    assert limits.spend("jobs", "ada") == 0, "and one for each"
    time.sleep(1.1)
    assert [limits.spend("SQL statements", "ada") for _ in range(3)] == [0, 0, 1], (
        "120 a minute are 2 a second"
    )


def test_looking_takes_nothing() -> None:
    limits = Limits(jobs=1, sql=1)
    assert [limits.seconds_to_wait("jobs", "ada") for _ in range(3)] == [0, 0, 0]
    assert limits.spend("jobs", "ada") == 0
    assert 55 < limits.seconds_to_wait("jobs", "ada") <= 60
    assert 55 < limits.spend("jobs", "ada") <= 60


def test_threads_share_a_bucket_and_none_gets_more() -> None:
    limits = Limits(jobs=50, sql=1)
    waits: list[int] = []

    def spend() -> None:
        waits.extend(limits.spend("jobs", "ada") for _ in range(25))

    threads = [threading.Thread(target=spend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 50 <= waits.count(0) <= 53, "one may have trickled in"


def test_the_number_of_remembered_clients_is_bounded() -> None:
    limits = Limits(jobs=1, sql=1)
    for number in range(MAX_KNOWN + 500):
        limits.spend("jobs", f"somebody {number}")
    store = limits._buckets["jobs"]._store
    assert len(store._backend.get_client()) == MAX_KNOWN
    assert len(store._backend.expire_info) == MAX_KNOWN
    assert limits.spend("jobs", f"somebody {MAX_KNOWN + 499}") > 0, "the latest are"


def test_jobs_that_come_too_fast_are_refused_with_a_time(server: flask.Flask) -> None:
    client = server.test_client()
    answers = [client.post("/api/jobs", json={}, environ_base=ADA) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [400] * 3
    for path in ("/api/jobs", "/api/jobs/1/retry", "/api/uploads/0123abcd/import"):
        refused = client.post(path, json={}, environ_base=ADA)
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["Retry-After"]) <= 20
        assert refused.json["error"].startswith("expected at most 3 jobs a minute, got more: wait ")  # type: ignore[index]
    assert client.post("/api/jobs", json={}, environ_base=BEN).status_code == 400
    assert client.get("/api/jobs", environ_base=ADA).status_code == 200, "looking is free"


def test_statements_share_one_bucket_on_all_their_routes(server: flask.Flask) -> None:
    client = server.test_client()
    assert client.get("/api/sql?q=SELECT 1", environ_base=ADA).status_code == 200
    with client.get("/download/sql.csv?q=SELECT 1", environ_base=ADA) as answer:
        assert answer.status_code == 200
    for path in ("/api/sql?q=SELECT 1", "/download/sql.csv?q=SELECT 1"):
        assert client.get(path, environ_base=ADA).status_code == 429
    assert client.get("/api/sql?q=SELECT 1", environ_base=BEN).status_code == 200
    assert client.get("/api/sql/tables", environ_base=ADA).status_code == 200


def test_one_login_has_one_bucket_wherever_it_is(filled_settings: Settings) -> None:
    settings = dataclasses.replace(filled_settings, password="correct horse", sql_per_minute=1)
    server = create_app(settings).server

    def logged_in() -> FlaskClient:
        client = server.test_client()
        form = {"password": settings.password}
        assert client.post("/login", data=form, headers={"Origin": "http://localhost"}).status_code == 303
        return client

    ada, ben = logged_in(), logged_in()
    assert ada.get("/api/sql?q=SELECT 1", environ_base=ADA).status_code == 200
    assert ada.get("/api/sql?q=SELECT 1", environ_base=BEN).status_code == 429
    assert ben.get("/api/sql?q=SELECT 1", environ_base=ADA).status_code == 200


def test_every_route_that_submits_or_runs_sql_is_counted(server: flask.Flask) -> None:
    counted = {
        (method, rule.rule): spent_by(method, rule.rule)
        for rule in server.url_map.iter_rules()
        for method in rule.methods or ()
        if method != "HEAD" and spent_by(method, rule.rule)
    }
    assert counted == {
        ("POST", "/api/jobs"): "jobs",
        ("POST", "/api/jobs/<int:job>/retry"): "jobs",
        ("POST", "/api/uploads/<upload>/import"): "jobs",
        ("GET", "/api/sql"): "SQL statements",
        ("GET", "/download/sql.<form>"): "SQL statements",
    }


@pytest.fixture
def exhausted(server: flask.Flask) -> Iterator[Context]:
    """A request of a user who may neither submit a job nor run a statement for now."""
    with server.test_request_context("/", environ_base=ADA):
        flask.g.visitor = Visitor("", "ada")
        for name, count in (("jobs", 3), ("SQL statements", 2)):
            for _ in range(count):
                spend(name)
        yield server.extensions[EXTENSION]


def test_every_callback_that_submits_a_job_is_counted(exhausted: Context) -> None:
    stores = Stores(exhausted.atlas, exhausted.ledger, exhausted.settings)
    new = read_request({"kind": "index", "model": "efficientnet-lite0", "images": "painted"}, stores)
    before = count_jobs(exhausted.ledger)
    state = Adding(fields={"name": "painted"}, step="imported")
    sentences = {
        "forms": job_progress.attempt(lambda: job_progress.submit(new))["sentence"],
        "Retry of forms": job_progress.attempt(lambda: job_progress._act("retry", 1))["sentence"],
        "Retry of the Jobs page": jobs.move_job("retry", 1).lower(),
        "Test transfer": robustness.submit_transfer(1, "1", "other", 0)[0].children,
        "image sets": images_add_steps.indexed(exhausted, state, "efficientnet-lite0").error,
    }
    refused = "expected at most 3 jobs a minute, got more: wait "
    assert [name for name, sentence in sentences.items() if not sentence.startswith(refused)] == []
    assert count_jobs(exhausted.ledger) == before


def test_every_callback_that_runs_a_user_s_sql_is_counted(
    exhausted: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = "expected at most 2 SQL statements a minute, got more: wait "
    with pytest.raises(TooManyRequests, match=refused):
        sql_run._run(Asked.read("?q=SELECT 1"), lambda: False)
    page = saliency_request.read_page(exhausted, exhausted.catalogue(), "")
    filled = filling.fill(saliency_request.FORM, exhausted, page, "")["filled"]
    entered = [{"prop_id": "saliency-where.n_submit", "value": 1}]
    monkeypatch.setattr(picking, "ctx", types.SimpleNamespace(triggered=entered))
    found = picking.picked(
        saliency_request.FORM, [], "width > 1", 1, None, None, None, None, filled, None, ""
    )
    assert found["event"]["sentence"].startswith(refused)
