"""`convscope jobs`: list, show, cancel, retry and wait for jobs."""

import time
from typing import TYPE_CHECKING

import click

from commands.output import CommandFailed, duration, print_fields, print_table, progress_bar, remark
from commands.stores import open_ledger, read_settings

if TYPE_CHECKING:
    from db.ledger.engine import Ledger


@click.group("jobs")
def jobs_group() -> None:
    """List, show, cancel, retry and wait for jobs."""


@jobs_group.command("list")
@click.option("--state", "states", multiple=True, help="Only jobs in that state; several may be given.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=30, show_default=True, help="Most jobs to list."
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
    """Show what is known of job ID, and its items."""
    import json

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
    """Cancel job ID; what is finished of it stays."""
    from db.ledger import jobs

    state = jobs.cancel(open_ledger(), number)
    click.echo(f"job {number} is cancelled" if state == "cancelled" else f"job {number} will be cancelled")


@jobs_group.command("retry")
@click.argument("number", metavar="ID", type=click.IntRange(1))
def retry_job(number: int) -> None:
    """Queue job ID again, which failed or was cancelled."""
    from workers.requests.submit import Office

    click.echo(Office(read_settings(), open_ledger()).retry(number).sentence())


@jobs_group.command("wait")
@click.argument("number", metavar="ID", type=click.IntRange(1))
def wait_for_job(number: int) -> None:
    """Wait for job ID with progress; exit code 0 where it is done, 1 where it failed or was cancelled."""
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
