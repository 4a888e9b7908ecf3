"""Leases without clocks: a job's lease lapses when one observer has seen no heartbeat for that long.

Clocks differ between hosts, and jump. So a process never compares its own clock with a time written by
another. A heartbeat writes a new value to `jobs.lease_until`, and each sweeper measures with its own
monotonic clock how long that value has been unchanged. A new observer grants every job a full lease first.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Heartbeat:
    """The worker's heartbeat in a running job's row."""

    job: int
    claim: str
    lease_until: datetime


class Leases:
    """What one process has observed of running jobs. Not thread-safe."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._seen: dict[Heartbeat, float] = {}

    def lapsed(self, running: Iterable[Heartbeat]) -> list[Heartbeat]:
        """Record the heartbeats of all running jobs; returns those that have not changed for the length of a lease."""
        moment = self._clock()
        self._seen = {beat: self._seen.get(beat, moment) for beat in running}
        return [beat for beat, since in self._seen.items() if moment - since >= self._seconds]
