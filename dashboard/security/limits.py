"""How often one person may ask for what is costly: token buckets of a minute's worth that fill evenly.

In this process's memory alone, for it is the one web process. At most MAX_KNOWN persons are remembered per bucket;
who asked longest ago is forgotten first.
"""

import math

from throttled import MemoryStore, RateLimiterType, Throttled, per_min

MAX_KNOWN = 10_000
WRONG_PASSWORDS = 6  # a minute, once ten in a row were wrong
FIRST_WRONG_PASSWORDS = 10


class Limits:
    """What was spent. Safe to share between threads.

    The generic cell rate algorithm is the token bucket with one number a person, exact at any rate.
    """

    def __init__(self, *, jobs: int, sql: int) -> None:
        quotas = {
            "jobs": per_min(jobs),
            "SQL statements": per_min(sql),
            "wrong passwords": per_min(WRONG_PASSWORDS, burst=FIRST_WRONG_PASSWORDS),
        }
        self.most = {name: quota.get_limit() for name, quota in quotas.items()}
        self._seconds_each = {name: quota.emission_interval for name, quota in quotas.items()}
        self._buckets = {
            name: Throttled(
                using=RateLimiterType.GCRA.value,
                quota=quota,
                store=MemoryStore(options={"MAX_SIZE": MAX_KNOWN}),
            )
            for name, quota in quotas.items()
        }

    def spend(self, name: str, who: str) -> int:
        """Take one token of a person's: 0 where there was one, else the seconds until there is."""
        result = self._buckets[name].limit(who)
        return max(1, math.ceil(result.state.retry_after)) if result.limited else 0

    def seconds_to_wait(self, name: str, who: str) -> int:
        """Seconds until a person has a token, 0 where they have one; takes none."""
        state = self._buckets[name].peek(who)
        # its own `retry_after` is that of a request before the next
        return max(0, math.ceil(state.reset_after - (state.limit - 1) * self._seconds_each[name]))


def spent_by(method: str, rule: str) -> str | None:
    """The bucket that a request to a route takes from, None where it is free."""
    if method == "POST" and (
        rule in ("/api/jobs", "/api/uploads/<upload>/import") or rule.startswith("/api/jobs/")
    ):
        return "jobs"
    if method in ("GET", "HEAD") and (
        rule in ("/api/sql", "/choices/where.json") or rule.startswith("/download/sql.")
    ):
        return "SQL statements"
    return None
