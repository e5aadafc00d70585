"""Origins in memory, on a clock that jumps: requests, queues and deadlines."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from pusher.http2_pool import PoolSettings
from pusher.origins import OriginSettings
from pusher.protocol.http2_answers import FateUnknown, NeverProcessed, Result
from tests.support.push_service import OK, Service, push, settled, started

pytestmark = pytest.mark.trio


@pytest.fixture
def service(nursery: trio.Nursery) -> Service:
    return Service(nursery)


async def test_requests_are_answered_over_one_connection(
    service: Service, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    origin = await started(service, nursery)
    assert service.dials == 0  # not before somebody needs it
    assert [await origin.request(push()) for _ in range(3)] == [OK] * 3
    results = await settled(nursery, origin, *"abcdefgh")
    assert results == [OK] * 8
    assert service.dials == 1
    assert origin.unsettled == 0
    assert origin.answers == 11


async def test_what_one_round_sends_leaves_in_one_write(
    service: Service, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    origin = await started(service, nursery)
    await origin.request(push())
    await trio.testing.wait_all_tasks_blocked()
    line, writes = service.lines[0], list[int]()
    receive = line.server.receive
    line.server.receive = lambda data: (writes.append(len(data)), receive(data))[1]  # type: ignore
    async with trio.open_nursery() as senders:
        for _ in range(50):
            senders.start_soon(origin.request, push())
    assert len(writes) == 1


async def test_no_more_streams_than_allowed_and_the_rest_waits(
    service: Service, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    service.limit, service.answers = 1, service.hold
    origin = await started(service, nursery)
    results = await settled(nursery, origin, "a", "b", "c")
    line = service.lines[0]
    for number in range(3):
        assert len(line.server.requests) == number + 1
        line.server.answer(1 + 2 * number)
        await line.flush()
        await trio.testing.wait_all_tasks_blocked()
    assert results == [OK] * 3


async def test_further_connections_open_when_the_first_is_full(
    service: Service, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    service.limit, service.answers = 2, service.hold
    origin = await started(service, nursery, OriginSettings(pool=PoolSettings(connections=3)))
    await settled(nursery, origin, *"ab")
    assert origin.connections == 1
    await settled(nursery, origin, *"cdefgh")
    assert origin.connections == 3
    assert [len(line.server.requests) for line in service.lines] == [2, 2, 2]
    assert origin.queued == 2


async def test_a_server_that_does_not_read_does_not_stop_the_other_connections(
    service: Service, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    service.limit, service.answers = 3, service.hold
    service.wires = trio.testing.lockstep_stream_pair
    origin = await started(service, nursery, OriginSettings(pool=PoolSettings(connections=2)))
    await settled(nursery, origin, *"abcdef")
    stuck, other = service.lines
    for line, stream in ((stuck, 1), (stuck, 3), (stuck, 5), (other, 1)):
        line.server.answer(stream)
        await line.flush()
    await trio.testing.wait_all_tasks_blocked()
    stuck.is_stuck = True
    await settled(nursery, origin, "read")
    await settled(nursery, origin, "unread")
    service.answers = service.accept
    with trio.fail_after(1):
        assert await origin.request(push("e")) == OK


async def test_a_full_queue_refuses_and_lets_wait(
    service: Service, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    service.limit, service.answers = 1, service.hold
    origin = await started(service, nursery, OriginSettings(queue=2))
    await settled(nursery, origin, "a")
    await settled(nursery, origin, "b", "c")
    assert origin.submit(push(), lambda result: None) == NeverProcessed("full")
    results: list[Result] = []

    async def wait() -> None:
        results.append(await origin.request(push("d")))

    nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()
    service.answers = service.accept
    service.lines[0].server.answer(1)
    await service.lines[0].flush()
    await trio.testing.wait_all_tasks_blocked()
    assert results == [OK]
    assert service.paths() == ["/a", "/b", "/c", "/d"]


# --- deadlines and cancelling --------------------------------------------------------------------


async def test_a_request_in_the_queue_ends_at_its_deadline(
    service: Service, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    service.refuses = "unreachable"
    origin = await started(service, nursery, failures=100)
    start = trio.current_time()
    assert await origin.request(push(), deadline=start + 7) == NeverProcessed("deadline")
    assert 7 <= trio.current_time() - start <= 7.3
    assert origin.unsettled == 0


async def test_a_request_without_an_answer_ends_at_its_deadline(
    service: Service, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    service.answers = service.hold
    origin = await started(service, nursery)
    start = trio.current_time()
    assert await origin.request(push()) == FateUnknown("deadline")
    assert 30 <= trio.current_time() - start <= 30.3
    await trio.testing.wait_all_tasks_blocked()
    assert service.lines[0].server.requests[1].reset_code == 8
    service.answers = service.accept
    assert await origin.request(push()) == OK
    assert service.dials == 1


async def test_an_earlier_deadline_is_not_hidden_by_later_ones(
    service: Service, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    service.answers = service.hold
    origin = await started(service, nursery)
    await settled(nursery, origin, "late")
    start = trio.current_time()
    assert await origin.request(push(), deadline=start + 1) == FateUnknown("deadline")
    assert trio.current_time() - start <= 1.3


async def test_waiting_for_room_counts_against_the_deadline(
    service: Service, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    service.limit, service.answers = 1, service.hold
    origin = await started(service, nursery, OriginSettings(queue=1))
    await settled(nursery, origin, "a")
    await settled(nursery, origin, "b")
    now = trio.current_time()
    assert await origin.request(push("c"), deadline=now + 3) == NeverProcessed("deadline")
    assert service.paths() == ["/a"]


async def test_a_cancelled_request_is_not_reset_and_its_answer_is_dropped(
    service: Service, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    service.answers = service.hold
    origin = await started(service, nursery)
    with trio.move_on_after(1):
        await origin.request(push("cancelled"))
    line = service.lines[0]
    assert line.server.requests[1].reset_code is None
    line.server.answer(1)
    await line.flush()
    service.answers = service.accept
    assert await origin.request(push()) == OK
    assert origin.unsettled == 0


async def test_a_request_cancelled_in_the_queue_is_never_sent(
    service: Service, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    service.limit, service.answers = 1, service.hold
    origin = await started(service, nursery)
    await settled(nursery, origin, "a")
    with trio.move_on_after(1):
        await origin.request(push("b"))
    assert (origin.queued, origin.unsettled) == (0, 1)
    await trio.sleep(40)
    assert service.paths() == ["/a"]
