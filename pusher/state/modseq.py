"""The newest numbers of each account: what a reader is told, and whether it missed something.

One packed record per account (about 300 bytes with its key), at most `max_accounts` of them.
Numbers only rise; a new incarnation of an account (uidvalidity reset) or an estimate put right
replaces them and says so with RESYNC. No frames, sockets or clocks here: `now` is passed in.

Where the numbers come from, best first:
- *counters* (Cyrus' `vnd.fastmail.counters`): the owner's truth, though late in most events, so the
  maximum is kept per position;
- *modseq* of the event: raises the position its mailbox belongs to;
- nothing: an estimate, one more than before (from the clock for an unknown account, so that a
  restart never hands out an old number again), until counters tell the truth.

The id of a state is the sum of its positions plus an offset. Positions only rise, so ids rise with
every change, equal ids mean equal states, and an id survives a restart without being stored.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from enum import Enum

from pusher.protocol.counters import Counters
from pusher.protocol.numbers import HIGHEST, POSITIONS, RESYNC, SHARED, Numbers

#: A restored account whose counters are this much older than its numbers was set back, not delayed.
SET_BACK_SECONDS = 60

_COUNTED = 11  # positions that the counters string fills, in the same order
_OFFSET, _BASE, _GAP, _UIDVALIDITY, _CHANGED_AT, _MAILBOX, _FLAGS = range(15, 22)
_RECORD = struct.Struct("<19QIII")
_EMPTY = _RECORD.pack(*([0] * 22))

_LOCAL = (1 << POSITIONS) - 1  # one flag per position: its number is an estimate
_COUNTERS_SEEN = 1 << 16  # this account's server sends MailboxModseq with counters


class Missed(Enum):
    """What a reader that comes back with a Last-Event-ID has missed."""

    NOTHING = "nothing"
    STATE = "state"
    UNKNOWN = "unknown"


class ModseqTable:
    """The newest numbers of every account; one owner, synchronous, never waits."""

    def __init__(self, max_accounts: int = 1_000_000) -> None:
        # Two generations instead of a linked list: what was not touched while half of
        # max_accounts others were is forgotten at once, for no cost per event.
        self._young: dict[str, bytes] = {}
        self._old: dict[str, bytes] = {}
        self._generation_size = max(1, max_accounts // 2)
        self._unsaved: set[str] = set()
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def __contains__(self, account: str) -> bool:
        return account in self._young or account in self._old

    def apply(
        self,
        account: str,
        position: int,
        counters: Counters | None,
        modseq: int | None,
        *,
        fresh: bool,
        mailbox: int,
        now: float,
        also: Iterable[tuple[int, int]] = (),
    ) -> int:
        """Take one change of a mailbox in and return the mask of positions that moved.

        `position` is the number its mailbox belongs to; `fresh` says that `counters` are from after
        the change (MailboxModseq and few others); `mailbox` is any 32-bit name of the mailbox;
        `also` raises further positions, (position, number) each; `now` is seconds since the epoch.
        The mask is 0 if readers already know as much, and has RESYNC set if numbers were replaced.
        """
        record = self._young.get(account) or self._promoted(account)
        values = list(_RECORD.unpack(record))
        if counters is not None:
            mask = _count(values, counters, fresh, now)
            if modseq is not None:
                mask |= _raise(values, position, modseq)
            elif not fresh and not mask and not values[_FLAGS] & _COUNTERS_SEEN:
                # Late counters, no modseq, and no MailboxModseq will come to tell the rest.
                mask |= _estimate(values, position, now)
        elif modseq is not None:
            mask = _number(values, position, modseq, mailbox, now)
        else:
            mask = _estimate(values, position, now)
        for other, number in also:
            mask |= _raise(values, other, number)
        if mask:
            values[_CHANGED_AT] = int(now) & 0xFFFFFFFF
        if record is _EMPTY and not (counters is not None and fresh):
            values[_GAP] = _id(values)
        changed = _RECORD.pack(*values)
        if changed != record:
            self._young[account] = changed
            self._unsaved.add(account)
        return mask

    def touch(self, account: str, position: int, now: float) -> int:
        """Note a change without a number, for an account already known; return the mask."""
        if account not in self:
            return 1 << position
        return self.apply(account, position, None, None, fresh=False, mailbox=0, now=now)

    def numbers(self, account: str) -> Numbers | None:
        """Return what readers of `account` are told now; None if nothing is known."""
        record = self._young.get(account) or self._old.get(account)
        if record is None:
            return None
        values = _RECORD.unpack(record)
        return Numbers(_id(values), values[:POSITIONS])

    def missed(self, account: str, last_event_id: str) -> Missed:
        """Say what a reader whose newest id is `last_event_id` has missed; never guess."""
        record = self._young.get(account) or self._old.get(account)
        if record is None or not (last_event_id.isascii() and last_event_id.isdecimal()):
            return Missed.UNKNOWN
        values = _RECORD.unpack(record)
        seen, current = int(last_event_id[:20]), _id(values)
        if seen < max(values[_BASE], values[_GAP]) or seen > current:
            return Missed.UNKNOWN
        if seen == current:
            return Missed.NOTHING
        # These numbers say that a mailbox shared by somebody else has moved, but not which.
        return Missed.UNKNOWN if values[SHARED] else Missed.STATE

    def rotate(self, keep: Iterable[str]) -> None:
        """Forget the accounts untouched for a whole generation, except those in `keep`."""
        kept = {account: self._old.pop(account) for account in keep if account in self._old}
        self.forgotten += len(self._old)
        self._old, self._young = self._young, kept

    @property
    def is_full(self) -> bool:
        """True when `rotate` is due."""
        return len(self._young) >= self._generation_size

    @property
    def has_unsaved(self) -> bool:
        """True while `take_unsaved` has something to give."""
        return bool(self._unsaved)

    def take_unsaved(self, limit: int) -> list[tuple[str, bytes]]:
        """Return up to `limit` records changed since they were last taken, for the snapshot."""
        taken: list[tuple[str, bytes]] = []
        while self._unsaved and len(taken) < limit:
            account = self._unsaved.pop()
            record = self._young.get(account) or self._old.get(account)
            if record is not None:
                taken.append((account, record))
        return taken

    def records(self) -> list[tuple[str, bytes]]:
        """Return every record, oldest first, for a snapshot written anew."""
        return [*self._old.items(), *self._young.items()]

    def restore(self, records: Iterable[tuple[str, bytes]], *, gapless: bool) -> None:
        """Take records of an earlier run; `gapless` if no event can have come in between.

        Otherwise ids of the earlier run are not comparable until fresh counters have told
        everything: readers that come back with one are told to resync.
        """
        for account, record in records:
            if len(record) != _RECORD.size:
                continue
            if not gapless:
                values = list(_RECORD.unpack(record))
                values[_GAP] = _id(values) + 1
                record = _RECORD.pack(*values)
            self._young[account] = record
            if self.is_full:
                self.rotate(())

    def _promoted(self, account: str) -> bytes:
        record = self._old.pop(account, None)
        if record is None:
            return _EMPTY
        self._young[account] = record
        return record


def _id(values: Sequence[int]) -> int:
    return sum(values[:POSITIONS]) + values[_OFFSET]


def _count(values: list[int], counters: Counters, fresh: bool, now: float) -> int:
    """Take the owner's counters in: maximum per position, or a new incarnation."""
    uidvalidity, known = counters.uidvalidity, values[_UIDVALIDITY]
    mask = 0
    if known and _is_another_incarnation(values, counters, fresh, now):
        return _replace(values, counters)
    flags = values[_FLAGS]
    if fresh:
        if flags & _LOCAL and any(
            flags >> position & 1 and counters[position] <= values[position]
            for position in range(_COUNTED)
        ):
            return _replace(values, counters)
        values[_FLAGS] = flags & ~_LOCAL | _COUNTERS_SEEN
        values[_GAP] = 0
    for position, number in enumerate(counters[:_COUNTED]):
        if number > values[position]:
            values[position] = number
            mask |= 1 << position
    if uidvalidity > known:
        values[_UIDVALIDITY] = uidvalidity
    return mask


