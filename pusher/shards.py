"""Streams held by several processes: the acceptor's side (`shard` is the other).

An account's streams are all in the process its name hashes to, so an event goes to one process. A
connection's descriptor is passed on once its request was read. Nothing waits for a process that is
slow: what it is owed is kept per account, the newest only, in the order that matters to readers.
"""

from __future__ import annotations

import array
import errno
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from zlib import crc32

import structlog

from pusher.handshake import StreamRequest
from pusher.hub import HubSettings
from pusher.protocol.numbers import Numbers
from pusher.protocol.shardwire import (
    MAX_PACKET_BYTES,
    Drain,
    Open,
    Settings,
    Tell,
    decode_report,
    encode,
)
from pusher.publisher import publish_one_by_one
from pusher.reactor import EPOLLIN, EPOLLOUT, Reactor
from pusher.state.modseq import ModseqTable

log = structlog.get_logger()

_CHANNEL_BYTES = 1 << 20
_RESTART_SECONDS = 0.5
_REPORTS_PER_ROUND = 64
_FULL = {errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM}


@dataclass
class _Shard:
    """One process: its channel, what it is owed, and what it last said of itself."""

    process: subprocess.Popen[bytes]
    channel: socket.socket
    accounts: Counter[str] = field(default_factory=Counter)
    counts: Mapping[str, float] = field(default_factory=dict)
    #: Orders it could not take yet, by what they concern; connections have keys of their own.
    owed: dict[object, tuple[Tell | Open, socket.socket | None]] = field(default_factory=dict)


