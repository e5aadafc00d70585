"""The provider that is only HTTP: what it is sent, and what its answers mean."""

from __future__ import annotations

import json
from collections import deque
from datetime import UTC, datetime
from pathlib import Path

import pytest

from notifyd.sms import FateUnknown, Sent, SmsOutcome, SmsProvider, provider
from shared.outcome import Gone, Rejected, Retry, Unavailable
from shared.slow_sections import Sms
from tests.support.sms_far_end import FarEnd

pytestmark = pytest.mark.asyncio

TO, TEXT = "+15105550101", "Grüße\n2"


def over_http(
    url: str, token: Path | None = None, sender: str | None = "Mail", timeout: float = 5.0
) -> SmsProvider:
    made = provider(
        Sms(
            provider="http", base_url=url, auth_token_file=token, sender=sender,
            timeout_seconds=timeout,
        )
    )  # fmt: skip
    assert made is not None
    return made


async def send(far: FarEnd, key: str = "key", timeout: float = 5.0) -> SmsOutcome:
    made = over_http(f"{far.url}/sms", timeout=timeout)
    try:
        return await made.send(TO, TEXT, key)
    finally:
        await made.close()


async def test_one_object_says_all_and_the_token_comes_along(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    async with FarEnd() as far:
        made = over_http(f"{far.url}/v1/sms?x=y", tmp_path / "token")
        assert await made.send(TO, TEXT, "key") == Sent("SM" + "0" * 32, 1)
        await made.close()
        (request,) = far.requests
        assert (request.method, request.path, request.query) == ("POST", "/v1/sms", {"x": "y"})
        assert json.loads(request.body) == {"to": TO, "text": TEXT, "from": "Mail"}
        assert request.headers["authorization"] == "Bearer secret"
        assert request.headers["content-type"] == "application/json"


async def test_without_sender_and_token_neither_is_named() -> None:
    async with FarEnd() as far:
        made = over_http(far.url, sender=None)
        await made.send(TO, TEXT, "key")
        await made.close()
        assert json.loads(far.requests[0].body) == {"to": TO, "text": TEXT}
        assert "authorization" not in far.requests[0].headers


async def test_the_idempotency_key_is_the_jobs_and_names_nobody() -> None:
    async with FarEnd() as far:
        for key in ("alice@example.org:1", "alice@example.org:1", "alice@example.org:2"):
            await send(far, key)
        first, again, other = (request.headers["idempotency-key"] for request in far.requests)
        assert first == again != other
        assert "alice" not in first


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ("200", Sent("", None)),
        ("garbage status=202", Sent("", None)),
        ("204", Sent("", None)),
        ("400", Rejected("HTTP 400")),
        ("422", Rejected("HTTP 422")),
        ("410", Gone("HTTP 410")),
        ("401", Unavailable("HTTP 401")),
        ("403", Unavailable("HTTP 403")),
        ("404", Unavailable("HTTP 404")),
        ("405", Unavailable("HTTP 405")),
        ("302 location=http://127.0.0.1:1/", Unavailable("HTTP 302")),
        ("429 retry-after=5", Retry("HTTP 429", 5.0)),
        ("429 retry-after=Thu,_01_Jan_1970_00:00:00_GMT", Retry("HTTP 429", 0.0)),
        ("429 retry-after=Thu,_01_Jan_2970_00:00:00_GMT", Retry("HTTP 429", 3600.0)),
        ("408", Retry("HTTP 408", None)),
        ("503 retry-after=5", Retry("HTTP 503", 5.0)),
        ("503", FateUnknown("HTTP 503")),
        ("500", FateUnknown("HTTP 500")),
    ],
)
async def test_what_each_answer_means(script: str, outcome: SmsOutcome) -> None:
    async with FarEnd(script=deque([script])) as far:
        assert await send(far) == outcome
        assert len(far.requests) == 1


@pytest.mark.parametrize(
    "script", ["cut", "taken-then-cut", "black-hole", "half-an-answer", "slow"]
)
async def test_without_an_answer_the_fate_is_unknown(script: str) -> None:
    async with FarEnd(script=deque([script])) as far:
        assert isinstance(await send(far, timeout=0.4), FateUnknown)


async def test_what_cannot_be_reached_has_certainly_not_been_sent() -> None:
    async with FarEnd() as far:
        pass
    assert isinstance(await send(far), Unavailable)


async def test_a_server_that_went_away_between_two_sms_takes_the_next_when_it_is_back() -> None:
    far = FarEnd()
    async with far:
        made = over_http(far.url)
        assert isinstance(await made.send(TO, TEXT, "1"), Sent)
    assert isinstance(await made.send(TO, TEXT, "2"), Unavailable | FateUnknown)
    async with far:
        assert isinstance(await made.send(TO, TEXT, "3"), Sent)
        await made.close()


async def test_it_cannot_be_asked_later() -> None:
    made = over_http("http://127.0.0.1:1")
    assert not made.can_look_up
    assert await made.lookup(TO, TEXT, datetime.now(UTC)) == ()
    await made.close()
