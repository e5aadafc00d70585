"""The short way of by far the commonest event: new mail numbers of a mailbox met before.

A MailboxModseq whose counters differ from those of the mailbox's last one in the first two numbers
only (highest and mail) needs no routing and no table of meanings. Whatever is not exactly that goes
the long way (`state.routing`, `state.modseq`), and what the long way finds opens the short one.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Final

from pusher.protocol.counters import numbers as read_numbers
from pusher.protocol.mboxevent import (
    CHANGE_ERRORS,
    Buffer,
    MailboxChange,
    MailboxEvent,
    decode_modseq,
)
from pusher.protocol.numbers import HIGHEST, MAIL
from pusher.state.modseq import BASE, CHANGED_AT, FLAGS, PLAIN, UIDVALIDITY, ModseqTable
from pusher.state.routing import Route

_MOST_REMEMBERED: Final = 32_768
_LONGEST_REMEMBERED: Final = 2048
_NO_COUNTER: Final = 2**63

# Rights, mbtype, account, its live row, the row's base and uidvalidity when the counters went into
# it (others mean another life), and the counters from the third on.
_Known = tuple[str | None, str | None, str, list[int], int, int, str]


class Shortcut:
    """Takes what it can into `table`; `moved` collects {account: mask} of the `connected` ones.

    Who tells those adds them to the table's `unsaved`. `told`, `noted` and `known` count what
    became of events (see `dispatch.RESULTS`); `second` is the time of the changes in whole seconds
    since the epoch, set by the owner.
    """

    def __init__(self, table: ModseqTable, connected: Container[str]) -> None:
        self.moved: dict[str, int] = {}
        self.second = 0
        self.told = self.noted = self.known = 0
        self._table = table
        self._unsaved = table.unsaved
        self._connected = connected
        self._known: dict[str, _Known] = {}

    def take(self, message: Buffer) -> bool:
        """Take the JSON of a MailboxModseq; False if it is not one for here, with nothing done."""
        try:
            event = decode_modseq(message)
            known = self._known.get(event.uri)
            if known is None:
                return False
            acl, mbtype, account, row, base, uidvalidity, known_rest = known
            _, highest_text, mail_text, rest = event.counters.split(" ", 3)
            highest, mail = int(highest_text), int(mail_text)
        except (*CHANGE_ERRORS, ValueError):
            return False
        if (
            rest != known_rest
            or acl != event.mailbox_acl
            or mbtype != event.mbtype
            or row[FLAGS] != PLAIN
            or row[BASE] != base
            or row[UIDVALIDITY] != uidvalidity
            or not row[HIGHEST] <= highest < _NO_COUNTER > mail
        ):
            return False
        mask = 0
        if highest > row[HIGHEST]:
            row[HIGHEST] = highest
            mask = 1 << HIGHEST
        if mail > row[MAIL]:
            row[MAIL] = mail
            mask |= 1 << MAIL
        if not mask:
            self.known += 1
            return True
        row[CHANGED_AT] = self.second
        if account in self._connected:
            moved = self.moved
            moved[account] = moved.get(account, 0) | mask
            self.told += 1
        else:
            self._unsaved.add(account)
            self.noted += 1
        return True

    def learn(self, event: MailboxChange | MailboxEvent, route: Route) -> None:
        """Remember an event that has gone the long way, if its like can go the short one."""
        account, uri, counters = route.account, event.uri, event.counters
        if event.event_type != "MailboxModseq" or not route.is_complete or route.readers:
            return
        if account is None or uri is None or counters is None:
            return
        row, told = self._table.live_row(account), read_numbers(counters)
        if row is None or len(told) < 13 or told[12] != row[UIDVALIDITY]:
            return
        if len(uri) + len(counters) + len(event.mailbox_acl or "") > _LONGEST_REMEMBERED:
            return
        if len(self._known) >= _MOST_REMEMBERED:
            self._known.clear()
        rest = counters.split(" ", 3)[3]
        parts = event.mailbox_acl, event.mbtype, account, row, row[BASE], row[UIDVALIDITY], rest
        self._known[uri] = parts