def _is_another_incarnation(values: list[int], counters: Counters, fresh: bool, now: float) -> bool:
    """Tell a reset account from an event that is merely late.

    The counters' uidvalidity is the last one given out, so it rises with every new mailbox; within
    one life of the account it and highestmodseq rise together. Opposite directions are another
    life. Both lower is a late event, unless fresh counters are lower long after the last change:
    then the account was set back to a backup.
    """
    if counters.highest == values[HIGHEST]:
        return False
    higher = counters.highest > values[HIGHEST]
    if counters.uidvalidity != values[_UIDVALIDITY]:
        if higher != (counters.uidvalidity > values[_UIDVALIDITY]):
            return True
    elif higher:
        return False
    return fresh and not higher and now - values[_CHANGED_AT] > SET_BACK_SECONDS


def _replace(values: list[int], counters: Counters) -> int:
    """Start the numbers over; ids go on rising, and those from before are not comparable."""
    before = _id(values)
    values[:_COUNTED] = counters[:_COUNTED]
    values[_COUNTED:SHARED] = [0] * (SHARED - _COUNTED)
    total = sum(values[:POSITIONS])
    values[_OFFSET] = max(0, before + 1 - total)
    values[_BASE] = total + values[_OFFSET]
    values[_UIDVALIDITY] = counters.uidvalidity
    values[_GAP] = 0
    values[_FLAGS] = _COUNTERS_SEEN
    return RESYNC | _LOCAL


def _raise(values: list[int], position: int, number: int) -> int:
    mask = 0
    if number > values[position]:
        values[position] = number
        mask = 1 << position
    if number > values[HIGHEST]:
        values[HIGHEST] = number
        mask |= 1 << HIGHEST
    return mask


def _number(values: list[int], position: int, modseq: int, mailbox: int, now: float) -> int:
    """Take a modseq without counters in; it is comparable only within its own mailbox."""
    if modseq > values[position]:
        values[_MAILBOX] = mailbox
        return _raise(values, position, modseq)
    if not values[_FLAGS] >> position & 1 and values[_MAILBOX] == mailbox:
        return 0
    return _estimate(values, position, now)


def _estimate(values: list[int], position: int, now: float) -> int:
    """Something changed and nobody said by how much: one more, or the clock to begin with."""
    values[_FLAGS] |= 1 << position
    values[position] = values[position] + 1 if values[position] else int(now * 1000)
    return 1 << position
