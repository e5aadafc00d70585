"""Origins in memory, on a clock that jumps: connections that come, leave, die or fail."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing
from hyperframe.frame import GoAwayFrame, RstStreamFrame
from trio.testing import MockClock

from pusher.http2_connection import ConnectionSettings
from pusher.http2_pool import PoolSettings
from pusher.origins import Origin, OriginSettings
from pusher.protocol.http2 import Http2Client
from pusher.protocol.http2_answers import Answer, FateUnknown, NeverProcessed, Result
from tests.support.h2_far_end import Received
from tests.support.push_service import OK, Line, Service, push, settled, started

pytestmark = pytest.mark.trio


@pytest.fixture
def service(nursery: trio.Nursery) -> Service:
    return Service(nursery)


# --- connections that leave ----------------------------------------------------------------------


async def test_after_goaway_a_successor_takes_over_before_the_old_one_is_empty(
    service: Service, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    service.answers = service.hold
    origin = await started(service, nursery)
    results = await settled(nursery, origin, "a", "b", "c")
    service.answers = service.accept
    old = service.lines[0]
    old.server.answer(3)
    await old.flush(GoAwayFrame(last_stream_id=3).serialize())
    await trio.testing.wait_all_tasks_blocked()
    assert results == [OK, OK]  # b, and c over the new one
    assert service.lines[1].server.requests[1].headers[":path"] == "/c"
    assert not old.is_closed
    old.server.answer(1)
    await old.flush()
    await trio.testing.wait_all_tasks_blocked()
    assert (results, old.is_closed) == ([OK] * 3, True)
    assert origin.counts["again-goaway"] == 1


async def test_a_first_goaway_stops_new_requests_only(
    service: Service, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    service.answers = service.hold
    origin = await started(service, nursery)
    results = await settled(nursery, origin, "a", "b")
    old = service.lines[0]
    service.answers = service.accept
    await old.flush(GoAwayFrame(last_stream_id=2**31 - 1).serialize())
    assert await origin.request(push("c")) == OK
    assert service.paths() == ["/a", "/b", "/c"]
    assert len(results) == 0
    old.server.answer(1)
    await old.flush(GoAwayFrame(last_stream_id=1).serialize())
    await trio.testing.wait_all_tasks_blocked()
    assert results == [OK, OK]
    assert service.paths() == ["/a", "/b", "/c", "/b"]


async def test_connections_that_are_no_good_are_renewed_when_the_owner_says_so(
    service: Service, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    origin = await started(service, nursery)
    assert await origin.request(push("a")) == OK
    service.answers = service.hold
    results = await settled(nursery, origin, "b")
    origin.renew()
    service.answers = service.accept
    assert await origin.request(push("c")) == OK
    old, new = service.lines
    assert [len(line.server.requests) for line in service.lines] == [2, 1]
    old.server.answer(3)
    await old.flush()
    await trio.testing.wait_all_tasks_blocked()
    assert (results, old.is_closed, new.is_closed) == ([OK], True, False)
    origin.renew()  # nothing is open
    await trio.testing.wait_all_tasks_blocked()
    assert new.is_closed


async def test_refused_streams_are_sent_again(
    service: Service, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    tries: list[str] = []

    def refuse(line: Line, stream: int, request: Received) -> None:
        tries.append(request.headers[":path"])
        if len(tries) <= 3:
            line.server.h2.reset_stream(stream, error_code=7)
        else:
            line.server.answer(stream)

    service.answers = refuse
    origin = await started(service, nursery)
    assert await origin.request(push()) == OK
    assert len(tries) == 4


async def test_requests_are_not_sent_again_for_ever(
    service: Service, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    tries: list[str] = []

    def refuse(line: Line, stream: int, request: Received) -> None:
        tries.append(request.headers[":path"])
        line.server.h2.reset_stream(stream, error_code=7)

    service.answers = refuse
    origin = await started(service, nursery)
    assert await origin.request(push()) == NeverProcessed("refused-stream")
    assert len(tries) == 10


async def test_a_cut_connection_leaves_the_fate_of_its_requests_open(
    service: Service, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    service.answers = service.hold
    origin = await started(service, nursery)
    results = await settled(nursery, origin, "a", "b")
    service.answers = service.accept
    await service.lines[0].stream.aclose()
    await trio.testing.wait_all_tasks_blocked()
    assert [type(each) for each in results] == [FateUnknown, FateUnknown]
    assert await origin.request(push("c")) == OK
    assert service.paths() == ["/a", "/b", "/c"]  # not sent again behind the owner's back


async def test_a_server_that_breaks_the_protocol_is_left(
    service: Service, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    service.answers = service.hold
    origin = await started(service, nursery)
    results = await settled(nursery, origin, "a")
    await service.lines[0].flush(RstStreamFrame(99).serialize())
    await trio.testing.wait_all_tasks_blocked()
    assert results == [FateUnknown("idle-stream")]
    assert service.lines[0].is_closed
    service.answers = service.accept
    assert await origin.request(push()) == OK


async def test_stream_ids_that_run_out_mean_a_successor(
    service: Service,
    nursery: trio.Nursery,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pusher.http2_pool.Http2Client", partial(Http2Client, last_stream=5))
    origin = await started(service, nursery)
    results = await settled(nursery, origin, *"abcdefgh")
    assert results == [OK] * 8
    assert len(service.lines) == 3


# --- connections that are dead -------------------------------------------------------------------


async def test_a_silent_server_is_found_out_while_requests_wait(
    service: Service, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    origin = await started(service, nursery)
    assert await origin.request(push()) == OK
    service.lines[0].is_silent = True
    await trio.sleep(20)
    start = trio.current_time()
    assert await origin.request(push()) == FateUnknown("ping-timeout")
    assert trio.current_time() - start == pytest.approx(15)
    assert await origin.request(push()) == OK
    assert len(service.lines) == 2


async def test_a_silent_server_is_found_out_while_nothing_is_sent(
    service: Service, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    origin = await started(service, nursery)
    assert await origin.request(push()) == OK
    service.lines[0].is_silent = True
    await trio.sleep(69.9)
    assert origin.connections == 1
    await trio.sleep(0.2)
    assert origin.connections == 0
    assert await origin.request(push()) == OK


async def test_a_quiet_server_that_answers_pings_is_kept(
    service: Service, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    origin = await started(service, nursery)
    for _ in range(5):
        assert await origin.request(push()) == OK
        await trio.sleep(600)
    assert service.dials == 1


async def test_a_slow_answer_is_waited_for_if_the_server_is_there(
    service: Service, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    service.answers = service.hold
    origin = await started(service, nursery)
    results = await settled(nursery, origin, "a")
    await trio.sleep(25)
    service.lines[0].server.answer(1)
    await service.lines[0].flush()
    await trio.testing.wait_all_tasks_blocked()
    assert results == [OK]


async def test_an_unused_connection_is_closed(
    service: Service, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    settings = OriginSettings(pool=PoolSettings(connection=ConnectionSettings(idle_seconds=300)))
    origin = await started(service, nursery, settings)
    assert await origin.request(push()) == OK
    await trio.sleep(299)
    assert await origin.request(push()) == OK
    await trio.sleep(299)
    assert origin.connections == 1
    await trio.sleep(2)
    assert origin.connections == 0
    assert service.lines[0].is_closed
    assert service.lines[0].server.events[-1].__class__.__name__ == "ConnectionTerminated"
    assert await origin.request(push()) == OK


# --- connections that do not come about ----------------------------------------------------------


async def test_attempts_to_connect_have_growing_pauses(
    service: Service, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    service.refuses = "unreachable"
    origin = await started(service, nursery, failures=100)
    start, at = trio.current_time(), list[float]()
    dial = service.dial

    async def timed() -> trio.abc.Stream:
        at.append(trio.current_time() - start)
        return await dial()

    origin._pool._dial = timed
    results = await settled(nursery, origin, "a")
    await trio.sleep(8)
    assert at == pytest.approx([0, 0.5, 1.5, 3.5, 7.5])
    service.refuses = None
    await trio.sleep(8)
    assert results == [OK]


async def test_a_server_that_says_nothing_is_not_waited_for(
    service: Service, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    service.is_mute = True
    origin = await started(service, nursery, failures=1)
    start = trio.current_time()
    assert await origin.request(push()) == NeverProcessed("no-settings")
    assert trio.current_time() - start == pytest.approx(10)
    assert origin.counts["connect-no-settings"] == 1


async def test_a_server_that_leaves_at_once_is_not_asked_all_the_time(
    service: Service, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    service.greeting = GoAwayFrame(last_stream_id=0, error_code=11).serialize()
    origin = await started(service, nursery, failures=100)
    result = await origin.request(push())
    assert isinstance(result, NeverProcessed)
    assert service.dials < 10


async def test_the_circuit_opens_after_failures_and_one_probe_closes_it(
    service: Service, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    service.refuses = "unreachable"
    origin = await started(service, nursery)
    results = await settled(nursery, origin, *"abc")
    await trio.sleep(2)
    assert results == [NeverProcessed("unreachable")] * 3
    assert await origin.request(push()) == NeverProcessed("circuit-open")
    dials = service.dials
    await trio.sleep(10)
    assert service.dials == dials
    assert await origin.request(push()) == NeverProcessed("unreachable")  # the probe
    assert await origin.request(push()) == NeverProcessed("circuit-open")
    await trio.sleep(21)
    service.refuses = None
    results = await settled(nursery, origin, "probe")
    await trio.sleep(5)  # the pause before the next attempt to connect
    assert results == [OK]
    assert await origin.request(push()) == OK


@pytest.mark.parametrize("reason", ["tls", "no-http2"])
async def test_what_will_not_mend_is_told_at_once(
    service: Service, nursery: trio.Nursery, autojump_clock: MockClock, reason: str
) -> None:
    service.refuses = reason
    origin = await started(service, nursery)
    start = trio.current_time()
    assert await origin.request(push()) == NeverProcessed(reason)
    assert trio.current_time() == start
    assert service.dials == 1


async def test_the_owner_can_open_the_circuit_for_as_long_as_the_service_asked(
    service: Service, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    service.answers = lambda line, stream, request: line.server.answer(stream, 503)
    origin = await started(service, nursery)
    assert await origin.request(push()) == Answer(503)
    origin.failed(after=100)
    assert await origin.request(push()) == NeverProcessed("circuit-open")
    await trio.sleep(101)
    assert await origin.request(push()) == Answer(503)  # the probe, and it failed
    assert await origin.request(push()) == NeverProcessed("circuit-open")
    service.answers = service.accept
    await trio.sleep(41)
    assert [await origin.request(push()) for _ in range(2)] == [OK, OK]


# --- the end -------------------------------------------------------------------------------------


async def test_draining_waits_for_answers_and_takes_nothing_new(
    service: Service, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    service.answers = service.hold
    origin = await started(service, nursery)
    results = await settled(nursery, origin, "a")
    async with trio.open_nursery() as draining:
        draining.start_soon(origin.drain, 10)
        await trio.sleep(1)
        assert origin.submit(push(), results.append) == NeverProcessed("closed")
        service.lines[0].server.answer(1)
        await service.lines[0].flush()
    assert results == [OK]


async def test_the_end_settles_everything_and_says_goodbye(
    service: Service, autojump_clock: MockClock
) -> None:
    service.limit, service.answers = 1, service.hold
    origin = Origin("test", service.dial)
    results: list[Result] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(origin.run)
        for name in "abc":
            origin.submit(push(name), results.append)
        await trio.testing.wait_all_tasks_blocked()
        await origin.drain(2)
        nursery.cancel_scope.cancel()
    await trio.testing.wait_all_tasks_blocked()
    assert results == [
        FateUnknown("cancelled"),
        NeverProcessed("closed"),
        NeverProcessed("closed"),
    ]
    assert service.lines[0].is_closed
    assert service.lines[0].server.events[-1].__class__.__name__ == "ConnectionTerminated"
    assert await origin.request(push()) == NeverProcessed("closed")


async def test_a_callback_that_fails_does_no_harm_to_others(
    service: Service, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    origin = await started(service, nursery)

    def fail(result: Result) -> None:
        raise RuntimeError("ours")

    origin.submit(push(), fail)
    assert [await origin.request(push()) for _ in range(2)] == [OK, OK]
    assert service.dials == 1
