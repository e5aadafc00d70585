"""Many readers, slow ones, gone ones: each gets the newest state whole and holds up no other."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from unittest import mock

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from pusher.handshake import StreamRequest
from pusher.hub import TICK_SECONDS, Hub, HubSettings
from pusher.protocol import sse
from pusher.protocol.numbers import (
    CALENDAR,
    DELIVERY,
    MAIL,
    MAIL_FOLDERS,
    POSITIONS,
    RESYNC,
    Numbers,
)
from pusher.protocol.profile import PAGE, Profile, jmap_profile
from pusher.state.modseq import ModseqTable
from pusher.state.outbox import MOST_ACCOUNTS

FOREVER = 4e9
JMAP = jmap_profile("*", "no", "0")
CLOSING = jmap_profile("Email", "state", "0")
MAIL_MOVED = 1 << MAIL


def mail(number: int, **others: int) -> Numbers:
    values = [0] * POSITIONS
    values[MAIL] = number
    for position in (CALENDAR, DELIVERY, MAIL_FOLDERS):
        values[position] = others.get(
            {CALENDAR: "calendar", DELIVERY: "delivery"}.get(position, ""), 0
        )
    return Numbers(number, values)


class Table(ModseqTable):
    """A table in which every account has the same numbers."""

    def __init__(self, told: Numbers) -> None:
        super().__init__()
        self.told = told

    def live_row(self, account: str) -> list[int] | None:
        return [*self.told.values, self.told.id - sum(self.told.values)]

    def numbers(self, account: str) -> Numbers | None:
        return self.told


@dataclass
class World:
    """A hub whose clock stands still, and whose writes take as much as is said."""

    #: Whether it is told of changes with the table they are in, or one by one.
    by_table: bool = False
    now: float = 1000.0
    wall: float = 1.8e9
    room: dict[int, int] = field(default_factory=dict)
    sent: defaultdict[int, bytearray] = field(default_factory=lambda: defaultdict(bytearray))
    broken: set[int] = field(default_factory=set)
    others: list[socket.socket] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.hub = Hub(
            HubSettings(ping_seconds=20, stalled_seconds=10),
            clock=lambda: self.now,
            wall=lambda: self.wall,
        )
        self.hub._send = self.send

    def send(self, descriptor: int, block: bytes) -> int:
        if descriptor in self.broken:
            raise BrokenPipeError
        room = self.room.get(descriptor, len(block))
        if not room and block:
            raise BlockingIOError
        taken = min(room, len(block))
        if descriptor in self.room:
            self.room[descriptor] -= taken
        self.sent[descriptor] += block[:taken]
        return taken

    def open(
        self, account: str = "alice", profile: Profile = PAGE, head: bytes = b"", room: int = -1
    ) -> int:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.others.append(theirs)
        descriptor = ours.detach()
        if room >= 0:
            self.room[descriptor] = room
        self.hub.attach(descriptor, account, profile, FOREVER, head)
        return descriptor

    def is_open(self, descriptor: int) -> bool:
        return any(descriptor in fds for fds in self.hub.accounts.values())

    def catch_up(self, descriptor: int, room: int = 1 << 30) -> None:
        self.room[descriptor] = room
        self.hub.on_ready(descriptor, select.EPOLLOUT)

    def publish(self, number: int, account: str = "alice", mask: int = MAIL_MOVED) -> None:
        if self.by_table:
            self.hub.publish_moved({account: mask}, Table(mail(number)))
        else:
            self.hub.publish(account, mail(number), mask)

    def tick(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK_SECONDS)):
            self.now += TICK_SECONDS
            self.wall += TICK_SECONDS
            self.hub.tick()


@pytest.fixture(params=[False, True], ids=["told one by one", "told by table"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with opened() as world:
        world.by_table = request.param
        yield world


@contextlib.contextmanager
def opened() -> Iterator[World]:
    world = World()
    yield world
    world.hub.close_all()
    world.hub.reactor.close()
    for other in world.others:
        other.close()


# --- telling -----------------------------------------------------------------------------------


def test_every_stream_of_the_account_is_told_and_nobody_else(world: World) -> None:
    mine = [world.open() for _ in range(5)]
    foreign = world.open("bob")
    world.publish(7)
    assert [world.sent[fd] for fd in mine] == [sse.push(mail(7))] * 5
    assert not world.sent[foreign]


def test_each_reader_is_told_in_its_own_form(world: World) -> None:
    page, jmap, calendars = (
        world.open(profile=profile) for profile in (PAGE, JMAP, jmap_profile("Calendar", "no", "0"))
    )
    world.publish(7)
    assert world.sent[page] == sse.push(mail(7))
    assert world.sent[jmap] == sse.change(JMAP, "alice", mail(7), MAIL_MOVED)
    assert not world.sent[calendars]


def test_what_another_shares_is_told_with_his_name_and_the_readers_id(world: World) -> None:
    page, jmap = world.open("bob"), world.open("bob", JMAP)
    world.hub.publish("bob", Numbers(55, mail(7).values), MAIL_MOVED, "alice")
    assert b'event: shared\nid: 55\ndata: {"account":"alice"' in world.sent[page]
    assert b'"changed":{"alice":{' in world.sent[jmap]
    assert b"id: 55\n" in world.sent[jmap]


def test_a_reader_that_is_gone_does_not_hide_the_change_from_the_others(world: World) -> None:
    first, gone, last = (world.open() for _ in range(3))
    world.broken.add(gone)
    world.publish(7)
    assert world.sent[first] == world.sent[last] == sse.push(mail(7))
    assert not world.is_open(gone)
    assert len(world.hub) == 2
    assert world.hub.counts.closed_by_reader == 1


def test_a_closed_stream_leaves_nothing_behind(world: World) -> None:
    closed: list[str] = []
    world.hub.on_closed = closed.append
    descriptors = [world.open(), world.open("bob", room=0)]
    world.publish(1, "bob")
    for descriptor in descriptors:
        world.hub.close(descriptor)
        world.hub.close(descriptor)  # the second time is nothing
    assert closed == ["alice", "bob"]
    assert (len(world.hub), dict(world.hub.accounts), world.hub.stalled) == (0, {}, 0)
    for descriptor in descriptors:
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(descriptor)


# --- readers that do not keep up ---------------------------------------------------------------


def test_a_stalled_reader_gets_the_newest_state_only(world: World) -> None:
    slow, quick = world.open(room=0), world.open()
    for number in range(1, 100):
        world.publish(number)
    world.catch_up(slow)
    assert world.sent[slow] == sse.push(mail(99))
    assert world.sent[quick].count(b"event: push") == 99
    assert world.hub.stalled == 0


def test_a_stalled_reader_hears_of_every_type_that_moved_meanwhile(world: World) -> None:
    slow = world.open(profile=JMAP, room=0)
    world.hub.publish("alice", mail(1), MAIL_MOVED)
    world.hub.publish("alice", mail(1, calendar=2), 1 << CALENDAR)
    world.catch_up(slow)
    both = sse.change(JMAP, "alice", mail(1, calendar=2), MAIL_MOVED | 1 << CALENDAR)
    assert world.sent[slow] == both


def test_a_block_begun_is_finished_before_the_newest(world: World) -> None:
    slow = world.open(room=11)
    for number in (1, 2, 3):
        world.publish(number)
    world.catch_up(slow, room=5)
    world.publish(4)
    world.catch_up(slow)
    assert world.sent[slow] == sse.push(mail(1)) + sse.push(mail(4))


def test_a_reader_behind_from_the_start_gets_its_head_first(world: World) -> None:
    head = b"HTTP/1.1 200 OK\r\n\r\n" + sse.opening(1000, 5, b"")
    slow = world.open(head=head, room=3)
    world.publish(6)
    world.catch_up(slow)
    assert world.sent[slow] == head + sse.push(mail(6))


def test_changes_of_several_accounts_wait_side_by_side(world: World) -> None:
    slow = world.open(room=0)
    world.publish(1)
    world.hub.publish("alice", Numbers(2, mail(70).values), MAIL_MOVED, "bob")
    world.publish(3)
    world.catch_up(slow)
    assert world.sent[slow].count(b"event: ") == 2
    assert sse.push(mail(3)) in world.sent[slow]
    assert b'"account":"bob"' in world.sent[slow]


@pytest.mark.parametrize("is_own_known", [True, False])
def test_too_many_accounts_at_once_are_one_resync_of_the_readers_own(
    world: World, is_own_known: bool
) -> None:
    slow = world.open(room=0)
    if is_own_known:
        world.publish(5)
    for number in range(MOST_ACCOUNTS + 1):
        shared = Numbers(100 + number, mail(7000 + number).values)
        world.hub.publish("alice", shared, MAIL_MOVED, f"owner{number}")
    world.catch_up(slow)
    newest = mail(5) if is_own_known else Numbers(0, [0] * POSITIONS)
    own = Numbers(100 + MOST_ACCOUNTS - is_own_known, newest.values)
    told = world.sent[slow].decode()
    assert told.startswith(sse.resync(PAGE, "alice", own).decode())
    assert told.count("event: resync") == 1
    assert told.count("event: shared") == is_own_known  # the one after it


def test_a_resync_owed_is_not_taken_back_by_a_later_change(world: World) -> None:
    slow = world.open(room=0)
    world.publish(5, mask=RESYNC | MAIL_MOVED)
    world.publish(6)
    world.catch_up(slow)
    assert world.sent[slow] == sse.resync(PAGE, "alice", mail(6))


def test_a_reader_that_takes_nothing_until_the_deadline_is_cut(world: World) -> None:
    slow, quick = world.open(room=0), world.open()
    world.publish(1)
    world.tick(9)
    assert world.is_open(slow)
    world.tick(3)
    assert not world.is_open(slow)
    assert world.is_open(quick)
    assert world.hub.counts.cut_stalled == 1


def test_a_reader_that_catches_up_in_time_stays(world: World) -> None:
    slow = world.open(room=0)
    for number in range(5):
        world.publish(number + 1)
        world.tick(9)
        world.catch_up(slow)
        world.room[slow] = 0
    assert world.is_open(slow)


chunks = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(0, 2)),
        st.tuples(st.just("room"), st.integers(0, 150)),
        st.tuples(st.just("ready"), st.just(0)),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=150)
@given(chunks, st.sampled_from([PAGE, JMAP]))
def test_whatever_a_reader_takes_it_ends_with_the_newest_of_every_account_in_whole_blocks(
    steps: list[tuple[str, int]], profile: Profile
) -> None:
    with opened() as world:
        reader = world.open(profile=profile, room=100)
        newest: dict[str, int] = {}
        for number, (what, value) in enumerate(steps, 1):
            if what == "publish":
                owner = (None, "bob", "carol")[value]
                world.hub.publish("alice", mail(number), MAIL_MOVED, owner)
                newest[owner or "alice"] = number
            elif what == "room":
                world.room[reader] = value
            else:
                world.catch_up(reader, world.room[reader])
        world.catch_up(reader)
        told = world.sent[reader].decode()
        assert told == "" or told.endswith("\n\n")
        seen: dict[str, int] = {}
        for block in told.split("\n\n")[:-1]:
            lines = block.split("\n")
            assert [line.split(": ")[0] for line in lines] == ["event", "id", "data"]
            about = next((name for name in ("bob", "carol") if f'"{name}"' in lines[2]), "alice")
            number = int(lines[1].removeprefix("id: "))
            assert number > seen.get(about, 0)
            seen[about] = number
        assert seen == newest


# --- closeafter=state --------------------------------------------------------------------------


def test_a_stream_that_closes_after_a_state_does_so_once_it_is_told(world: World) -> None:
    reader = world.open(profile=CLOSING)
    world.hub.publish("alice", mail(1, calendar=2), 1 << CALENDAR)  # not asked for
    assert world.is_open(reader)
    world.publish(1)
    assert not world.is_open(reader)
    assert world.sent[reader].endswith(b"\n\n")


@pytest.mark.parametrize("room", [0, 1, 20, 60])
def test_it_closes_only_after_the_state_was_written_whole(world: World, room: int) -> None:
    reader = world.open(profile=CLOSING, room=room)
    world.publish(1)
    assert world.is_open(reader)
    world.catch_up(reader, room=3)
    assert world.is_open(reader)
    world.catch_up(reader)
    assert not world.is_open(reader)
    assert world.sent[reader] == sse.change(CLOSING, "alice", mail(1), MAIL_MOVED)


@pytest.mark.parametrize("room", [-1, 0, 30])
def test_what_it_missed_while_away_is_a_state_as_well(world: World, room: int) -> None:
    missed = sse.opening(1000, 1, sse.change(CLOSING, "alice", mail(1), MAIL_MOVED))
    reader = world.open(profile=CLOSING, head=missed, room=room)
    if room >= 0:
        assert world.is_open(reader)
        world.catch_up(reader)
    assert not world.is_open(reader)
    assert world.sent[reader] == missed


@pytest.mark.parametrize("room", [-1, 0, 10])
def test_an_opening_that_tells_no_state_does_not_close(world: World, room: int) -> None:
    reader = world.open(profile=CLOSING, head=sse.opening(1000, 1, b""), room=room)
    world.catch_up(reader)
    assert world.is_open(reader)


# --- pings, tokens -----------------------------------------------------------------------------


def pings_of(world: World, descriptor: int) -> int:
    return world.sent[descriptor].count(b":\n\n") + world.sent[descriptor].count(b"event: ping")


def test_idle_streams_are_pinged_in_time_and_not_all_at_once(world: World) -> None:
    readers = [world.open(head=b"x") for _ in range(120)]
    pinged_at: dict[int, float] = {}
    most_at_once = 0
    start = world.now
    while world.now - start < 20:
        before = world.hub.counts.pings
        world.tick(TICK_SECONDS)
        most_at_once = max(most_at_once, world.hub.counts.pings - before)
        for reader in readers:
            if pings_of(world, reader):
                pinged_at.setdefault(reader, world.now - start)
    assert len(pinged_at) == len(readers)
    assert min(pinged_at.values()) >= 20 * 0.5
    assert most_at_once <= len(readers) / 5


def test_a_stream_that_is_told_things_is_pinged_no_more_often_than_an_idle_one(
    world: World,
) -> None:
    reader = world.open(head=b"x")
    for number in range(20):
        world.tick(10)
        world.publish(number + 1)
    assert pings_of(world, reader) <= (200 / 13 if world.by_table else 0)


def test_a_stream_behind_is_not_pinged(world: World) -> None:
    reader = world.open(room=0)
    world.publish(1)
    world.hub.settings.stalled_seconds = 1000
    world.tick(100)
    assert not world.sent[reader]
    world.catch_up(reader)
    assert world.sent[reader] == sse.push(mail(1))


@pytest.mark.parametrize("hub_seconds", [5, 20, 45, 50])
@pytest.mark.parametrize("asked_seconds", [30, 60, 300])
def test_a_jmap_reader_gets_its_pings_at_its_own_interval(
    world: World, hub_seconds: float, asked_seconds: int
) -> None:
    world.hub.settings.ping_seconds = hub_seconds
    readers = [
        world.open(profile=jmap_profile("*", "no", str(asked_seconds)), head=b"x")
        for _ in range(20)
    ]
    world.tick(asked_seconds * 3)
    for reader in readers:
        assert world.sent[reader].count(
            b'event: ping\ndata: {"interval":%d}\n\n' % asked_seconds
        ) in (
            3,
            4,
        )
        assert b"id:" not in world.sent[reader]


def test_a_jmap_reader_that_wants_no_ping_gets_comments(world: World) -> None:
    reader = world.open(profile=JMAP, head=b"x")
    world.tick(21)
    assert world.sent[reader] == b"x:\n\n"


def test_a_stream_ends_with_its_token(world: World) -> None:
    ours, theirs = socket.socketpair()
    world.others.append(theirs)
    descriptor = ours.detach()
    world.hub.attach(descriptor, "alice", PAGE, world.wall + 30, b"x")
    stays = world.open()
    world.tick(28)
    assert world.is_open(descriptor)
    world.tick(5)
    assert not world.is_open(descriptor)
    assert world.is_open(stays)
    assert world.hub.counts.cut_expired == 1


# --- descriptors -------------------------------------------------------------------------------


def test_news_of_a_closed_descriptor_cannot_hit_the_stream_that_has_its_number_now(
    world: World,
) -> None:
    """Accepting runs at the end of a round, so a number is not used again while news are left."""
    old = world.open()
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    world.others += [listener, client]

    def accept(_descriptor: int, _events: int) -> None:
        connection, _address = listener.accept()
        connection.setblocking(False)
        world.hub.attach(connection.detach(), "bob", PAGE, FOREVER, b"")

    def give_up(_descriptor: int, _events: int) -> None:
        world.hub.close(old)

    waker, other = socket.socketpair()
    world.others += [waker, other]
    reactor = world.hub.reactor
    reactor.add(listener.fileno(), select.EPOLLIN, accept, last=True)
    reactor.add(waker.fileno(), select.EPOLLIN, give_up)
    gone = (old, select.EPOLLRDHUP)
    reactor._round([(listener.fileno(), select.EPOLLIN), (waker.fileno(), select.EPOLLIN), gone])
    assert world.hub.accounts["bob"] == (old,)  # the same number, and it is open
    for descriptor in (listener.fileno(), waker.fileno()):
        reactor.remove(descriptor)


def test_a_reader_that_hangs_up_is_noticed(world: World) -> None:
    reader = world.open()
    world.others.pop().close()
    for descriptor, events in world.hub.reactor.epoll.poll(0):
        world.hub.on_ready(descriptor, events)
    assert not world.is_open(reader)


def test_a_new_stream_is_not_pinged_for_what_its_number_was_before(world: World) -> None:
    reader = world.open(head=b"x")
    world.tick(10)
    world.hub.close(reader)
    again = world.open(head=b"y")
    assert again == reader
    world.tick(9)
    assert pings_of(world, again) == 0


# --- real sockets ------------------------------------------------------------------------------


def read_all(connection: socket.socket) -> bytes:
    parts = []
    with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def run_until(hub: Hub, is_done: Callable[[], bool]) -> None:
    for _ in range(10_000):
        if is_done():
            return
        for descriptor, events in hub.reactor.epoll.poll(0.01):
            hub.on_ready(descriptor, events)
    raise AssertionError("it does not end")


def pair_over_tcp(send_buffer: int = 4096) -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(listener.getsockname())
        server, _address = listener.accept()
    return server, client


def test_a_real_reader_that_stops_reading_costs_one_state(world: World) -> None:
    hub = Hub(HubSettings())
    server, client = pair_over_tcp()
    with client:
        server.setblocking(False)
        client.setblocking(False)
        hub.attach(server.detach(), "alice", PAGE, FOREVER, b"")
        for number in range(1, 5000):
            hub.publish("alice", mail(number), MAIL_MOVED)
        assert hub.stalled == 1
        told = b""

        def is_told() -> bool:
            nonlocal told
            told += read_all(client)
            return told.endswith(sse.push(mail(4999)))

        run_until(hub, is_told)
        assert hub.stalled == 0
        assert told.count(b"event: push") < 4999
        assert all(block.startswith(b"event: push\nid: ") for block in told.split(b"\n\n")[:-1])
        hub.close_all()
        hub.reactor.close()


def test_a_reader_over_tls_gets_whole_blocks_however_slow_it_is() -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    context.num_tickets = 0
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    hub = Hub(HubSettings())
    raw_server, raw_client = pair_over_tcp()
    raw_server.setblocking(False)
    raw_client.setblocking(False)
    server = context.wrap_socket(raw_server, server_side=True, do_handshake_on_connect=False)
    client = trusting.wrap_socket(
        raw_client, server_hostname="localhost", do_handshake_on_connect=False
    )
    waiting = {server, client}
    while waiting:
        for side in list(waiting):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
                waiting.discard(side)
    request = StreamRequest("alice", PAGE, FOREVER, None, b"HEAD\n\n")
    hub.open(server, request, b"id: 1\n\n")
    for number in range(1, 3000):
        hub.publish("alice", mail(number), MAIL_MOVED)
    assert hub.stalled == 1
    told = b""

    def is_told() -> bool:
        nonlocal told
        told += read_all(client)
        return told.endswith(sse.push(mail(2999)))

    run_until(hub, is_told)
    assert told.startswith(b"HEAD\n\nid: 1\n\nevent: push\nid: 1\n")
    client.close()
    run_until(hub, lambda: not len(hub))
    hub.reactor.close()


def test_a_ping_that_cannot_be_written_closes_quietly(world: World) -> None:
    reader = world.open(head=b"x")
    with mock.patch.object(world.hub, "_send", side_effect=BrokenPipeError):
        world.tick(25)
    assert not world.is_open(reader)
