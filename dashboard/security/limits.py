"""Rate limits per client for expensive requests: token buckets of a minute's worth, refilled continuously.

State is kept in memory, which suffices because there is one web process. Each bucket remembers at most
MAX_KNOWN clients; the one whose last request is oldest is forgotten first.
"""

import math

from throttled import MemoryStore, RateLimiterType, Throttled, per_min

MAX_KNOWN = 10_000
WRONG_PASSWORDS = 6  # per minute, once ten in a row were wrong
FIRST_WRONG_PASSWORDS = 10


class Limits:
    """The buckets. Thread-safe.

    Uses the generic cell rate algorithm: a token bucket that stores one number per client and is exact at any
    rate.
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
        """Take one of the client's tokens: 0 on success, else the seconds until the next token."""
        result = self._buckets[name].limit(who)
        return max(1, math.ceil(result.state.retry_after)) if result.limited else 0

    def seconds_to_wait(self, name: str, who: str) -> int:
        """Seconds until the client has a token, 0 if it has one; takes none."""
        state = self._buckets[name].peek(who)
        # the state's own `retry_after` belongs to the preceding request
        return max(0, math.ceil(state.reset_after - (state.limit - 1) * self._seconds_each[name]))


def spent_by(method: str, rule: str) -> str | None:
    """The bucket that a request to a route takes a token from; None if the route is not limited."""
    if method == "POST" and (
        rule in ("/api/jobs", "/api/uploads/<upload>/import") or rule.startswith("/api/jobs/")
    ):
        return "jobs"
    if method in ("GET", "HEAD") and (rule == "/api/sql" or rule.startswith("/download/sql.")):
        return "SQL statements"
    return None
