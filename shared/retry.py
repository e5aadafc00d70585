"""When to try again: clamped, jittered, and not for ever. Not: sleeping."""

from __future__ import annotations

from typing import NamedTuple


class RetryPolicy(NamedTuple):
    """Exponential backoff from `first_seconds` to `most_seconds`, until `max_age_seconds`."""

    first_seconds: float
    most_seconds: float
    max_age_seconds: float

    def delay(
        self, attempt: int, age_seconds: float, jitter: float, after: float | None = None
    ) -> float | None:
        """Return the seconds to wait after the failed `attempt` (1 is the first); None: give up.

        `jitter` is a random number in 0..1, which spreads the wait over its upper half. `after` is
        what the service asked for (Retry-After) and is the least; None is returned if the next
        attempt would come later than `max_age_seconds`.
        """
        most = min(self.most_seconds, self.first_seconds * 2.0 ** min(attempt - 1, 60))
        wait = max(most * (0.5 + jitter / 2), after or 0.0)
        return None if age_seconds + wait > self.max_age_seconds else wait
