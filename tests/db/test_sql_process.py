"""User SQL always ends with rows or an error message, within its memory and time limits, and leaves nothing behind."""

import contextlib
import gc
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from db.atlas.store import Atlas
from db.ledger.engine import Ledger
from db.settings import Settings, read_settings
from db.sql.child import SQLFailed, SQLStopped
from db.sql.guard import NEEDS_MORE_MEMORY, RefusedSQL
from db.sql.runner import SQLRunner
from db.sql.temporary_folders import LOCK, UNOWNED_SECONDS, own_folder

ROOT = Path(__file__).parents[2]
MEMORY = 400 * 10**6
ENDLESS = "SELECT count(*) FROM range(10000000000) a, range(1000000) b"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = read_settings(
        {"CONVSCOPE_HOME": str(tmp_path_factory.mktemp("sql")), "CONVSCOPE_SQL_MEMORY": "400MB"}
    )
    Ledger(settings).migrate()
    return settings


def ask(runner: SQLRunner, sql: str) -> str:
    """Return the rows of a statement, or the error it failed with."""
    try:
        return str(runner.run(sql, rows=20_000, size=10**7).table().to_pylist())
    except (SQLFailed, RefusedSQL) as error:
        return str(error)


def idle(runner: SQLRunner) -> int:
    """Return the id of the process that has served a query and is idle."""
    (process,) = runner._idle
    return process.child.pid


DEEP = 600  # nesting levels of a statement; DuckDB allows 1,000


@pytest.mark.parametrize(
    ("sql", "sentence"),
    [
        ("SELECT error('at once')", "Invalid Input Error: at once"),
        ("SELECT CASE WHEN i > 9000 THEN error('late') ELSE i END FROM range(10000) t(i)",
         "Invalid Input Error: late"),
        ("SELECT (i || CASE WHEN i > 9000 THEN 'x' ELSE '' END)::INTEGER FROM range(10000) t(i)",
         "Conversion Error: Could not convert string '9001x' to INT32"),
        ("SELECT CASE WHEN i > 9000 THEN error('late') END, INTERVAL 1 DAY FROM range(10000) t(i)",
         "Invalid Input Error: late"),
        ("SELECT " + "1 + " * DEEP + "1 AS n", f"[{{'n': {DEEP + 1}}}]"),
        ("SELECT " + "1 + " * 3 * DEEP + "1 AS n", "the statement is nested too deeply: write it with fewer levels, "
         "for example with WITH"),
    ],
    ids=["at once", "late", "conversion", "as text", "deep", "too deep"],
)  # fmt: skip
def test_the_database_message_is_reported_and_the_process_reused(
    runner: SQLRunner, sql: str, sentence: str
) -> None:
    assert ask(runner, "SELECT 1 AS a") == "[{'a': 1}]"
    before = idle(runner)
    assert ask(runner, sql) == sentence
    assert idle(runner) == before, "nothing had to be replaced"
    assert ask(runner, "SELECT 2 AS a") == "[{'a': 2}]"


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (signal.SIGXCPU, "stopped: it exceeded the processor time limit of a query"),
        (signal.SIGKILL, "the query ended its process (SIGKILL); nothing else was affected"),
    ],
)
def test_a_process_that_dies_is_reported_and_replaced(
    runner: SQLRunner, number: signal.Signals, sentence: str
) -> None:
    result = runner.run("SELECT repeat('x', 1000) FROM range(10000000)", rows=10**9, size=1 << 40)
    process = result._process
    process.child.send_signal(number)
    with pytest.raises(SQLStopped) as stopped:
        result.table()
    assert str(stopped.value) == sentence
    assert ask(runner, "SELECT 2 AS a") == "[{'a': 2}]"


