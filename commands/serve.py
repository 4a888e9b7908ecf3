"""The commands that run processes: `run`, `first-run`, `serve` and `worker`."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from commands.output import CommandFailed
from commands.stores import open_stores, restart_for_torch
from db.settings import read_settings

if TYPE_CHECKING:
    from db.atlas.store import Atlas
    from db.first_run import Step
    from db.ledger.engine import Ledger
    from db.settings import Settings
    from workers.queue.supervisor import Supervisor


_host = click.option("--host", help="Address to listen on (default: CONVSCOPE_HOST).")
_port = click.option(
    "--port", type=click.IntRange(0, 65535), help="Port; 0 picks a free one (default: CONVSCOPE_PORT)."
)
_url_prefix = click.option(
    "--url-prefix",
    metavar="PATH",
    help="Path under which a reverse proxy serves it, such as /lab/convscope (default: CONVSCOPE_URL_PREFIX).",
)


@click.command()
@_host
@_port
@_url_prefix
def run(host: str | None, port: int | None, url_prefix: str | None) -> None:
    """Serve the dashboard with a broker and a worker; the first run also adds sample content.

    Starts a broker unless CONVSCOPE_REDIS_URL names one. The web server, the broker and the worker are
    restarted when they exit, and this broker also when it does not answer. A process that repeatedly exits at start
    is reported and abandoned; without the web server this command ends. The first run fills an empty installation
    as `convscope first-run` does; meanwhile the page shows progress and updates automatically. Ctrl-C stops
    everything within 10 seconds; jobs and the first run resume at the next start.
    """
    settings = _server_settings(host, port, url_prefix)
    from db.atlas.store import Atlas
    from db.home import check_writable, open_home
    from workers.queue.broker import is_there
    from workers.queue.events import write_events
    from workers.queue.supervisor import Supervisor, wait_until
    from workers.queue.sweeper import Sweeper

    write_events()
    check_writable(settings, "jobs write to it: `convscope serve` shows its content")
    ledger = open_home(settings)
    sweeper = Sweeper(settings, ledger)
    given = [("host", host), ("port", port), ("url-prefix", url_prefix)]
    where = [f"--{name}={value}" for name, value in given if value is not None]
    with Supervisor() as children:
        server = children.start("web server", _words("serve", *where), restart=True, stdout=subprocess.PIPE)
        assert server.stdout is not None
        address = server.stdout.readline().strip()  # it prints its address once it is listening
        if not address:
            sys.exit(server.wait() or 1)  # it has printed the reason on stderr
        # keep this address for restarts, even if any free port was requested
        actual = urlsplit(address.split()[-1]).port
        where = [word for word in where if not word.startswith("--port")] + [f"--port={actual}"]
        children.restart_as("web server", _words("serve", *where), stdout=subprocess.DEVNULL)
        filling = bool(_announce_first_run(Atlas(settings)))
        click.echo(address)
        keep_broker = broker_keeper(children, settings)
        keep_broker()
        wait_until(lambda: is_there(settings), seconds=5)
        children.start("worker", _words("worker"), restart=True, came_up=_has_registered(ledger))
        sweeper.start()
        try:
            _watch(children, settings, filling, keep_broker)
        finally:
            sweeper.stop()


def _has_registered(ledger: "Ledger") -> Callable[[int], bool]:
    """Returns a check, by process id, whether a worker on this host has registered.

    A worker that exits later was ended by a job, which says nothing about whether workers can start.
    """
    import platform

    from db.ledger.engine import LedgerError
    from db.queries.jobs import workers

    def registered(pid: int) -> bool:
        with contextlib.suppress(LedgerError):
            return any((row["host"], row["pid"]) == (platform.node(), pid) for row in workers(ledger))
        return False

    return registered


MAX_SILENT_LOOKS = 5  # consecutive checks, at least a second apart, before an unresponsive broker is killed


def broker_keeper(children: "Supervisor", settings: "Settings") -> Callable[[], None]:
    """A function to call periodically that keeps a broker running; it first lets the broker of an earlier run exit."""
    from workers.queue.broker import NoBroker, is_silent, is_there, server_command
    from workers.queue.events import log

    looked = 0.0
    started = False
    silent = 0

    def keep() -> None:
        nonlocal looked, started, silent
        if settings.redis_url or time.monotonic() - looked < 1:
            return
        if started:
            silent = silent + 1 if children.is_running("broker") and is_silent(settings) else 0
            if silent >= MAX_SILENT_LOOKS:
                silent = 0
                log("broker.silent", looks=MAX_SILENT_LOOKS)
                children.kill("broker")  # the supervisor restarts it
        elif not is_there(settings):
            started = True
            try:
                children.start("broker", server_command(settings), restart=True)
            except NoBroker as error:
                click.echo(f"convscope: jobs are waiting: {error}", err=True)
        looked = time.monotonic()

    return keep


def _watch(
    children: "Supervisor", settings: "Settings", filling: bool, keep_broker: Callable[[], None]
) -> None:
    """Supervise the processes, and the first run if there is one, until the web server is given up."""
    from db.first_run import stopped

    if filling:
        children.start("first run", _words("first-run"), restart=False)
    else:
        click.echo("Ready (Ctrl-C stops)")
    while True:
        keep_broker()
        ended = children.look()
        if ended == "web server":
            raise CommandFailed(children.why(ended))
        if ended == "first run":
            code = children.code("first run")
            if code:
                stopped(settings.home, f"its process ended with exit code {code}")
                click.echo("convscope: the first run resumes with the next `convscope run`", err=True)
            click.echo("Ready (Ctrl-C stops)")
        elif ended:
            click.echo(f"convscope: jobs are waiting: {children.why(ended)}", err=True)
        if ended:
            children.forget(ended)
        time.sleep(0.2)


def _words(*words: str) -> list[str]:
    """The command line that runs `convscope WORDS` as a separate process."""
    return [sys.executable, str(Path(__file__).resolve().parents[1] / "convscope.py"), *words]


def _announce_first_run(atlas: "Atlas") -> tuple["Step", ...]:
    """The steps of a first run, if any; also shows them on the pages."""
    from db.first_run import announce, missing_steps

    steps = missing_steps(atlas)
    announce(atlas.home, steps)
    return steps


@click.command("first-run")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, mps or auto.")
def first_run(device: str) -> None:
    """Fill an empty installation, as `convscope run` does the first time.

    Imports the photos in installed packages as image set `samples`, paints the probe images
    `stimuli`, and indexes both with the models whose weights are installed: convnext-demo and efficientnet-lite0.
    Resumes an interrupted first run; does nothing if a first run has finished or the installation has content.
    """
    restart_for_torch()
    from db.first_run import FirstRunBusy
    from precompute.first_run import fill

    atlas, store = open_stores()
    steps = _announce_first_run(atlas)
    if not steps:
        click.echo("Nothing to do: the first run is done, or the installation already has content")
        return
    try:
        for sentence in fill(atlas, store, steps, device=device):
            click.echo(sentence)
    except FirstRunBusy as error:
        click.echo(f"Nothing to do: {error}")


@click.command()
@_host
@_port
@_url_prefix
def serve(host: str | None, port: int | None, url_prefix: str | None) -> None:
    """Serve only the dashboard."""
    settings = _server_settings(host, port, url_prefix)
    from dashboard import server  # takes seconds to import: after the checks that can fail fast

    server.serve(settings)


def _server_settings(host: str | None, port: int | None, prefix: str | None) -> "Settings":
    """The settings with host, port and prefix from the command line; refuses to serve other hosts without a login."""
    import dataclasses

    from dashboard.security.access import check_binding
    from db.settings import url_prefix

    settings = read_settings()
    settings = dataclasses.replace(
        settings,
        host=host or settings.host,
        port=settings.port if port is None else port,
        url_prefix=settings.url_prefix if prefix is None else url_prefix(prefix, "--url-prefix"),
    )
    check_binding(settings)
    return settings


@click.command()
@click.option(
    "--queues",
    default="interactive,batch",
    show_default=True,
    help="Queues to take jobs from: interactive, batch, or both.",
)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, mps or auto.")
def worker(queues: str, device: str) -> None:
    """Run a worker: compute the jobs that others queue, one at a time.

    On another host, set CONVSCOPE_REDIS_URL and CONVSCOPE_LEDGER_URL to the same broker and database, and
    CONVSCOPE_HOME to the same folder on a shared file system. Ctrl-C re-queues the current job.
    """
    from db.ledger.tables import QUEUES
    from db.suggestions import hint

    chosen = tuple(dict.fromkeys(queue.strip() for queue in queues.split(",")))
    for queue in chosen:
        if queue not in QUEUES:
            raise click.BadParameter(
                f"expected some of {', '.join(QUEUES)}, got {queue!r}{hint(queue, QUEUES)}",
                param_hint="--queues",
            )
    restart_for_torch()
    from precompute.jobs import set_kinds
    from workers.jobs.worker import run_worker
    from workers.queue.events import write_events

    write_events()
    code = run_worker(read_settings(), queues=chosen, device=device, extra_kinds=set_kinds)
    if code:
        sys.exit(code)
