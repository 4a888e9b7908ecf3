"""`convscope sql`: tables, files, parameters, the shell, and a file for any DuckDB client."""

import csv
import io
import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from ledger_rows import add_attack
from prompt_toolkit.document import Document
from running import ROOT, command
from synthetic_atlas import add_run, import_pictures, painted_pictures

import convscope
from db.ledger import jobs
from db.ledger.engine import Ledger
from db.ledger.jobs import NewItem, NewJob
from db.settings import Settings, read_settings
from db.sql.catalog import catalogue
from db.sql.runner import as_value
from db.sql.shell import SQLCompleter, is_whole

Ask = Callable[..., tuple[int, str, str]]
BOTH = "SELECT image_id, a.outcome, i.width FROM attacks a JOIN images i USING (image_set, image_id) ORDER BY image_id"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = read_settings({"CONVSCOPE_HOME": str(tmp_path_factory.mktemp("asked"))})
    import_pictures(settings, painted_pictures(4), image_set="painted")
    add_run(settings, image_set="painted", model="first")
    ledger = Ledger(settings)
    ledger.migrate()
    job, _ = jobs.submit_job(
        ledger, NewJob("k", "attack", "batch", "first", "painted", {}, (NewItem("first", 0, "0"),))
    )
    with ledger.write() as connection:
        add_attack(connection, job, model="first", image_id=0, epsilon=0.004)
        add_attack(connection, job, model="first", image_id=2, outcome="resisted")
    ledger.close()
    return settings


