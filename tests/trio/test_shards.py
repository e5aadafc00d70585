"""Streams in several processes keep the promises of one: order, newest state, none forgotten."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import cast

import pytest

from pusher.handshake import StreamRequest
from pusher.hub import HubSettings
from pusher.protocol import sse
from pusher.protocol.numbers import MAIL, POSITIONS, RESYNC, Numbers
from pusher.protocol.profile import PAGE, PING_SECONDS, Profile, jmap_profile
from pusher.protocol.shardwire import (
    MAX_PACKET_BYTES,
    MOST_CLOSED,
    Open,
    Report,
    Settings,
    Tell,
    decode_order,
    decode_report,
    encode,
)
from pusher.reactor import EPOLLIN, Reactor
from pusher.shard import Holder
from pusher.shards import Shards, _Shard

FOREVER = 4e9
MAIL_MOVED = 1 << MAIL


def mail(number: int) -> Numbers:
    values = [0] * POSITIONS
    values[MAIL] = number
    return Numbers(number, values)


class Process:
    """Looks like a running process."""

    pid = 0
    returncode: int | None = None
    stuck = False

    def poll(self) -> int | None:
        return self.returncode

    def kill(self) -> None:
        self.returncode = -9

    def wait(self) -> int:
        return self.returncode or 0


class FakeShards(Shards):
    """Shards whose processes are the test: `ends` are the other ends of the channels."""

    def _start(self) -> _Shard:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        if not hasattr(self, "ends"):
            self.ends: list[socket.socket] = []
        self.ends.append(theirs)
        return _Shard(cast("subprocess.Popen[bytes]", Process()), ours)

    def read(self, at: int = 0) -> list[Open | Tell | Settings]:
        """What a holder gets now; connections handed over are closed again."""
        orders: list[Open | Tell | Settings] = []
        with contextlib.suppress(BlockingIOError):
            while True:
                packet, descriptors, _flags, _address = socket.recv_fds(
                    self.ends[at], MAX_PACKET_BYTES, 1
                )
                for descriptor in descriptors:
                    os.close(descriptor)
                order = decode_order(packet)
                assert isinstance(order, Open | Tell | Settings)
                orders.append(order)
        return orders


class World:
    def __init__(self) -> None:
        self.now = 1000.0
        self.reactor = Reactor(lambda _descriptor, _events: None, lambda _descriptor: None)
        self.shards = FakeShards(1, self.reactor, HubSettings(), clock=lambda: self.now)
        self.clients: list[socket.socket] = []
        self.shards.read()

    def open(self, account: str = "alice", opening: bytes = b"") -> socket.socket:
        ours, theirs = socket.socketpair()
        self.clients.append(theirs)
        request = StreamRequest(account, PAGE, FOREVER, None, b"HEAD")
        self.shards.open(ours, request, opening)
        return theirs

    def publish(self, number: int, account: str = "alice", owner: str | None = None) -> None:
        self.shards.publish(account, mail(number), MAIL_MOVED, owner)

    def fill(self, account: str = "alice") -> int:
        """Publish until the channel takes no more; returns the first number it did not take."""
        number = 0
        while not self.owed():
            number += 1
            self.publish(number, account)
        return number

    def owed(self) -> int:
        shard = self.shards._shards[0]
        return len(shard.owed) if shard is not None else 0

    def turn(self) -> None:
        while ready := self.reactor.epoll.poll(0):
            self.reactor._round(ready)
        assert not self.reactor.failures

    def drained(self) -> list[Open | Tell | Settings]:
        """Everything the holder gets once it reads again."""
        orders = self.shards.read()
        while self.owed():
            self.turn()
            orders += self.shards.read()
        return orders


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.shards.close()
    world.reactor.close()
    for each in [*world.clients, *world.shards.ends]:
        each.close()


# --- the acceptor's side -----------------------------------------------------------------------


def test_a_slow_process_is_owed_the_newest_of_each_account_only(world: World) -> None:
    world.open()
    world.open("bob")
    first = world.fill()
    for number in range(first, first + 1000):
        world.publish(number)
        world.publish(number, "bob")
    assert world.owed() == 2
    tells = [order for order in world.drained() if isinstance(order, Tell)]
    newest = {order.account: order.event_id for order in tells}
    assert newest == {"alice": first + 999, "bob": first + 999}
    numbers = [order.event_id for order in tells if order.account == "alice"]
    assert numbers == sorted(numbers)


def test_what_moved_meanwhile_is_told_together(world: World) -> None:
    world.open()
    number = world.fill()
    world.shards.publish("alice", mail(number + 1), RESYNC)
    world.publish(number + 2)
    last = world.drained()[-1]
    assert isinstance(last, Tell)
    assert (last.event_id, last.mask) == (number + 2, RESYNC | MAIL_MOVED)


def test_a_reader_handed_over_meanwhile_hears_of_what_came_after_it(world: World) -> None:
    world.open()
    number = world.fill()
    world.open(opening=b"second")
    world.publish(number + 1)
    world.open(opening=b"third")
    world.publish(number + 2)
    orders = world.drained()
    opened = [at for at, order in enumerate(orders) if isinstance(order, Open)]
    heads = [order.head for order in orders if isinstance(order, Open)]
    assert heads[-2:] == [b"HEADsecond", b"HEADthird"]
    after = [order for order in orders[opened[-1] :] if isinstance(order, Tell)]
    assert [order.event_id for order in after] == [number + 2]


def test_own_and_shared_changes_do_not_take_each_others_place(world: World) -> None:
    world.open()
    number = world.fill()
    world.publish(number + 1, owner="bob")
    world.publish(number + 2, owner="carol")
    world.publish(number + 3)
    told = {order.about: order.event_id for order in world.drained() if isinstance(order, Tell)}
    assert told == {"bob": number + 1, "carol": number + 2, "alice": number + 3}


def test_accounts_without_streams_cost_the_processes_nothing(world: World) -> None:
    world.publish(1)
    assert world.shards.read() == []


def test_closed_streams_are_counted_as_reported(world: World) -> None:
    for account in ("alice", "alice", "bob"):
        world.open(account)
    assert (len(world.shards), world.shards.streams_of("alice")) == (3, 2)
    world.shards.ends[0].send(encode(Report(["alice", "bob"], {"written": 5.0, "behind": 1.0})))
    world.turn()
    assert (len(world.shards), world.shards.accounts) == (1, {"alice": 1})
    assert world.shards.counts()["written"] == 5
    assert world.shards.stalled == 1


def test_a_stream_reported_twice_is_closed_once(world: World) -> None:
    world.open()
    world.shards.ends[0].send(encode(Report(["alice"] * 3, {})))
    world.turn()
    assert (len(world.shards), world.shards.accounts) == (0, {})


def test_when_a_process_dies_its_streams_are_forgotten_and_it_is_started_again(
    world: World,
) -> None:
    for account in ("alice", "bob"):
        world.open(account)
    world.fill()
    waiting = world.open("carol")  # still owed to it
    world.shards.ends[0].close()
    world.turn()
    assert (len(world.shards), world.shards.accounts) == (0, {})
    assert waiting.recv(10) == b""  # told at once, so it comes back
    world.publish(7)  # nobody to tell
    lost = world.open()
    assert lost.recv(10) == b""
    world.shards.tick()
    assert world.shards.restarts == 0
    world.now += 1
    world.shards.tick()
    assert world.shards.restarts == 1
    world.open()
    world.publish(8)
    orders = world.shards.read(1)
    assert [type(order) for order in orders] == [Settings, Open, Tell]


def test_what_a_dead_process_counted_is_not_lost(world: World) -> None:
    world.shards.ends[0].send(encode(Report([], {"written": 5.0, "open": 3.0, "behind": 2.0})))
    world.turn()
    world.shards.ends[0].close()
    world.turn()
    assert world.shards.counts() == {"open": 0, "behind": 0, "written": 5}


def test_no_report_is_longer_than_a_packet() -> None:
    longest = "\U0001f4ec" * 256  # 1 kB, as long as an account can be
    counts = dict.fromkeys(("a" * 30 + str(number) for number in range(12)), 1e300)
    assert len(encode(Report([longest] * MOST_CLOSED, counts))) < MAX_PACKET_BYTES


@pytest.mark.parametrize(
    "profile", [PAGE, jmap_profile("Email,Calendar", "state", str(PING_SECONDS[0]))]
)
def test_a_readers_wishes_survive_the_passage(world: World, profile: Profile) -> None:
    ours, theirs = socket.socketpair()
    world.clients.append(theirs)
    world.shards.open(ours, StreamRequest("alice", profile, FOREVER, None, b"HEAD"), b"")
    (order,) = world.shards.read()
    assert isinstance(order, Open)
    assert order.profile() == profile
    assert order.expires == FOREVER


# --- the holder's side -------------------------------------------------------------------------


def order_of(account: str) -> bytes:
    return encode(Open(account, "page", (), PAGE.mask, False, 0, FOREVER, b"HEAD"))


@contextlib.contextmanager
def holding() -> Iterator[tuple[Holder, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        holder = Holder(theirs)
        yield holder, ours
        holder.hub.close_all()
        holder.hub.reactor.close()


@pytest.mark.trio
async def test_news_of_a_closed_stream_cannot_hit_one_handed_over_in_the_same_round() -> None:
    old, old_client = socket.socketpair()
    new, new_client = socket.socketpair()
    with holding() as (holder, ours), old, old_client, new, new_client:
        reactor, channel = holder.hub.reactor, holder._channel.fileno()
        socket.send_fds(ours, [order_of("alice")], [old.fileno()])
        reactor._round([(channel, EPOLLIN)])
        (number,) = holder.hub.accounts["alice"]
        old_client.shutdown(socket.SHUT_RDWR)
        tell = Tell("alice", "alice", 1, list(mail(1).values), MAIL_MOVED)
        ours.send(encode(tell))  # finds it gone
        socket.send_fds(ours, [order_of("bob")], [new.fileno()])
        reactor._round([(channel, EPOLLIN), (number, select.EPOLLRDHUP | select.EPOLLHUP)])
        assert "alice" not in holder.hub.accounts
        assert holder.hub.accounts["bob"] == (number,)


@pytest.mark.trio
async def test_many_streams_that_close_at_once_are_reported_in_portions() -> None:
    with holding() as (holder, ours):
        names = [f"user{number}" for number in range(3 * MOST_CLOSED + 1)]
        for name in names:
            holder._note_closed(name)
        holder._report()
        reports = [decode_report(ours.recv(MAX_PACKET_BYTES)) for _ in range(4)]
        assert [name for report in reports for name in report.closed] == names


# --- real processes ----------------------------------------------------------------------------


def run_until(reactor: Reactor, is_done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_done():
        assert time.monotonic() < deadline
        ready = reactor.epoll.poll(0.01)
        if ready:
            reactor._round(ready)


def test_real_processes_hold_streams_and_are_replaced_when_killed() -> None:
    reactor = Reactor(lambda _descriptor, _events: None, lambda _descriptor: None)
    shards = Shards(2, reactor, HubSettings())
    clients: dict[str, socket.socket] = {}
    told: dict[str, bytes] = {}

    def open_stream(account: str) -> None:
        ours, clients[account] = socket.socketpair()
        ours.setblocking(False)
        clients[account].setblocking(False)
        told[account] = b""
        shards.open(ours, StreamRequest(account, PAGE, FOREVER, None, b"HEAD\n\n"), b"id: 0\n\n")

    def has_got(account: str, wanted: bytes) -> bool:
        with contextlib.suppress(BlockingIOError):
            told[account] += clients[account].recv(65_536)
        return told[account].endswith(wanted)

    accounts = [f"user{number}" for number in range(8)]
    try:
        for account in accounts:
            open_stream(account)
            shards.publish(account, mail(7), MAIL_MOVED)
        for account in accounts:
            run_until(reactor, lambda: has_got(account, sse.push(mail(7))))  # noqa: B023
            assert told[account].startswith(b"HEAD\n\nid: 0\n\nevent: push")
        assert shards._shards[0] is not None
        victim = shards._shards[0].process.pid
        theirs = [account for account in accounts if shards._shard_of(account) is shards._shards[0]]
        os.kill(victim, signal.SIGKILL)
        run_until(reactor, lambda: len(shards) == len(accounts) - len(theirs))
        assert set(shards.accounts) == set(accounts) - set(theirs)
        for account in theirs:
            assert clients[account].recv(10) == b""
            clients[account].close()
        run_until(reactor, lambda: shards.tick() or shards.restarts == 1)  # type: ignore[func-returns-value]
        for account in accounts:
            if account in theirs:
                open_stream(account)
            shards.publish(account, mail(8), MAIL_MOVED)
        for account in accounts:
            run_until(reactor, lambda: has_got(account, sse.push(mail(8))))  # noqa: B023
        clients[accounts[0]].close()
        run_until(reactor, lambda: accounts[0] not in shards.accounts)
        shards.drain(1)
        run_until(reactor, lambda: shards.is_drained)
        assert shards.restarts == 1
    finally:
        shards.close()
        reactor.close()
        for client in clients.values():
            client.close()
