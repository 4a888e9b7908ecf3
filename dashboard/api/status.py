"""Status of the shell's corner, as JSON that open pages poll every few seconds."""

from dataclasses import asdict
from typing import Any

import flask

from dashboard.components.formatting import count
from dashboard.state.context import Context, current
from dashboard.state.indexing_status import builds_under_way
from db.first_run import read_first_run
from db.ledger.engine import LedgerError
from db.queries.jobs import job_counts, workers

status_route = flask.Blueprint("status", __name__)


@status_route.get("/health.json")
def health_json() -> flask.Response:
    """Health check of the web server; open to everyone, since monitoring has no password."""
    response = flask.jsonify({"ok": True})
    response.headers["Cache-Control"] = "no-store"
    return response


@status_route.get("/status.json")
def status_json() -> flask.Response:
    """The current status; never cached."""
    context = current()
    response = flask.jsonify(status(context) | {"work": work(context)})
    response.headers["Cache-Control"] = "no-store"
    return response


def status(context: Context) -> dict[str, Any]:
    """Status that open pages compare to detect a new version: equal as long as nothing changed."""
    catalogue = context.catalogue()
    first = read_first_run(context.settings.home)
    return {  # keys in alphabetical order, as `jsonify` sorts them: pages compare the text
        "first_run": None if first is None else [first.at, first.error],
        "image_sets": [found["image_set"] for found in catalogue.image_sets],
        "indexing": [list(build) for build in builds_under_way(context.settings.home)],
        "runs": [[run["run"], run["model"], run["image_set"]] for run in catalogue.runs],
        "trouble": catalogue.trouble,
        "version": catalogue.version,
    }


def work(context: Context) -> dict[str, Any]:
    """State of jobs, workers, the broker and the first run.

    Separate from `status`, because pages that show the atlas need not refresh when it changes.
    """
    first = read_first_run(context.settings.home)
    first_run = None if first is None else asdict(first)
    try:
        counts = job_counts(context.ledger)
        found = workers(context.ledger)
    except LedgerError as error:
        return {
            "first_run": first_run,
            "trouble": str(error),
            "words": ["off", "jobs do not answer", str(error)],
        }
    alive = [worker for worker in found if not worker["silent"]]
    broker = context.health.broker_answers()
    queued, running = counts.get("queued", 0), counts.get("running", 0)
    return {  # keys in alphabetical order, like `status`
        "broker": broker,
        "busy": sum(worker["job"] is not None for worker in alive),
        "first_run": first_run,
        "queued": queued,
        "running": running,
        "silent": len(found) - len(alive),
        "trouble": "",
        "words": work_words(broker=broker, queued=queued, running=running, workers=len(alive)),
        "workers": len(alive),
    }


def work_words(*, broker: bool, queued: int, running: int, workers: int) -> list[str] | None:
    """The lamp, a title and a text for jobs that run, wait, or cannot run; None without unfinished jobs."""
    waiting = f"{queued:,} waiting" if queued else ""
    if not workers and (queued or running):
        return [
            "off",
            "no worker",
            f"{waiting or 'a job is unfinished'}: start convscope run, or convscope worker",
        ]
    if not broker and queued:
        return [
            "off",
            "broker does not answer",
            f"{waiting}: jobs start when the broker is back (convscope run starts one; CONVSCOPE_REDIS_URL names "
            "another)",
        ]
    if running:
        return ["busy", f"{count(running, 'job')} running", waiting]
    return ["busy", "starting…", waiting] if queued else None
