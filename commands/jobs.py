"""`convscope jobs`: submit, list, show, cancel, retry and wait for jobs."""

import json
import time
from typing import TYPE_CHECKING, Any

import click

from commands.output import (
    CommandFailed,
    ListingCommand,
    duration,
    print_fields,
    print_table,
    progress_bar,
    remark,
)
from commands.stores import named_values, open_ledger, open_stores
from db.settings import read_settings

if TYPE_CHECKING:
    from db.ledger.engine import Ledger
    from db.ledger.jobs import NewJob


@click.group("jobs")
def jobs_group() -> None:
    """Submit, list, show, cancel, retry and wait for jobs."""


def _kinds() -> list[tuple[str, str]]:
    from workers.jobs.registry import JOB_KINDS

    return [(kind.name, ", ".join(kind.members)) for kind in JOB_KINDS.values()]


@jobs_group.command("submit", cls=ListingCommand, title="Kinds and their fields", rows=_kinds)
@click.argument("kind")
@click.argument("members", metavar="[NAME=VALUE]...", nargs=-1)
@click.option("--wait", is_flag=True, help="Show progress until the job ends; exit with its result.")
def submit_job(kind: str, members: tuple[str, ...], wait: bool) -> None:
    """Queue a job of any KIND, as a POST to /api/jobs does, and print its number.

    A VALUE is JSON, or else a string: ids=0-9, models=["first","second"], parameters={"samples":50}.
    """
    from workers.jobs.kind import Stores
    from workers.jobs.registry import read_request

    atlas, _ = open_stores()
    ledger = open_ledger()
    body = {name: _json_or_text(value) for name, value in named_values(members, "NAME=VALUE").items()}
    queue_job(ledger, read_request(body | {"kind": kind}, Stores(atlas, ledger, read_settings())), wait=wait)


def queue_job(ledger: "Ledger", new: "NewJob", *, wait: bool) -> int:
    """Submit a job, print its number and wait for its end if asked; the number."""
    from workers.requests.submit import JobSubmitter

    submitted = JobSubmitter(read_settings(), ledger).submit(new)
    click.echo(f"{submitted.job}")
    remark(submitted.sentence())
    if wait:
        wait_for(ledger, submitted.job)
    return submitted.job


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


@jobs_group.command("list")
@click.option("--state", "states", multiple=True, help="Only jobs in this state; may be repeated.")
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=30,
    show_default=True,
    help="Maximum number of jobs to list.",
)
def list_jobs(states: tuple[str, ...], limit: int) -> None:
    """List jobs, newest first."""
    from db.ledger.tables import STATES
    from db.queries import jobs as job_queries
    from db.suggestions import hint

    for state in states:
        if state not in STATES:
            raise click.BadParameter(
                f"expected some of {', '.join(STATES)}, got {state!r}{hint(state, STATES)}",
                param_hint="--state",
            )
    rows = [
        {
            "job": job["job"],
            "kind": job["kind"],
            "state": job["state"],
            "models": job["models"],
            "images": job["image_set"],
            "done": f"{job['items_done']:,} of {job['items']:,}",
            "failed": job["items_failed"] or None,
            "attempts": job["attempts"],
            "age": duration(job["age"]),
            "left": None if job["seconds_left"] is None else duration(job["seconds_left"]),
        }
        for job in job_queries.jobs(open_ledger(), states=states, limit=limit)
    ]
    print_table(rows, "No job yet." if not states else "No such job.")


@jobs_group.command("show")
@click.argument("number", metavar="ID", type=click.IntRange(1))
def show_job(number: int) -> None:
    """Show job ID and its items."""
    from db.queries import jobs as job_queries

    ledger = open_ledger()
    job = job_queries.job(ledger, number)
    told = job.pop("traceback")
    hidden = ("key", "claim", "lease_until", "not_before", "silent", "age")
    print_fields(
        {
            name: json.dumps(value) if name == "parameters" else value
            for name, value in job.items()
            if name not in hidden and value is not None
        }
    )
    click.echo()
    items = [
        {
            "item": item["position"],
            "model": item["model"],
            "image": item["image_id"],
            "state": item["state"],
            "seconds": None if item["seconds"] is None else f"{item['seconds']:.1f}",
            "result": item["result"],
            "error": item["error"],
        }
        for item in job_queries.job_items(ledger, number)
    ]
    print_table(items[:1000], "")
    if len(items) > 1000:
        click.echo(f"and {len(items) - 1000:,} more items")
    if told:
        click.echo(f"\n{told}", err=True)


@jobs_group.command("cancel")
@click.argument("number", metavar="ID", type=click.IntRange(1))
def cancel_job(number: int) -> None:
    """Cancel job ID; finished results are kept."""
    from db.ledger import jobs

    state = jobs.cancel(open_ledger(), number)
    click.echo(f"job {number} is cancelled" if state == "cancelled" else f"job {number} will be cancelled")


@jobs_group.command("retry")
@click.argument("number", metavar="ID", type=click.IntRange(1))
def retry_job(number: int) -> None:
    """Re-queue job ID after it failed or was cancelled."""
    from workers.requests.submit import JobSubmitter

    click.echo(JobSubmitter(read_settings(), open_ledger()).retry(number).sentence())


@jobs_group.command("wait")
@click.argument("number", metavar="ID", type=click.IntRange(1))
def wait_for_job(number: int) -> None:
    """Wait for job ID and show progress; exit with 0 if it is done, 1 if it failed or was cancelled."""
    wait_for(open_ledger(), number)


def wait_for(ledger: "Ledger", number: int) -> None:
    from db.queries import jobs as job_queries

    job = job_queries.job(ledger, number)
    with progress_bar(f"Job {number}", "items") as progress:
        while job["finished"] is None:
            progress(job["items_done"] + job["items_failed"], job["items"])
            time.sleep(0.3)
            job = job_queries.job(ledger, number)
    if job["state"] != "done":
        raise CommandFailed(
            f"job {number} {'failed' if job['state'] == 'failed' else 'was cancelled'}"
            + (f": {job['error']}" if job["error"] else "")
        )
    remark(f"job {number} is done")
