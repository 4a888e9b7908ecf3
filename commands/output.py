"""Output of the commands: tables, fields, progress and remarks."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    pass


PACKAGES = ("__main__", "commands", "convscope", "dashboard", "db", "precompute", "workers")


class CommandFailed(Exception):
    """A command failed; the message is one sentence."""


def error_sentence(error: Exception) -> str:
    """The message for the user: our own exceptions already are one sentence, system errors nearly so."""
    from db.files import file_sentence

    if type(error).__module__.split(".")[0] in PACKAGES:
        return " ".join(str(error).split())
    if isinstance(error, OSError):
        return file_sentence(error)
    text = " ".join(str(error).split())
    return f"a fault in Convscope, {type(error).__name__}: {text} (--debug shows the traceback)"


def print_unreadable(images: list[str]) -> None:
    for image in images[:20]:
        click.echo(f"  no longer readable: {image}", err=True)
    if len(images) > 20:
        click.echo(f"  and {len(images) - 20:,} more", err=True)


def duration(seconds: float) -> str:
    for unit, name in [(86400, "d"), (3600, "h"), (60, "min")]:
        if seconds >= unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"


def printable(text: str) -> str:
    """Remove terminal control characters: names come from users' files."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def remark(sentence: str) -> None:
    """Print a remark alongside the result."""
    click.echo(sentence, err=True)


@contextlib.contextmanager
def progress_bar(title: str, unit: str) -> Iterator[Callable[..., None]]:
    """Progress on stderr with rate and remaining time, starting at the first report.

    A bar on a terminal; elsewhere one line per minute, for the log of an overnight job.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    on_terminal = sys.stderr.isatty()
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not on_terminal,
    )
    task = bar.add_task(title, total=None, rate="")
    current: str | None = None
    written = time.monotonic()

    def report(done: int, total: int | None, phase: str | None = None) -> None:
        nonlocal current, written
        entry = bar.tasks[0]
        if phase != current:
            if current is None and on_terminal:
                bar.console.print(title, highlight=False)
            current = phase
            bar.reset(task)  # each phase has its own rate and remaining time
        entry.total = total
        counted = "units" if phase == "receptive fields" else unit
        bar.update(
            task,
            completed=done,
            description=phase or title,
            rate=f"{entry.speed:,.1f} {counted}/s" if entry.speed else "",
        )
        bar.start()  # does nothing if already running
        if not on_terminal and time.monotonic() - written >= 60:
            written = time.monotonic()
            amount = f"{done:,} {counted}" if total is None else f"{done:,} of {total:,} {counted}"
            left = "" if entry.time_remaining is None else f", {entry.time_remaining / 60:,.0f} min left"
            rate = f", {entry.fields['rate']}" if entry.fields["rate"] else ""
            what = f"{title}: {phase}" if phase else title
            click.echo(f"{what}: {amount}{rate}{left}", err=True)

    try:
        yield report
    finally:
        bar.stop()


def print_table(rows: list[dict[str, Any]], empty: str) -> None:
    from rich.console import Console
    from rich.table import Table

    if not rows:
        click.echo(empty)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name, value in rows[0].items():
        table.add_column(name.replace("_", " "), justify="right" if isinstance(value, int) else "left")
    for row in rows:
        table.add_row(
            *(
                "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
                for value in row.values()
            )
        )
    Console(width=None if sys.stdout.isatty() else 200, highlight=False).print(table)


def print_fields(fields: dict[str, Any]) -> None:
    width = max(len(name) for name in fields)
    for name, value in fields.items():
        click.echo(f"{name.replace('_', ' '):<{width}}  {'' if value is None else value}")


class ListingCommand(click.Command):
    """A command whose help ends with a list: `title`, and the rows that `rows` returns when help is asked for."""

    def __init__(
        self, *given: Any, title: str, rows: Callable[[], list[tuple[str, str]]], **options: Any
    ) -> None:
        super().__init__(*given, **options)
        self._title = title
        self._rows = rows

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section(self._title):
            formatter.write_dl(self._rows())
