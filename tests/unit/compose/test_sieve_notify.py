"""What a script's notification becomes: a mail by RFC 5436, an SMS, or a named reason."""

from __future__ import annotations

import email
import email.policy
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifyd.compose.mail import Mail
from notifyd.compose.sieve_notify import (
    SmsText,
    compose_sieve_mail,
    compose_sieve_sms,
    e164,
    unsupported_reason,
)
from pusher.protocol.framing import StreamFraming
from pusher.protocol.normal import sieve_jobs, sieve_notify
from pusher.protocol.notification import Notification, decode_datagram
from shared.errors import DecodeError
from shared.events import SieveNotify

DATA = Path(__file__).parents[2] / "data"
CAPTURES = sorted((DATA / "mboxevents").glob("*-SIEVE.d*"))
SPOOLED = (DATA / "sieve" / "spooled.eml").read_bytes()
DEFAULT = 'Jürgen Müller <juergen@remote.test>: Grüße "x"'
SENDER, OWNER = "notify@example.org", "alice@example.org"


def asked(
    method: str = "mailto", message: str = "Hello", priority: str = "normal", **parameters: str
) -> SieveNotify:
    names = {name.replace("_", "-"): value for name, value in parameters.items()}
    return SieveNotify(
        account="alice", method=method, message=message, priority=priority, parameters=names
    )


def mail_of(
    request: SieveNotify,
    recipient: str = "alice@phone.test",
    original: bytes | None = SPOOLED,
    sender: str = SENDER,
    owner: str = OWNER,
    key: str = "key",
) -> Mail:
    return compose_sieve_mail(
        request,
        recipient,
        original,
        key,
        sender=sender,
        sender_name="Mail notifications",
        owner_address=owner,
        now=datetime(2026, 11, 24, 9, 0, tzinfo=UTC),
    )


def sms_of(
    request: SieveNotify, recipient: str = "+15105550101", original: bytes | None = SPOOLED
) -> SmsText:
    return compose_sieve_sms(request, recipient, original, max_segments=2, transliterate=True)


def read(mail: Mail) -> EmailMessage:
    """The mail as its reader gets it, over the wire and back."""
    raw = mail.message.as_bytes(policy=email.policy.SMTP)
    raw.decode("ascii")
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    return email.message_from_bytes(raw, policy=email.policy.default)


def text(mail: Mail) -> str:
    return str(read(mail).get_content()).replace("\r\n", "\n").strip()


def request_in(path: Path) -> Notification:
    if path.suffix == ".dgram":
        return decode_datagram(path.read_bytes())
    (item,) = StreamFraming().feed(path.read_bytes())
    assert isinstance(item, Notification)
    return item


#: Notification in the captures, by its name there: what becomes of its jobs.
OUTCOMES = {
    "enotify-cyrus-notifier": ["unknown-method"],
    "enotify-from-options": ["alice@phone.test"],
    "enotify-https": ["unknown-method"],
    "enotify-mailto": ["alice@phone.test"],
    "enotify-nomessage": ["alice@phone.test"],
    "enotify-sms": ["+15105550101", "+15105550102"],
    "enotify-tel": ["+14085551212"],
    "enotify-two": ["a@phone.test"],
    "enotify-xmpp": ["unknown-method"],
    "legacy-denotify": ["a@phone.test"],
    "legacy-notify-default": ["unknown-method"],
    "legacy-notify-full": ["alice@phone.test", "bob@phone.test"],
    "notify-discard": ["alice@phone.test"],
}


def outcome(request: SieveNotify) -> str:
    """The receiver of a valid mail or SMS, or the reason why there is none."""
    recipient = request.recipients[0] if request.recipients else ""
    try:
        if request.method == "mailto":
            mail = mail_of(request, recipient)
            assert read(mail)["Subject"]
            assert text(mail)
            return mail.recipient
        sms = sms_of(request, recipient)
        assert sms.text
        assert 1 <= sms.segments <= 2
        return sms.number
    except DecodeError as error:
        return error.reason


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: str(path.name))
def test_every_captured_notification_becomes_a_mail_or_sms_or_a_named_reason(path: Path) -> None:
    name = path.name.split("--")[1].removeprefix("sieve-")
    jobs = sieve_jobs(sieve_notify(request_in(path)), "delivery")
    outcomes = [outcome(SieveNotify.from_json(job.asked.to_json())) for job in jobs]
    if "-two--03" in path.name or "-denotify--02" in path.name:  # the script's second one
        assert outcomes == ["b@phone.test"]
    else:
        assert outcomes == OUTCOMES[name]
    assert ("sieve_sms" in {job.kind for job in jobs}) == outcomes[0].startswith("+")


