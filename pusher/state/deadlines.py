"""Who must be told that time is up, cheaply: most are finished long before. Not: the clock."""

from __future__ import annotations

from typing import Final, Generic, Protocol, TypeVar

_SLOTS_PER_SECOND: Final = 4


class Timed(Protocol):
    """Something with a deadline, which does not move while it is in here."""

    deadline: float


T = TypeVar("T", bound=Timed)


class Deadlines(Generic[T]):
    """Things by their deadline, told to a quarter of a second, never early."""

    def __init__(self) -> None:
        self._slots: dict[int, set[T]] = {}

    def add(self, thing: T) -> bool:
        """Take `thing` in; return True if `next_at` may be earlier now."""
        slot = int(thing.deadline * _SLOTS_PER_SECOND) + 1
        things = self._slots.get(slot)
        if things is None:
            self._slots[slot] = {thing}
            return True
        things.add(thing)
        return False

    def discard(self, thing: T) -> None:
        """Forget `thing`: it is finished."""
        things = self._slots.get(int(thing.deadline * _SLOTS_PER_SECOND) + 1)
        if things is not None:
            things.discard(thing)

    def next_at(self) -> float:
        """Return when to call `take_due` next."""
        return min(self._slots) / _SLOTS_PER_SECOND if self._slots else float("inf")

    def take_due(self, now: float) -> list[T]:
        """Return and forget all whose time is up."""
        due = sorted(slot for slot in self._slots if slot <= now * _SLOTS_PER_SECOND)
        return [thing for slot in due for thing in self._slots.pop(slot)]
