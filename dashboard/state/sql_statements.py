"""User statements of the SQL page: results that are kept for drawing them again, and statements that can be cancelled.

A tab of a browser is known by a random text that its page has. A statement of a tab ends when it is cancelled, when
the tab runs another one, when its page is left, or when its client disconnects.
"""

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import flask

from dashboard.state.cache import Cache
from db.sql.child import Result
from db.sql.formats import plain, values

EXTENSION = "convscope-sql-statements"
STANDARD_ROWS = 1000
MAX_ROWS = 20_000
MAX_BYTES = 32 << 20  # of a result that a browser displays
MAX_TABS = 1000
KEPT_BYTES = 256 << 20
BYTES_PER_VALUE = 60  # a number or a short text as a Python object
NUMBERS = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|FLOAT|DOUBLE|DECIMAL.*")


@dataclass(frozen=True)
class Column:
    """A column of a result; `kind` is DuckDB's name of its type."""

    name: str
    kind: str

    @property
    def is_number(self) -> bool:
        """Whether its values are numbers."""
        return NUMBERS.fullmatch(self.kind) is not None


@dataclass(frozen=True)
class Answer:
    """The first rows of a statement, as JSON values; `more` if a limit cut off rows; `plan` if it was EXPLAIN."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Any, ...], ...]
    more: bool
    plan: bool
    seconds: float

    @classmethod
    def read(cls, found: Result) -> "Answer":
        """Read a result to its end; raises as reading a Result does."""
        table = found.table()
        columns = tuple(
            Column(name, kind) for name, kind in zip(table.column_names, found.kinds, strict=True)
        )
        lists = [[plain(value) for value in values(column)] for column in table.columns]
        return cls(
            columns, tuple(zip(*lists, strict=True)), found.more, bool(found.plan), round(found.seconds, 4)
        )

    @property
    def names(self) -> list[str]:
        """The names of its columns."""
        return [column.name for column in self.columns]

    @property
    def numbers(self) -> list[str]:
        """The names of its columns of numbers."""
        return [column.name for column in self.columns if column.is_number]

    @property
    def weight(self) -> int:
        """About its size in bytes."""
        width = sum(_size(value) for value in self.rows[0]) if self.rows else 0
        return 1000 + len(self.rows) * width


def _size(value: Any) -> int:
    if isinstance(value, str | list | dict):
        return BYTES_PER_VALUE + len(value if isinstance(value, str) else json.dumps(value))
    return BYTES_PER_VALUE


class Statements:
    """The statements of one application. Thread-safe."""

    def __init__(self) -> None:
        self.answers: Cache[str, Answer] = Cache(KEPT_BYTES, lambda answer: answer.weight)
        self._running: OrderedDict[str, threading.Event] = OrderedDict()
        self._left: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, tab: str) -> Callable[[], bool]:
        """End the tab's statement and begin another; the function returns whether that one has been cancelled."""
        stop = threading.Event()
        with self._lock:
            before = self._running.pop(tab, None)
            self._running[tab] = stop
            if tab in self._left:
                stop.set()
            if len(self._running) > MAX_TABS:
                self._running.popitem(last=False)
        if before is not None:
            before.set()
        return stop.is_set

    def cancel(self, tab: str) -> None:
        """Cancel the tab's statement, if one is running."""
        with self._lock:
            stop = self._running.pop(tab, None)
        if stop is not None:
            stop.set()

    def leave(self, tab: str) -> None:
        """Cancel the tab's statement, and each that it begins later: its page is gone."""
        with self._lock:
            self._left[tab] = None
            if len(self._left) > MAX_TABS:
                self._left.popitem(last=False)
        self.cancel(tab)


def statements() -> Statements:
    """Those of the application that serves the current request."""
    return cast(Statements, flask.current_app.extensions.setdefault(EXTENSION, Statements()))