def test_the_captures_are_there() -> None:
    assert len(CAPTURES) >= 40


def test_a_mail_as_a_whole() -> None:
    mail = mail_of(asked(message="Neu: Grüße\nzweite Zeile", priority="high"))
    message = read(mail)
    assert (mail.sender, mail.recipient) == ("", "alice@phone.test")
    assert dict(message.items()) == {
        "From": "Mail notifications <notify@example.org>",
        "To": "alice@phone.test",
        "Subject": "Neu: Grüße",
        "Date": "Tue, 24 Nov 2026 09:00:00 +0000",
        "Message-ID": message["Message-ID"],
        "Auto-Submitted": 'auto-notified; owner-email="alice@example.org"',
        "X-Loop": "alice@example.org",
        "Importance": "high",
        "X-Priority": "1 (Highest)",
        "MIME-Version": "1.0",
        "Content-Type": 'text/plain; charset="utf-8"',
        "Content-Transfer-Encoding": message["Content-Transfer-Encoding"],
    }
    assert text(mail) == "Neu: Grüße\nzweite Zeile"


def test_the_same_job_is_the_same_message_and_another_is_not() -> None:
    ids = [read(mail_of(asked(), key=key))["Message-ID"] for key in ("1", "1", "2")]
    assert ids[0] == ids[1] != ids[2]
    assert ids[0].endswith("@example.org>")


@pytest.mark.parametrize(
    ("request_", "original", "subject", "body"),
    [
        (asked(message="one\ntwo"), SPOOLED, "one", "one\ntwo"),
        (asked(message="one", subject="two"), SPOOLED, "two", "one"),
        (asked(message="one", body="a\nb"), SPOOLED, "one", "a\nb"),
        (asked(message="one", body="", subject="two"), SPOOLED, "two", ""),
        # the script said nothing: so the mail speaks
        (asked(message=DEFAULT), SPOOLED, DEFAULT,
         f"{DEFAULT}\n\nLine one of the body – mit Umlauten: äöü."),
        (asked(message=DEFAULT), None, DEFAULT, DEFAULT),
        (asked(message=""), SPOOLED, 'Grüße "x"', "Line one of the body – mit Umlauten: äöü."),
        (asked(message=""), None, "New mail", ""),
        (asked(message="a\x00b\x1b[0m\u202ec\u0085d"), SPOOLED, "ab[0mc d", "ab[0mc\nd"),
        (asked(message="=?utf-8?q?=0D=0ABcc:_x@y?="), SPOOLED, "=?utf-8?q?=0D=0ABcc:_x@y?=",
         "=?utf-8?q?=0D=0ABcc:_x@y?="),
    ],
)  # fmt: skip
def test_what_the_mail_says(
    request_: SieveNotify, original: bytes | None, subject: str, body: str
) -> None:
    mail = mail_of(request_, original=original)
    assert read(mail)["Subject"] == subject
    assert text(mail) == body


@pytest.mark.parametrize(
    ("priority", "importance", "number"),
    [("high", "high", "1 (Highest)"), ("normal", None, None), ("low", "low", "5 (Lowest)")],
)
def test_the_importance_is_handed_on(
    priority: str, importance: str | None, number: str | None
) -> None:
    message = read(mail_of(asked(priority=priority)))
    assert (message["Importance"], message["X-Priority"]) == (importance, number)


def test_fields_of_the_uri_are_added() -> None:
    message = read(mail_of(asked(x_label="Wörk", keywords="a, b", in_reply_to="<1@x>")))
    assert message["X-Label"] == "Wörk"
    assert message["Keywords"] == "a, b"
    assert message["In-Reply-To"] == "<1@x>"


REFUSED = [
    *("from", "sender", "to", "cc", "bcc", "date", "message-id", "auto-submitted", "x-loop"),
    *("reply-to", "resent-from", "resent-to", "received", "return-path", "delivered-to"),
    *("mime-version", "content-type", "content-transfer-encoding", "content-disposition"),
    *("dkim-signature", "arc-seal", "authentication-results", "list-unsubscribe", "precedence"),
    *("disposition-notification-to", "return-receipt-to", "errors-to", "importance", "x-priority"),
    *("a b", "a:b", "x\u00e9", "", "x" * 100),
]


@pytest.mark.parametrize("name", REFUSED)
def test_fields_that_would_deceive_or_break_the_mail_are_refused(name: str) -> None:
    plain = read(mail_of(asked()))
    message = read(
        mail_of(SieveNotify(method="mailto", message="Hello", parameters={name: "evil@x"}))
    )
    assert message.items() == plain.items()


