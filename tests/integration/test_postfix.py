"""Mails through a real Postfix: each once and whole, and what its death and its silence cost."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path

import pytest
import trustme

from demo.waiting import wait_until
from notifyd.compose.headers import Letter, automatic_mail, message_id
from notifyd.compose.mail import Mail
from notifyd.smtp import Mailer, mailer
from shared.outcome import Delivered, Outcome, Rejected, Retry, Unavailable
from tests.support.postfix import PostfixServer

pytestmark = [pytest.mark.asyncio, pytest.mark.real]

RECOVERY_SECONDS = 5.0
#: What a machine that is busy with something else may add.
GRACE_SECONDS = 1.0
#: default_destination_concurrency_limit
POSTFIX_DELIVERIES = 20
SENDER = "calendar@example.org"


@pytest.fixture(scope="module")
def server() -> Iterator[PostfixServer]:
    refusing = (
        "inline:{{gone@example.org=550 5.1.1 no such user} {full@example.org=452 4.2.2 full}}"
    )
    with PostfixServer(
        {
            "smtpd_recipient_restrictions": f"check_recipient_access {refusing}, permit_mynetworks",
            "message_size_limit": "100000",
        }
    ) as server:
        yield server


@pytest.fixture
def postfix(server: PostfixServer) -> Iterator[PostfixServer]:
    """A server that runs, and that the test may kill and stop."""
    yield server
    if server.running:
        server.resume()
    else:
        server.start()


def mail(key: str, recipient: str = "alice@example.org", text: str = "") -> Mail:
    return automatic_mail(
        Letter(f"Erinnerung: Zahnärztin {key}", text or f"um 14 Uhr\n.\n{key}", "<p>14</p>", "de"),
        recipient,
        key,
        sender=SENDER,
        sender_name="Kalender",
        now=datetime.now(UTC),
    )


def of(postfix: PostfixServer, key: str) -> list[EmailMessage]:
    """What was delivered of the mail `key`."""
    wait_until(postfix.is_idle, "Postfix to deliver", 20)
    wanted = message_id(key, "example.org")
    return [found for found in postfix.mails() if found["Message-ID"] == wanted]


async def test_five_hundred_mails_over_four_connections_arrive_once_each_and_whole(
    postfix: PostfixServer,
) -> None:
    keys = [f"many-{number}" for number in range(500)]
    before = postfix.log.count(" connect from")
    mails = mailer(postfix.section(connections=4))
    outcomes = await asyncio.gather(*(mails.send(mail(key)) for key in keys))
    await mails.close()
    assert {type(outcome) for outcome in outcomes} == {Delivered}
    assert postfix.log.count(" connect from") - before == 4
    wait_until(postfix.is_idle, "Postfix to deliver", 60)
    wanted = {message_id(key, "example.org"): key for key in keys}
    found = [each for each in postfix.mails() if each["Message-ID"] in wanted]
    assert Counter(each["Message-ID"] for each in found) == dict.fromkeys(wanted, 1)
    for each in found:
        key = wanted[each["Message-ID"]]
        assert each["Subject"] == f"Erinnerung: Zahnärztin {key}"
        assert (each["Return-Path"], each["Delivered-To"]) == ("<>", "alice@example.org")
        body = each.get_body(("plain",))
        assert body is not None
        assert body.get_content() == f"um 14 Uhr\n.\n{key}"


async def test_the_receipt_is_what_the_server_said(postfix: PostfixServer) -> None:
    mails = mailer(postfix.section())
    outcome = await mails.send(mail("receipt"))
    await mails.close()
    assert isinstance(outcome, Delivered)
    queue_id = outcome.detail.removeprefix("2.0.0 Ok: queued as ")
    assert f"{queue_id}: message-id={message_id('receipt', 'example.org')}" in postfix.log


@pytest.mark.parametrize("transport", ["smtp", "sendmail"])
async def test_an_address_beyond_ascii_is_reached(
    postfix: PostfixServer, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAIL_CONFIG", str(postfix.config))
    mails = mailer(postfix.section(transport=transport))
    key = f"international-{transport}"
    assert isinstance(await mails.send(mail(key, "jörg@bücher.example")), Delivered)
    await mails.close()
    (found,) = of(postfix, key)
    assert "To: jörg@bücher.example\n" in found.as_bytes().decode()
    assert found["Subject"] == f"Erinnerung: Zahnärztin {key}"


async def test_a_refused_mail_costs_the_next_one_nothing(postfix: PostfixServer) -> None:
    before = postfix.log.count(" connect from")
    mails = mailer(postfix.section(connections=1))
    refused = [await mails.send(mail("gone", "gone@example.org")) for _ in range(3)]
    deferred = await mails.send(mail("full", "full@example.org"))
    big = await mails.send(mail("big", text="x" * 200_000))
    assert isinstance(await mails.send(mail("after")), Delivered)
    await mails.close()
    wanted = "550 at RCPT: 5.1.1 <(address)>: Recipient address rejected: no such user"
    assert refused == [Rejected(wanted)] * 3
    assert isinstance(deferred, Retry)
    assert deferred.reason.startswith("452 at RCPT: 4.2.2")
    assert big == Rejected("552 at DATA: 5.3.4 Error: message file too big")
    assert postfix.log.count(" connect from") - before == 1
    assert len(of(postfix, "after")) == 1


async def test_a_killed_postfix_is_used_again_as_soon_as_it_is_back(
    postfix: PostfixServer,
) -> None:
    mails = mailer(postfix.section(connections=2, timeout_seconds=5))
    first = await asyncio.gather(*(mails.send(mail(f"before-{n}")) for n in range(4)))
    assert {type(outcome) for outcome in first} == {Delivered}
    postfix.kill()
    assert isinstance(await mails.send(mail("during")), Unavailable)
    await asyncio.to_thread(postfix.start)
    back = time.monotonic()
    after = await asyncio.gather(*(mails.send(mail(f"after-{n}")) for n in range(4)))
    assert time.monotonic() - back < RECOVERY_SECONDS
    assert {type(outcome) for outcome in after} == {Delivered}
    await mails.close()


async def test_kept_connections_that_a_restart_ended_cost_no_mail(postfix: PostfixServer) -> None:
    mails = mailer(postfix.section(connections=3))
    await asyncio.gather(*(mails.send(mail(f"kept-{n}")) for n in range(6)))
    postfix.kill()  # nothing in the loop runs in between: it cannot have seen the ends
    postfix.start()
    outcomes = await asyncio.gather(*(mails.send(mail(f"fresh-{n}")) for n in range(6)))
    await mails.close()
    assert {type(outcome) for outcome in outcomes} == {Delivered}
    assert [len(of(postfix, f"fresh-{n}")) for n in range(6)] == [1] * 6


async def test_kill_9_under_load_loses_nothing_that_was_acknowledged(
    postfix: PostfixServer,
) -> None:
    mails = mailer(postfix.section(connections=4, timeout_seconds=5))
    outcomes: dict[str, list[Outcome]] = {}

    async def deliver(key: str) -> None:
        outcomes[key] = []
        while not outcomes[key] or not isinstance(outcomes[key][-1], Delivered):
            outcomes[key].append(await mails.send(mail(key)))
            if isinstance(outcomes[key][-1], Unavailable):
                await asyncio.sleep(0.2)

    async def murder() -> None:
        for _ in range(3):
            await asyncio.sleep(0.15)
            await asyncio.to_thread(postfix.kill)
            await asyncio.to_thread(postfix.start)

    keys = [f"load-{number}" for number in range(200)]
    async with asyncio.timeout(60):
        await asyncio.gather(murder(), *(deliver(key) for key in keys))
    await mails.close()
    wait_until(postfix.is_idle, "Postfix to deliver", 60)
    found = Counter(each["Message-ID"] for each in postfix.mails())
    times = [found[message_id(key, "example.org")] for key in keys]
    assert min(times) >= 1
    unsure = sum(isinstance(each, Retry) for sends in outcomes.values() for each in sends)
    # Postfix itself delivers again what it was just delivering: at most so many at a time.
    assert sum(times) - len(keys) <= unsure + 3 * POSTFIX_DELIVERIES


async def test_a_stopped_postfix_costs_all_who_wait_one_timeout(postfix: PostfixServer) -> None:
    mails = mailer(postfix.section(connections=2, timeout_seconds=1))
    await asyncio.gather(*(mails.send(mail(f"warm-{n}")) for n in range(2)))
    postfix.pause()
    began = time.monotonic()
    outcomes = await asyncio.gather(*(mails.send(mail(f"stopped-{n}")) for n in range(10)))
    assert time.monotonic() - began < 1 + GRACE_SECONDS
    assert {type(outcome) for outcome in outcomes} == {Unavailable}
    postfix.resume()
    assert isinstance(await mails.send(mail("resumed")), Delivered)
    await mails.close()


async def test_leaving_a_stopped_postfix_takes_no_time_to_speak_of(postfix: PostfixServer) -> None:
    mails = mailer(postfix.section(timeout_seconds=30))
    await mails.send(mail("leaving"))
    postfix.pause()
    sending = asyncio.create_task(mails.send(mail("left")))
    await asyncio.sleep(0)
    began = time.monotonic()
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    await mails.close()
    assert time.monotonic() - began < 1 + GRACE_SECONDS


async def test_starttls_with_a_certificate_we_can_check(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with PostfixServer(certificate=authority.issue_cert("127.0.0.1", "localhost")) as postfix:
        secure = mailer(postfix.section(tls="starttls", ca_file=tmp_path / "ca.pem"))
        doubting = mailer(postfix.section(tls="starttls"))
        open_ = mailer(postfix.section())
        outcomes = [await each.send(mail("tls")) for each in (secure, doubting, open_)]
        for each in (secure, doubting, open_):
            await each.close()
        (found,) = of(postfix, "tls")
    assert isinstance(outcomes[0], Delivered)
    assert isinstance(outcomes[1], Unavailable)
    assert "CERTIFICATE_VERIFY_FAILED" in outcomes[1].reason
    assert outcomes[2] == Unavailable("530 at MAIL: 5.7.0 Must issue a STARTTLS command first")
    assert "(using TLSv1.3 " in found["Received"]


async def test_postfixs_sendmail_takes_a_mail_without_a_sender(
    postfix: PostfixServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAIL_CONFIG", str(postfix.config))
    mails: Mailer = mailer(postfix.section(transport="sendmail"))
    assert isinstance(await mails.send(mail("program", text="a\n.\nb")), Delivered)
    await mails.close()
    (found,) = of(postfix, "program")
    assert (found["Return-Path"], found["Delivered-To"]) == ("<>", "alice@example.org")
    body = found.get_body(("plain",))
    assert body is not None
    assert body.get_content() == "a\n.\nb"


async def test_sendmail_takes_mails_while_postfix_is_down(
    postfix: PostfixServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAIL_CONFIG", str(postfix.config))
    mails = mailer(postfix.section(transport="sendmail"))
    postfix.kill()
    outcome = await mails.send(mail("spooled"))
    await mails.close()
    postfix.start()
    assert isinstance(outcome, Delivered)
    wait_until(lambda: len(of(postfix, "spooled")) == 1, "the spooled mail", 20)
