"""Tens of thousands of pushes to a service that misbehaves: none lost, none accepted twice.

The service is Node's http2 over TLS, with a ledger of its own that is held against our results.
"""

from __future__ import annotations

import uuid
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import trio

from pusher.dialing import dialer
from pusher.http2_connection import ConnectionSettings
from pusher.http2_pool import PoolSettings
from pusher.origins import Origin, OriginSettings
from pusher.protocol.hpack_prefix import Request, fixed_fields
from pusher.protocol.http2_answers import Answer, FateUnknown, NeverProcessed, Result
from pusher.state.breaker import Breaker
from shared.retry import RetryPolicy
from tests.support.http2_sink import Http2Sink, Ledger, http2_sink

pytestmark = [pytest.mark.trio, pytest.mark.real]

TOPIC = (("apns-topic", "org.example.mail"), ("apns-push-type", "alert"))
FIXED = fixed_fields("localhost", TOPIC)
BODY = b'{"aps":{"alert":{"title":"Some One","body":"' + b"x" * 200 + b'"},"badge":3}}'
SENDERS = 200
FAST_BACKOFF = RetryPolicy(0.01, 0.1, float("inf"))


def push(apns_id: str, body: bytes = BODY) -> Request:
    fields = (("apns-id", apns_id), ("x-length", str(len(body))), ("authorization", "bearer x"))
    return Request(f"/3/device/{apns_id}", body, FIXED, fields)


class Storm:
    """Sends pushes and keeps what became of each."""

    def __init__(self, sink: Http2Sink, settings: OriginSettings) -> None:
        self.sink = sink
        dial = dialer("localhost", sink.port, sink.context)
        self.origin = Origin("storm", dial, settings, breaker=Breaker(1000))
        self.results: dict[str, Result] = {}

    async def send(self, count: int, body: bytes = BODY) -> Ledger:
        """Send `count` pushes, 200 at a time, and return the service's ledger."""
        left = iter([str(uuid.uuid4()) for _ in range(count)])

        async def sender() -> None:
            for apns_id in left:
                self.results[apns_id] = await self.origin.request(push(apns_id, body))

        async with trio.open_nursery() as nursery:
            await nursery.start(self.origin.run)
            async with trio.open_nursery() as senders:
                for _ in range(SENDERS):
                    senders.start_soon(sender)
            nursery.cancel_scope.cancel()
        assert len(self.results) == count
        assert self.origin.unsettled == 0
        return await trio.to_thread.run_sync(self.sink.ledger)

    def with_status(self, status: int) -> set[str]:
        """Return which pushes were answered with `status`."""
        results = self.results.items()
        return {name for name, r in results if isinstance(r, Answer) and r.status == status}

    def of_kind(self, kind: type[FateUnknown] | type[NeverProcessed]) -> set[str]:
        """Return which pushes ended that way."""
        return {name for name, result in self.results.items() if isinstance(result, kind)}


def settings(connections: int = 1, deadline: float = 30) -> OriginSettings:
    silence = ConnectionSettings(busy_ping_seconds=1, pong_seconds=1)
    pool = PoolSettings(connections, backoff=FAST_BACKOFF, connection=silence)
    return OriginSettings(deadline_seconds=deadline, pool=pool)


@pytest.mark.parametrize("goes_twice", [False, True])
async def test_goaway_every_500_streams_loses_and_doubles_nothing(
    tmp_path: Path, goes_twice: bool
) -> None:
    """And the limit starts at 1 on each connection, as Apple's does."""
    play = {"goawayEvery": 500, "goawayTwice": goes_twice, "firstLimit": 1, "limit": 100}
    with http2_sink(tmp_path, **play) as sink:
        storm = Storm(sink, settings())
        ledger = await storm.send(20_000)
    assert storm.with_status(200) == ledger.accepted == set(storm.results)
    assert ledger.twice == set()
    assert ledger.counts["goaways"] >= 35
    assert storm.origin.counts["again-goaway"] > 0


