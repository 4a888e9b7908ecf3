"""Where people's SQL is run: processes of their own, some at once, each ended when it takes too long or too much.

A process that answered well serves again; one that was stopped is replaced. What it reads of the ledger it finds as
Arrow files, written anew where they changed.
"""

import contextlib
import functools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from db.atlas.store import Atlas, NoAtlas
from db.ledger.arrow import LedgerTables
from db.ledger.engine import Ledger
from db.settings import Settings
from db.sql.guard import RefusedSQL
from db.sql.temporary_folders import own_folder

WAIT_SECONDS = 20.0  # eight people who ask for two seconds of work each are all served
MOST_WAITING = 5  # each holds a thread of the web server, which has others for its pages
CHECK_SECONDS = 5.0
LOOK_SECONDS = 0.05
NOBODY = "stopped: nobody waits for it any more"
MOST_KEPT = 0.1  # of the memory limit: a process that keeps more after a statement is replaced
NEARLY = 0.8  # of the memory limit: who ends abnormally there ended for want of memory
ENDING_SECONDS = 1.0  # for a process whose answer breaks off to end by itself
PAGE = os.sysconf("SC_PAGE_SIZE")
_UNITS = {"MB": 10**6, "GB": 10**9, "TB": 10**12, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}

Values = Mapping[str, Any]


class SQLFailed(RuntimeError):
    """The statement was run and did not come to an end; the message is one sentence."""


class SQLStopped(SQLFailed):
    """It took too long or too much, or nobody waits for it any more."""


class TooManyQueries(RuntimeError):
    """As many queries run as may; the message is one sentence."""


