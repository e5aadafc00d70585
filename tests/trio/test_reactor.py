"""One epoll for everything: quick for the ready, fair to other tasks, deaf to what was removed."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from pusher.reactor import EPOLLIN, Reactor


@dataclass
class World:
    default: list[tuple[int, int]] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)
    sockets: list[socket.socket] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reactor = Reactor(lambda fd, ev: self.default.append((fd, ev)), self.closed.append)

    def ready(self) -> socket.socket:
        """A socket that is readable for as long as nobody reads."""
        ours, theirs = socket.socketpair()
        self.sockets += [ours, theirs]
        theirs.send(b"x")
        return ours

    def turn(self) -> None:
        self.reactor._round(self.reactor.epoll.poll(0))


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.reactor.close()
    for each in world.sockets:
        each.close()


@pytest.mark.trio
async def test_other_tasks_have_their_turn_while_descriptors_stay_ready(world: World) -> None:
    calls = 0

    def callback(_descriptor: int, _events: int) -> None:
        nonlocal calls
        calls += 1

    world.reactor.add(world.ready().fileno(), EPOLLIN, callback)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.reactor.run)
            for _ in range(10):
                before = calls
                while calls == before:
                    await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    assert calls >= 10


@pytest.mark.trio
async def test_a_timer_comes_in_time_while_descriptors_stay_ready(world: World) -> None:
    world.reactor.add(world.ready().fileno(), EPOLLIN, lambda _descriptor, _events: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.reactor.run)
        due = trio.current_time() + 0.05
        await trio.sleep_until(due)
        assert trio.current_time() - due < 1
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_it_sleeps_while_nothing_is_ready(world: World) -> None:
    seen: list[bytes] = []
    ours, theirs = socket.socketpair()
    world.sockets += [ours, theirs]
    got = trio.Event()

    def callback(_descriptor: int, _events: int) -> None:
        seen.append(ours.recv(10))
        got.set()

    world.reactor.add(ours.fileno(), EPOLLIN, callback)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.reactor.run)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert world.reactor.rounds == 0
        theirs.send(b"news")
        with trio.fail_after(10):
            await got.wait()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert (seen, world.reactor.rounds) == ([b"news"], 1)
        nursery.cancel_scope.cancel()


def test_what_accepts_runs_last_and_what_tells_readers_after_all(world: World) -> None:
    order: list[str] = []
    first, second = world.ready(), world.ready()
    world.reactor.add(
        first.fileno(), EPOLLIN, lambda _fd, _events: order.append("accept"), last=True
    )
    world.reactor.add(second.fileno(), EPOLLIN, lambda _fd, _events: order.append("read"))
    world.reactor.after_round.append(lambda: order.append("flush"))
    world.turn()
    assert order == ["read", "accept", "flush"]


def test_news_of_a_removed_descriptor_are_nobodys(world: World) -> None:
    first, second = world.ready(), world.ready()
    called: list[str] = []

    def remove_the_other(descriptor: int, _events: int) -> None:
        called.append("called")
        world.reactor.remove(second.fileno() if descriptor == first.fileno() else first.fileno())

    world.reactor.add(first.fileno(), EPOLLIN, remove_the_other)
    world.reactor.add(second.fileno(), EPOLLIN, remove_the_other)
    world.turn()
    assert called == ["called"]
    assert len(world.default) == 1
    world.reactor.remove(first.fileno())  # twice is nothing
    world.reactor.remove(second.fileno())


def test_what_nobody_claims_goes_to_the_streams(world: World) -> None:
    stream = world.ready()
    world.reactor.epoll.register(stream.fileno(), EPOLLIN)
    world.turn()
    assert world.default == [(stream.fileno(), EPOLLIN)]


@pytest.mark.parametrize("last", [True, False])
def test_a_callback_that_fails_costs_its_own_connection_only(world: World, last: bool) -> None:
    broken, good, accepting = world.ready(), world.ready(), world.ready()
    served: list[int] = []
    cut: list[int] = []

    def fail(_descriptor: int, _events: int) -> None:
        raise RuntimeError("a bug")

    def serve(descriptor: int, _events: int) -> None:
        served.append(descriptor)

    world.reactor.add(broken.fileno(), EPOLLIN, fail, last=last, close=cut.append)
    world.reactor.add(good.fileno(), EPOLLIN, serve)
    world.reactor.add(accepting.fileno(), EPOLLIN, serve, last=True)
    world.turn()
    assert sorted(served) == sorted([good.fileno(), accepting.fileno()])
    assert cut == [broken.fileno()]
    assert world.reactor.failures == 1


def test_a_stream_whose_callback_fails_is_closed() -> None:
    closed: list[int] = []

    def fail(_descriptor: int, _events: int) -> None:
        raise RuntimeError("a bug")

    reactor = Reactor(fail, closed.append)
    reactor._round([(77, EPOLLIN)])
    assert closed == [77]
    reactor.close()


def test_telling_readers_goes_on_after_a_failure_of_something_else(world: World) -> None:
    told: list[str] = []

    def fail() -> None:
        raise RuntimeError("a bug")

    world.reactor.after_round += [fail, lambda: told.append("told")]
    world.reactor._round([])
    assert told == ["told"]


def test_the_longest_round_is_remembered(world: World) -> None:
    world.reactor._round([])
    assert world.reactor.longest_round_seconds > 0
