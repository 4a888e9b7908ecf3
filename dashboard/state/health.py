"""Whether the broker answers, asked at most every other second: pages must not wait for one that is away."""

import threading
import time

from db.settings import Settings
from workers.queue.broker import is_there

_SECONDS_KEPT = 2.0


class Health:
    """What is known of the broker. Safe to share between threads; one of them asks, the others take what is known."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._asked = float("-inf")
        self._answers = False

    def broker_answers(self) -> bool:
        """As of two seconds ago at most."""
        if time.monotonic() - self._asked > _SECONDS_KEPT and self._lock.acquire(blocking=False):
            try:
                self._answers = is_there(self._settings)
                self._asked = time.monotonic()
            finally:
                self._lock.release()
        return self._answers
