"""The Jobs page's callbacks over a ledger with many jobs: what they send, and what they leave out."""

import dataclasses
import json
from typing import Any

import flask
import pytest
from dash import no_update
from dash.exceptions import PreventUpdate
from job_rows import add_jobs, change_job
from plotly.utils import PlotlyJSONEncoder
from synthetic_atlas import import_pictures, painted_pictures

from dashboard.api.answers import job_record
from dashboard.api.status import work_words
from dashboard.app import create_app
from dashboard.components.formatting import rough_duration
from dashboard.components.job_cells import cells
from dashboard.components.job_details import import_summary
from dashboard.pages.jobs import changes, filter_jobs, move_job, show_jobs
from dashboard.state.address import JobsAddress
from dashboard.state.context import Context
from db.queries import jobs as job_queries
from db.settings import Settings


def plain(found: Any) -> Any:
    """Return components as the browser gets them."""
    return json.loads(json.dumps(found, cls=PlotlyJSONEncoder))


def shown_after(search: str, before: Any = None, **values: Any) -> dict[str, Any]:
    """Return by name what the callback sends: outputs that it does not leave as they are, and parts of a job."""
    update, parts = changes(search, values.get("work"), values.get("done"), before or {})
    sent = {name: part for name, part in update._asdict().items() if part is not no_update}
    return dict(plain(sent | ({"parts": parts} if parts else {})))


def words(part: Any) -> str:
    """Return the text of a part, however deep it is."""
    if isinstance(part, dict):
        return words(list(part["props"].values()) if "props" in part else list(part.values()))
    return " ".join(map(words, part)) if isinstance(part, list) else str(part)


def test_ten_thousand_jobs_are_sent_25_at_a_time(empty_context: Context) -> None:
    add_jobs(empty_context.ledger, 10_000)
    found = shown_after("?page=3")
    assert [row["job"] for row in found["data"]] == [str(number) for number in range(9_950, 9_925, -1)]
    assert found["count"] == "10,000 jobs"
    assert "3 of 400" in words(found["pager"])
    assert len(json.dumps(found)) < 100_000


def test_what_is_shown_already_is_not_sent_again(empty_context: Context) -> None:
    ledger = empty_context.ledger
    add_jobs(ledger, 3)
    add_jobs(ledger, 1, state="running", items_done=0)
    first = shown_after("?job=4")
    assert len(first["data"]) == 4
    assert first["still"] is False
    assert shown_after("?job=4", first["shown"]) == {"still": False}
    change_job(ledger, 4, items_done=1)
    second = shown_after("?job=4", first["shown"])
    assert second.keys() == {"transaction", "parts", "still", "shown"}
    assert [row["job"] for row in second["transaction"]["update"]] == ["4"]
    assert second["parts"].keys() == {"status"}
    assert "1 of 2" in words(second["parts"]["status"])
    change_job(ledger, 4, state="done", items_done=2)
    assert shown_after("?job=4", second["shown"])["still"] is True
    closed = shown_after("", second["shown"])
    assert closed["opened"] is None
    with pytest.raises(PreventUpdate):
        show_jobs("", None, 0, None, "/sql", None)


def test_a_filter_is_written_to_the_address_and_only_if_it_changed() -> None:
    assert filter_jobs("failed", "any", "?model=m&page=3&job=7") == "?model=m&state=failed"
    assert filter_jobs("any", "any", "?state=failed") == ""
    for state, kind in (("failed", "any"), (None, "any"), ("failed", None)):
        with pytest.raises(PreventUpdate):
            filter_jobs(state, kind, "?state=failed&page=3")


@pytest.mark.parametrize(
    ("values", "state", "progress", "actions"),
    [
        ({"state": "running", "items_done": 1, "progress": 0.5}, "running", "1 of 2", ["Cancel job 1"]),
        ({"state": "running", "cancel_requested": True, "items_done": 0}, "cancelling", "0 of 2", []),
        ({"state": "failed", "items_done": 1, "items_failed": 1}, "failed", "2 of 2, 1 failed", ["Retry job 1"]),
        ({"state": "running", "kind": "index", "items": 1, "items_done": 0, "progress": 0.379}, "running", "37 %",
         ["Cancel job 1"]),
        ({"state": "cancelled", "kind": "import", "items": 1, "items_done": 0}, "cancelled", "no result",
         ["Retry job 1"]),
        ({"kind": "of an older version"}, "done", "2 of 2", []),
    ],
)  # fmt: skip
def test_a_row_says_how_far_its_job_is_and_what_can_be_done(
    empty_context: Context, values: dict[str, Any], state: str, progress: str, actions: list[str]
) -> None:
    add_jobs(empty_context.ledger, 1, **values)
    row = cells(job_record(job_queries.jobs(empty_context.ledger)[0]), JobsAddress())
    sent = plain(row)
    assert state in words(sent["state"])
    assert sent["progress"]["props"]["children"][1]["props"]["children"] == progress
    buttons = [one for one in sent["actions"]["props"]["children"] if one["type"] == "Button"]
    assert [button["props"]["aria-label"] for button in buttons] == actions


