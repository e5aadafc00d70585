"""A bug in what one connection asks for must not cost the others anything."""

from __future__ import annotations

import socket

import pytest
import trio

from pusher.reactor import EPOLLIN, Reactor

pytestmark = pytest.mark.trio


async def test_a_failing_callback_costs_its_own_connection_only(
    nursery: trio.Nursery, capsys: pytest.CaptureFixture[str]
) -> None:
    reactor = Reactor(lambda _fd, _events: None, lambda _fd: None)
    bad, bad_end = socket.socketpair()
    good, good_end = socket.socketpair()
    heard: list[bytes] = []
    done = trio.Event()

    def fail(_descriptor: int, _events: int) -> None:
        raise ZeroDivisionError

    def close(descriptor: int) -> None:
        reactor.remove(descriptor)
        bad.close()

    def hear(_descriptor: int, _events: int) -> None:
        heard.append(good.recv(10))
        done.set()

    reactor.add(bad.fileno(), EPOLLIN, fail, close=close)
    reactor.add(good.fileno(), EPOLLIN, hear, last=True)  # after the other
    nursery.start_soon(reactor.run)
    bad_end.send(b"x")
    good_end.send(b"y")
    with trio.fail_after(5):
        await done.wait()
    assert heard == [b"y"]
    assert bad.fileno() == -1
    assert reactor.failures == 1
    assert "ZeroDivisionError" in capsys.readouterr().out
    nursery.cancel_scope.cancel()
    for end in (bad_end, good, good_end):
        end.close()
    reactor.close()
