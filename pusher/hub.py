"""All open streams, as plain descriptors: direct writes, the few that would block, pings, cuts.

An idle stream costs an integer in its account's tuple and a slot in four tables indexed by
descriptor. Knows how bytes get to readers; `protocol.sse` knows what they mean. Synchronous:
nothing here waits, and a reader that does not keep up is owed the newest state only.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import time
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from pusher.handshake import StreamRequest
from pusher.protocol import sse
from pusher.protocol.numbers import PAGE_NUMBERS, RESYNC, UNKNOWN, Numbers
from pusher.protocol.profile import PAGE, PING_SECONDS, Profile
from pusher.reactor import EPOLLGONE, EPOLLOUT, Reactor
from pusher.state.modseq import ID_PARTS, ModseqTable
from pusher.state.outbox import Outbox

#: The wheel that looks after idle streams turns by one slot per tick.
TICK_SECONDS = 0.05

_GONE = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


@dataclass
class HubCounts:
    """What the hub counts, for the metrics page."""

    opened: int = 0
    written: int = 0
    pings: int = 0
    stalled: int = 0
    closed_by_reader: int = 0
    cut_stalled: int = 0
    cut_expired: int = 0
    closed_after_state: int = 0


@dataclass
class HubSettings:
    """What may change while streams are open."""

    ping_seconds: float = 25.0
    stalled_seconds: float = 20.0


class Hub:
    """The open streams of this process, by account.

    `clock` is monotonic seconds, `wall` seconds since the epoch (tokens expire by it).
    """

    def __init__(
        self,
        settings: HubSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self.counts = HubCounts()
        self.reactor = Reactor(self.on_ready, self.close)
        self._epoll = self.reactor.epoll
        self._clock = clock
        self._wall = wall
        self._streams: dict[str, tuple[int, ...]] = {}
        #: Accounts that have, or had, streams of another shape than the plain page's.
        self._mixed: set[str] = set()
        # Indexed by descriptor; grown as needed.
        self._owner: list[str | None] = []
        self._profile: list[Profile | None] = []
        self._sent = array("I")  # tenths of monotonic seconds at the last write
        self._expires = array("I")  # seconds since the epoch at which the token ends
        self._outboxes: dict[int, Outbox] = {}
        self._tls: dict[int, ssl.SSLSocket] = {}
        #: Writes bytes to a descriptor; all streams of a listener are TLS, or none.
        self._send: Callable[[int, bytes], int] = os.write
        self._open = 0
        self._slot = 0
        #: Told the account of every stream that has closed.
        self.on_closed: Callable[[str], None] | None = None

    def __len__(self) -> int:
        return self._open

    @property
    def accounts(self) -> dict[str, tuple[int, ...]]:
        """The accounts with open streams; the caller only looks."""
        return self._streams

    @property
    def stalled(self) -> int:
        """How many readers are behind right now."""
        return len(self._outboxes)

    def streams_of(self, account: str) -> int:
        """Return how many streams of `account` are open."""
        return len(self._streams.get(account, ()))

    # --- opening and closing -------------------------------------------------------------------

    def open(self, connection: socket.socket, request: StreamRequest, opening: bytes) -> None:
        """Take over a connection whose request was good (see `publisher.Outlet`)."""
        tls = connection if isinstance(connection, ssl.SSLSocket) else None
        descriptor = connection.fileno() if tls else connection.detach()
        head = request.head + opening
        self.attach(descriptor, request.account, request.profile, request.expires, head, tls=tls)

    def attach(
        self,
        descriptor: int,
        account: str,
        profile: Profile,
        expires: float,
        head: bytes,
        *,
        tls: ssl.SSLSocket | None = None,
    ) -> None:
        """Make a stream of a connected descriptor; `head` is the response up to here.

        It belongs to the hub from now on, and the epoll must not know it yet.
        """
        self._make_room(descriptor)
        self._owner[descriptor] = account
        self._profile[descriptor] = profile
        self._expires[descriptor] = min(int(expires), 0xFFFFFFFF)
        if profile is not PAGE:
            self._mixed.add(account)
        fds = self._streams.get(account)
        self._streams[account] = (*fds, descriptor) if fds else (descriptor,)
        self._open += 1
        self.counts.opened += 1
        if tls is not None:
            self._tls[descriptor] = tls
            self._send = self._send_tls
        self._epoll.register(descriptor, EPOLLGONE)
        # What it missed while away is a state event as well (RFC 8620 §7.3).
        tells = profile.closes_after_state and b"\nevent: state\n" in head
        written = self._write(descriptor, head)
        if tells and written:
            self._close_after_state(descriptor)
        elif tells and descriptor in self._outboxes:
            self._outboxes[descriptor].tells = True

    def _make_room(self, descriptor: int) -> None:
        missing = descriptor + 1 - len(self._owner)
        if missing > 0:
            missing += 64
            self._owner.extend([None] * missing)
            self._profile.extend([None] * missing)
            self._sent.extend([0] * missing)
            self._expires.extend([0] * missing)

    def close(self, descriptor: int) -> None:
        """Close one stream and forget it."""
        account = self._owner[descriptor]
        if account is None:
            return
        self._owner[descriptor] = self._profile[descriptor] = None
        self._outboxes.pop(descriptor, None)
        fds = self._streams[account]
        if len(fds) == 1:
            del self._streams[account]
            self._mixed.discard(account)
        else:
            at = fds.index(descriptor)
            self._streams[account] = fds[:at] + fds[at + 1 :]
        self._open -= 1
        tls = self._tls.pop(descriptor, None)
        if tls is not None:
            tls.close()
        else:
            os.close(descriptor)
        if self.on_closed is not None:
            self.on_closed(account)

    def close_all(self) -> None:
        """Close every stream; readers reconnect by themselves."""
        for descriptor in list(self._descriptors()):
            self.close(descriptor)

    def _descriptors(self) -> Iterator[int]:
        for fds in self._streams.values():
            yield from fds

    # --- telling readers -----------------------------------------------------------------------

    def publish(self, account: str, numbers: Numbers, mask: int, owner: str | None = None) -> None:
        """Tell the streams of `account` its new numbers; `mask` says which moved.

        With `owner`, a mailbox that `owner` shares with it has moved: the values are the owner's,
        the id is the reader's own, so that a missed change shows when it comes back.
        """
        fds = self._streams.get(account)
        if fds is not None:
            about = account if owner is None else owner
            self._publish_each(fds, account, about, numbers, mask)

    def publish_moved(self, moved: Mapping[str, int], table: ModseqTable) -> None:
        """Tell the streams of each account in `moved`, {account: mask}, its numbers in `table`.

        By far the most are plain pages of which none is behind: this is their short way.
        """
        streams, live_row, send, written = self._streams, table.live_row, self._send, 0
        for account, mask in moved.items():
            fds, row = streams.get(account), live_row(account)
            if fds is None:
                continue
            if row is None or mask & RESYNC or self._outboxes or account in self._mixed:
                numbers = table.numbers(account) or UNKNOWN
                self._publish_each(fds, account, account, numbers, mask)
                continue
            if not mask & PAGE_NUMBERS:
                continue
            block = sse.push_row(sum(row[:ID_PARTS]), row)
            size = len(block)
            # When it was is not noted, which would cost a fourth: some get a ping too many.
            for descriptor in fds:
                try:
                    taken = send(descriptor, block)
                except OSError as error:
                    numbers = table.numbers(account) or UNKNOWN
                    self._not_taken(descriptor, error, account, account, numbers, mask)
                    continue
                written += 1
                if taken != size:
                    self._partly_taken(descriptor, block[taken:])
        self.counts.written += written

    def _publish_each(
        self, fds: tuple[int, ...], account: str, about: str, numbers: Numbers, mask: int
    ) -> None:
        """Tell each stream in its own shape, and owe it to those that are behind."""
        now, profile, block = int(self._clock() * 10), None, b""
        for descriptor in fds:
            wanted = self._profile[descriptor]
            if wanted is not profile:
                profile = wanted
                block = _block(profile, account, about, numbers, mask) if profile else b""
            if not block or profile is None:
                continue
            if descriptor in self._outboxes:
                self._outboxes[descriptor].put(account, about, numbers, mask)
                continue
            try:
                taken = self._send(descriptor, block)
            except OSError as error:
                self._not_taken(descriptor, error, account, about, numbers, mask)
                continue
            if taken != len(block):
                self._partly_taken(descriptor, block[taken:])
                continue
            self._sent[descriptor] = now
            self.counts.written += 1
            if profile.closes_after_state:
                self._close_after_state(descriptor)

    def _not_taken(
        self,
        descriptor: int,
        error: OSError,
        account: str,
        about: str,
        numbers: Numbers,
        mask: int,
    ) -> None:
        if isinstance(error, BlockingIOError):
            # Nothing is under way, so a newer change may still take this one's place.
            self._fall_behind(descriptor).put(account, about, numbers, mask)
        else:
            self._gone(descriptor)

    def _partly_taken(self, descriptor: int, rest: bytes) -> None:
        outbox = self._fall_behind(descriptor)
        outbox.rest, outbox.tells = rest, True

    def _write(self, descriptor: int, block: bytes) -> bool:
        """Write bytes that nothing may take the place of; True if all went out, else owe them."""
        try:
            taken = self._send(descriptor, block)
        except BlockingIOError:
            taken = 0
        except OSError:
            self._gone(descriptor)
            return False
        if taken == len(block):
            self._sent[descriptor] = int(self._clock() * 10)
            self.counts.written += 1
            return True
        self._fall_behind(descriptor).rest = block[taken:]
        return False

    def _send_tls(self, descriptor: int, block: bytes) -> int:
        """Do what os.write does, over TLS."""
        try:
            return self._tls[descriptor].send(block)
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return 0  # not "would block": OpenSSL wants exactly these bytes again

    def _fall_behind(self, descriptor: int) -> Outbox:
        outbox = self._outboxes.get(descriptor)
        if outbox is None:
            outbox = self._outboxes[descriptor] = Outbox(b"", self._clock())
            self._epoll.modify(descriptor, EPOLLOUT | EPOLLGONE)
            self.counts.stalled += 1
        return outbox

    def _gone(self, descriptor: int) -> None:
        self.counts.closed_by_reader += 1
        self.close(descriptor)

    def _close_after_state(self, descriptor: int) -> None:
        self.counts.closed_after_state += 1
        self.close(descriptor)

    # --- readers that fell behind, went away, or are idle ----------------------------------------

    def on_ready(self, descriptor: int, events: int) -> None:
        """Handle what the epoll says of a stream: it can take more, or it is gone."""
        if descriptor >= len(self._owner) or self._owner[descriptor] is None:
            return
        if events & _GONE:
            self._gone(descriptor)
        elif events & EPOLLOUT:
            self._catch_up(descriptor)

    def _catch_up(self, descriptor: int) -> None:
        outbox = self._outboxes.get(descriptor)
        account, profile = self._owner[descriptor], self._profile[descriptor]
        if outbox is None or account is None or profile is None:
            return
        closes = profile.closes_after_state
        while outbox.rest or (outbox.changes and not (closes and outbox.tells)):
            if not outbox.rest:
                outbox.rest = self._owed_blocks(account, profile, outbox)
                outbox.tells = bool(outbox.rest)
                continue
            rest, outbox.rest = outbox.rest, b""
            if not self._write(descriptor, rest):
                return  # owed again, or closed
        del self._outboxes[descriptor]
        self._epoll.modify(descriptor, EPOLLGONE)
        if closes and outbox.tells:
            self._close_after_state(descriptor)

    def _owed_blocks(self, account: str, profile: Profile, outbox: Outbox) -> bytes:
        return b"".join(
            _block(profile, account, about, numbers, mask)
            for about, (numbers, mask) in outbox.take().items()
        )

    def tick(self) -> None:
        """Look after one slot of the wheel: pings that are due, tokens that ended, stuck readers.

        Call it every TICK_SECONDS. Pings are spread: each descriptor has its own share of up to a
        quarter of the interval, so that streams opened or told at once are not pinged at once.
        """
        ping = self.settings.ping_seconds
        # Each descriptor is visited every 0.2 to 2 seconds, often enough for the interval.
        slots = int(min(max(ping / 10, 0.2), 2.0) / TICK_SECONDS)
        self._slot = (self._slot + 1) % slots
        now, wall = int(self._clock() * 10), int(self._wall())
        early, soonest = slots * TICK_SECONDS * 10, min(ping, PING_SECONDS[0])
        owner, sent, expires = self._owner, self._sent, self._expires
        for descriptor in range(self._slot, len(owner), slots):
            if owner[descriptor] is None:
                continue
            if expires[descriptor] <= wall:
                self.counts.cut_expired += 1
                self.close(descriptor)
                continue
            share = 7.5 + descriptor % 97 / 38.8
            if now - sent[descriptor] >= soonest * share - early:
                self._ping(descriptor, now - sent[descriptor] + early, ping * share)
        if self._slot % 10 == 0:
            self._cut_stalled()

    def _ping(self, descriptor: int, idle: float, due: float) -> None:
        profile = self._profile[descriptor]
        if profile is None or descriptor in self._outboxes:
            return
        if idle < (profile.ping_seconds * 10 or due):
            return
        self.counts.pings += 1
        self._write(descriptor, sse.ping(profile))

    def _cut_stalled(self) -> None:
        since = self._clock() - self.settings.stalled_seconds
        for descriptor in [fd for fd, box in self._outboxes.items() if box.since <= since]:
            self.counts.cut_stalled += 1
            self.close(descriptor)


def _block(profile: Profile, account: str, about: str, numbers: Numbers, mask: int) -> bytes:
    if about == account:
        return sse.change(profile, account, numbers, mask)
    return sse.shared_change(profile, about, numbers, mask)
