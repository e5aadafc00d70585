"""How late the loop was: the longest time that something ready had to wait for its turn."""

from __future__ import annotations


class LoopLag:
    """The longest lateness over the present and the previous window.

    `note` is given how late each tick of a timer came.
    """

    def __init__(self, window_seconds: float = 60.0) -> None:
        self._window = window_seconds
        self._current = self._previous = 0.0
        self._began = 0.0

    def note(self, late_seconds: float, now: float) -> None:
        """Take one measurement; `now` is monotonic seconds."""
        if now - self._began >= self._window:
            self._began, self._previous, self._current = now, self._current, 0.0
        self._current = max(self._current, late_seconds)

    @property
    def recent_seconds(self) -> float:
        """The longest of the last one to two windows."""
        return max(self._current, self._previous)
