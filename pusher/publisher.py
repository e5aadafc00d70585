"""Between events and streams: keeps the numbers, collects what moved, tells readers once a round.

Owns the table of numbers. Knows who must hear of a change and what a reader that comes back has
missed; not how bytes get anywhere (that is the outlet: the hub, or processes with a hub each).
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Collection
from typing import Protocol

from pusher.handshake import StreamRequest
from pusher.protocol import sse
from pusher.protocol.numbers import PAGE_NUMBERS, POSITIONS, SHARED, Numbers
from pusher.state.modseq import Missed, ModseqTable
from pusher.state.routing import Route
from shared.errors import ProtocolError

_UNKNOWN = Numbers(0, (0,) * POSITIONS)


class Outlet(Protocol):
    """Where streams are held."""

    @property
    def accounts(self) -> Collection[str]:
        """The accounts with open streams."""

    def streams_of(self, account: str) -> int:
        """How many streams of `account` are open."""

    def open(self, connection: socket.socket, request: StreamRequest, opening: bytes) -> None:
        """Take a connection over and send it the response head and `opening`."""

    def publish(self, account: str, numbers: Numbers, mask: int) -> None:
        """Tell the streams of `account` its new numbers."""

    def publish_shared(self, account: str, owner: str, numbers: Numbers, mask: int) -> None:
        """Tell the streams of `account` of a mailbox that `owner` shares with it."""


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
        self._moved: dict[str, int] = {}
        self._moved_shared: dict[tuple[str, str], int] = {}

    def change(self, route: Route) -> int:
        """Take what `route` says into the numbers; return the mask of what moved."""
        account, now = route.account, self._wall()
        mask = 0
        if account is not None:
            mask = self.table.apply(
                account,
                route.position,
                route.counters,
                route.modseq,
                fresh=route.fresh,
                mailbox=route.mailbox,
                now=now,
                also=route.also,
            )
            if mask and account in self.outlet.accounts:
                self._moved[account] = self._moved.get(account, 0) | mask
        if route.readers and (mask or account is None):
            self._change_for_others(route, mask or 1 << route.position, now)
        return mask

    def _change_for_others(self, route: Route, mask: int, now: float) -> None:
        for reader in route.readers:
            self.table.touch(reader, SHARED, now)
            if reader in self.outlet.accounts:
                pair = (reader, route.account or "")
                self._moved_shared[pair] = self._moved_shared.get(pair, 0) | mask

    def flush(self) -> None:
        """Tell readers what moved since the last flush; each account's newest numbers once."""
        if self._moved:
            moved, self._moved = self._moved, {}
            numbers, publish = self.table.numbers, self.outlet.publish
            for account, mask in moved.items():
                publish(account, numbers(account) or _UNKNOWN, mask)
        if self._moved_shared:
            self._flush_shared()
        if self.table.is_full:
            self.table.rotate(self.outlet.accounts)

    def _flush_shared(self) -> None:
        moved, self._moved_shared = self._moved_shared, {}
        for (reader, owner), mask in moved.items():
            own = self.table.numbers(reader) or _UNKNOWN
            values = (self.table.numbers(owner) or _UNKNOWN).values
            if owner == "":
                mask |= PAGE_NUMBERS  # nobody's mailbox has no numbers; say at least that it moved
            self.outlet.publish_shared(reader, owner, Numbers(own.id, values), mask)

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
