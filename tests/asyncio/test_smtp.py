"""What becomes of a mail for each way in which an SMTP server can fail; a server that does so."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import trustme

from notifyd.compose.headers import Letter, automatic_mail
from notifyd.compose.mail import Mail
from notifyd.smtp import SmtpMailer, mailer
from notifyd.smtp_connection import Login
from shared.errors import ConfigError
from shared.outcome import Delivered, Outcome, Rejected, Retry, Unavailable
from shared.slow_sections import Smtp
from tests.support.smtp_far_end import CUT, DEAF, RESET, STALL, FarEnd

pytestmark = pytest.mark.asyncio

TIMEOUT_SECONDS = 0.3
#: What a machine that is busy with something else may add.
GRACE_SECONDS = 1.5
TAKEN = Delivered("2.0.0 Ok: queued as 4F00D")


@pytest_asyncio.fixture
async def server() -> AsyncIterator[FarEnd]:
    async with FarEnd() as server:
        yield server


def section(server: FarEnd, **settings: Any) -> Smtp:
    return Smtp(port=server.port, **{"timeout_seconds": TIMEOUT_SECONDS, **settings})


@pytest_asyncio.fixture
async def mails(server: FarEnd) -> AsyncIterator[SmtpMailer]:
    """A mailer with two connections."""
    mails = SmtpMailer(Login(section(server, connections=2), None, None))
    yield mails
    await mails.close()


def mail(
    key: str = "one",
    recipient: str = "alice@example.org",
    text: str = "Bis gleich",
    sender: str = "calendar@example.org",
) -> Mail:
    letter = Letter(f"Zahnärztin {key}", text, f"<p>{text}</p>", "de")
    now = datetime(2026, 11, 21, 7, tzinfo=UTC)
    return automatic_mail(letter, recipient, key, sender=sender, sender_name="Kalender", now=now)


def subject(content: bytes) -> str:
    return str(message_from_bytes(content, policy=policy.default)["Subject"])


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# --- outcomes ------------------------------------------------------------------------------------

SERVICE_FAULTS = [
    ("GREETING", "421 4.3.2 shutting down", "server refuses us: 421 4.3.2 shutting down"),
    ("GREETING", "554 5.7.1 no service for you", "server refuses us: 554 5.7.1 no service for you"),
    ("GREETING", "hello", "server refuses us: -1 Malformed SMTP response line: hello"),
    ("GREETING", CUT, "no connection: Error connecting to 127.0.0.1"),
    ("GREETING", STALL, "no connection within 0.3 s"),
    ("EHLO", "421 4.3.2 shutting down", "server refuses us: 421 4.3.2 shutting down"),
    ("EHLO", "550 5.7.1 go away", "server refuses us: 550 5.7.1 go away"),
    ("EHLO", CUT, "no connection: "),
    ("EHLO", STALL, "no connection within 0.3 s"),
    ("MAIL", "421 4.3.2 shutting down", "421 at MAIL: 4.3.2 shutting down"),
    ("MAIL", "451 4.3.0 try later", "451 at MAIL: 4.3.0 try later"),
    ("MAIL", "452 4.3.1 disk full", "452 at MAIL: 4.3.1 disk full"),
    ("RCPT", "421 4.3.2 shutting down", "421 at RCPT: 4.3.2 shutting down"),
    ("DATA", "421 4.3.2 shutting down", "421 at DATA: 4.3.2 shutting down"),
    ("END", "421 4.3.2 shutting down", "421 at DATA: 4.3.2 shutting down"),
    ("MAIL", "530 5.7.0 Authentication required", "530 at MAIL: 5.7.0 Authentication required"),
    ("MAIL", "530 5.7.0 Must issue a STARTTLS command first", "530 at MAIL: 5.7.0 Must issue"),
    ("RCPT", "530 5.7.0 Authentication required", "530 at RCPT: 5.7.0 Authentication required"),
]
DEFERRALS = [
    ("MAIL", "451 4.7.1 not from you now", "451 at MAIL: 4.7.1 not from you now"),
    ("RCPT", "450 4.2.0 greylisted", "450 at RCPT: 4.2.0 greylisted"),
    ("RCPT", "452-4.2.2 mailbox\r\n452 4.2.2 full", "452 at RCPT: 4.2.2 mailbox 4.2.2 full"),
    ("RCPT", "450", "450 at RCPT"),
    ("RCPT", "354 what", "354 at RCPT: what"),
    ("DATA", "451 4.3.0 try later", "451 at DATA: 4.3.0 try later"),
    ("END", "451 4.7.1 scanner down", "451 at DATA: 4.7.1 scanner down"),
    ("MAIL", STALL, "no answer in time at MAIL"),
    ("RCPT", STALL, "no answer in time at RCPT"),
    ("MAIL", CUT, "connection lost at MAIL"),
    ("RCPT", CUT, "connection lost at RCPT"),
    ("RCPT", RESET, "connection lost at RCPT"),
]
UNSURE = [
    ("DATA", STALL, "fate unknown: no answer in time at DATA"),
    ("DATA", CUT, "fate unknown: connection lost at DATA"),
    ("CONTENT", STALL, "fate unknown: no answer in time at DATA"),
    ("CONTENT", CUT, "fate unknown: connection lost at DATA"),
    ("CONTENT", RESET, "fate unknown: connection lost at DATA"),
    ("END", STALL, "fate unknown: no answer in time at DATA"),
    ("END", CUT, "fate unknown: connection lost at DATA"),
    ("END", RESET, "fate unknown: connection lost at DATA"),
    ("END", "well", "fate unknown: -1 at DATA: Malformed SMTP response line: well"),
]
REFUSALS = [
    ("MAIL", "550 5.7.1 not from you", "550 at MAIL: 5.7.1 not from you"),
    ("MAIL", "552 5.3.4 too big", "552 at MAIL: 5.3.4 too big"),
    ("RCPT", "550 5.1.1 unknown", "550 at RCPT: 5.1.1 unknown"),
    ("RCPT", "551 5.1.6 moved", "551 at RCPT: 5.1.6 moved"),
    ("RCPT", "553 5.1.3 bad", "553 at RCPT: 5.1.3 bad"),
    ("DATA", "554 5.5.1 no valid recipients", "554 at DATA: 5.5.1 no valid recipients"),
    ("END", "550 5.7.1 spam", "550 at DATA: 5.7.1 spam"),
    ("END", "552 5.3.4 too big", "552 at DATA: 5.3.4 too big"),
    ("END", "554 5.6.0 bad content", "554 at DATA: 5.6.0 bad content"),
]
FAULTS = [
    *((Unavailable, *fault) for fault in SERVICE_FAULTS),
    *((Retry, *fault) for fault in [*DEFERRALS, *UNSURE]),
    *((Rejected, *fault) for fault in REFUSALS),
]


@pytest.mark.parametrize(("kind", "step", "answer", "reason"), FAULTS)
async def test_each_fault_has_its_outcome_in_time_and_the_next_mail_goes(
    server: FarEnd, mails: SmtpMailer, kind: type[Outcome], step: str, answer: str, reason: str
) -> None:
    server.answers[step] = [answer]
    began = time.monotonic()
    outcome = await mails.send(mail())
    assert time.monotonic() - began < TIMEOUT_SECONDS + GRACE_SECONDS
    assert type(outcome) is kind
    assert not isinstance(outcome, Delivered)
    assert outcome.reason.startswith(reason)
    assert await mails.send(mail("next")) == TAKEN
    assert subject(server.contents[-1]) == "Zahnärztin next"


STALE = [
    ("MAIL", "421 4.4.2 idle too long"),
    ("MAIL", CUT),
    ("MAIL", RESET),
]


@pytest.mark.parametrize(("step", "answer"), STALE)
async def test_a_kept_connection_that_has_ended_costs_the_mail_nothing(
    server: FarEnd, mails: SmtpMailer, step: str, answer: str
) -> None:
    assert await mails.send(mail("first")) == TAKEN
    server.answers[step] = [answer]
    assert await mails.send(mail("second")) == TAKEN
    assert (server.connections, len(server.contents)) == (2, 2)


async def test_a_kept_connection_that_was_seen_to_end_is_not_tried(
    server: FarEnd, mails: SmtpMailer
) -> None:
    await asyncio.gather(mails.send(mail("a")), mails.send(mail("b")))
    await server.cut_all()
    assert await mails.send(mail("c")) == TAKEN
    assert (server.connections, server.reached["MAIL"]) == (3, 3)


@pytest.mark.parametrize("answer", ["421 4.4.2 idle", "500 5.5.1 what?", CUT])
async def test_a_connection_that_cannot_be_reset_is_replaced(
    server: FarEnd, mails: SmtpMailer, answer: str
) -> None:
    server.answers["RCPT"] = ["550 5.1.1 unknown"]
    assert isinstance(await mails.send(mail("first")), Rejected)
    server.answers["RSET"] = [answer]
    assert await mails.send(mail("second")) == TAKEN
    assert server.connections == 2


async def test_a_kept_connection_that_goes_silent_means_that_the_server_is_down(
    server: FarEnd, mails: SmtpMailer
) -> None:
    assert await mails.send(mail("first")) == TAKEN
    server.answers["MAIL"] = [STALL]
    assert await mails.send(mail("second")) == Unavailable("no answer in time at MAIL")


@pytest.mark.parametrize("recipient", ["alice@example.org", "jörg@example.org"])
async def test_a_server_that_leaves_with_its_first_answer_buries_no_mail(
    server: FarEnd, mails: SmtpMailer, recipient: str
) -> None:
    for _ in range(20):
        server.answers["EHLO"] = [f"250-far.example.org\r\n250 SMTPUTF8{CUT}"]
        assert isinstance(await mails.send(mail(recipient=recipient)), Unavailable | Retry)
    assert await mails.send(mail(recipient=recipient)) == TAKEN


@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA"])
async def test_a_server_that_leaves_behind_a_good_answer_buries_no_mail(
    server: FarEnd, mails: SmtpMailer, step: str
) -> None:
    server.answers[step] = [f"{354 if step == 'DATA' else 250} go on{CUT}"]
    assert isinstance(await mails.send(mail()), Retry)
    assert await mails.send(mail()) == TAKEN


async def test_a_mail_taken_with_a_last_word_is_delivered(
    server: FarEnd, mails: SmtpMailer
) -> None:
    server.answers["END"] = [f"250 2.0.0 Ok: queued as 4F00D{CUT}"]
    assert [await mails.send(mail()), await mails.send(mail())] == [TAKEN] * 2
    assert server.connections == 2


async def test_nobody_listening_is_nobodys_fault() -> None:
    unheard = FarEnd()
    mails = mailer(section(unheard))
    outcome = await mails.send(mail())
    assert isinstance(outcome, Unavailable)
    assert "Connect call failed" in outcome.reason
    async with unheard:
        assert await mails.send(mail()) == TAKEN
        await mails.close()


async def test_a_reason_names_no_address_and_is_one_short_line(
    server: FarEnd, mails: SmtpMailer
) -> None:
    server.answers["RCPT"] = [
        "550-5.1.1 <alice@example.org>: unknown\r\n550-5.1.1 \x1b[31m\u202eat\xa0here\r\n550 "
        + "x" * 400
    ]
    outcome = await mails.send(mail())
    assert isinstance(outcome, Rejected)
    assert outcome.reason.startswith("550 at RCPT: 5.1.1 <(address)>: unknown 5.1.1 [31mat here xx")
    assert outcome.reason.endswith("x…")
    assert len(outcome.reason) < 220


# --- connections ---------------------------------------------------------------------------------


async def test_connections_are_reused_and_never_more_than_configured(
    server: FarEnd, mails: SmtpMailer
) -> None:
    outcomes = await asyncio.gather(*(mails.send(mail(f"{n}")) for n in range(40)))
    assert outcomes == [TAKEN] * 40
    assert (server.connections, server.reached["EHLO"], len(server.contents)) == (2, 2, 40)
    assert server.reached["NOOP"] + server.reached["RSET"] == 0


async def test_a_refused_mail_leaves_a_clean_connection(server: FarEnd, mails: SmtpMailer) -> None:
    server.answers["RCPT"] = ["550 5.1.1 unknown"]
    await mails.send(mail("first"))
    assert await mails.send(mail("second")) == TAKEN
    assert server.connections == 1
    steps = [command[:4] for command in server.commands]
    assert steps == ["EHLO", "MAIL", "RCPT", "RSET", "MAIL", "RCPT", "DATA"]


async def test_who_waits_longest_is_next(server: FarEnd) -> None:
    mails = mailer(section(server, connections=1))
    await asyncio.gather(*(mails.send(mail(recipient=f"{n}@example.org")) for n in range(9)))
    await mails.close()
    assert server.parameters("RCPT") == [f"TO:<{n}@example.org>" for n in range(9)]


async def test_a_connection_nobody_needs_is_left_in_good_order(server: FarEnd) -> None:
    mails = SmtpMailer(Login(section(server), None, None), idle_seconds=0.05)
    await mails.send(mail())
    await server.until_empty()
    assert server.commands[-1] == "QUIT"
    assert await mails.send(mail()) == TAKEN
    assert server.connections == 2
    await mails.close()


async def test_a_server_that_wants_fewer_connections_is_served_with_fewer(server: FarEnd) -> None:
    server.most = 2
    mails = mailer(section(server, connections=6))
    outcomes = await asyncio.gather(*(mails.send(mail(f"{n}")) for n in range(30)))
    assert outcomes == [TAKEN] * 30
    assert server.connections == 6
    more = await asyncio.gather(*(mails.send(mail(f"{n}")) for n in range(30)))
    assert more == [TAKEN] * 30
    assert server.connections == 6
    await mails.close()


async def test_a_server_that_wanted_fewer_connections_is_asked_again(server: FarEnd) -> None:
    server.most = 1
    login = Login(section(server, connections=2), None, None)
    mails = SmtpMailer(login, crowded_seconds=0.05)
    await asyncio.gather(*(mails.send(mail(f"{n}")) for n in range(10)))
    server.most = 2
    async with asyncio.timeout(10):
        while server.open_connections < 2:
            await asyncio.gather(*(mails.send(mail(f"{n}")) for n in range(10)))
    await mails.close()


async def test_a_server_that_wants_nobody_is_down_and_all_connections_come_back(
    server: FarEnd, mails: SmtpMailer
) -> None:
    server.most = 0
    outcomes = await asyncio.gather(*(mails.send(mail(f"{n}")) for n in range(10)))
    assert {type(outcome) for outcome in outcomes} == {Unavailable}
    server.most = 10
    await asyncio.gather(*(mails.send(mail(f"{n}")) for n in range(10)))
    assert server.open_connections == 2


async def test_a_silent_server_costs_all_who_wait_one_timeout(
    server: FarEnd, mails: SmtpMailer
) -> None:
    server.always["GREETING"] = STALL
    began = time.monotonic()
    outcomes = await asyncio.gather(*(mails.send(mail(f"{n}")) for n in range(20)))
    assert time.monotonic() - began < TIMEOUT_SECONDS + GRACE_SECONDS
    assert set(outcomes) == {Unavailable("no connection within 0.3 s")}
    assert server.connections == 2


async def test_a_stalled_mail_holds_up_no_other(server: FarEnd) -> None:
    mails = mailer(section(server, connections=2, timeout_seconds=30))
    server.answers["RCPT"] = [STALL]
    stalled = asyncio.create_task(mails.send(mail("stalled")))
    await server.until("RCPT")
    assert await asyncio.gather(*(mails.send(mail(f"{n}")) for n in range(5))) == [TAKEN] * 5
    assert not stalled.done()
    await mails.close()
    assert isinstance(await stalled, Retry)


# --- cancelling and closing ----------------------------------------------------------------------


@pytest.mark.parametrize("step", ["GREETING", "EHLO", "MAIL", "RCPT", "DATA", "CONTENT", "END"])
async def test_a_cancelled_mail_takes_its_connection_with_it(server: FarEnd, step: str) -> None:
    mails = mailer(section(server, connections=1, timeout_seconds=30))
    server.answers[step] = [STALL]
    sending = asyncio.create_task(mails.send(mail("cut", text="x" * 100_000)))
    await server.until(step)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await server.until_empty()
    assert await mails.send(mail("whole")) == TAKEN
    assert (server.connections, len(server.contents)) == (2, 1)
    assert subject(server.contents[0]) == "Zahnärztin whole"
    await mails.close()


@pytest.mark.parametrize("is_cancelled", [True, False])
async def test_a_server_that_does_not_read_keeps_no_connection(
    server: FarEnd, is_cancelled: bool
) -> None:
    mails = mailer(section(server, timeout_seconds=30 if is_cancelled else 2))
    server.answers["CONTENT"] = [DEAF]
    big = mail("big", text="x" * 6_000_000)
    before = open_files()
    sending = asyncio.create_task(mails.send(big))
    await server.until("CONTENT")
    if is_cancelled:
        sending.cancel()
    await asyncio.wait([sending])
    await mails.close()
    # The far end's side is left: what could not be sent is not waited for.
    assert open_files() == before + 1


async def test_cancelling_a_waiting_mail_takes_nothing_from_the_others(server: FarEnd) -> None:
    mails = mailer(section(server, connections=1))
    sendings = [asyncio.create_task(mails.send(mail(f"{n}"))) for n in range(10)]
    await server.until("MAIL")
    for sending in sendings[1::2]:
        sending.cancel()
    outcomes = await asyncio.gather(*sendings, return_exceptions=True)
    assert outcomes[::2] == [TAKEN] * 5
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[1::2])
    assert (server.connections, len(server.contents)) == (1, 5)
    await mails.close()


async def test_closing_says_goodbye_on_kept_connections(server: FarEnd) -> None:
    mails = mailer(section(server, connections=2))
    await asyncio.gather(mails.send(mail("a")), mails.send(mail("b")))
    await mails.close()
    await server.until_empty()
    assert server.commands.count("QUIT") == 2
    assert await mails.send(mail("c")) == Unavailable("closed")
    assert server.connections == 2


async def test_closing_does_not_wait_for_a_server_that_is_silent(server: FarEnd) -> None:
    mails = mailer(section(server, timeout_seconds=30))
    await mails.send(mail())
    server.always["QUIT"] = STALL
    began = time.monotonic()
    await mails.close()
    assert time.monotonic() - began < 1 + GRACE_SECONDS
    await server.until_empty()


# --- what is said --------------------------------------------------------------------------------


async def test_lines_end_with_crlf_and_dots_are_kept(server: FarEnd, mails: SmtpMailer) -> None:
    message = EmailMessage()
    message["From"] = "calendar@example.org"
    message.set_content(".\n..\nend.\n.last\n", cte="7bit")
    assert await mails.send(Mail(message, "", "alice@example.org")) == TAKEN
    (content,) = server.contents
    assert content.endswith(b"\r\n\r\n.\r\n..\r\nend.\r\n.last\r\n")
    assert content.count(b"\n") == content.count(b"\r\n")
    assert content.isascii()
    assert server.parameters("MAIL") == ["FROM:<>"]


@pytest.mark.parametrize("recipient", ["jörg@example.org", "joerg@bücher.example"])
async def test_an_address_beyond_ascii_needs_smtputf8(
    server: FarEnd, mails: SmtpMailer, recipient: str
) -> None:
    assert await mails.send(mail(recipient=recipient)) == TAKEN
    assert server.parameters("MAIL") == ["FROM:<> SMTPUTF8"]
    assert server.parameters("RCPT") == [f"TO:<{recipient}>"]
    assert f"\r\nTo: {recipient}\r\n".encode() in server.contents[0]


async def test_a_server_without_smtputf8_gets_no_such_mail_but_others(
    server: FarEnd, mails: SmtpMailer
) -> None:
    server.extensions = ["PIPELINING"]
    outcome = await mails.send(mail(recipient="jörg@example.org"))
    assert outcome == Rejected("no SMTPUTF8 at the server")
    assert await mails.send(mail()) == TAKEN
    assert server.connections == 1
    assert server.contents[0].isascii()


@pytest.mark.parametrize(
    "recipient", ["", "alice", "a b@example.org", "a@b.example>\r\nRCPT TO:<c@d.example", "<>"]
)
async def test_what_is_no_address_never_reaches_the_server(
    server: FarEnd, mails: SmtpMailer, recipient: str
) -> None:
    bad = Mail(mail().message, "", recipient)
    assert await mails.send(bad) == Rejected("bad-recipient")
    assert server.connections == 0


async def test_a_sender_goes_into_the_envelope(server: FarEnd, mails: SmtpMailer) -> None:
    await mails.send(Mail(mail().message, "bounces@example.org", "alice@example.org"))
    assert server.parameters("MAIL") == ["FROM:<bounces@example.org>"]
    (name,) = server.parameters("EHLO")
    assert name


async def test_we_call_ourselves_what_is_configured(server: FarEnd) -> None:
    section = Smtp(port=server.port, hello_name="push.example.org")
    mails = SmtpMailer(Login(section, None, None))
    await mails.send(mail())
    await mails.close()
    assert server.parameters("EHLO") == ["push.example.org"]


# --- TLS and login -------------------------------------------------------------------------------


class Certificates:
    """An authority, a good certificate of it, and one for another host."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.ca_file = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(str(self.ca_file))

    def context(self, host: str) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.authority.issue_cert(host).configure_cert(context)
        return context


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text("sésame\n")
    return path


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_tls_carries_login_and_mails(
    certificates: Certificates, password_file: Path, tls: str
) -> None:
    server = FarEnd((*("8BITMIME", "STARTTLS"), "AUTH PLAIN"))
    server.context, server.is_implicit = certificates.context("127.0.0.1"), tls == "implicit"
    login = {"user": "notifyd", "password_file": password_file}
    async with server:
        mails = mailer(section(server, tls=tls, ca_file=certificates.ca_file, **login))
        assert [await mails.send(mail(f"{n}")) for n in range(3)] == [TAKEN] * 3
        await mails.close()
        assert server.connections == 1
        assert server.parameters("AUTH") == ["PLAIN AG5vdGlmeWQAc8Opc2FtZQ=="]
        before_tls = server.commands.index("STARTTLS") if tls == "starttls" else 0
        assert "AUTH" not in "".join(server.commands[:before_tls])


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
@pytest.mark.parametrize(
    ("host", "trusted"), [("mx.example.net", True), ("127.0.0.1", False)], ids=["name", "issuer"]
)
async def test_a_certificate_that_proves_nothing_gets_no_mail(
    certificates: Certificates, password_file: Path, tls: str, host: str, trusted: bool
) -> None:
    server = FarEnd(("STARTTLS", "AUTH PLAIN"))
    server.context, server.is_implicit = certificates.context(host), tls == "implicit"
    ca_file = certificates.ca_file if trusted else None
    async with server:
        mails = mailer(
            section(server, tls=tls, ca_file=ca_file, user="u", password_file=password_file)
        )
        outcome = await mails.send(mail())
        await mails.close()
        await server.until_empty()
    assert isinstance(outcome, Unavailable)
    assert "certificate verify failed" in outcome.reason
    assert not server.reached["AUTH"] + server.reached["MAIL"]


