"""The parent's side of an SQL process: requests and answers, its memory use, and its termination."""

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

NEARLY = 0.8  # share of the memory limit; an abnormal exit above it counts as out of memory
ENDING_SECONDS = 1.0  # time for a process to exit after its answer breaks off
PAGE = os.sysconf("SC_PAGE_SIZE")


class SQLFailed(RuntimeError):
    """The statement ran and failed; the message is one sentence."""


class SQLStopped(SQLFailed):
    """The statement's process was killed or died: a time or memory limit, a disconnected client, or a crash."""


@dataclass
class SQLProcess:
    """One process that runs SQL; `why` is the reason it was killed."""

    child: subprocess.Popen[bytes]
    memory_limit: str  # as written in the settings
    most_memory: int  # the same in bytes
    atlas: str = ""
    why: str = ""
    spent: bool = False  # it announced that it will exit
    peak: int = 0  # largest observed memory use in bytes
    data_at_start: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and read the line that answers it.

        Raises:
            RefusedSQL, SQLFailed: the process answered with an error.
            SQLStopped: the process was killed, or exited.
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
        """The reason why there is no answer."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.child.wait(ENDING_SECONDS)  # if it exits itself, its exit status gives the reason
        self.kill("")
        return SQLStopped(self.why or _ending(self.child.wait(), self))

    def kill(self, why: str) -> None:
        """Kill it at once; the first reason is kept."""
        with self.lock:
            if self.child.poll() is None:
                self.why = self.why or why
                self.child.kill()

    def end(self) -> None:
        """Kill it and release its resources."""
        self.kill("")
        self.child.wait()
        for pipe in (self.child.stdin, self.child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def memory(self) -> int:
        """Its resident memory in bytes, 0 if the system does not report it."""
        held = self._statm(1)
        self.peak = max(self.peak, held)
        return held

    def data(self) -> int:
        """Its reserved writable memory in bytes, 0 if the system does not report it."""
        return self._statm(5)

    def _statm(self, place: int) -> int:
        try:
            return int(Path(f"/proc/{self.child.pid}/statm").read_text().split()[place]) * PAGE
        except (OSError, IndexError):
            return 0


class Result:
    """The rows of a statement as they arrive. Use it as a context manager, so that stopping early frees the process.

    `kinds` are DuckDB's names of the column types. At the end, `more` says whether a limit cut off rows, and
    `seconds` is the elapsed time.
    """

    def __init__(
        self, process: SQLProcess, told: Mapping[str, Any], begun: float, done: Callable[[bool], None]
    ) -> None:
        self._process = process
        self._done: Callable[[bool], None] | None = done
        self._dropped = weakref.finalize(self, process.end)  # an unclosed result leaves no process behind
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
        """The batches; can be iterated once.

        Raises:
            SQLFailed, SQLStopped: the statement failed or was stopped.
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
        """All rows; closes the result."""
        with self:
            return pa.Table.from_batches(list(self), self.schema)

    def close(self) -> None:
        """Close the result; if rows are unread, the statement is stopped."""
        self._end(well=False)

    def _end(self, *, well: bool) -> None:
        done, self._done = self._done, None
        if done is not None:
            self._dropped.detach()
            self.seconds = time.monotonic() - self._begun
            done(well)


def took_too_much(process: SQLProcess) -> str:
    """The message for a process that was killed because it exceeded its memory limit."""
    return f"stopped: it exceeded the memory limit of a query ({process.memory_limit})"


def _ending(code: int, process: SQLProcess) -> str:
    """The message for a process that exited without being killed by us."""
    if code == -signal.SIGXCPU:
        return "stopped: it exceeded the processor time limit of a query"
    if code < 0 and process.peak > NEARLY * process.most_memory:
        return took_too_much(process)
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"the query ended its process ({how}); nothing else was affected"
