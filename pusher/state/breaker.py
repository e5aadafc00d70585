"""Whether a failing service is worth asking now (a circuit breaker). Not: what a failure is."""

from __future__ import annotations

from shared.retry import RetryPolicy

#: How long a circuit stays open: longer each time a probe fails.
PAUSES = RetryPolicy(first_seconds=5, most_seconds=300, max_age_seconds=float("inf"))


class Breaker:
    """Closed until `failures` in a row, then open for a pause, then one probe decides."""

    def __init__(self, failures: int = 5, pauses: RetryPolicy = PAUSES) -> None:
        self._most = failures
        self._pauses = pauses
        self._failures = 0
        self._times_opened = 0
        self._closed_from: float | None = None  # None: closed now
        self._is_probing = False

    @property
    def is_troubled(self) -> bool:
        """Something has failed since the last success."""
        return self._failures > 0

    @property
    def is_open(self) -> bool:
        """Open or half-open: `admits` decides."""
        return self._closed_from is not None

    @property
    def is_probing(self) -> bool:
        """A probe is on its way."""
        return self._is_probing

    def admits(self, now: float) -> bool:
        """Tell whether to try; after the pause once only, until that probe's outcome is told."""
        if self._closed_from is None:
            return True
        if now < self._closed_from or self._is_probing:
            return False
        self._is_probing = True
        return True

    def succeeded(self) -> None:
        """Close the circuit."""
        self._failures = self._times_opened = 0
        self._closed_from = None
        self._is_probing = False

    def failed(
        self, now: float, jitter: float, *, after: float | None = None, at_once: bool = False
    ) -> bool:
        """Count a failure; return True if the circuit opens with it.

        `after` are the seconds the service asked for; then, or with `at_once`, one is enough.
        """
        self._failures += 1
        was_probe, self._is_probing = self._is_probing, False
        is_enough = self._failures >= self._most or after is not None or at_once
        if self._closed_from is not None and not was_probe and now < self._closed_from:
            return False  # late news from before it opened
        if not (is_enough or was_probe):
            return False
        self._times_opened += 1
        pause = self._pauses.delay(self._times_opened, 0, jitter, after)
        self._closed_from = now + (pause or 0.0)
        return True
