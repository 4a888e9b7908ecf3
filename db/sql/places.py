"""Limits concurrent queries; waiting queries are served in order of arrival."""

import threading
import time
from collections import deque
from collections.abc import Callable

from db.sql.child import SQLStopped

WAIT_SECONDS = 20.0  # enough to serve eight users with two seconds of work each
MAX_WAITING = 5  # each occupies a thread of the web server, which needs others for its pages
LOOK_SECONDS = 0.05
NOBODY = "cancelled: client disconnected"


class TooManyQueries(RuntimeError):
    """The maximum number of queries is running; the message is one sentence."""


class FairSemaphore:
    """A semaphore that grants slots in order of arrival; a plain one can starve waiters."""

    def __init__(self, places: int) -> None:
        self._all = self._free = places
        self._waiting: deque[threading.Event] = deque()
        self._lock = threading.Lock()

    def take(self, gone: Callable[[], bool] | None) -> None:
        """Wait for a slot, until the client disconnects (`gone`).

        Raises:
            TooManyQueries: too many are waiting, or the wait timed out; SQLStopped: the client disconnected.
        """
        too_many = TooManyQueries(
            f"{self._all} queries are already running, the maximum: try again in a moment"
        )
        with self._lock:
            if self._free:
                self._free -= 1
                return
            if len(self._waiting) == MAX_WAITING:
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
        self.give_back()  # it got its slot in the meantime

    def give_back(self) -> None:
        """Pass the slot to the first waiter, or free it."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._free += 1