@pytest.fixture
def ask(settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Run `convscope sql WORDS` in this process and return exit code, stdout and stderr."""

    def asked(*words: str) -> tuple[int, str, str]:
        monkeypatch.setenv("CONVSCOPE_HOME", str(settings.home))
        monkeypatch.setattr("signal.signal", lambda *_: None)
        with pytest.raises(SystemExit) as ended:
            convscope.main(["sql", *words])
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    return asked


def test_one_statement_joins_both_stores(ask: Ask) -> None:
    code, told, _ = ask("--csv", BOTH)
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(told)))
    assert [(row["image_id"], row["outcome"]) for row in rows] == [("0", "flipped"), ("2", "resisted")]
    assert all(int(row["width"]) > 0 for row in rows)
    code, told, note = ask(BOTH)
    assert code == 0
    assert [line.split()[:2] for line in told.splitlines()] == [
        ["image_id", "outcome"],
        ["0", "flipped"],
        ["2", "resisted"],
    ]
    assert note.startswith("2 rows (")


def test_a_file_has_all_rows_and_a_table_states_its_limit(ask: Ask, tmp_path: Path) -> None:
    many = "SELECT i, i / 2 AS half FROM range(250) t(i)"
    assert "the first 100 rows; use --limit for more" in ask(many)[2]
    assert ask("--limit", "250", many)[2].startswith("250 rows (")
    code, told, note = ask("--json", many)
    assert (code, note) == (0, "")
    assert [row["i"] for row in json.loads(told)] == list(range(250))
    file = tmp_path / "many.parquet"
    assert ask("--parquet", "-o", str(file), many)[0] == 0
    assert pq.read_table(file).column("half").to_pylist() == [i / 2 for i in range(250)]
    file.write_bytes(b"older")
    code, _, note = ask("--parquet", "-o", str(file), "SELECT error('no more') FROM range(9)")
    assert code == 1
    assert "no more" in note
    assert file.read_bytes() == b"older", "a file that cannot be made leaves the older one"
    assert list(tmp_path.iterdir()) == [file]


def test_parameters_are_numbers_where_they_read_as_one(ask: Ask) -> None:
    told = ask("--csv", "--set", "n=2", "--set", "t='2'", "--set", "w=a=b", "SELECT $n + 1, $t || '!', $w")[1]
    assert told.splitlines()[1] == "3,2!,a=b"
    assert [as_value(text) for text in ("-1.5e3", "x", "''", "'it''s'", "1.2.3")] == [
        -1500.0, "x", "", "it's", "1.2.3",
    ]  # fmt: skip
    assert "parameters without a value: n" in ask("SELECT $n")[2]


def test_csv_is_the_table_itself_and_guards_formulas_on_request(ask: Ask) -> None:
    assert ask("--csv", "SELECT '-' AS label")[1].splitlines() == ["label", "-"]
    assert ask("--csv", "--spreadsheet", "SELECT '-' AS label")[1].splitlines() == ["label", "'-"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("--csv", "--json", "SELECT 1"),
            "expected one of --csv, --json and --parquet, got --csv and --json",
        ),
        (("--spreadsheet", "--json", "SELECT 1"), "--spreadsheet requires --csv"),
        (("--csv", "-o", "/nope/x", "SELECT 1"), "--output /nope/x: there is no folder /nope"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_the_statement_runs(
    ask: Ask, words: tuple[str, ...], sentence: str
) -> None:
    code, told, note = ask(*words)
    assert code != 0
    assert told == ""
    assert sentence in note
    assert "Errno" not in note


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("SELECT * FROM read_text('/etc/passwd')",), 1, "read_text() is refused"),
        (("DELETE FROM images",), 1, "only reading is allowed"),
        (("SELECT * FROM nowhere",), 1, "nowhere"),
        (("SELECT",), 1, ""),
        (
            ("--seconds", "0.3", "SELECT count(*) FROM range(10000000000) a, range(1000000) b"),
            1,
            "0.3 seconds",
        ),
        (("-o", "file.csv", "SELECT 1"), 2, "--output requires --csv, --json or --parquet"),
        (("--limit", "0", "SELECT 1"), 2, "0 is not in the range"),
        (("--tables", "nowhere"), 1, "there is no table 'nowhere'; there are activations,"),
        (("--set", "n", "SELECT $n"), 2, "expected NAME=VALUE, got 'n'"),
        (("--csv", "-o", "/nowhere/file.csv", "SELECT 1"), 1, "/nowhere/"),
    ],
)
def test_invalid_options_give_one_sentence(
    ask: Ask, words: tuple[str, ...], code: int, sentence: str
) -> None:
    ended, told, note = ask(*words)
    assert (ended, told) == (code, "")
    assert sentence in note
    assert "Traceback" not in note


def test_names_that_would_steer_the_terminal_are_shown(ask: Ask) -> None:
    told = ask("SELECT chr(27) || '[31mred [bold]' AS label, NULL AS nothing")[1]
    assert "\x1b" not in told
    assert r"\x1b[31mred [bold]" in told
    assert "NULL" in told


def test_a_plan_is_printed_as_it_is(ask: Ask) -> None:
    told = ask("EXPLAIN SELECT channel, count(*) FROM activations GROUP BY ALL")[1]
    assert "channel" in told
    assert "│" in told


def test_every_table_and_column_is_explained(ask: Ask) -> None:
    told = ask("--tables")[1]
    for one in catalogue():
        assert f"{one.name} " in told
        assert one.comment
        assert all(column.comment for column in one.columns)
    lines = {line.split()[0]: line.split() for line in told.splitlines() if line.strip()}
    assert lines["images"][1:3] == ["atlas", "4"]
    assert lines["attacks"][1:3] == ["ledger", "2"]
    assert "VARCHAR" in ask("--tables", "images")[1]


def test_the_functions_are_listed(ask: Ask) -> None:
    code, told, _ = ask("--functions")
    assert code == 0
    words = told.split()
    assert {"abs", "median", "rank", "unnest", "||"} <= set(words)
    assert "read_csv" not in words
    assert ask("--csv", "SELECT getenv('HOME')")[0] == 1


def test_one_file_has_it_all_for_any_client(ask: Ask, settings: Settings) -> None:
    path = Path(ask("--path")[1].strip())
    assert path == settings.home / "convscope.duckdb"
    with duckdb.connect(str(path), read_only=True) as connection:
        assert connection.execute(BOTH).fetchall()[0][:2] == (0, "flipped")
        for one in catalogue():
            connection.execute(f"SELECT count(*) FROM {one.name}")
        unsaid = connection.execute(
            "SELECT table_name FROM duckdb_tables() WHERE comment IS NULL AND table_name <> 'atlas_info' "
            "UNION ALL SELECT view_name FROM duckdb_views() WHERE NOT internal AND comment IS NULL"
        )
        assert unsaid.fetchall() == []
        again = Path(ask("--path")[1].strip())
        assert again == path
        assert connection.execute("SELECT count(*) FROM attacks").fetchone() == (2,), (
            "who has it open keeps it"
        )
    assert [file.name for file in settings.home.iterdir() if ".convscope" in file.name] == []


def test_without_an_atlas_there_are_empty_tables(tmp_path: Path) -> None:
    made = command("sql", "--csv", "SELECT count(*) AS n FROM images", home=tmp_path / "new")
    assert made.stdout.splitlines() == ["n", "0"], made.stderr
    made = command("sql", "--path", home=tmp_path / "new")
    with duckdb.connect(made.stdout.strip(), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM attacked").fetchone() == (0,)


def test_a_reader_that_has_enough_ends_it_quietly(settings: Settings) -> None:
    words = [sys.executable, "-m", "convscope", "sql", "--csv", "SELECT repeat('x', 1000) FROM range(100000)"]
    environment = {**os.environ, "CONVSCOPE_HOME": str(settings.home)}
    made = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert made.stdout is not None
    assert made.stderr is not None
    made.stdout.readline()
    made.stdout.close()
    assert made.stderr.read() == b""
    made.stderr.close()
    made.wait(30)


def test_the_shell_runs_statements_and_completes_names(settings: Settings) -> None:
    """Runs in a terminal, as for a user at the keyboard."""
    main, other = pty.openpty()
    environment = {**os.environ, "CONVSCOPE_HOME": str(settings.home), "TERM": "xterm"}
    shell = subprocess.Popen(
        [sys.executable, "-m", "convscope", "sql"],
        cwd=ROOT, env=environment, stdin=other, stdout=other, stderr=other, start_new_session=True,
    )  # fmt: skip
    os.close(other)
    said = ""

    def until(words: str, seconds: float = 30) -> None:
        nonlocal said
        end = time.monotonic() + seconds
        while words not in said:
            assert time.monotonic() < end, f"no {words!r} in {said!r}"
            if select.select([main], [], [], 0.2)[0]:
                said += os.read(main, 65536).decode(errors="replace")

    def type_(text: str) -> None:
        nonlocal said
        said = ""
        os.write(main, text.encode())

    try:
        until("convscope>")
        type_("SELECT 6 * 7\r")
        until("...")
        type_("AS answer;\r")
        until("42")
        until("1 row (")
        type_("DROP TABLE images;\r")
        until("only reading is allowed")
        type_(".columns runs\r")
        until("dtype")
        type_("nonsense;\r")
        until("syntax error")
        type_(".quit\r")
        shell.wait(20)
    finally:
        shell.kill()
        shell.wait()
        os.close(main)
    history = settings.home / "sql_history"
    assert "AS answer;" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0


def test_columns_of_the_named_tables_come_first() -> None:
    completer = SQLCompleter(catalogue())
    found = [name for name, _ in completer.candidates("SELECT  FROM layers")]
    assert found.index("rf_size_x") < found.index("activations")
    document = Document("SELECT rf_si FROM layers", cursor_position=12)
    names = [one.text for one in completer.get_completions(document, None)]  # type: ignore[arg-type]
    assert names == ["rf_size_y", "rf_size_x"]
    assert [is_whole(text) for text in ("SELECT 1", "SELECT 1;", ".help", "", "quit")] == [
        False,
        True,
        True,
        True,
        True,
    ]
