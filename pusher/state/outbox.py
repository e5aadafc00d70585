"""What a reader that does not keep up is still owed: the newest of each thing, never a backlog."""

from __future__ import annotations

from pusher.protocol.numbers import POSITIONS, RESYNC, Numbers

#: More accounts than this and the reader is told to start over instead.
MOST_ACCOUNTS = 64


class Outbox:
    """The undelivered part of one reader: bytes under way, then one change per account.

    `rest` is the tail of a block already begun and must go first. A later change of the same
    account replaces its numbers and widens its mask, so the reader gets the newest and misses
    intermediate states only (RFC 8620 §7.1). `since` is the caller's clock when it fell behind,
    `tells` that a state is told once `rest` is out.
    """

    __slots__ = ("changes", "rest", "since", "tells")

    def __init__(self, rest: bytes, since: float) -> None:
        self.rest = rest
        self.since = since
        self.tells = False
        self.changes: dict[str, tuple[Numbers, int]] = {}

    def put(self, account: str, about: str, numbers: Numbers, mask: int) -> None:
        """Owe the reader of `account` the change `mask` of the account `about`.

        Too many accounts at once degrade to one resync of the reader's own.
        """
        changes = self.changes
        known = changes.get(about)
        if known is not None:
            mask |= known[1]
        elif len(changes) >= MOST_ACCOUNTS:
            own = changes.get(account)
            changes.clear()
            if about != account:  # these are another's numbers
                values = own[0].values if own is not None else (0,) * POSITIONS
                numbers = Numbers(numbers.id, values)
            about, mask = account, RESYNC
        changes[about] = numbers, mask

    def take(self) -> dict[str, tuple[Numbers, int]]:
        """Return and forget the changes owed: {account: (numbers, mask)}."""
        taken, self.changes = self.changes, {}
        return taken
