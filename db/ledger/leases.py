"""Leases without clocks: a job's lease has lapsed where one observer saw no heartbeat for so long.

Hosts' clocks differ, and jump. So nobody compares a time that another process wrote with their own: a heartbeat writes
another value into `jobs.lease_until`, and whoever sweeps measures with a monotonic clock of its own for how long that
value has stayed the same. An observer that starts gives every job a whole lease first.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Heartbeat:
    """What a running job's row says of its worker."""

    job: int
    claim: str
    lease_until: datetime


class Leases:
    """What one process saw of running jobs. Not for several threads."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._seen: dict[Heartbeat, float] = {}

    def lapsed(self, running: Iterable[Heartbeat]) -> list[Heartbeat]:
        """Note the heartbeats of all jobs that run, and give those that have not changed for a lease."""
        moment = self._clock()
        self._seen = {beat: self._seen.get(beat, moment) for beat in running}
        return [beat for beat, since in self._seen.items() if moment - since >= self._seconds]
