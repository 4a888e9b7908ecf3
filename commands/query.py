"""`convscope sql`: SQL over the atlas and the ledger, as one statement or at a prompt."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from commands.output import CommandFailed, error_sentence, print_table, printable, remark
from commands.stores import named_values, open_ledger, open_stores
from db.settings import read_settings

if TYPE_CHECKING:
    from db.atlas.store import Atlas
    from db.ledger.engine import Ledger
    from db.sql.runner import SQLRunner


TABLE_ROWS = 100
ALL = 1 << 40


@click.command("sql")
@click.argument("statement", required=False)
@click.option("--csv", "forms", flag_value="csv", multiple=True, help="Print CSV.")
@click.option("--json", "forms", flag_value="json", multiple=True, help="Print a JSON array of objects.")
@click.option(
    "--parquet", "forms", flag_value="parquet", multiple=True, help="Write Parquet: to a file or a pipe."
)
@click.option(
    "--spreadsheet",
    is_flag=True,
    help="In CSV, put an apostrophe before text that a spreadsheet would treat as a formula.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write to this file instead of printing.",
)
@click.option("--set", "given", multiple=True, metavar="NAME=VALUE", help="Value of the parameter $NAME.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    help=f"Maximum number of rows (default: {TABLE_ROWS} in a table, else all).",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 86_400),
    help="Time limit in seconds (default: CONVSCOPE_SQL_SECONDS).",
)
@click.option("--tables", "lists", is_flag=True, help="List tables and views; with a NAME, its columns.")
@click.option("--functions", "lists_functions", is_flag=True, help="List the functions allowed in SQL.")
@click.option(
    "--path",
    "makes_file",
    is_flag=True,
    help="Export everything as one DuckDB file, for any client, and print its path.",
)
def sql(
    statement: str | None,
    forms: tuple[str, ...],
    spreadsheet: bool,
    output: Path | None,
    given: tuple[str, ...],
    limit: int | None,
    seconds: float | None,
    lists: bool,
    lists_functions: bool,
    makes_file: bool,
) -> None:
    """Query the atlas and the ledger with one SQL STATEMENT (DuckDB dialect); - reads it from standard input.

    Without a statement, opens a shell. Statements are read-only and run in a separate process with time and
    memory limits (CONVSCOPE_SQL_…); results can have any length.

    \b
    convscope sql "SELECT layer, channel, majority_label FROM selectivity ORDER BY entropy_bits LIMIT 10"
    convscope sql --csv -o dogs.csv --set label=beagle 'SELECT * FROM patches WHERE label = $label'
    """
    from db.sql.export import write_sql_file
    from db.sql.runner import SQLRunner, as_value

    if len(set(forms)) > 1:
        raise click.UsageError(
            f"expected one of --csv, --json and --parquet, got {' and '.join(f'--{f}' for f in forms)}"
        )
    form = forms[0] if forms else None
    if output is not None and form is None:
        raise click.UsageError("--output requires --csv, --json or --parquet")
    if spreadsheet and form != "csv":
        raise click.UsageError("--spreadsheet requires --csv")
    if output is not None:
        _check_output(output)
    if lists_functions:
        _print_functions()
        return
    atlas, _ = open_stores()
    ledger = open_ledger()
    if makes_file:
        click.echo(write_sql_file(atlas, ledger))
        return
    if lists:
        _print_readable(atlas, ledger, statement)
        return
    values = {name: as_value(value) for name, value in named_values(given).items()}
    runner = SQLRunner(read_settings(), atlas, ledger)
    try:
        if statement is None and sys.stdin.isatty():
            if form is not None:
                raise click.UsageError(f"--{form} requires a statement")
            _sql_shell(runner, atlas, ledger, values, limit or TABLE_ROWS, seconds)
            return
        asked = sys.stdin.read() if statement in (None, "-") else statement
        if form is None:
            _print_rows(runner, str(asked), values, limit or TABLE_ROWS, seconds)
        else:
            _write_rows(
                runner, str(asked), values, form, output, limit or ALL, seconds, spreadsheet=spreadsheet
            )
    finally:
        runner.close()


def _check_output(path: Path) -> None:
    """Check that the file can be written, before the statement runs."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise CommandFailed(f"--output {path}: there is no folder {folder}")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise CommandFailed(f"--output {path}: no permission to write there")