class Shards:
    """The processes that hold streams, as one outlet (see `publisher.Outlet`)."""

    def __init__(
        self,
        count: int,
        reactor: Reactor,
        settings: HubSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.restarts = 0
        self._reactor = reactor
        self._clock = clock
        self._accounts: dict[str, int] = {}
        self._open = 0
        self._past: Counter[str] = Counter()
        self._restart_at: dict[int, float] = {}
        self._is_draining = False
        self._shards: list[_Shard | None] = [self._start() for _ in range(count)]
        for shard in self._shards:
            assert shard is not None
            self._watch(shard)

    def __len__(self) -> int:
        return self._open

    @property
    def accounts(self) -> dict[str, int]:
        """The accounts with open streams, and how many each has."""
        return self._accounts

    @property
    def stalled(self) -> int:
        """How many readers are behind, as last reported."""
        return int(self.counts()["behind"])

    @property
    def lag_seconds(self) -> float:
        """The longest lag of any of the processes, as last reported."""
        return max((shard.counts.get("lag", 0.0) for shard in self._shards if shard), default=0.0)

    def streams_of(self, account: str) -> int:
        """Return how many streams of `account` are open."""
        return self._accounts.get(account, 0)

    def counts(self) -> Counter[str]:
        """Return what all processes counted, those that are gone included."""
        total = Counter(self._past)
        total["open"], total["behind"] = self._open, 0
        for shard in self._shards:
            for name, value in (shard.counts if shard else {}).items():
                if name not in ("lag", "open"):
                    total[name] += int(value)
        return total

    # --- what the publisher asks -----------------------------------------------------------------

    def open(self, connection: socket.socket, request: StreamRequest, opening: bytes) -> None:
        """Hand a connection to the process of its account."""
        account, profile = request.account, request.profile
        shard = self._shard_of(account)
        if shard is None:  # it is being started again; the browser comes back by itself
            connection.close()
            return
        order = Open(
            account,
            profile.shape.value,
            profile.types,
            profile.mask,
            profile.closes_after_state,
            profile.ping_seconds,
            request.expires,
            request.head + opening,
        )
        shard.accounts[account] += 1
        self._accounts[account] = self._accounts.get(account, 0) + 1
        self._open += 1
        self._send(shard, connection, order, connection)

    def publish(self, account: str, numbers: Numbers, mask: int, owner: str | None = None) -> None:
        """Tell the process of `account` its new numbers, or those of what `owner` shares."""
        about = account if owner is None else owner
        shard = self._shard_of(account)
        if shard is None or account not in shard.accounts:
            return
        key = (account, about)
        if shard.owed:
            # It moves to the end: a reader handed over in between must hear of it, too.
            before = shard.owed.pop(key, None)
            if before is not None and isinstance(before[0], Tell):
                mask |= before[0].mask
        order = Tell(account, about, numbers.id, list(numbers.values), mask)
        self._send(shard, key, order, None)

    def publish_moved(self, moved: Mapping[str, int], table: ModseqTable) -> None:
        """Tell each account's process its numbers in `table`."""
        publish_one_by_one(self, moved, table)

    def _shard_of(self, account: str) -> _Shard | None:
        name = account.encode("utf-8", "surrogatepass")
        return self._shards[crc32(name) % len(self._shards)]

    # --- the channels ----------------------------------------------------------------------------

    def _send(
        self, shard: _Shard, key: object, order: Tell | Open, connection: socket.socket | None
    ) -> None:
        if shard.owed or not self._try_to_send(shard, order, connection):
            if not shard.owed:
                self._reactor.epoll.modify(shard.channel.fileno(), EPOLLIN | EPOLLOUT)
            shard.owed[key] = order, connection

    def _try_to_send(
        self, shard: _Shard, order: Tell | Open, connection: socket.socket | None
    ) -> bool:
        """Send one order, with its descriptor; False if there is no room now."""
        try:
            if connection is None:
                shard.channel.send(encode(order))
            else:
                rights = array.array("i", [connection.fileno()])
                ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
                shard.channel.sendmsg([encode(order)], ancillary)
                connection.close()
        except OSError as error:
            if error.errno in _FULL:
                return False
            if connection is not None:
                connection.close()  # the process is gone; its channel says so in a moment
        return True

    def _on_ready(self, descriptor: int, events: int) -> None:
        for at, shard in enumerate(self._shards):
            if shard is not None and shard.channel.fileno() == descriptor:
                if events & ~EPOLLOUT:
                    self._read_reports(at, shard)
                if events & EPOLLOUT and self._shards[at] is shard:
                    self._send_owed(shard)

    def _send_owed(self, shard: _Shard) -> None:
        while shard.owed:
            key = next(iter(shard.owed))
            if not self._try_to_send(shard, *shard.owed[key]):
                return
            del shard.owed[key]
        self._reactor.epoll.modify(shard.channel.fileno(), EPOLLIN)

    def _read_reports(self, at: int, shard: _Shard) -> None:
        for _ in range(_REPORTS_PER_ROUND):
            try:
                packet = shard.channel.recv(MAX_PACKET_BYTES)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                self._bury(at, shard)
                return
            report = decode_report(packet)
            if report.counts:
                shard.counts = report.counts
            for account in report.closed:
                self._forget(shard, account, 1)

    def _forget(self, shard: _Shard, account: str, streams: int) -> None:
        streams = min(streams, shard.accounts[account])
        shard.accounts[account] -= streams
        self._open -= streams
        if not shard.accounts[account]:
            del shard.accounts[account]
            self._accounts.pop(account, None)
        else:
            self._accounts[account] = shard.accounts[account]

    # --- the processes ---------------------------------------------------------------------------

    def _start(self) -> _Shard:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _CHANNEL_BYTES)
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "pusher.shard", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        return _Shard(process, ours)

    def _watch(self, shard: _Shard) -> None:
        self._reactor.add(shard.channel.fileno(), EPOLLIN, self._on_ready)
        self._send_settings(shard)

    def _bury(self, at: int, shard: _Shard) -> None:
        """Its process is gone, and so are its streams: the readers reconnect."""
        self._reactor.remove(shard.channel.fileno())
        shard.channel.close()
        for _order, connection in shard.owed.values():
            if connection is not None:
                connection.close()
        for account, streams in list(shard.accounts.items()):
            self._forget(shard, account, streams)
        for name, value in shard.counts.items():
            if name not in ("open", "behind", "lag"):
                self._past[name] += int(value)
        self._shards[at] = None
        if shard.process.poll() is None and not self._is_draining:
            shard.process.kill()
        shard.process.wait()
        if not self._is_draining:
            log.error("shard_died", shard=at, status=shard.process.returncode)
            self._restart_at[at] = self._clock() + _RESTART_SECONDS

    def tick(self) -> None:
        """Start processes again that died; call it about every second."""
        now = self._clock()
        for at in [at for at, due in self._restart_at.items() if due <= now]:
            del self._restart_at[at]
            self.restarts += 1
            shard = self._shards[at] = self._start()
            self._watch(shard)

    def send_settings(self) -> None:
        """Let all processes know that `settings` has changed."""
        for shard in self._shards:
            if shard is not None:
                self._send_settings(shard)

    def _send_settings(self, shard: _Shard) -> None:
        order = Settings(self.settings.ping_seconds, self.settings.stalled_seconds)
        try:
            shard.channel.send(encode(order))
        except OSError:
            log.warning("settings_not_sent", pid=shard.process.pid)

    def drain(self, seconds: float) -> None:
        """Let readers catch up for so long, then end; `is_drained` says when all have."""
        self._is_draining = True
        self._restart_at.clear()
        for shard in self._shards:
            if shard is not None:
                try:
                    shard.channel.send(encode(Drain(seconds)))
                except OSError:
                    shard.channel.shutdown(socket.SHUT_WR)

    @property
    def is_drained(self) -> bool:
        """True when no process is left."""
        return not any(self._shards)

    def close(self) -> None:
        """End what is left of the processes."""
        self._is_draining = True
        for at, shard in enumerate(self._shards):
            if shard is not None:
                shard.process.kill()
                self._bury(at, shard)
