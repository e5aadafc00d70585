"""The newest numbers of each account: what a reader is told, and whether it missed something.

One record per account (packed about 300 bytes with its key), at most `max_accounts` of them.
Numbers only rise; a new incarnation of an account (uidvalidity reset) or an estimate put right
replaces them and says so with RESYNC. No frames, sockets or clocks here: `now` is passed in.

Where the numbers come from, best first:
- *counters* (Cyrus' `vnd.fastmail.counters`): the owner's truth, though late in most events, so the
  maximum is kept per position;
- *modseq* of the event: raises the position its mailbox belongs to;
- nothing: an estimate, one more than before (from the clock for an unknown account, so that a
  restart never hands out an old number again), until counters tell the truth.

The id of a state is the sum of its positions plus an offset. Positions only rise, so ids rise with
every change, and equal ids mean equal states. What an account was told before we knew it, or after
it was last saved, cannot be known: then the offset rises by the time since, in microseconds, past
all ids of that time, and readers that come back with one of those start over.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Iterable, Sequence
from enum import Enum
from itertools import islice

from pusher.protocol.counters import Counters
from pusher.protocol.numbers import HIGHEST, MAIL, POSITIONS, RESYNC, SHARED, Numbers

#: A restored account whose counters are this much older than its numbers was set back, not delayed.
SET_BACK_SECONDS = 60

_COUNTED = 11  # positions that the counters string fills, in the same order
_OFFSET, BASE, UIDVALIDITY, CHANGED_AT, _MAILBOX, FLAGS = range(15, 21)
#: The sum of so many at the beginning of a row is its id.
ID_PARTS = _OFFSET + 1
_RECORD = struct.Struct("<18QIII")
_LARGEST = 2**64 - 1

_LOCAL = (1 << POSITIONS) - 1  # one flag per position: its number is an estimate
#: FLAGS of an account of which all is known: its server sends MailboxModseq with counters.
PLAIN = 1 << 16
_STALE = 1 << 18  # a row that is not the account's any more
_UNSURE = 1 << 17  # readers may have ids we know nothing of; nothing was taken in since
_UNHEARD_OF = (0,) * FLAGS + (_UNSURE,)


class Missed(Enum):
    """What a reader that comes back with a Last-Event-ID has missed."""

    NOTHING = "nothing"
    STATE = "state"
    UNKNOWN = "unknown"


class ModseqTable:
    """The newest numbers of every account; one owner, synchronous, never waits.

    Accounts with recent events are lists of integers, the others packed bytes. What was not
    touched while `recent` others were is packed, a few at a time (`settle`); beyond `max_accounts`
    the longest quiet ones are forgotten.
    """

    def __init__(self, max_accounts: int = 1_000_000, recent: int = 32_768) -> None:
        self._recent: dict[str, list[int]] = {}
        self._aging: dict[str, list[int]] = {}
        self._packed: dict[str, bytes] = {}
        self._most_recent = min(recent, max(1, max_accounts // 4))
        self._most_packed = max(1, max_accounts - 2 * self._most_recent)
        #: Accounts whose records are not in the snapshot yet.
        self.unsaved: set[str] = set()
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._recent) + len(self._aging) + len(self._packed)

    def __contains__(self, account: str) -> bool:
        return account in self._recent or account in self._packed or account in self._aging

    def apply(
        self,
        account: str,
        position: int,
        counters: Counters | None,
        modseq: int | None,
        *,
        fresh: bool,
        now: float,
        mailbox: int = 0,
        also: Iterable[tuple[int, int]] = (),
    ) -> int:
        """Take one change of a mailbox in and return the mask of positions that moved.

        `position` is the number its mailbox belongs to; `fresh` says that `counters` are from after
        the change (MailboxModseq and few others); `mailbox` is any 32-bit name of the mailbox;
        `also` raises further positions, (position, number) each; `now` is seconds since the epoch.
        The mask is 0 if readers already know as much, and has RESYNC set if numbers were replaced.
        """
        values = self._recent.get(account) or self._revived(account)
        was_unsure = values[FLAGS] & _UNSURE
        if was_unsure:
            values[FLAGS] -= _UNSURE
            values[_OFFSET] += max(1, int((now - values[CHANGED_AT]) * 1_000_000))
        if counters is not None:
            mask = _count(values, counters, fresh, now)
            if modseq is not None:
                mask |= _raise(values, position, modseq)
            elif not fresh and not mask and not values[FLAGS] & PLAIN:
                # Late counters, no modseq, and no MailboxModseq will come to tell the rest.
                mask |= _estimate(values, position, now)
        elif modseq is not None:
            mask = _number(values, position, modseq, mailbox, now)
        else:
            mask = _estimate(values, position, now)
        for other, number in also:
            mask |= _raise(values, other, number)
        if was_unsure:
            values[BASE] = _id(values)
        if mask or was_unsure:
            values[CHANGED_AT] = int(now)
            self.unsaved.add(account)
        return mask

    def apply_newest(self, account: str, numbers: Sequence[int], now: float) -> int:
        """Do what `apply` does with fresh counters, given as `counters.numbers` gives them.

        Most events by far are these, and most of them raise one number of an account that is
        well known; whatever is not that simple goes the long way.
        """
        values = self._recent.get(account)
        if (
            values is None
            or values[FLAGS] != PLAIN
            or values[UIDVALIDITY] != numbers[12]
            or values[HIGHEST] > numbers[1]
        ):
            counters = Counters._make(numbers[1:13])
            return self.apply(account, HIGHEST, counters, None, fresh=True, now=now)
        if numbers[3:12] != values[2:_COUNTED]:
            mask = _take_maxima(values, numbers[1:12])
        else:
            mask = 0
            if numbers[1] > values[HIGHEST]:
                values[HIGHEST] = numbers[1]
                mask = 1 << HIGHEST
            if numbers[2] > values[MAIL]:
                values[MAIL] = numbers[2]
                mask |= 1 << MAIL
        if mask:
            values[CHANGED_AT] = int(now)
            self.unsaved.add(account)
        return mask

    def touch(self, account: str, position: int, now: float) -> int:
        """Note a change without a number, for an account already known; return the mask."""
        if account not in self:
            return 1 << position
        return self.apply(account, position, None, None, fresh=False, now=now)

    def numbers(self, account: str) -> Numbers | None:
        """Return what readers of `account` are told now; None if nothing is known."""
        values = self._recent.get(account) or self._values(account)
        if values is None:
            return None
        told = values[:POSITIONS]
        return Numbers(_id(values), told)

    def live_row(self, account: str) -> list[int] | None:
        """Return the row of an account with recent events, to be read and raised; None: no such.

        It is the account's own as long as row[FLAGS] is PLAIN; who raises it adds to `unsaved`.
        """
        return self._recent.get(account)

    def missed(self, account: str, last_event_id: str) -> Missed:
        """Say what a reader whose newest id is `last_event_id` has missed; never guess."""
        values = self._values(account)
        if values is None or not (last_event_id.isascii() and last_event_id.isdecimal()):
            return Missed.UNKNOWN
        seen, current = int(last_event_id[:20]), _id(values)
        if seen < values[BASE] or seen > current:
            return Missed.UNKNOWN
        if seen == current:
            return Missed.NOTHING
        # These numbers say that a mailbox shared by somebody else has moved, but not which.
        return Missed.UNKNOWN if values[SHARED] else Missed.STATE

    def settle(self, keep: Container[str], limit: int = 256) -> None:
        """Pack up to `limit` accounts that have gone quiet, and forget what is too much.

        Accounts in `keep` are not forgotten: numbers must not sink under an open stream.
        """
        if not self._aging:
            if len(self._recent) < self._most_recent:
                return
            self._aging, self._recent = self._recent, {}
        for _ in range(min(limit, len(self._aging))):
            account, values = self._aging.popitem()
            self._packed[account] = _pack(values)
            values[FLAGS] = _STALE
        if len(self._packed) > self._most_packed:
            self._forget(keep, 4 * limit)

    def _forget(self, keep: Container[str], limit: int) -> None:
        # In one scan: a dict that lost its first items has to step over them each time.
        for account in list(islice(self._packed, max(0, limit))):
            record = self._packed.pop(account)
            if account in keep:
                self._packed[account] = record
            else:
                self.unsaved.discard(account)
                self.forgotten += 1

    @property
    def has_unsaved(self) -> bool:
        """True while `take_unsaved` has something to give."""
        return bool(self.unsaved)

    def take_unsaved(self, limit: int) -> list[tuple[str, bytes]]:
        """Return up to `limit` records changed since they were last taken, for the snapshot."""
        taken: list[tuple[str, bytes]] = []
        while self.unsaved and len(taken) < limit:
            account = self.unsaved.pop()
            values = self._values(account)
            if values is not None:
                taken.append((account, _pack(values)))
        return taken

    def records(self) -> list[tuple[str, bytes]]:
        """Return every record, the longest quiet first, for a snapshot written anew."""
        live = [*self._aging.items(), *self._recent.items()]
        return [
            *self._packed.items(),
            *((account, _pack(values)) for account, values in live),
        ]

    def restore(self, records: Iterable[tuple[str, bytes]], *, gapless: bool) -> None:
        """Take records of an earlier run; `gapless` if no event can have come in between.

        Otherwise ids of the earlier run are not comparable: readers that come back with one are
        told to resync. (Counters would not heal it: they lack deliveries, and what others share.)
        """
        for account, record in records:
            if len(record) != _RECORD.size:
                continue
            if not gapless:
                values = list(_RECORD.unpack(record))
                values[BASE] = _id(values) + 1
                values[FLAGS] |= _UNSURE
                record = _pack(values)
            self._packed[account] = record
        self._forget((), len(self._packed) - self._most_packed)

    def _values(self, account: str) -> Sequence[int] | None:
        values = self._recent.get(account) or self._aging.get(account)
        if values is None:
            record = self._packed.get(account)
            return None if record is None else _RECORD.unpack(record)
        return values

    def _revived(self, account: str) -> list[int]:
        values = self._aging.pop(account, None)
        if values is None:
            record = self._packed.pop(account, None)
            values = list(_UNHEARD_OF if record is None else _RECORD.unpack(record))
        self._recent[account] = values
        return values


def _id(values: Sequence[int]) -> int:
    return sum(values[:ID_PARTS])


def _pack(values: Sequence[int]) -> bytes:
    try:
        return _RECORD.pack(*values)
    except struct.error:  # numbers that no server counts to: keep what fits
        large = [min(max(value, 0), _LARGEST) for value in values[:CHANGED_AT]]
        return _RECORD.pack(*large, *values[CHANGED_AT:])


def _set_uncounted(values: list[int], position: int, number: int) -> None:
    """Raise a number the counters lack: the id by one only, as it is lost with the record."""
    values[_OFFSET] -= number - values[position] - 1
    values[position] = number


def _count(values: list[int], counters: Counters, fresh: bool, now: float) -> int:
    """Take the owner's counters in: maximum per position, or a new incarnation."""
    if values[UIDVALIDITY] and _is_another_incarnation(values, counters, fresh, now):
        return _replace(values, counters)
    if fresh and values[FLAGS] != PLAIN:
        if _is_overestimated(values, counters):
            return _replace(values, counters)
        values[FLAGS] = values[FLAGS] & ~_LOCAL | PLAIN
    mask = _take_maxima(values, counters[:_COUNTED])
    if counters[-1] > values[UIDVALIDITY]:
        values[UIDVALIDITY] = counters[-1]
    return mask


