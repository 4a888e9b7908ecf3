"""Broker health, checked at most every other second, so that pages never wait for a broker that is down."""

import threading
import time

from db.settings import Settings
from workers.queue.broker import is_there

_SECONDS_KEPT = 2.0


class Health:
    """Cached state of the broker. Thread-safe: one thread checks, the others use the cached result."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._asked = float("-inf")
        self._answers = False

    def broker_answers(self) -> bool:
        """Whether the broker responded, at most two seconds ago."""
        if time.monotonic() - self._asked > _SECONDS_KEPT and self._lock.acquire(blocking=False):
            try:
                self._answers = is_there(self._settings)
                self._asked = time.monotonic()
            finally:
                self._lock.release()
        return self._answers
