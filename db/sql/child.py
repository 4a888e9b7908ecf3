"""A process that runs SQL, seen from the one that asks: requests and answers, its memory and its end."""

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from db.sql.guard import RefusedSQL

NEARLY = 0.8  # of the memory limit: who ends abnormally there ended for want of memory
ENDING_SECONDS = 1.0  # for a process whose answer breaks off to end by itself
PAGE = os.sysconf("SC_PAGE_SIZE")


class SQLFailed(RuntimeError):
    """The statement was run and did not come to an end; the message is one sentence."""


class SQLStopped(SQLFailed):
    """It took too long or too much, or nobody waits for it any more."""


@dataclass
class SQLProcess:
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
        self, process: SQLProcess, told: Mapping[str, Any], begun: float, done: Callable[[bool], None]
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


def took_too_much(process: SQLProcess) -> str:
    """Why a process that held more memory than it may was killed."""
    return f"stopped: it took more memory than a query may ({process.memory_limit})"


def _ending(code: int, process: SQLProcess) -> str:
    """Why a process that nobody killed has ended."""
    if code == -signal.SIGXCPU:
        return "stopped: it took more processor time than a query may"
    if code < 0 and process.peak > NEARLY * process.most_memory:
        return took_too_much(process)
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"the query ended its process ({how}): nothing else was harmed"