def test_a_job_that_is_gone_and_a_button_that_came_too_late_are_said(empty_context: Context) -> None:
    add_jobs(empty_context.ledger, 1)
    assert "There is no job 9." in words(shown_after("?job=9")["note"])
    assert move_job("cancel", 1) == "Job 1 is done and can no longer be cancelled."
    assert move_job("retry", 1) == "Job 1 is done: only failed and cancelled jobs can be retried."
    assert move_job("cancel", 9) == "There is no job 9."
    note = shown_after(
        "", done={"problem": "Job 1 is done."}, work={"words": ["off", "no worker", "start one"]}
    )["note"]
    assert "Job 1 is done." in words(note)
    assert "No worker: start one." in words(note)


def test_retries_from_the_page_count_as_jobs(filled_settings: Settings, tmp_path: Any) -> None:
    settings = dataclasses.replace(filled_settings, home=tmp_path, jobs_per_minute=1)
    import_pictures(settings, painted_pictures(2), image_set="painted")
    server: flask.Flask = create_app(settings).server
    add_jobs(server.extensions["convscope"].ledger, 2, state="failed")
    ask = {
        "output": "jobs-done.data", "outputs": {"id": "jobs-done", "property": "data"},
        "changedPropIds": ["jobs-grid.cellRendererData"], "state": [],
    }  # fmt: skip
    said = []
    for job in ("1", "2"):
        click = {
            "id": "jobs-grid",
            "property": "cellRendererData",
            "value": {"value": {"action": "retry", "job": job}},
        }
        answer = server.test_client().post("/_dash-update-component", json=ask | {"inputs": [click, []]})
        said.append(answer.json["response"]["jobs-done"]["data"]["problem"])  # type: ignore[index]
    assert said[0] == ""
    assert said[1].startswith("Expected at most 1 jobs a minute, got more: wait ")


def test_an_import_says_what_entered_and_what_it_refused() -> None:
    report = dict.fromkeys(("labelled", "duplicates", "changed", "relabelled", "moved", "renamed", "gone"), 0) | {
        "added": 1_200, "known": 3, "refused": 1, "layout": {},
        "refusals": [{"name": "<b>.jpg", "reason": "no image"}],
    }  # fmt: skip
    told = words(plain(import_summary(report)))
    assert "1,200 images added, 3 already there." in told
    assert "<b>.jpg" in told
    preview = import_summary(
        report | {"layout": {"preview": True, "sentence": "folders", "notes": [], "unused": []}}
    )
    assert "A preview: nothing was imported." in words(plain(preview))


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"broker": True, "queued": 0, "running": 0, "workers": 0}, None),
        ({"broker": True, "queued": 2, "running": 1, "workers": 1}, ["busy", "1 job running", "2 waiting"]),
        ({"broker": True, "queued": 0, "running": 2, "workers": 1}, ["busy", "2 jobs running", ""]),
        ({"broker": True, "queued": 1, "running": 0, "workers": 1}, ["busy", "starting…", "1 waiting"]),
        ({"broker": True, "queued": 0, "running": 1, "workers": 0},
         ["off", "no worker", "a job is unfinished: start convscope run, or convscope worker"]),
    ],
)  # fmt: skip
def test_the_shell_says_what_runs_and_what_is_missing_for_it(state: Any, expected: list[str] | None) -> None:
    assert work_words(**state) == expected


def test_a_broker_that_is_away_matters_once_a_job_waits_for_it() -> None:
    away = {"broker": False, "running": 0, "workers": 1}
    assert work_words(queued=0, **away) is None  # type: ignore[arg-type]
    told = work_words(queued=3, **away)  # type: ignore[arg-type]
    assert told is not None
    assert told[:2] == ["off", "broker does not answer"]
    assert told[2].startswith("3 waiting: jobs start when the broker is back")


def test_rough_durations_are_whole_numbers() -> None:
    seconds = (0.4, 1, 89, 90, 5_399, 5_400, 129_599, 129_600)
    expected = ["under 1 s", "1 s", "89 s", "2 min", "90 min", "2 h", "36 h", "2 days"]
    assert [rough_duration(value) for value in seconds] == expected