@pytest.mark.parametrize("value", ["a\r\nBcc: x@y", "a\nBcc: x@y", "a\x85Bcc: x@y", "a\u2028b\0",
                                   "=?utf-8?q?a=0D=0ABcc:_x@y?=", "\u202eabc"])  # fmt: skip
@pytest.mark.parametrize("name", ["x-label", "subject", "keywords", "references"])
def test_no_value_begins_another_field(name: str, value: str) -> None:
    message = read(mail_of(SieveNotify(method="mailto", message=value, parameters={name: value})))
    assert message["Bcc"] is None
    assert "\u202e" not in str(message[name])
    assert set(message.keys()) - {"X-Label", "Keywords", "References"} == set(
        read(mail_of(asked())).keys()
    )


def test_nobody_can_say_whom_it_is_from() -> None:
    message = read(mail_of(asked(**{"from": "boss@bank.test", "sender": "boss@bank.test"})))
    assert message["From"] == "Mail notifications <notify@example.org>"
    assert message["Sender"] is None


@pytest.mark.parametrize("owner", ["alice", "", 'a"b@x', "a b@x", "ü@x", "a@x\r\nBcc: y@z"])
def test_an_owner_that_is_no_address_is_left_out(owner: str) -> None:
    message = read(mail_of(asked(), owner=owner))
    assert message["Auto-Submitted"] == "auto-notified"
    assert message["X-Loop"] is None


# --- what is not sent ----------------------------------------------------------------------------


def with_field(field: str) -> bytes:
    return field.encode() + b"\r\n" + SPOOLED


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("Auto-Submitted: auto-notified; owner-email=\"bob@x\"", "loop"),
        ("auto-submitted:  Auto-Notified", "loop"),
        ("Auto-Submitted: auto-generated", "automatic-mail"),
        ("Auto-Submitted: auto-replied (vacation)", "automatic-mail"),
        ("Auto-Submitted: something-new", "automatic-mail"),
        ("X-Loop: Alice@Example.ORG", "loop"),
        ("X-Loop: other@example.org\r\nX-Loop: alice@example.org", "loop"),
        ("Return-Path: <>", "automatic-mail"),
        ("Return-Path: < >", "automatic-mail"),
        ("From: Mail <Notify@example.org>", "loop"),
    ],
)  # fmt: skip
def test_no_mail_about_what_a_program_sent(field: str, reason: str) -> None:
    with pytest.raises(DecodeError, match=f"^{reason}$"):
        mail_of(asked(), original=with_field(field))


@pytest.mark.parametrize("field", ["Auto-Submitted: no", "AUTO-SUBMITTED: No ; x=y",
                                   "X-Loop: list@lists.test", "Precedence: bulk",
                                   "From: notify@example.org.test"])  # fmt: skip
def test_a_mail_about_what_a_person_or_a_list_sent(field: str) -> None:
    assert mail_of(asked(), original=with_field(field))


def test_two_accounts_that_notify_each_other_stop_after_one_round() -> None:
    request = asked(message="You have mail")
    first = mail_of(request, "bob@example.org", owner="alice@example.org")
    arrived = b"Return-Path: <>\r\n" + first.message.as_bytes(policy=email.policy.SMTP)
    for mark in (b"Return-Path", b"Auto-Submitted", b"From", b"X-Loop"):
        # bob's script, on a server that leaves only this one mark
        kept = without_fields(
            arrived, {b"Return-Path", b"Auto-Submitted", b"From", b"X-Loop"} - {mark}
        )
        owner = "alice@example.org" if mark == b"X-Loop" else "bob@example.org"
        with pytest.raises(DecodeError):
            mail_of(request, "alice@example.org", original=kept, owner=owner)


def without_fields(raw: bytes, names: set[bytes]) -> bytes:
    lines = raw.split(b"\r\n")
    return b"\r\n".join(line for line in lines if line.partition(b":")[0] not in names)


def test_a_loop_is_seen_in_the_default_message_if_the_mail_is_not_at_hand() -> None:
    first = mail_of(asked(message=DEFAULT), "bob@example.org")
    message = read(first)
    with pytest.raises(DecodeError, match="loop"):
        mail_of(asked(message=f"{message['From']}: {message['Subject']}"), original=None)


@pytest.mark.parametrize("recipient", ["a", "a@", "@b", "a@b c", "a@b\r\nBcc: c@d", "a@b,c@d",
                                       "<a@b>", "a@b>", "$env-from$", "${x}"])  # fmt: skip
def test_no_mail_to_what_is_no_address(recipient: str) -> None:
    with pytest.raises(DecodeError, match="bad-recipient"):
        mail_of(asked(), recipient)


def test_no_mail_and_no_sms_to_nobody() -> None:
    with pytest.raises(DecodeError, match="no-recipient"):
        mail_of(asked(), "")
    with pytest.raises(DecodeError, match="no-recipient"):
        sms_of(asked("sms"), "")