async def test_everything_at_once_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """GOAWAY, a limit of 1, refusals, 429, 503 with Retry-After, late answers, three lines."""
    play = {
        "goawayEvery": 500,
        "goawayTwice": True,
        "firstLimit": 1,
        "limit": 80,
        "delay": 5,
        "refuseEvery": 31,
        "busyEvery": 67,
        "downEvery": 71,
        "checkBody": True,
    }
    with http2_sink(tmp_path, **play) as sink:
        storm = Storm(sink, settings(connections=3))
        ledger = await storm.send(20_000)
    accepted, busy, down = (storm.with_status(status) for status in (200, 429, 503))
    assert accepted == ledger.accepted
    assert ledger.twice == set()
    assert accepted | busy | down == set(storm.results)
    assert ledger.counts["statuses"] == {
        "200": len(accepted),
        "429": len(busy),
        "503": len(down),
    }
    waits = Counter(
        (r.status, r.headers["retry-after"], r.body)
        for r in storm.results.values()
        if isinstance(r, Answer) and r.status != 200
    )
    assert set(waits) == {
        (429, "3", b'{"reason":"TooManyRequests"}'),
        (503, "7", b'{"reason":"ServiceUnavailable"}'),
    }
    assert ledger.counts["refused"] == storm.origin.counts["again-refused-stream"] > 0


async def test_resets_black_holes_and_cuts_are_of_unknown_fate_and_not_repeated(
    tmp_path: Path,
) -> None:
    """Half of those were accepted: sending one again would have doubled it."""
    play = {"resetEvery": 97, "silentEvery": 211, "cutEvery": 1500, "goawayEvery": 700}
    with http2_sink(tmp_path, **play) as sink:
        storm = Storm(sink, settings(deadline=2))
        ledger = await storm.send(20_000)
    unknown, accepted = storm.of_kind(FateUnknown), storm.with_status(200)
    assert storm.of_kind(NeverProcessed) == set()
    assert accepted | unknown == set(storm.results)
    assert accepted <= ledger.accepted
    assert ledger.accepted - accepted <= unknown
    assert ledger.accepted & unknown  # so it matters
    assert ledger.twice == set()
    reasons = Counter(r.reason for r in storm.results.values() if isinstance(r, FateUnknown))
    assert {"reset-internal-error", "deadline", "closed"} <= set(reasons)
    assert reasons["reset-internal-error"] <= ledger.counts["reset"]


async def test_a_server_may_have_a_header_table_if_it_must(tmp_path: Path) -> None:
    """Should a real service dislike a size of 0: everything else stays the same, only slower."""
    with http2_sink(tmp_path, goawayEvery=300, busyEvery=50) as sink:
        storm = Storm(sink, OriginSettings(pool=PoolSettings(table_bytes=4096)))
        ledger = await storm.send(2000)
    assert storm.with_status(200) == ledger.accepted
    assert storm.with_status(200) | storm.with_status(429) == set(storm.results)
    assert all(isinstance(r, Answer) and "date" in r.headers for r in storm.results.values())


async def test_large_bodies_pass_through_small_windows(tmp_path: Path) -> None:
    with http2_sink(tmp_path, checkBody=True, window=1000) as sink:
        storm = Storm(sink, settings())
        ledger = await storm.send(1000, b"y" * 4096)
    assert storm.with_status(200) == ledger.accepted == set(storm.results)


async def test_a_stopped_service_is_found_out_and_left(tmp_path: Path) -> None:
    """A black hole of a whole machine: the process stands still, its sockets stay open."""
    with http2_sink(tmp_path) as sink:
        storm = Storm(sink, settings(deadline=20))
        async with trio.open_nursery() as nursery:
            await nursery.start(storm.origin.run)
            assert isinstance(await storm.origin.request(push("before")), Answer)
            with sink.stopped():
                with trio.fail_after(5):
                    result = await storm.origin.request(push("meanwhile"))
                assert result == FateUnknown("ping-timeout")
                nursery.start_soon(partial(storm.origin.request, push("after")))
                await trio.sleep(0.1)
            await storm.origin.drain(10)
            assert storm.origin.unsettled == 0
            nursery.cancel_scope.cancel()
        ledger = await trio.to_thread.run_sync(sink.ledger)
    assert {"before", "after"} <= ledger.accepted
    assert ledger.twice == set()