def _print_rows(
    runner: "SQLRunner", statement: str, values: dict[str, Any], limit: int, seconds: float | None
) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from db.sql.formats import plain
    from db.sql.formats import values as cells_of

    result = runner.run(statement, values, rows=limit, size=ALL, seconds=seconds)
    found = result.table()
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    columns = [(name, cells_of(found.column(at))) for at, name in enumerate(found.column_names)]
    if result.plan:
        for _, cells in columns[-1:]:
            click.echo("\n".join(str(cell) for cell in cells))
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name, cells in columns:
        numbers = any(isinstance(cell, int | float) for cell in cells)
        table.add_column(Text(printable(name)), justify="right" if numbers else "left", overflow="fold")
    for row in zip(*(cells for _, cells in columns), strict=True):
        table.add_row(*(Text("NULL" if cell is None else printable(_cell(plain(cell)))) for cell in row))
    console.print(table)
    rows = f"{found.num_rows:,} {'row' if found.num_rows == 1 else 'rows'}"
    more = f"the first {rows}; use --limit for more" if result.more else rows
    remark(f"{more} ({result.seconds:.2f} s)")


def _cell(value: Any) -> str:
    import json

    if isinstance(value, float):
        return f"{value:.6g}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


def _write_rows(
    runner: "SQLRunner",
    statement: str,
    values: dict[str, Any],
    form: str,
    output: Path | None,
    limit: int,
    seconds: float | None,
    *,
    spreadsheet: bool,
) -> None:
    from db.files import write_pieces
    from db.sql.formats import csv_lines, json_lines, parquet_pieces

    if form == "parquet" and output is None and sys.stdout.isatty():
        raise click.UsageError("--parquet cannot be written to a terminal: name a file with --output")
    with runner.run(statement, values, rows=limit, size=ALL, seconds=seconds) as result:
        pieces: Iterator[bytes] = (
            parquet_pieces(result.schema, result)
            if form == "parquet"
            else (
                text.encode()
                for text in (
                    csv_lines(result.schema, result, spreadsheet=spreadsheet)
                    if form == "csv"
                    else json_lines(result.schema, result)
                )
            )
        )
        if output is not None:
            write_pieces(output, pieces)
        else:
            stdout = sys.stdout.buffer
            try:
                for piece in pieces:
                    stdout.write(piece)
                stdout.flush()
            except BrokenPipeError:  # the reader has closed the pipe, as with `| head`
                os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
                return
        if result.more:
            remark(f"the first {limit:,} rows; use --limit for more")


def _print_readable(atlas: "Atlas", ledger: "Ledger", name: str | None) -> None:
    from db.sql.catalog import catalogue, row_counts
    from db.suggestions import hint

    readable = {one.name: one for one in catalogue()}
    if name is None:
        counts = row_counts(atlas, ledger)
        rows = [
            {"name": one.name, "kind": one.place, "rows": counts.get(one.name), "description": one.comment}
            for one in readable.values()
        ]
        print_table(rows, "")
        return
    if name not in readable:
        names = sorted(readable)
        raise CommandFailed(f"there is no table {name!r}; there are {', '.join(names)}{hint(name, names)}")
    click.echo(f"{readable[name].comment}\n")
    columns = [{"column": c.name, "type": c.kind, "description": c.comment} for c in readable[name].columns]
    print_table(columns, "")


def _print_functions() -> None:
    from textwrap import fill

    from db.sql.functions import by_kind

    for kind, names in by_kind().items():
        words = fill(" ".join(names), 100, break_long_words=False, break_on_hyphens=False)
        click.echo(f"{kind.replace('_', ' ')}\n\n{words}\n")


def _sql_shell(
    runner: "SQLRunner",
    atlas: "Atlas",
    ledger: "Ledger",
    values: dict[str, Any],
    limit: int,
    seconds: float | None,
) -> None:
    from db.sql.catalog import catalogue
    from db.sql.shell import shell

    def said(act: Callable[[], None]) -> None:
        try:
            act()
        except KeyboardInterrupt:
            remark("stopped")
        except Exception as error:
            remark(error_sentence(error))

    shell(
        catalogue(),
        read_settings().home / "sql_history",
        run=lambda typed: said(lambda: _print_rows(runner, typed, values, limit, seconds)),
        tables=lambda name: said(lambda: _print_readable(atlas, ledger, name)),
        say=click.echo,
    )