@pytest.mark.parametrize("method", ["xmpp", "https", "sieve", "addcal", ""])
def test_unknown_methods_have_a_name(method: str) -> None:
    assert unsupported_reason(method) == "unknown-method"
    for compose in (mail_of, sms_of):
        with pytest.raises(DecodeError, match="unknown-method"):
            compose(asked(method))


def test_each_known_method_is_for_mail_or_for_sms() -> None:
    assert [unsupported_reason(method) for method in ("mailto", "sms", "tel")] == [None] * 3
    with pytest.raises(DecodeError, match="unknown-method"):
        mail_of(asked("sms"))
    with pytest.raises(DecodeError, match="unknown-method"):
        sms_of(asked("mailto"))


# --- SMS -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "original", "expected"),
    [
        (asked("sms", "Call back"), SPOOLED, "Call back"),
        (asked("sms", "Call back", body="static"), SPOOLED, "Call back"),
        (asked("sms", DEFAULT, body="static"), SPOOLED, "static"),
        (asked("sms", "", body="static"), None, "static"),
        (asked("sms", DEFAULT), SPOOLED,
         'Jürgen Müller: Grüße "x"\nLine one of the body - mit Umlauten: äöü.'),
        (asked("sms", DEFAULT), None, DEFAULT),
        (asked("sms", ""), SPOOLED,
         'Jürgen Müller: Grüße "x"\nLine one of the body - mit Umlauten: äöü.'),
        (asked("sms", "a\x00b\u202ec"), None, "abc"),
    ],
)  # fmt: skip
def test_what_the_sms_says(request_: SieveNotify, original: bytes | None, expected: str) -> None:
    assert sms_of(request_, original=original).text == expected


def test_an_sms_is_squeezed_and_counted() -> None:
    sms = sms_of(asked("sms", "words " * 200))
    assert sms.segments == 2
    assert sms.text.endswith("...")


def test_an_sms_about_an_automatic_mail_is_sent_for_no_mail_comes_of_it() -> None:
    assert sms_of(asked("sms"), original=with_field("Auto-Submitted: auto-generated"))


@pytest.mark.parametrize("original", [None, b"", b"Content-Type: image/png\n\nx"])
def test_no_sms_without_a_word(original: bytes | None) -> None:
    with pytest.raises(DecodeError, match="nothing-to-say"):
        sms_of(asked("sms", " \n"), original=original)


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("+15105550101", "+15105550101"),
        ("+1 (510) 555-0101", "+15105550101"),
        ("+49.170/1234567", "+491701234567"),
        ("0049 170 1234567", "+491701234567"),
        ("+1\u2011510\u00a0555\u20130101", "+15105550101"),
    ],
)
def test_numbers_in_any_usual_spelling(written: str, number: str) -> None:
    assert e164(written) == number
    assert sms_of(asked("sms"), written).number == number


@pytest.mark.parametrize("written", ["5105550101", "0170 1234567", "+0170123456", "+123456", "112",
                                     "+1234567890123456", "+1x5105550101", "+", "++15105550101",
                                     "+٤٩١٧٠١٢٣٤٥٦٧", "+15105550101;x", "a@b",
                                     "1" * 10_000])  # fmt: skip
def test_what_is_no_number_of_one_country(written: str) -> None:
    with pytest.raises(DecodeError, match="bad-number"):
        e164(written)


def test_nothing_of_a_mail_or_sms_shows_in_a_trace() -> None:
    shown = f"{mail_of(asked())!r} {sms_of(asked('sms'))!r}"
    assert not [each for each in ("alice", "phone", "Hello", "510") if each in shown]


anything = st.text(max_size=80)
parameters = st.dictionaries(
    anything | st.sampled_from(["subject", "body", "x-a", "keywords", "references", "comments"]),
    anything | st.sampled_from(["=?utf-8?q?=0A?=", "\r\nBcc: a@b", "\x85", '"', "<", "a" * 2000]),
    max_size=5,
)


@given(anything, parameters, st.binary(max_size=200) | st.just(SPOOLED), anything)
def test_of_any_request_comes_a_mail_or_a_reason(
    message: str, parameters: dict[str, str], original: bytes, owner: str
) -> None:
    request = SieveNotify(method="mailto", message=message, parameters=parameters)
    try:
        mail = mail_of(request, original=original, owner=owner)
    except DecodeError:
        return
    sent = read(mail)
    assert sent["Bcc"] is None
    assert sent.get_all("From") == ["Mail notifications <notify@example.org>"]
    assert sent.get_all("To") == ["alice@phone.test"]
    assert sent.get_content_type() == "text/plain"
