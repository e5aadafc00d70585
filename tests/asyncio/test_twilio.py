"""What Twilio's answers mean: sent, certainly not sent, or unknown and then looked up."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from notifyd.sms import FateUnknown, Sent, SmsOutcome, SmsProvider, provider
from notifyd.twilio_client import _OUTCOMES
from shared.errors import ConfigError
from shared.outcome import Gone, Rejected, Retry, Unavailable
from shared.slow_sections import Sms
from tests.support.black_hole import BlackHole
from tests.support.sms_far_end import ACCOUNT, TOKEN, FarEnd

pytestmark = pytest.mark.asyncio

TO, FROM, SERVICE = "+15105550101", "+15105550199", "MG" + "1" * 32
TEXT = "Grüße, 10 € — [ok]"


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    return path


def twilio(token: Path, url: str, sender: str = FROM, timeout: float = 5.0) -> SmsProvider:
    made = provider(
        Sms(
            provider="twilio", base_url=url, account_sid=ACCOUNT, auth_token_file=token,
            sender=sender, timeout_seconds=timeout,
        )
    )  # fmt: skip
    assert made is not None
    return made


async def send(far: FarEnd, token: Path, sender: str = FROM, timeout: float = 5.0) -> SmsOutcome:
    made = twilio(token, far.url, sender, timeout)
    try:
        return await made.send(TO, TEXT, "key")
    finally:
        await made.close()


async def test_what_is_sent_arrives_once_with_the_receipt(token: Path) -> None:
    async with FarEnd() as far:
        assert await send(far, token) == Sent("SM" + "0" * 32, 1)
        (request,) = far.requests
        assert request.form == {"To": TO, "From": FROM, "Body": TEXT}
        assert request.path == f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json"
        assert [message.body for message in far.ledger] == [TEXT]


async def test_a_messaging_service_is_named_as_one(token: Path) -> None:
    async with FarEnd() as far:
        assert isinstance(await send(far, token, SERVICE), Sent)
        assert far.requests[0].form == {"To": TO, "MessagingServiceSid": SERVICE, "Body": TEXT}


async def test_a_path_in_the_base_url_is_kept(token: Path) -> None:
    async with FarEnd(script=deque(["500"])) as far:
        made = twilio(token, f"{far.url}/proxy/")
        await made.send(TO, TEXT, "key")
        await made.close()
        assert far.requests[0].path.startswith("/proxy/2010-04-01/Accounts/")


async def test_the_environment_does_not_say_where_to_send(
    token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("TWILIO_REGION", "ie1"), ("TWILIO_EDGE", "dublin"), ("HTTP_PROXY", "x:1")):
        monkeypatch.setenv(name, value)
    async with FarEnd() as far:
        assert isinstance(await send(far, token), Sent)


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ("21610", Gone("Twilio 21610: opted out")),
        ("21211", Rejected("Twilio 21211: number is not valid")),
        ("21614", Rejected("Twilio 21614: number takes no SMS")),
        ("29999", Rejected("Twilio 29999")),
        ("400", Rejected("HTTP 400")),
        ("garbage status=400", Rejected("HTTP 400")),
        ("20429 status=429 retry-after=7", Retry("Twilio 20429: too many at once", 7.0)),
        ("20429 status=429", Retry("Twilio 20429: too many at once", 10.0)),
        ("429 retry-after=3", Retry("HTTP 429", 3.0)),
        ("429 retry-after=999999999999", Retry("HTTP 429", 3600.0)),
        ("429 retry-after=soon", Retry("HTTP 429", None)),
        ("429", Retry("HTTP 429", None)),
        ("21611 status=429", Retry("Twilio 21611: the sender's queue is full", 60.0)),
        ("20003 status=401", Unavailable("Twilio 20003: credentials are refused")),
        ("401", Unavailable("HTTP 401")),
        ("403", Unavailable("HTTP 403")),
        ("404", Unavailable("HTTP 404")),
        ("20404 status=404", Unavailable("Twilio 20404: account is not found")),
        ("21606", Unavailable("Twilio 21606: sender cannot send SMS")),
        ("307 location=http://127.0.0.1:1/", Unavailable("HTTP 307")),
        ("503 retry-after=2", Retry("HTTP 503", 2.0)),
        ("503", FateUnknown("HTTP 503")),
        ("500", FateUnknown("HTTP 500")),
        ("502", FateUnknown("HTTP 502")),
        ("504", FateUnknown("HTTP 504")),
        ("21211 status=500", FateUnknown("HTTP 500")),
        ("garbage status=500", FateUnknown("HTTP 500")),
        ("garbage", FateUnknown("unreadable answer")),
        ("201", FateUnknown("answer without a SID")),
    ],
)
async def test_what_each_answer_means(token: Path, script: str, outcome: SmsOutcome) -> None:
    async with FarEnd(script=deque([script])) as far:
        assert await send(far, token) == outcome
        assert far.ledger == []
        assert len(far.requests) == 1, "nothing is sent twice"


async def test_every_known_code_has_a_reason_of_its_own_words() -> None:
    assert all(outcome.reason and "+" not in outcome.reason for outcome in _OUTCOMES.values())
    assert [code for code, each in _OUTCOMES.items() if isinstance(each, Gone)] == [21610]


@pytest.mark.parametrize(
    ("script", "taken"),
    [
        ("cut", 0),
        ("taken-then-cut", 1),
        ("black-hole", 0),
        ("taken-then-black-hole", 1),
        ("half-an-answer", 1),
        ("slow", 1),
    ],
)
async def test_without_an_answer_the_fate_is_unknown_until_it_is_looked_up(
    token: Path, script: str, taken: int
) -> None:
    since = datetime.now(UTC) - timedelta(seconds=5)
    async with FarEnd(script=deque([script])) as far:
        made = twilio(token, far.url, timeout=0.5)
        before = time.monotonic()
        assert isinstance(await made.send(TO, TEXT, "key"), FateUnknown)
        assert time.monotonic() - before < 2, "the time limit is one for all"
        found = await made.lookup(TO, TEXT, since)
        assert found == [Sent(message.sid, 1) for message in far.ledger]
        assert len(far.ledger) == taken
        await made.close()


async def test_what_cannot_be_reached_has_certainly_not_been_sent(token: Path) -> None:
    async with FarEnd() as far:
        pass
    assert await send(far, token) == Unavailable("cannot be reached: ConnectError")
    with BlackHole() as hole:
        made = twilio(token, f"http://127.0.0.1:{hole.port}", timeout=0.3)
        assert await made.send(TO, TEXT, "k") == Unavailable("cannot be reached: no answer in time")
        await made.close()
    made = twilio(token, "http://host.invalid")
    assert isinstance(await made.send(TO, TEXT, "k"), Unavailable)
    await made.close()


async def test_a_slow_name_server_does_not_make_it_unclear(
    token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_args: object, **_kwargs: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", never)
    made = twilio(token, "http://provider.test", timeout=0.2)
    assert isinstance(await made.send(TO, TEXT, "k"), Unavailable)
    await made.close()


async def test_cancelling_is_no_answer(token: Path) -> None:
    async with FarEnd(script=deque(["black-hole"])) as far:
        made = twilio(token, far.url)
        task = asyncio.create_task(made.send(TO, TEXT, "key"))
        await far.hanging.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await made.close()


async def test_many_at_once_keep_their_answers_apart(token: Path) -> None:
    scripts = ["ok", "21610", "500", "20429 status=429 retry-after=9", "21211"] * 8
    async with FarEnd(script=deque(scripts)) as far:
        made = twilio(token, far.url)
        outcomes = await asyncio.gather(*(made.send(TO, TEXT, str(n)) for n in range(40)))
        await made.close()
        assert [type(each) for each in outcomes].count(Sent) == len(far.ledger) == 8
        assert outcomes.count(Gone("Twilio 21610: opted out")) == 8
        assert outcomes.count(FateUnknown("HTTP 500")) == 8
        assert outcomes.count(Retry("Twilio 20429: too many at once", 9.0)) == 8


# --- looking up ----------------------------------------------------------------------------------


async def looked_up(far: FarEnd, token: Path, text: str = TEXT, sender: str = FROM) -> object:
    made = twilio(token, far.url, sender)
    try:
        return await made.lookup(TO, text, datetime.now(UTC) - timedelta(minutes=2))
    finally:
        await made.close()


async def test_a_look_up_finds_what_waits_to_be_sent_oldest_first(token: Path) -> None:
    async with FarEnd() as far:
        first, second = far.take(TO, TEXT, {"From": FROM}), far.take(TO, TEXT, {"From": FROM})
        assert await looked_up(far, token) == [Sent(first.sid, 1), Sent(second.sid, 1)]


async def test_a_look_up_finds_nothing_of_others(token: Path) -> None:
    async with FarEnd() as far:
        far.take("+15105550102", TEXT, {"From": FROM})
        far.take(TO, "other words", {"From": FROM})
        far.take(TO, TEXT, {"From": "+15105550198"})
        far.take(TO, TEXT, {"MessagingServiceSid": SERVICE})
        far.age = timedelta(minutes=10)
        far.take(TO, TEXT, {"From": FROM})
        assert await looked_up(far, token) == []
        assert await looked_up(far, token, sender=SERVICE) == [Sent(far.ledger[3].sid, 1)]


@pytest.mark.parametrize(("minutes", "ends"), [(0, False), (10, True)])
async def test_a_list_cut_short_does_not_say_that_it_was_never_sent(
    token: Path, minutes: int, ends: bool
) -> None:
    """Among more SMS to one number than a look-up reads, the one asked for may be beyond."""
    async with FarEnd(age=timedelta(minutes=minutes)) as far:
        for number in range(250):
            far.take(TO, f"number {number}", {"From": FROM})
        found = await looked_up(far, token)
        assert found == [] if ends else isinstance(found, Retry)


async def test_a_look_up_reads_all_pages(token: Path) -> None:
    async with FarEnd() as far:
        wanted = far.take(TO, TEXT, {"From": FROM})
        for number in range(120):
            far.take(TO, f"number {number}", {"From": FROM})
        assert await looked_up(far, token) == [Sent(wanted.sid, 1)]
        assert len(far.requests) == 3


@pytest.mark.parametrize("shown", ["Sent from your Twilio trial account - {}", "{} ", "{}\n"])
async def test_a_look_up_knows_the_words_that_twilio_has_changed(token: Path, shown: str) -> None:
    async with FarEnd(rewrite=lambda text: shown.format(text.replace("—", "-"))) as far:
        far.take(TO, TEXT, {"From": FROM})
        assert await looked_up(far, token) == [Sent(far.ledger[0].sid, 1)]


@pytest.mark.parametrize("script", ["500", "503", "401", "garbage status=200", "cut", "200"])
async def test_a_look_up_that_fails_does_not_say_that_there_is_nothing(
    token: Path, script: str
) -> None:
    async with FarEnd(script=deque([script])) as far:
        far.take(TO, TEXT, {"From": FROM})
        assert isinstance(await looked_up(far, token), Unavailable)


async def test_a_look_up_too_many_is_to_be_repeated_when_twilio_says(token: Path) -> None:
    async with FarEnd(script=deque(["20429 status=429 retry-after=4"])) as far:
        assert await looked_up(far, token) == Retry("HTTP 429", 4.0)


# --- set-up --------------------------------------------------------------------------------------


async def test_nothing_of_whom_it_is_about_is_logged(
    token: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with FarEnd(script=deque(["ok", "21610", "ok", "cut"])) as far:
        made = twilio(token, far.url)
        for _ in range(2):
            await made.send(TO, TEXT, "alice@example.org")
        await made.lookup(TO, TEXT, datetime.now(UTC))
        outcome = await made.send(TO, TEXT, "key")
        await made.close()
    logged = f"{caplog.text} {outcome!r}"
    assert [each for each in (TO, TO[1:], TEXT, "Gr", TOKEN, "alice") if each in logged] == []


@pytest.mark.parametrize("content", ["", " \n", "two\nlines", "t\u00f6ken"])
async def test_a_token_that_is_none_is_a_wrong_configuration(tmp_path: Path, content: str) -> None:
    path = tmp_path / "token"
    path.write_text(content, "utf-8")
    with pytest.raises(ConfigError, match=r"sms\.auth_token_file"):
        twilio(path, "http://127.0.0.1:1")


async def test_a_token_that_has_gone_is_a_wrong_configuration(token: Path) -> None:
    section = Sms(provider="http", base_url="http://127.0.0.1:1", auth_token_file=token)
    token.unlink()  # noqa: ASYNC240
    with pytest.raises(ConfigError, match=r"sms\.auth_token_file"):
        provider(section)


async def test_without_a_provider_there_is_none() -> None:
    assert provider(Sms()) is None
