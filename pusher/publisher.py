"""Between events and streams: keeps the numbers, collects what moved, tells readers once a round.

Owns the table of numbers. Knows who must hear of a change and what a reader that comes back has
missed; not how bytes get anywhere (that is the outlet: the hub, or processes with a hub each).
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Container, Mapping
from typing import Protocol
from zlib import crc32

from pusher.handshake import StreamRequest
from pusher.protocol import sse
from pusher.protocol.counters import numbers as read_numbers
from pusher.protocol.counters import parse as parse_counters
from pusher.protocol.mboxevent import MailboxChange, MailboxEvent, states
from pusher.protocol.numbers import DELIVERY, PAGE_NUMBERS, SHARED, UNKNOWN, Numbers
from pusher.state.modseq import Missed, ModseqTable
from pusher.state.routing import Route, uncounted
from pusher.state.shortcut import Shortcut
from shared.errors import ProtocolError


class Outlet(Protocol):
    """Where streams are held."""

    @property
    def accounts(self) -> Container[str]:
        """The accounts with open streams: always the same, living object."""

    def streams_of(self, account: str) -> int:
        """How many streams of `account` are open."""

    def open(self, connection: socket.socket, request: StreamRequest, opening: bytes) -> None:
        """Take a connection over and send it the response head and `opening`."""

    def publish(self, account: str, numbers: Numbers, mask: int, owner: str | None = None) -> None:
        """Tell the streams of `account` its new numbers, or those of what `owner` shares."""

    def publish_moved(self, moved: Mapping[str, int], table: ModseqTable) -> None:
        """Tell the streams of each account in `moved`, {account: mask}, its numbers in `table`."""


def publish_one_by_one(outlet: Outlet, moved: Mapping[str, int], table: ModseqTable) -> None:
    """Do what `Outlet.publish_moved` does, for outlets that have no shorter way."""
    for account, mask in moved.items():
        outlet.publish(account, table.numbers(account) or UNKNOWN, mask)


class Publisher:
    """The numbers of all accounts, and the changes of this round that are still to be told.

    `wall` is seconds since the epoch; `jitter` gives a random number in 0..1.
    """

    def __init__(
        self,
        table: ModseqTable,
        outlet: Outlet,
        *,
        retry_seconds: float,
        most_per_account: int,
        wall: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.table = table
        self.outlet = outlet
        self.retry_seconds = retry_seconds
        self.most_per_account = most_per_account
        self.resyncs = 0
        self.replayed = 0
        self._wall = wall
        self._jitter = jitter
        self._now = wall()
        self._connected = outlet.accounts
        self.shortcut = Shortcut(table, self._connected)
        self._moved_shared: dict[tuple[str, str], int] = {}

    def change(self, route: Route, event: MailboxChange | MailboxEvent) -> int:
        """Take what `event` says into the numbers of `route`; return the mask of what moved."""
        account, now, mask = route.account, self._now, 0
        if account is not None:
            mask = -1
            if route.is_complete and event.counters is not None:
                told = read_numbers(event.counters)
                if len(told) >= 13:
                    mask = self.table.apply_newest(account, told, now)
            if mask < 0:
                mask = self._change_late(account, route, event, now)
            if mask and account in self._connected:
                moved = self.shortcut.moved
                moved[account] = moved.get(account, 0) | mask
            self.shortcut.learn(event, route)
        # A later event of the same owner may have come first: his numbers then say nothing of this.
        if route.readers and (mask or route.fresh or account is None):
            self._change_for_others(route, mask or 1 << route.position, now)
        return mask

    def _change_late(
        self,
        account: str,
        route: Route,
        event: MailboxChange | MailboxEvent,
        now: float,
    ) -> int:
        counters = parse_counters(event.counters) if event.counters is not None else None
        modseq = event.modseq if route.has_modseq else None
        also = uncounted(states(event))
        if route.delivers and modseq is not None:
            also.append((DELIVERY, modseq))
        mailbox = 0
        if counters is None and modseq is not None:
            mailbox = crc32((event.uri or "").partition(";")[0].encode())
        return self.table.apply(
            account,
            route.position,
            counters,
            modseq,
            fresh=route.fresh,
            mailbox=mailbox,
            now=now,
            also=also,
        )

    def _change_for_others(self, route: Route, mask: int, now: float) -> None:
        for reader in route.readers:
            self.table.touch(reader, SHARED, now)
            if reader in self._connected:
                pair = (reader, route.account or "")
                self._moved_shared[pair] = self._moved_shared.get(pair, 0) | mask

    def flush(self) -> None:
        """Tell readers what moved since the last flush; each account's newest numbers once.

        Call it after every round of events: it reads the clock, too.
        """
        self._now = self._wall()
        self.shortcut.second = int(self._now)
        moved = self.shortcut.moved
        if moved:
            self.shortcut.moved = {}
            self.table.unsaved.update(moved)
            self.outlet.publish_moved(moved, self.table)
        if self._moved_shared:
            self._flush_shared()
        self.table.settle(self._connected)

    def _flush_shared(self) -> None:
        moved, self._moved_shared = self._moved_shared, {}
        for (reader, owner), mask in moved.items():
            own = self.table.numbers(reader) or UNKNOWN
            values = (self.table.numbers(owner) or UNKNOWN).values
            if owner == "":
                mask |= PAGE_NUMBERS  # nobody's mailbox has no numbers; say at least that it moved
            self.outlet.publish(reader, Numbers(own.id, values), mask, owner)

    def open(self, connection: socket.socket, request: StreamRequest) -> None:
        """Open a stream: tell it at once what it missed, or that this cannot be known."""
        account = request.account
        if self.outlet.streams_of(account) >= self.most_per_account:
            raise ProtocolError(429, "too many streams of this account")
        numbers = self.table.numbers(account)
        blocks = b""
        if request.last_event_id is not None:
            missed = self.table.missed(account, request.last_event_id)
            if missed is Missed.STATE and numbers is not None:
                blocks = sse.change(request.profile, account, numbers, request.profile.mask)
                self.replayed += 1
            elif missed is Missed.UNKNOWN:
                blocks = sse.resync(request.profile, account, numbers)
                self.resyncs += 1
        retry = int(self.retry_seconds * 1000 * (0.5 + self._jitter()))
        event_id = numbers.id if numbers is not None else 0
        self.outlet.open(connection, request, sse.opening(retry, event_id, blocks))
