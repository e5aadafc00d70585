"""What answers of servers and programs mean, and what of them may be shown."""

from __future__ import annotations

import os
from email.message import EmailMessage

import pytest

from notifyd.compose.mail import Mail
from notifyd.compose.transfer import exit_outcome, refusal, said, transfer
from shared.errors import DecodeError
from shared.outcome import Delivered, Outcome, Rejected, Retry, Unavailable


@pytest.mark.parametrize(
    ("step", "code", "kind"),
    [
        ("MAIL", 421, Unavailable),
        ("DATA", 421, Unavailable),
        ("MAIL", 530, Unavailable),
        ("RCPT", 535, Unavailable),
        ("RCPT", 450, Retry),
        ("DATA", 452, Retry),
        ("RCPT", 550, Rejected),
        ("DATA", 554, Rejected),
        ("RCPT", 599, Rejected),
        ("RCPT", 354, Retry),
        ("RCPT", 600, Retry),
        ("DATA", -1, Retry),
    ],
)
def test_a_reply_code_has_its_outcome(step: str, code: int, kind: type[Outcome]) -> None:
    assert type(refusal(step, code, "so")) is kind


def test_a_refusal_names_step_code_and_words() -> None:
    assert refusal("RCPT", 550, "5.1.1 unknown") == Rejected("550 at RCPT: 5.1.1 unknown")
    assert refusal("RCPT", 550, "") == Rejected("550 at RCPT")


def test_only_the_end_of_a_mail_leaves_its_fate_unknown() -> None:
    assert refusal("DATA", 252, "maybe") == Retry("fate unknown: 252 at DATA: maybe")
    assert refusal("MAIL", 252, "maybe") == Retry("252 at MAIL: maybe")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2.0.0 Ok: queued as 4F00D", "2.0.0 Ok: queued as 4F00D"),
        ("one\r\ntwo\n\n three\t", "one two three"),
        ("\x1b[31mred\x00\x9b\u202e", "[31mred"),
        ("<alice@example.org>: unknown", "<(address)>: unknown"),
        ("to=jörg@bücher.example, no", "to=(address), no"),
        ('"a"@b.example', '"a"@b.example'),
        ("\udcff\udc80bytes", "bytes"),
        ("x" * 201, "x" * 199 + "…"),
        ("x" * 200, "x" * 200),
    ],
)
def test_what_was_said_is_one_short_line_without_addresses(text: str, shown: str) -> None:
    assert said(text) == shown


@pytest.mark.timeout(5)
def test_a_hostile_reply_costs_no_time() -> None:
    for text in ("a" * 10_000_000, "@" * 100_000, "a@" * 100_000, " " * 1_000_000):
        assert len(said(text)) <= 200


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (os.EX_OK, Delivered),
        (os.EX_USAGE, Rejected),
        (os.EX_DATAERR, Rejected),
        (os.EX_NOUSER, Rejected),
        (os.EX_NOHOST, Rejected),
        (os.EX_NOINPUT, Retry),
        (os.EX_UNAVAILABLE, Retry),
        (os.EX_SOFTWARE, Retry),
        (os.EX_OSERR, Unavailable),
        (os.EX_OSFILE, Unavailable),
        (os.EX_CANTCREAT, Unavailable),
        (os.EX_IOERR, Unavailable),
        (os.EX_TEMPFAIL, Retry),
        (os.EX_PROTOCOL, Retry),
        (os.EX_NOPERM, Unavailable),
        (os.EX_CONFIG, Unavailable),
        (1, Retry),
        (-9, Retry),
    ],
)
def test_an_exit_status_has_its_outcome(status: int, kind: type[Outcome]) -> None:
    assert type(exit_outcome(status, "")) is kind


def test_a_program_that_ends_by_a_signal_is_told_apart() -> None:
    assert exit_outcome(-9, "") == Retry("sendmail got signal 9")
    assert exit_outcome(75, "try\nagain\n") == Retry("sendmail exited with 75: try again")


def message(sender: str = "calendar@example.org") -> EmailMessage:
    written = EmailMessage()
    written["From"] = sender
    written["Subject"] = "Zahnärztin"
    written.set_content("Grüße\n.\n", cte="8bit")
    return written


def test_a_mail_is_written_in_ascii_with_the_line_ends_asked_for() -> None:
    smtp = transfer(Mail(message(), "", "alice@example.org"))
    assert smtp.content.isascii()
    assert smtp.content.count(b"\n") == smtp.content.count(b"\r\n") > 0
    program = transfer(Mail(message(), "", "alice@example.org"), linesep="\n")
    assert program.content.isascii()
    assert b"\r" not in program.content
    assert not smtp.is_international


@pytest.mark.parametrize(
    ("sender", "recipient", "from_"),
    [
        ("", "jörg@example.org", "calendar@example.org"),
        ("jörg@example.org", "alice@example.org", "calendar@example.org"),
        ("", "alice@example.org", "jörg@example.org"),
    ],
)
def test_any_address_beyond_ascii_makes_a_mail_international(
    sender: str, recipient: str, from_: str
) -> None:
    written = transfer(Mail(message(from_), sender, recipient))
    assert written.is_international
    assert "Subject: Zahnärztin\r\n".encode() in written.content


@pytest.mark.parametrize("place", ["sender", "recipient"])
@pytest.mark.parametrize(
    "address", ["a", "a@b c", "<a@b.example>", "-f@b.example\n", "a@b\r\nDATA"]
)
def test_what_is_no_address_is_refused_in_either_place(place: str, address: str) -> None:
    envelope = {"sender": "", "recipient": "alice@example.org", place: address}
    with pytest.raises(DecodeError, match="bad-recipient"):
        transfer(Mail(message(), **envelope))


def test_neither_shows_content_or_people() -> None:
    assert repr(transfer(Mail(message(), "", "alice@example.org"))) == (
        "Transfer(is_international=False)"
    )