@pytest.mark.parametrize(
    ("extensions", "answer"),
    [(("8BITMIME",), ""), (("STARTTLS",), "454 4.7.0 not now"), (("STARTTLS",), STALL)],
    ids=["not offered", "refused", "stalled"],
)
async def test_starttls_is_never_done_without(
    certificates: Certificates, extensions: tuple[str, ...], answer: str
) -> None:
    async with FarEnd(extensions) as server:
        if answer:
            server.always["STARTTLS"] = answer
        mails = mailer(section(server, tls="starttls", ca_file=certificates.ca_file))
        outcome = await mails.send(mail())
        await mails.close()
        assert isinstance(outcome, Unavailable)
        assert not server.reached["MAIL"]


async def test_a_tls_handshake_that_stalls_ends_in_time(certificates: Certificates) -> None:
    async with FarEnd() as server:  # says its greeting in clear, which is no handshake: then waits
        server.always["GREETING"] = STALL
        mails = mailer(section(server, tls="implicit", ca_file=certificates.ca_file))
        began = time.monotonic()
        assert isinstance(await mails.send(mail()), Unavailable)
        assert time.monotonic() - began < TIMEOUT_SECONDS + GRACE_SECONDS
        await mails.close()
        await server.until_empty()


@pytest.mark.parametrize(
    ("extensions", "answer", "reason"),
    [
        ("AUTH PLAIN", "535 5.7.8 bad credentials", "login refused: 535 5.7.8 bad credentials"),
        ("AUTH PLAIN", "454 4.7.0 not now", "login refused: 454 4.7.0 not now"),
        ("AUTH PLAIN", CUT, "no connection: "),
        ("AUTH PLAIN", STALL, "no connection within 0.3 s"),
        ("AUTH CRAM-MD5", "334 !not base64", "login refused: 334 Invalid"),
        ("AUTH GSSAPI", "", "no connection: No suitable authentication method found."),
        ("8BITMIME", "", "no connection: The SMTP AUTH extension is not supported"),
    ],
)
async def test_a_login_that_fails_is_no_mails_fault(
    password_file: Path, extensions: str, answer: str, reason: str
) -> None:
    async with FarEnd((extensions,)) as server:
        if answer:
            server.always["AUTH"] = answer
        mails = mailer(section(server, user="notifyd", password_file=password_file))
        outcome = await mails.send(mail())
        assert isinstance(outcome, Unavailable)
        assert outcome.reason.startswith(reason)
        assert "sésame" not in outcome.reason
        server.always.pop("AUTH", None)
        server.extensions = ["AUTH PLAIN LOGIN"]
        assert await mails.send(mail()) == TAKEN
        await mails.close()


async def test_secrets_that_cannot_be_read_are_told_at_start(tmp_path: Path) -> None:
    empty, broken = tmp_path / "empty", tmp_path / "broken"
    empty.write_text("\n")
    broken.write_text("no certificate")
    login = {"user": "u"}
    for settings, problem in [
        ({"password_file": empty, **login}, "smtp.password_file: "),
        ({"password_file": tmp_path, **login}, "smtp.password_file: "),
        ({"tls": "starttls", "ca_file": broken}, "smtp.ca_file: "),
        ({"transport": "sendmail", "sendmail": tmp_path / "none"}, "smtp.sendmail: "),
    ]:
        with pytest.raises(ConfigError) as caught:
            mailer(Smtp.model_validate(settings))
        (told,) = caught.value.problems
        assert told.startswith(problem)


async def test_a_login_shows_no_password(password_file: Path) -> None:
    settings = Smtp(user="u", password_file=password_file)
    assert "sésame" not in repr(Login(settings, "sésame", None))