def test_processor_time_is_that_of_all_threads(runner: SQLRunner) -> None:
    """Four threads may use ten seconds each; the limit of a process is on their sum."""
    code = (
        "import os, resource; os.cpu_count = lambda: 8; from db.sql import process; process._allow_seconds(10);"
        "print(process.threads(), resource.getrlimit(resource.RLIMIT_CPU)[0])"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    threads, seconds = map(int, told.stdout.split())
    assert threads == 4
    assert 40 < seconds <= 60
    with runner.run("SELECT 1", rows=1, size=1000, seconds=300) as result:
        limit, _ = resource.prlimit(result._process.child.pid, resource.RLIMIT_CPU)
    assert limit > 300 * min(4, os.cpu_count() or 1), "each request sets it again"


# Each would exceed its memory limit if allowed: values that DuckDB does not count, and tables that it builds.
LARGE = [
    "SELECT list(i) FROM range(300000000) t(i)",
    "SELECT string_agg(repeat('x', 1000), '') FROM range(1000000)",
    "SELECT count(*) FROM (SELECT DISTINCT i FROM range(30000000) t(i))",
    "SELECT max(length(s)) FROM (SELECT repeat('x', 1000000) || i AS s FROM range(2000) t(i))",
    "SELECT repeat('x', 1000000) || i FROM range(2000) t(i)",
]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system has no /proc")
@pytest.mark.parametrize("sql", LARGE)
def test_a_process_never_exceeds_its_memory_limit(runner: SQLRunner, sql: str) -> None:
    """Compares the operating system's peak, read while the process is alive, not DuckDB's own count."""
    peaks = []
    seen = runner._give_back

    def give_back(process: object, *, well: bool) -> None:
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{process.child.pid}/status").read_text()  # type: ignore[attr-defined]
            peaks.extend(int(line.split()[1]) << 10 for line in status.splitlines() if "VmHWM" in line)
        seen(process, well=well)  # type: ignore[arg-type]

    runner._give_back = give_back  # type: ignore[method-assign]
    try:
        told = ask(runner, sql)
    finally:
        del runner._give_back
    assert told == NEEDS_MORE_MEMORY or told.startswith("[{")
    assert len(peaks) == 1, "it answered, and was not killed"
    assert peaks[0] <= MEMORY, f"{peaks[0] / 1e6:.0f} MB"
    assert ask(runner, "SELECT 2 AS a") == "[{'a': 2}]"


def test_a_large_result_is_sent_as_it_comes(runner: SQLRunner) -> None:
    """Twice the memory limit in rows passes through a process that holds only a few batches of it."""
    sent = 0
    with runner.run("SELECT repeat('x', 1000) AS t FROM range(800000)", rows=10**9, size=1 << 40) as result:
        status = Path(f"/proc/{result._process.child.pid}/status")
        for batch in result:
            sent += batch.nbytes
            if status.exists() and batch.num_rows:
                peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    assert sent > 2 * MEMORY
    if status.exists():
        assert int(peak.split()[1]) << 10 < 0.6 * MEMORY


def test_a_folder_is_removed_with_its_owner(home: Settings) -> None:
    runner = SQLRunner(home, Atlas(home), Ledger(home))
    folder = runner._folder
    assert folder.is_dir()
    runner.close()
    assert not folder.exists()
    runner = SQLRunner(home, Atlas(home), Ledger(home))
    folder = runner._folder
    del runner
    assert not folder.exists(), "a runner that nobody has leaves nothing"


def test_folders_of_killed_owners_are_removed_at_the_next_start(
    home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = (
        "import sys, time; from db.sql.temporary_folders import own_folder;"
        "print(own_folder('convscope-sql-')[0], flush=True); time.sleep(60)"
    )
    owners = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=os.environ | {"TMPDIR": str(tmp_path)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        killed, living = (Path(owner.stdout.readline().strip()) for owner in owners if owner.stdout)
        (killed / "jobs-1.arrow").write_bytes(b"rows")
        owners[0].kill()
        owners[0].wait()
        old, fresh, other = (tmp_path / name for name in ("convscope-sql-old", "convscope-sql-new", "else"))
        for folder in (old, fresh, other):
            folder.mkdir()
        long_ago = time.time() - UNOWNED_SECONDS - 60
        os.utime(old, (long_ago, long_ago))
        (tmp_path / "convscope-sql-link").symlink_to(other)
        assert killed.is_dir()
        with contextlib.closing(SQLRunner(home, Atlas(home), Ledger(home))) as runner:
            assert ask(runner, "SELECT count(*) AS n FROM jobs") == "[{'n': 0}]"
            left = {folder.name for folder in tmp_path.iterdir()}
            assert left == {living.name, runner._folder.name, fresh.name, other.name, "convscope-sql-link"}
    finally:
        for owner in owners:
            owner.kill()
            owner.wait()
            assert owner.stdout is not None
            owner.stdout.close()


def test_an_owned_folder_is_locked_from_the_moment_it_can_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    first, remove = own_folder("mine-")
    second, remove_second = own_folder("mine-")  # its sweep leaves the first one alone
    assert {first, second} == set(tmp_path.iterdir())
    assert [file.name for file in first.iterdir()] == [LOCK]
    remove()
    remove_second()
    assert list(tmp_path.iterdir()) == []


def test_a_result_that_is_dropped_unread_leaves_no_process(runner: SQLRunner) -> None:
    result = runner.run("SELECT * FROM range(1000000)", rows=1_000_000, size=10**9)
    child = result._process.child
    assert child.poll() is None
    runner._places.give_back()  # a dropped result keeps its place: return it for the other tests
    del result
    gc.collect()
    assert child.poll() is not None
    assert child.stdout is not None
    assert child.stdout.closed
