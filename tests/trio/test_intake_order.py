"""A producer gets one answer per request, in the order of its requests, and waits for no work."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pusher.intake import NO, OK, Done, Intake
from pusher.protocol.mboxevent import Buffer
from pusher.protocol.notification import Notification, encode_datagram, encode_dlist
from pusher.reactor import Reactor
from shared.errors import QueueError

FAST = Notification("pusher", "EVENT", None, None, None, (), b'{"event":"MessageNew"}', None)
FAST_LOGIN = Notification("pusher", "EVENT", None, None, None, (), b'{"event":"Login"}', None)
SLOW = Notification("mailto:x", "SIEVE", "high", "alice", "INBOX", ("a",), b"hello", None)
REQUESTS = {"fast": encode_dlist(FAST), "slow": encode_dlist(SLOW), "json": b'{"event":"Login"}\n'}
BAD = b'{"neither": "event nor class"}\n'


@dataclass
class Taker:
    """Says what it was given; slow ones wait until the test answers."""

    taken: list[bytes] = field(default_factory=list)
    waiting: list[Done] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    on_take: list[bytes] = field(default_factory=list)
    client: socket.socket | None = None

    def is_slow(self, notification: Notification) -> bool:
        return notification.class_ == "SIEVE"

    def take(self, notification: Notification) -> None:
        self.take_event(notification.message)

    def take_event(self, message: Buffer) -> None:
        self.taken.append(bytes(message))
        if self.client is not None:
            with contextlib.suppress(BlockingIOError):
                self.on_take.append(self.client.recv(100))

    def take_short(self, message: Buffer) -> bool:
        return False

    def keep(self, notification: Notification, done: Done) -> None:
        self.waiting.append(done)

    def reject(self, reason: str) -> None:
        self.rejected.append(reason)


class World:
    def __init__(self, folder: Path) -> None:
        self.now = 1000.0
        self.taker = Taker()
        self.reactor = Reactor(lambda _descriptor, _events: None, lambda _descriptor: None)
        self.path = folder / "stream"
        stream = socket.socket(socket.AF_UNIX)
        stream.bind(str(self.path))
        stream.listen()
        self.datagrams, datagram = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.intake = Intake(
            self.reactor,
            self.taker,
            stream=stream,
            datagram=datagram,
            max_bytes=10_000,
            idle_seconds=30,
            clock=lambda: self.now,
        )

    def connect(self, data: bytes = b"") -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(self.path))
        client.setblocking(False)
        if data:
            client.sendall(data)
        self.turn()
        return client

    def send(self, client: socket.socket, data: bytes) -> bytes:
        client.sendall(data)
        self.turn()
        return self.read(client)

    def read(self, client: socket.socket) -> bytes:
        try:
            return client.recv(10_000)
        except BlockingIOError:
            return b""

    def turn(self) -> None:
        while ready := self.reactor.epoll.poll(0):
            self.reactor._round(ready)
        assert not self.reactor.failures

    def close(self) -> None:
        self.intake.close()
        self.datagrams.close()
        self.reactor.close()
        self.path.unlink()


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[World]:
    world = World(folder)
    try:
        yield world
    finally:
        world.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with opened(tmp_path) as world:
        yield world


def refused() -> QueueError:
    return QueueError("disk-full")


@pytest.mark.parametrize(
    "request_", [FAST, FAST_LOGIN], ids=["surely fast", "fast after a look at it"]
)
def test_a_fast_event_is_answered_before_any_work(world: World, request_: Notification) -> None:
    with world.connect() as client:
        world.taker.client = client
        client.sendall(encode_dlist(request_))
        world.turn()
        assert world.taker.on_take == [OK]
        assert world.taker.taken == [request_.message]


def test_an_event_that_is_there_when_it_connects_is_answered_before_any_work(world: World) -> None:
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(world.path))
    client.setblocking(False)
    client.sendall(encode_dlist(FAST))
    world.taker.client = client
    with client:
        world.turn()
        assert world.taker.on_take == [OK]
        assert world.send(client, encode_dlist(SLOW)) == b""
        world.taker.waiting[0](None)
        assert world.read(client) == OK


def test_a_slow_one_is_answered_when_it_is_durable(world: World) -> None:
    with world.connect() as client:
        assert world.send(client, encode_dlist(SLOW)) == b""
        assert world.intake.is_waiting
        world.taker.waiting[0](None)
        assert world.read(client) == OK
        assert not world.intake.is_waiting


def test_a_slow_one_that_cannot_be_kept_is_refused(world: World) -> None:
    with world.connect() as client:
        world.send(client, encode_dlist(SLOW))
        world.taker.waiting[0](refused())
        assert world.read(client) == NO


def test_fast_ones_behind_a_slow_one_are_acted_on_at_once_and_answered_in_order(
    world: World,
) -> None:
    with world.connect() as client:
        assert world.send(client, REQUESTS["slow"] + REQUESTS["fast"] + REQUESTS["json"]) == b""
        assert world.taker.taken == [b'{"event":"MessageNew"}', b'{"event":"Login"}']
        world.taker.waiting[0](refused())
        assert world.read(client) == NO + OK + OK


requests = st.lists(st.sampled_from(["fast", "slow", "json", "bad"]), max_size=12)


@settings(deadline=None, max_examples=60)
@given(requests, st.permutations(range(12)), st.booleans())
def test_answers_come_in_the_order_of_the_requests(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[str], finished: list[int], ends: bool
) -> None:
    with opened(tmp_path_factory.mktemp("intake")) as world, world.connect() as client:
        got = b""
        for kind in kinds:
            got += world.send(client, BAD if kind == "bad" else REQUESTS[kind])
        if ends:
            client.shutdown(socket.SHUT_WR)
            world.turn()
        for at in finished:
            if at < len(world.taker.waiting):
                world.taker.waiting[at](refused() if at % 2 else None)
                got += world.read(client)
        slow = iter([OK, NO] * 6)
        expected = [next(slow) if kind == "slow" else NO if kind == "bad" else OK for kind in kinds]
        assert got == b"".join(expected)
        world.turn()
        assert len(world.intake) == (0 if ends else 1)
        client.close()
        world.turn()
        assert len(world.intake) == 0


def test_a_producer_that_has_said_all_still_gets_its_answer(world: World) -> None:
    with world.connect() as client:
        client.sendall(encode_dlist(SLOW))
        client.shutdown(socket.SHUT_WR)
        world.turn()
        world.taker.waiting[0](None)
        assert client.recv(100) == OK
        assert client.recv(100) == b""


def test_a_producer_that_went_away_does_not_get_in_the_way(world: World) -> None:
    client = world.connect(encode_dlist(SLOW) * 2)
    client.close()
    world.turn()
    for done in world.taker.waiting:
        done(None)
    world.turn()
    assert len(world.intake) == 0


def test_a_producer_cut_for_bad_framing_is_not_confused_with_the_next(world: World) -> None:
    first = world.connect(encode_dlist(SLOW))
    assert world.send(first, b"GET / HTTP/1.1\r\n\r\n") == NO
    second = world.connect()  # most likely with the same descriptor number
    world.taker.waiting[0](None)
    assert world.read(second) == b""
    assert world.send(second, REQUESTS["fast"]) == OK
    first.close()
    second.close()


def test_half_a_request_is_cut_after_a_while_and_an_idle_connection_is_not(world: World) -> None:
    idle, half = world.connect(), world.connect(encode_dlist(FAST)[:20])
    world.now += 29
    world.intake.tick()
    assert len(world.intake) == 2
    world.now += 2
    world.intake.tick()
    assert world.read(half) == NO
    assert half.recv(10) == b""
    assert world.taker.rejected == ["truncated"]
    assert world.send(idle, REQUESTS["fast"]) == OK
    idle.close()
    half.close()


def test_datagrams_are_taken_in_order_whatever_their_form(world: World) -> None:
    messages = [b'{"event":"M%d"}' % number for number in range(100)]
    for number, message in enumerate(messages):
        plain = Notification("pusher", "EVENT", None, None, None, (), message, None)
        world.datagrams.send(message if number % 7 == 0 else encode_datagram(plain))
    world.turn()
    assert world.taker.taken == messages
    assert world.intake.counts["datagrams"] == 100


def test_a_bad_datagram_costs_itself_only(world: World) -> None:
    for data in (encode_datagram(FAST), b"", b"\0", b"x" * 10_001, b"{}", encode_datagram(FAST)):
        world.datagrams.send(data)
    world.turn()
    assert world.taker.taken == [FAST.message] * 2
    assert len(world.taker.rejected) == 4
    assert "oversized" in world.taker.rejected


def test_what_lies_in_the_sockets_is_taken_before_stopping(world: World) -> None:
    for _ in range(50):
        world.datagrams.send(encode_datagram(FAST))
    world.intake.stop()
    assert len(world.taker.taken) == 50