@dataclass
class _Process:
    """One process that runs SQL; `why` is set by whoever kills it."""

    child: subprocess.Popen[bytes]
    memory_limit: str  # that of the settings, as it was written there
    most_memory: int  # likewise, in bytes
    atlas: str = ""
    why: str = ""
    spent: bool = False  # it said that it ends
    peak: int = 0  # bytes that it was seen to hold
    data_at_start: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and read the line that answers.

        Raises:
            RefusedSQL, SQLFailed: that is the answer.
            SQLStopped: it was killed, or ended by itself.
        """
        assert self.child.stdin is not None
        try:
            self.child.stdin.write(json.dumps(request).encode() + b"\n")
            self.child.stdin.flush()
        except OSError as error:
            raise self.ended() from error
        answer = self.line()
        if "failed" in answer:
            raise SQLFailed(answer["failed"])
        return answer

    def line(self) -> dict[str, Any]:
        """The next line of its answer."""
        assert self.child.stdout is not None
        told = self.child.stdout.readline()
        if not told.endswith(b"\n"):
            raise self.ended()
        answer: dict[str, Any] = json.loads(told)
        self.spent = "last" in answer
        if "refused" in answer:
            raise RefusedSQL(answer["refused"])
        return answer

    def ended(self) -> SQLStopped:
        """Why there is no answer."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.child.wait(ENDING_SECONDS)  # where it ends by itself, its own end tells why
        self.kill("")
        return SQLStopped(self.why or _ending(self.child.wait(), self))

    def kill(self, why: str) -> None:
        """End it at once; the first reason counts."""
        with self.lock:
            if self.child.poll() is None:
                self.why = self.why or why
                self.child.kill()

    def end(self) -> None:
        """Kill it and let go of all that belongs to it."""
        self.kill("")
        self.child.wait()
        for pipe in (self.child.stdin, self.child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def memory(self) -> int:
        """Bytes that it holds, 0 where the system does not tell."""
        held = self._statm(1)
        self.peak = max(self.peak, held)
        return held

    def data(self) -> int:
        """Bytes of writable memory that it has reserved, 0 where the system does not tell."""
        return self._statm(5)

    def _statm(self, place: int) -> int:
        try:
            return int(Path(f"/proc/{self.child.pid}/statm").read_text().split()[place]) * PAGE
        except (OSError, IndexError):
            return 0


class Result:
    """The rows of a statement, as they come: a context manager, for whoever stops early must say so.

    `kinds` are DuckDB's names of the columns' types. At the end `more` says whether limits cut something off, and
    `seconds` how long it took.
    """

    def __init__(
        self, process: _Process, told: Mapping[str, Any], begun: float, done: Callable[[bool], None]
    ) -> None:
        self._process = process
        self._done: Callable[[bool], None] | None = done
        self._dropped = weakref.finalize(self, process.end)  # one that nobody closed leaves no process
        self._begun = begun
        self.kinds: list[str] = [kind for _, kind in told["columns"]]
        self.plan: str = told["plan"]
        self.more = False
        self.seconds = 0.0
        try:
            self._reader = pa.ipc.open_stream(process.child.stdout)
        except (pa.ArrowException, OSError) as error:
            raise process.ended() from error
        self.schema: pa.Schema = self._reader.schema

    def __enter__(self) -> "Result":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """The batches, once.

        Raises:
            SQLFailed, SQLStopped: it did not come to an end.
        """
        try:
            yield from self._reader
        except (pa.ArrowException, OSError) as error:
            raise self._process.ended() from error
        end = self._process.line()
        self.more = end["more"]
        self._end(well=True)
        if "failed" in end:
            raise SQLFailed(end["failed"])

    def table(self) -> pa.Table:
        """All rows, and the end of it."""
        with self:
            return pa.Table.from_batches(list(self), self.schema)

    def close(self) -> None:
        """Let go; what was not read is stopped."""
        self._end(well=False)

    def _end(self, *, well: bool) -> None:
        done, self._done = self._done, None
        if done is not None:
            self._dropped.detach()
            self.seconds = time.monotonic() - self._begun
            done(well)


class _Places:
    """Places for queries, given to those who wait in the order in which they came: a semaphore lets some starve."""

    def __init__(self, places: int) -> None:
        self._all = self._free = places
        self._waiting: deque[threading.Event] = deque()
        self._lock = threading.Lock()

    def take(self, gone: Callable[[], bool] | None) -> None:
        """Wait for a place, as long as somebody waits for the rows.

        Raises:
            TooManyQueries: as many wait as may, or this one did for too long; SQLStopped: nobody waits any more.
        """
        too_many = TooManyQueries(f"{self._all} queries run already, as many as may: try again in a moment")
        with self._lock:
            if self._free:
                self._free -= 1
                return
            if len(self._waiting) == MOST_WAITING:
                raise too_many
            turn = threading.Event()
            self._waiting.append(turn)
        deadline = time.monotonic() + WAIT_SECONDS
        while not turn.wait(LOOK_SECONDS):
            left = gone is not None and gone()
            if left or time.monotonic() > deadline:
                self._leave(turn)
                raise SQLStopped(NOBODY) if left else too_many

    def _leave(self, turn: threading.Event) -> None:
        with self._lock:
            if not turn.is_set():
                self._waiting.remove(turn)
                return
        self.give_back()  # it was its turn this very moment

    def give_back(self) -> None:
        """The place goes to the first who waits."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._free += 1


class SQLRunner:
    """Runs people's SQL over one home. Safe to share between threads."""

    def __init__(self, settings: Settings, atlas: Atlas, ledger: Ledger) -> None:
        self._settings = settings
        self._atlas = atlas
        self._tables = LedgerTables(ledger)
        self._places = _Places(settings.sql_at_once)
        self._idle: list[_Process] = []
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
    ) -> tuple[_Process, Callable[[bool], None]]:
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

    def _take(self) -> _Process:
        with self._lock:
            while self._idle:
                process = self._idle.pop()
                if process.child.poll() is None:
                    return process
                process.end()
        return self._new()

    def _give_back(self, process: _Process, *, well: bool) -> None:
        # what a large statement freed stays with the process: another one would find less than it may take
        grown = process.data() - process.data_at_start > self._most_memory * MOST_KEPT
        if well and not grown and not process.spent and process.child.poll() is None:
            with self._lock:
                self._idle.append(process)
            return
        process.end()

    def _new(self) -> _Process:
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
        process = _Process(child, self._settings.sql_memory, self._most_memory)
        process.line()  # it is ready
        process.data_at_start = process.data()
        return process

    def _open_atlas(self, process: _Process) -> None:
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
        process: _Process,
        stop: threading.Event,
        seconds: float,
        gone: Callable[[], bool] | None,
    ) -> None:
        deadline = time.monotonic() + seconds
        while not stop.wait(LOOK_SECONDS):
            if time.monotonic() > deadline:
                process.kill(f"stopped after {seconds:g} seconds, the longest that a query may take")
            elif process.memory() > self._most_memory:
                process.kill(_took_too_much(process))
            elif gone is not None and gone():
                process.kill(NOBODY)
            else:
                continue
            return


def _sent(values: Values) -> dict[str, Any]:
    return {
        name: {"whole": value.text} if isinstance(value, Whole) else value for name, value in values.items()
    }


def _end_all(processes: list[_Process]) -> None:
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


def _took_too_much(process: _Process) -> str:
    return f"stopped: it took more memory than a query may ({process.memory_limit})"


def _ending(code: int, process: _Process) -> str:
    """Why a process that nobody killed has ended."""
    if code == -signal.SIGXCPU:
        return "stopped: it took more processor time than a query may"
    if code < 0 and process.peak > NEARLY * process.most_memory:
        return _took_too_much(process)
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"the query ended its process ({how}): nothing else was harmed"
