"""A push service in memory, h2 behind it, for origins to connect to."""

from __future__ import annotations

from collections.abc import Callable

import trio
import trio.testing
from h2.settings import SettingCodes

from pusher.dialing import ConnectError
from pusher.origins import Origin, OriginSettings
from pusher.protocol.hpack_prefix import Request, fixed_fields
from pusher.protocol.http2_answers import Answer, Result
from pusher.state.breaker import Breaker
from shared.retry import RetryPolicy
from tests.support.h2_far_end import H2Server, Received

FIXED = fixed_fields("api.example")
PAUSES = RetryPolicy(10, 40, float("inf"))
OK = Answer(200)


def push(name: str = "x") -> Request:
    return Request(f"/{name}", b"{}", FIXED)


class Line:
    """One connection as the service sees it."""

    def __init__(self, stream: trio.abc.Stream, limit: int | None) -> None:
        settings = {} if limit is None else {SettingCodes.MAX_CONCURRENT_STREAMS: limit}
        self.stream = stream
        self.server = H2Server(settings)
        self.is_silent = False
        self.is_closed = False
        self.greeting = b""
        self.is_stuck = False

    async def run(self) -> None:
        await self.flush(self.greeting)
        try:
            async for data in self.stream:
                if self.is_stuck:
                    await trio.sleep_forever()
                if not self.is_silent:
                    self.server.receive(bytes(data))
                    await self.flush()
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            pass
        self.is_closed = True

    async def flush(self, more: bytes = b"") -> None:
        if not self.is_silent:
            await self.stream.send_all(self.server.take() + more)


Wires = Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]]


class Service:
    """All connections to one service; `dial` is what an origin connects with."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.lines: list[Line] = []
        self.dials = 0
        self.refuses: str | None = None
        self.limit: int | None = None
        self.is_mute = False
        self.greeting = b""
        self.wires: Wires = trio.testing.memory_stream_pair
        self.answers: Callable[[Line, int, Received], None] = self.accept
        self._nursery = nursery

    def accept(self, line: Line, stream: int, request: Received) -> None:
        line.server.answer(stream)

    def hold(self, line: Line, stream: int, request: Received) -> None:
        pass

    async def dial(self) -> trio.abc.Stream:
        self.dials += 1
        await trio.lowlevel.checkpoint()
        if self.refuses:
            raise ConnectError(self.refuses)
        ours, theirs = self.wires()
        line = Line(theirs, self.limit)
        line.is_silent, line.greeting = self.is_mute, self.greeting
        line.server.on_request = lambda stream, request: self.answers(line, stream, request)
        self.lines.append(line)
        self._nursery.start_soon(line.run)
        return ours

    def paths(self) -> list[str]:
        return [
            each.headers[":path"] for line in self.lines for each in line.server.requests.values()
        ]


async def started(
    service: Service,
    nursery: trio.Nursery,
    settings: OriginSettings | None = None,
    failures: int = 3,
) -> Origin:
    breaker = Breaker(failures, PAUSES)
    origin = Origin("test", service.dial, settings, breaker=breaker, jitter=lambda: 1.0)
    await nursery.start(origin.run)
    return origin


async def settled(nursery: trio.Nursery, origin: Origin, *names: str) -> list[Result]:
    """Send requests of these names and return where their results will be."""
    results: list[Result] = []
    for name in names:
        assert origin.submit(push(name), results.append) is None
    await trio.testing.wait_all_tasks_blocked()
    return results
