"""Takes turns among a process's database writers, so few threads block on a locked database or row.

Databases make each writer wait on its own. While another process holds the lock, all of a server's threads
could end up blocked there, and on PostgreSQL all its connections. None would be left for pages, which only
read and need not wait.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator

PATIENT = 4  # waiting writers that get the full timeout, behind those whose turn it is
BRIEF_SECONDS = 0.5  # timeout of the others while no turn ends, to free their threads for readers


class WriteTurns:
    """Lets `at_once` writers wait for the database; others queue for their turn, in order of arrival."""

    def __init__(self, seconds: float, at_once: int = 1) -> None:
        self._seconds = seconds
        self._at_once = at_once
        self._queue: deque[object] = deque()  # the first `at_once` entries have a turn
        self._moved = 0.0
        self._change = threading.Condition()

    @contextlib.contextmanager
    def one(self) -> Iterator[float]:
        """A turn; yields how many seconds to wait for the database.

        Raises:
            TimeoutError: no turn came in time.
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
