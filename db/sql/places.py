"""Places for queries that run at once, in the order in which they were asked for."""

import threading
import time
from collections import deque
from collections.abc import Callable

from db.sql.child import SQLStopped

WAIT_SECONDS = 20.0  # eight people who ask for two seconds of work each are all served
MAX_WAITING = 5  # each holds a thread of the web server, which has others for its pages
LOOK_SECONDS = 0.05
NOBODY = "stopped: nobody waits for it any more"


class TooManyQueries(RuntimeError):
    """As many queries run as may; the message is one sentence."""


class FairSemaphore:
    """Places for queries, given in the order in which they were asked for: a plain semaphore starves some."""

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
        self.give_back()  # it was its turn this very moment

    def give_back(self) -> None:
        """The place goes to the first who waits."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._free += 1
