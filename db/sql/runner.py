"""Where people's SQL is run: processes of their own, some at once, each ended when it takes too long or too much.

A process that answered well serves again; one that was stopped is replaced. What it reads of the ledger it finds as
Arrow files, written anew where they changed.
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
MAX_KEPT = 0.1  # of the memory limit: a process that keeps more after a statement is replaced
_UNITS = {"MB": 10**6, "GB": 10**9, "TB": 10**12, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}

Values = Mapping[str, Any]


class SQLRunner:
    """Runs people's SQL over one home. Safe to share between threads."""

    def __init__(self, settings: Settings, atlas: Atlas, ledger: Ledger) -> None:
        self._settings = settings
        self._atlas = atlas
        self._tables = LedgerTables(ledger)
        self._places = FairSemaphore(settings.sql_at_once)
        self._idle: list[SQLProcess] = []
        self._lock = threading.Lock()
        self._files: dict[str, tuple[pa.Table, str]] = {}
        self._held: Counter[str] = Counter()  # files, by how many queries are about to open them
        self._remove_folder: Callable[[], Any] | None = None
        weakref.finalize(self, _end_all, self._idle)  # an application that is dropped leaves no process
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
        """Run one statement that reads.

        Args:
            values: of its named parameters; those that it does not have are not read.
            rows: most rows that are given.
            size: most bytes of them, as Arrow has them.
            seconds: longest time, the reading of the rows included; that of the settings where it is None.
            gone: whether nobody waits for the rows any more; asked twenty times a second.

        Raises:
            RefusedSQL: it is not run.
            SQLFailed: it was, and failed; SQLStopped: it was stopped. Both also while rows are read.
            TooManyQueries: as many run and wait as may.
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
        """Names of a statement's parameters; none where it is not whole yet."""
        process, done = self._begin(CHECK_SECONDS, None)
        try:
            found: list[str] = process.ask(check=sql, seconds=CHECK_SECONDS)["parameters"]
        except (RefusedSQL, SQLFailed):
            found = []
        finally:
            done(True)
        return found

    def close(self) -> None:
        """End all processes that wait, and remove the files."""
        with self._lock:
            _end_all(self._idle)
        if self._remove_folder is not None:
            self._remove_folder()

    @functools.cached_property
    def _folder(self) -> Path:
        """Where the ledger's tables lie for the processes to read; gone when nobody has this runner any more."""
        folder, remove = own_folder("convscope-sql-")
        self._remove_folder = weakref.finalize(self, remove)
        return folder

    def _begin(
        self, seconds: float, gone: Callable[[], bool] | None
    ) -> tuple[SQLProcess, Callable[[bool], None]]:
        """A process that is watched, and what to call when it is done: with True where it may serve again."""
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
            watch.join()  # it kills nobody who serves another by then
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
        # what a large statement freed stays with the process: another one would find less than it may take
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
                "ARROW_DEFAULT_MEMORY_POOL": "system",  # others reserve a GB at once, which counts
                "PATH": os.defpath,
                "LANG": "C.UTF-8",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C in the terminal is the asker's, who ends it
        )
        process = SQLProcess(child, self._settings.sql_memory, self._most_memory)
        process.line()  # it is ready
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
        """Files with those tables as they are now; within it they stay, and who has opened one by its end keeps it."""
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
                process.kill(f"stopped after {seconds:g} seconds, the longest that a query may take")
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
    """A whole number as a person typed it: also a text, where it is compared with one."""

    text: str


def as_value(text: str) -> Whole | float | str:
    """What a person typed for a parameter: a number where it reads as one, else text; quotes make any text text."""
    if len(text) > 1 and text[0] == text[-1] == "'":
        return text[1:-1].replace("''", "'")
    if re.fullmatch(r"[+-]?\d{1,18}", text):
        return Whole(text)
    if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", text):
        return float(text)
    return text


# -I: neither the environment nor the folder it starts in says what is imported.
_COMMAND = "import sys; sys.path.insert(0, sys.argv[1]); from db.sql.process import main; main()"


def _bytes(memory: str) -> int:
    digits = "".join(letter for letter in memory if letter.isdigit())
    return int(digits) * _UNITS[memory[len(digits) :].strip().upper()]
