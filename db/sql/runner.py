"""Runs user SQL in separate processes, several at once, each killed when it exceeds its time or memory limit.

A process that answered normally is reused; one that was stopped is replaced. Ledger tables are passed to it
as Arrow files, rewritten when they change.
"""

import contextlib
import functools
import os
import re
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from db.atlas.store import Atlas, NoAtlas
from db.ledger.arrow import LedgerTables
from db.ledger.engine import Ledger
from db.settings import Settings
from db.sql.child import Result, SQLFailed, SQLProcess, SQLStopped, took_too_much
from db.sql.guard import RefusedSQL
from db.sql.places import LOOK_SECONDS, NOBODY, FairSemaphore
from db.sql.temporary_folders import own_folder

CHECK_SECONDS = 5.0
MAX_KEPT = 0.1  # share of the memory limit: a process that retains more after a statement is replaced
_UNITS = {"MB": 10**6, "GB": 10**9, "TB": 10**12, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}

Values = Mapping[str, Any]


class SQLRunner:
    """Runs user SQL over one home. Thread-safe."""

    def __init__(self, settings: Settings, atlas: Atlas, ledger: Ledger) -> None:
        self._settings = settings
        self._atlas = atlas
        self._tables = LedgerTables(ledger)
        self._places = FairSemaphore(settings.sql_at_once)
        self._idle: list[SQLProcess] = []
        self._lock = threading.Lock()
        self._files: dict[str, tuple[pa.Table, str]] = {}
        self._held: Counter[str] = Counter()  # number of queries about to open each file
        self._remove_folder: Callable[[], Any] | None = None
        weakref.finalize(self, _end_all, self._idle)  # a discarded application leaves no process behind
        self._most_memory = _bytes(settings.sql_memory)

    def run(
        self,
        sql: str,
        values: Values | None = None,
        *,
        rows: int,
        size: int,
        seconds: float | None = None,
        gone: Callable[[], bool] | None = None,
    ) -> Result:
        """Run one read-only statement.

        Args:
            values: values of the named parameters; extra ones are ignored.
            rows: maximum number of rows to return.
            size: maximum size of the rows in bytes, as Arrow.
            seconds: time limit, including reading the rows; None for the one in the settings.
            gone: returns whether the client has disconnected; called twenty times a second.

        Raises:
            RefusedSQL: the statement is refused.
            SQLFailed: it failed; SQLStopped: it was stopped. Both can also occur while rows are read.
            TooManyQueries: too many queries are running and waiting.
            AtlasError, LedgerError: a store cannot be read.
        """
        limit = self._settings.sql_seconds if seconds is None else seconds
        begun = time.monotonic()
        process, done = self._begin(limit, gone)
        try:
            self._open_atlas(process)
            checked = process.ask(check=sql, seconds=CHECK_SECONDS)
            missing = [name for name in checked["parameters"] if name not in (values or {})]
            if missing:
                raise RefusedSQL(f"the statement has parameters without a value: {', '.join(missing)}")
            with self._ledger_files(checked["tables"]) as tables:
                told = process.ask(
                    run=sql, values=_sent(values or {}), tables=tables, rows=rows, bytes=size, seconds=limit
                )
            return Result(process, told, begun, done)
        except BaseException as error:
            done(isinstance(error, RefusedSQL | SQLFailed))
            raise

    def parameters(self, sql: str) -> list[str]:
        """Names of a statement's parameters; empty if the statement is incomplete."""
        process, done = self._begin(CHECK_SECONDS, None)
        try:
            found: list[str] = process.ask(check=sql, seconds=CHECK_SECONDS)["parameters"]
        except (RefusedSQL, SQLFailed):
            found = []
        finally:
            done(True)
        return found

    def close(self) -> None:
        """Kill all idle processes and remove the files."""
        with self._lock:
            _end_all(self._idle)
        if self._remove_folder is not None:
            self._remove_folder()

    @functools.cached_property
    def _folder(self) -> Path:
        """The folder of the ledger's tables for the processes; removed together with this runner."""
        folder, remove = own_folder("convscope-sql-")
        self._remove_folder = weakref.finalize(self, remove)
        return folder

    def _begin(
        self, seconds: float, gone: Callable[[], bool] | None
    ) -> tuple[SQLProcess, Callable[[bool], None]]:
        """A supervised process, and a function to call when done: with True if the process can be reused."""
        self._places.take(gone)
        try:
            process = self._take()
        except BaseException:
            self._places.give_back()
            raise
        stop = threading.Event()
        watch = threading.Thread(target=self._watch, args=(process, stop, seconds, gone), daemon=True)
        watch.start()

        def done(well: bool) -> None:
            stop.set()
            watch.join()  # so it cannot kill a process that already serves another query
            self._give_back(process, well=well)
            self._places.give_back()

        return process, done

    def _take(self) -> SQLProcess:
        with self._lock:
            while self._idle:
                process = self._idle.pop()
                if process.child.poll() is None:
                    return process
                process.end()
        return self._new()

    def _give_back(self, process: SQLProcess, *, well: bool) -> None:
        # memory freed by a large statement stays with the process: the next one would find less than its limit
        grown = process.data() - process.data_at_start > self._most_memory * MAX_KEPT
        if well and not grown and not process.spent and process.child.poll() is None:
            with self._lock:
                self._idle.append(process)
            return
        process.end()

    def _new(self) -> SQLProcess:
        child = subprocess.Popen(
            [sys.executable, "-I", "-c", _COMMAND, str(Path(__file__).parents[2])],
            cwd=self._folder,
            env={
                "CONVSCOPE_SQL_MEMORY": str(self._most_memory),
                "ARROW_DEFAULT_MEMORY_POOL": "system",  # other pools reserve 1 GB, which counts toward the limit
                "PATH": os.defpath,
                "LANG": "C.UTF-8",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in the terminal is for the parent, which ends this process
        )
        process = SQLProcess(child, self._settings.sql_memory, self._most_memory)
        process.line()  # wait until it is ready
        process.data_at_start = process.data()
        return process

    def _open_atlas(self, process: SQLProcess) -> None:
        try:
            path = str(self._atlas.path())
        except NoAtlas:
            path = ""
        if process.atlas == path:
            return
        try:
            process.ask(atlas=path, seconds=CHECK_SECONDS)
        except SQLStopped:
            raise
        except SQLFailed as error:
            raise SQLFailed(f"the atlas cannot be opened: {error}") from error
        process.atlas = path
        process.data_at_start = process.data()

    @contextlib.contextmanager
    def _ledger_files(self, names: list[str]) -> Iterator[dict[str, str]]:
        """Files with the current tables. They exist during the block; a process that has opened one keeps it."""
        tables = self._tables.read(names)
        files = {}
        with self._lock:
            for name, table in tables.items():
                known = self._files.get(name)
                if known is None or known[0] is not table:
                    file = self._folder / f"{name}-{time.monotonic_ns()}.arrow"
                    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                        writer.write_table(table)
                    self._files[name] = (table, str(file))
                files[name] = self._files[name][1]
            self._held.update(files.values())
        try:
            yield files
        finally:
            with self._lock:
                self._held.subtract(files.values())
                current = {file for _, file in self._files.values()}
                for left in [name for name, by in self._held.items() if not by and name not in current]:
                    Path(left).unlink(missing_ok=True)
                    del self._held[left]

    def _watch(
        self,
        process: SQLProcess,
        stop: threading.Event,
        seconds: float,
        gone: Callable[[], bool] | None,
    ) -> None:
        deadline = time.monotonic() + seconds
        while not stop.wait(LOOK_SECONDS):
            if time.monotonic() > deadline:
                process.kill(f"stopped after {seconds:g} seconds, the time limit of a query")
            elif process.memory() > self._most_memory:
                process.kill(took_too_much(process))
            elif gone is not None and gone():
                process.kill(NOBODY)
            else:
                continue
            return


def _sent(values: Values) -> dict[str, Any]:
    return {
        name: {"whole": value.text} if isinstance(value, Whole) else value for name, value in values.items()
    }


def _end_all(processes: list[SQLProcess]) -> None:
    while processes:
        processes.pop().end()


@dataclass(frozen=True)
class Whole:
    """An integer typed by the user, passed as text where it is compared with text."""

    text: str


def as_value(text: str) -> Whole | float | str:
    """Parse a parameter value typed by a user: a number if it looks like one, otherwise text; quotes force text."""
    if len(text) > 1 and text[0] == text[-1] == "'":
        return text[1:-1].replace("''", "'")
    if re.fullmatch(r"[+-]?\d{1,18}", text):
        return Whole(text)
    if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", text):
        return float(text)
    return text


# -I: neither the environment nor the working directory affects imports.
_COMMAND = "import sys; sys.path.insert(0, sys.argv[1]); from db.sql.process import main; main()"


def _bytes(memory: str) -> int:
    digits = "".join(letter for letter in memory if letter.isdigit())
    return int(digits) * _UNITS[memory[len(digits) :].strip().upper()]