def _take_maxima(values: list[int], numbers: Sequence[int]) -> int:
    mask = 0
    for position, number in enumerate(numbers):
        if number > values[position]:
            values[position] = number
            mask |= 1 << position
    return mask


def _is_overestimated(values: list[int], counters: Counters) -> bool:
    flags = values[FLAGS]
    return bool(flags & _LOCAL) and any(
        flags >> position & 1 and counters[position] <= values[position]
        for position in range(_COUNTED)
    )


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
    if counters.uidvalidity != values[UIDVALIDITY]:
        if higher != (counters.uidvalidity > values[UIDVALIDITY]):
            return True
    elif higher:
        return False
    return fresh and not higher and now - values[CHANGED_AT] > SET_BACK_SECONDS


def _replace(values: list[int], counters: Counters) -> int:
    """Start the numbers over; ids go on rising, and those from before are not comparable."""
    before = _id(values)
    values[:_COUNTED] = counters[:_COUNTED]
    values[_COUNTED:SHARED] = [0] * (SHARED - _COUNTED)
    total = sum(values[:POSITIONS])
    values[_OFFSET] = max(0, before + 1 - total)
    values[BASE] = total + values[_OFFSET]
    values[UIDVALIDITY] = counters.uidvalidity
    values[FLAGS] = PLAIN
    return RESYNC | _LOCAL


def _raise(values: list[int], position: int, number: int) -> int:
    mask = 0
    if number > values[position]:
        if position < _COUNTED:
            values[position] = number
        else:
            _set_uncounted(values, position, number)
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
    if not values[FLAGS] >> position & 1 and values[_MAILBOX] == mailbox:
        return 0
    return _estimate(values, position, now)


def _estimate(values: list[int], position: int, now: float) -> int:
    """Something changed and nobody said by how much: one more, or the clock to begin with."""
    values[FLAGS] |= 1 << position
    if values[position]:
        values[position] += 1
    elif position < _COUNTED:
        values[position] = int(now * 1000)
    else:
        _set_uncounted(values, position, int(now * 1000))
    return 1 << position
