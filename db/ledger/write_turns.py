"""Turns of a process's writers to a database, so that few threads wait where it, or a row of it, is locked.

A database makes each writer wait by itself. Where another process holds the lock, a server's threads would all end up
waiting there, and on PostgreSQL all connections: none is left for pages, which only read and need not wait.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator

PATIENT = 4  # writers that wait for as long as may be, behind those whose turn it is
BRIEF_SECONDS = 0.5  # for which the others wait while no turn ends: then their threads serve readers


class WriteTurns:
    """`at_once` writers, who wait for the database, and others who wait for their turn, in their order."""

    def __init__(self, seconds: float, at_once: int = 1) -> None:
        self._seconds = seconds
        self._at_once = at_once
        self._queue: deque[object] = deque()  # the first `at_once` have a turn
        self._moved = 0.0
        self._change = threading.Condition()

    @contextlib.contextmanager
    def one(self) -> Iterator[float]:
        """A turn, with the seconds for which the database may be waited for.

        Raises:
            TimeoutError: it did not come.
        """
        begun = time.monotonic()
        me = object()
        with self._change:
            self._queue.append(me)
            try:
                while (ahead := self._queue.index(me)) >= self._at_once:
                    until = begun + self._seconds
                    if ahead >= self._at_once + PATIENT:
                        until = min(until, max(begun, self._moved) + BRIEF_SECONDS)
                    left = until - time.monotonic()
                    if left <= 0:
                        raise TimeoutError
                    self._change.wait(left)
            except BaseException:
                self._leave(me)
                raise
        try:
            yield max(self._seconds - (time.monotonic() - begun), BRIEF_SECONDS)
        finally:
            with self._change:
                self._moved = time.monotonic()
                self._leave(me)

    def _leave(self, me: object) -> None:
        self._queue.remove(me)
        self._change.notify_all()
