"""The calendar alarm's mail: as kept in files, from real events, and with hostile text in it."""

from __future__ import annotations

import json
import re
from dataclasses import replace as changed
from email import message_from_bytes, message_from_string, policy
from email.header import decode_header, make_header
from email.message import EmailMessage
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notifyd.compose.calendar_alarm import compose_calendar_alarm
from notifyd.compose.headers import encoded_body, needs_smtputf8
from notifyd.compose.mail import Mail
from notifyd.compose.notices import compose_credit_warning, compose_test_mail
from pusher.protocol.mboxevent import decode
from pusher.protocol.normal import calendar_alarm
from shared.accounts import Account
from shared.errors import DecodeError
from shared.events import Attendee, CalendarAlarm
from tests.support.alarm_mails import (
    ALICE,
    LOCALES,
    MAILS,
    MISSING,
    NOW,
    OTHER_ZONE,
    TIMED,
    all_names,
    golden_file,
    html,
    mail,
    reader,
    text,
    voice,
    written,
)

CAPTURES = sorted((Path(__file__).parents[2] / "data" / "mboxevents").glob("*CalendarAlarm*.json"))

_CONTROLS = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e"


def compose(
    alarm: CalendarAlarm, to: str = ALICE, locale: str = "en", key: str = "key", **more: str
) -> Mail:
    account = changed(reader(locale), **more)  # type: ignore[arg-type]
    return compose_calendar_alarm(alarm, to, account, key, voice=voice(), now=NOW)


def on_the_wire(mail: Mail) -> bytes:
    how = policy.SMTPUTF8 if needs_smtputf8(mail) else policy.SMTP
    return mail.message.as_bytes(policy=how)


def parsed(raw: bytes) -> EmailMessage:
    """What a receiver reads; nothing in it is broken."""
    if raw.isascii():
        message = message_from_bytes(raw, policy=policy.default)
    else:
        message = message_from_string(raw.decode(), policy=policy.default)
    assert isinstance(message, EmailMessage)
    for part in message.walk():
        assert part.defects == []
        for name, field in part.items():
            # Python reads addresses beyond ASCII (RFC 6532) but calls them a defect.
            if name != "To" or field.isascii():
                assert not getattr(field, "defects", ()), name
    return message


def check(mail: Mail) -> EmailMessage:
    """`mail` is valid, and reads back as what was composed."""
    raw = on_the_wire(mail)
    assert re.search(rb"[^\r]\n|\r[^\n]", raw) is None, "bare CR or LF"
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    message = parsed(raw)
    assert message["Subject"] == mail.message["Subject"]
    assert message["Auto-Submitted"] == "auto-generated"
    assert len(message["To"].addresses) == 1
    assert message["To"].addresses[0].addr_spec == mail.recipient
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    for kind in ("plain", "html"):
        ours, theirs = (each.get_body((kind,)) for each in (mail.message, message))
        assert ours is not None
        assert theirs is not None
        assert ours.get_content().splitlines() == theirs.get_content().splitlines()
    return message


@pytest.mark.parametrize(("name", "locale"), [*all_names()])
def test_the_mail_is_the_one_kept(name: str, locale: str) -> None:
    """If a change is wanted: python tests/renew_goldens.py, then read the diff."""
    made = mail(name, locale)
    check(made)
    assert written(made) == golden_file(name, locale).read_text("utf-8")


def test_no_file_is_left_of_a_mail_that_is_no_more() -> None:
    assert {*MAILS.glob("*/*")} == {golden_file(name, locale) for name, locale in all_names()}


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
def test_every_alarm_cyrus_sent_becomes_a_mail(path: Path, locale: str) -> None:
    event = decode(json.dumps(json.loads(path.read_text("utf-8"))["event"]).encode())
    alarm = calendar_alarm(event)
    made = compose(alarm, (*alarm.recipients, ALICE)[0], locale)
    message = check(made)
    if alarm.summary:
        assert alarm.summary in message["Subject"]
        assert alarm.summary in text(made)
    for field in (alarm.location, alarm.description, alarm.calendar_name):
        assert field in text(made)
    assert "None" not in text(made)


def test_there_are_alarms_of_cyrus_to_try() -> None:
    assert len(CAPTURES) > 30


def test_headers_say_that_a_program_wrote_it() -> None:
    message = check(compose(TIMED))
    assert message["From"] == "Calendar <calendar@mail.example.org>"
    assert message["List-Id"] == "<calendar-alarms.mail.example.org>"
    assert message["Date"] == "Tue, 24 Nov 2026 08:50:02 +0000"
    assert message["Content-Language"] == "en"
    assert {name.lower() for name in message} == {
        *("from", "to", "subject", "date", "message-id", "auto-submitted", "list-id"),
        *("content-language", "mime-version", "content-type"),
    }


def test_bounces_go_nowhere_and_nobody_s_address_is_asked_for_replies() -> None:
    made = compose(TIMED)
    assert made.sender == ""
    assert made.message["Reply-To"] is None


@pytest.mark.parametrize("linesep", ["\r\n", "\n"])
@pytest.mark.parametrize("description", ["", "a\rb\n.\nFrom x \n", "é\t\n" * 99, "日本\n.\n" * 99])
@pytest.mark.parametrize("to", [ALICE, "jörg@bücher.example", "a@" + "b" * 100])
def test_a_mail_is_written_as_python_would_write_it(
    to: str, description: str, linesep: str
) -> None:
    made = compose(msgspec.structs.replace(TIMED, description=description), to, "ja")
    form = (policy.SMTPUTF8 if needs_smtputf8(made) else policy.SMTP).clone(linesep=linesep)
    assert made.message.as_bytes(policy=form) == EmailMessage.as_bytes(made.message, policy=form)


@pytest.mark.parametrize("length", [5, 58, 59, 60, 61, 62, 73, 74, 75, 76, 77, 78, 79, 150])
def test_an_address_is_folded_as_python_would_fold_it(length: int) -> None:
    to = "a@" + "b" * (length - 2)
    pythons = EmailMessage(policy=policy.SMTP)
    pythons["To"] = to
    head, body = on_the_wire(compose(TIMED, to)), bytes(pythons).rstrip()
    assert b"\r\n" + body + b"\r\nSubject:" in head


def test_a_repeat_is_the_same_mail_and_another_job_another() -> None:
    first, again, other = compose(TIMED), compose(TIMED), compose(TIMED, key="other")
    assert on_the_wire(first) == on_the_wire(again)
    assert first.message["Message-ID"] != other.message["Message-ID"]
    assert re.fullmatch(r"<[0-9a-f]{40}@mail\.example\.org>", first.message["Message-ID"])


def test_the_configured_names_are_used() -> None:
    own = changed(
        voice(), sender="n@a.example", sender_name="Büro, \r\nBcc: x", list_id="l.a.example"
    )
    made = compose_calendar_alarm(TIMED, ALICE, reader("de"), "k", voice=own, now=NOW)
    message = check(made)
    assert message["From"].addresses[0].display_name == "Büro, Bcc: x"
    assert message["List-Id"] == "<l.a.example>"
    assert message["Bcc"] is None


def test_missing_fields_leave_no_holes() -> None:
    made = compose(MISSING)
    assert text(made) == (
        "Untitled event\nStarts in 10 minutes\n\nWhen: Tuesday, November 24, 2026\n  10:00 AM\n"
        "\n-- \nYou receive this mail because a reminder is set for this event in your\ncalendar.\n"
    )
    for label in ("Where", "Calendar<", "Organizer", "Participants"):
        assert label not in html(made)


def test_participants_have_names_addresses_and_answers() -> None:
    lines = text(compose(TIMED)).splitlines()
    assert "- Zoë Müller (zoe@example.org) – accepted" in lines
    assert "- \u2068أحمد المصري\u2069 (ahmad@example.org) – declined" in lines
    assert "- bozena.kowalska@example.org – no reply yet" in lines
    assert "- Room 4 – delegated" in lines
    assert "Organizer: Zoë Müller (zoe@example.org)" in lines


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("MAILTO:a@b.example", "a@b.example"),
        ("mailto:a%2Bb@c.example?subject=x", "a+b@c.example"),
        ("tel:+49-30-1", "+49-30-1"),
        ("a@b.example", "a@b.example"),
        ("urn:uuid:1", None),
        ("javascript:alert(1)", None),
        ("", None),
    ],
)
def test_people_are_shown_as_people_know_them(uri: str, shown: str | None) -> None:
    made = text(
        compose(msgspec.structs.replace(MISSING, attendees=(Attendee(uri),), organizer=uri))
    )
    assert (f"Participants:\n- {shown}\n" in made) == (shown is not None)
    assert (f"Organizer: {shown}\n" in made) == (shown is not None)


def test_hundreds_of_participants_are_counted() -> None:
    people = tuple(Attendee(f"mailto:p{n}@a.example") for n in range(300))
    made = text(compose(msgspec.structs.replace(MISSING, attendees=people), locale="pl"))
    assert made.count("- p") == 30
    assert "i jeszcze 270 osób" in made


def test_a_novel_is_cut() -> None:
    made = compose(
        msgspec.structs.replace(TIMED, summary="word " * 9999, description="word " * 99999)
    )
    assert len(check(made)["Subject"]) < 200
    assert len(text(made)) < 12000


def test_who_is_named_in_an_alarm_is_told_whose_it_is() -> None:
    whose = "bob@example.org has set this reminder"
    assert whose in text(compose(OTHER_ZONE))
    assert "in your\ncalendar" in text(compose(TIMED))
    other = compose(TIMED, to="assistant@example.org")
    assert f"{ALICE} has set this reminder" in text(other)
    elsewhere = compose(TIMED, to="post@alice.example", address="post@alice.example")
    assert "in your\ncalendar" in text(elsewhere)


def test_an_account_without_zone_has_the_configured_one() -> None:
    own = changed(voice(), default_timezone="Asia/Tokyo")
    for timezone in ("", "Mars/Olympus"):
        account = Account(ALICE, timezone=timezone)
        made = compose_calendar_alarm(TIMED, ALICE, account, "k", voice=own, now=NOW)
        assert "6:00 – 7:30 PM\n  Japan Standard Time" in text(made)


@pytest.mark.parametrize(
    "to",
    ["", "alice", "@", "a@", "@b", "a@b@c", "a b@c.example", "a@b.example\r\nBcc: x@y", "a@b,c@d",
     "<a@b.example>", "a@b.example\n", "a..b@c.example", "a@-b.example", "a@b..example", "a\0@b",
     "Alice <a@b.example>", "a@[127.0.0.1]", "x" * 65 + "@b.example", "a@" + "b" * 260, "a\u202e@b",
     '"a b"@c.example', "urn:uuid:1@x", "a;b@c.example", "\ud800@b.example"],
)  # fmt: skip
def test_what_is_no_address_is_refused_by_name(to: str) -> None:
    with pytest.raises(DecodeError, match="bad-recipient"):
        compose(TIMED, to)


@pytest.mark.parametrize("to", ["a@b", "a.b+c@d-e.example", "o'neil@b.example", "x{y}@b.example"])
def test_unusual_addresses_are_addresses(to: str) -> None:
    assert check(compose(TIMED, to))["To"] == to


@pytest.mark.parametrize("to", ["jörg@example.org", "a@bücher.example", "用户@例え.example"])
def test_addresses_beyond_ascii_go_out_as_utf8(to: str) -> None:
    made = compose(TIMED, to)
    assert needs_smtputf8(made)
    assert f"To: {to}".encode() in on_the_wire(made)
    check(made)


def test_a_mail_to_ascii_is_ascii() -> None:
    for locale in LOCALES:
        made = compose(TIMED, locale=locale)
        assert not needs_smtputf8(made)
        assert on_the_wire(made).isascii()


def test_an_unknowable_start_is_refused_by_name() -> None:
    with pytest.raises(DecodeError, match="unknown-start"):
        compose(msgspec.structs.replace(TIMED, start="tomorrow"))


HOSTILE = [
    "x\r\nBcc: victim@example.org",
    "x\n\n<script>alert(1)</script>",
    "x\x00y",
    "\u202egnp.exe\u2066",
    "</title><img src=x onerror=alert(1)>",
    "\"'><b style=x>",
    "{{ 7*7 }}{% raw %}",
    "%(num)d %s %",
    "\x1b[2J\x85\u2028",
    "=?utf-8?q?=0D=0ABcc:_x@y?=",
    "\ud800",
    "-- \nx",
]

FIELDS = (
    *("account", "owner", "calendar_id", "calendar_name", "calendar_color", "uid"),
    *("recurrence_id", "alert_id", "action", "alarm_time", "summary", "description", "location"),
    *("timezone", "end", "organizer", "attendees", "recipients"),
)


def is_harmless(mail: Mail) -> None:
    message = check(mail)
    assert message["Bcc"] is None
    assert len(message.keys()) == 10
    for value in (message["Subject"], message["From"], text(mail), html(mail)):
        assert re.search(f"[{_CONTROLS}]", value) is None
    assert re.search("[\u2066-\u2069]", message["Subject"] + html(mail)) is None
    tags = set(re.findall(r"<\s*([a-zA-Z]+)", html(mail)))
    assert tags <= {
        *("html", "head", "meta", "title", "style", "body", "div", "table", "tr", "td"),
        *("h", "p", "strong", "br", "bdi", "span", "a"),
    }
    assert re.search(r"<[^>]*\son\w+\s*=", re.sub(r'"[^"]*"', '""', html(mail))) is None


def hostile(field: str, value: str) -> CalendarAlarm:
    if field == "attendees":
        return msgspec.structs.replace(
            TIMED, attendees=(Attendee(f"mailto:{value}", value, value),)
        )
    if field == "recipients":
        return msgspec.structs.replace(TIMED, recipients=(value,))
    if field == "organizer":
        return msgspec.structs.replace(TIMED, organizer=f"mailto:{value}")
    return msgspec.structs.replace(TIMED, **{field: value})


@pytest.mark.parametrize("value", HOSTILE, ids=ascii)
@pytest.mark.parametrize("field", FIELDS)
def test_hostile_text_stays_text(field: str, value: str) -> None:
    is_harmless(compose(hostile(field, value)))
    is_harmless(compose(hostile(field, value), locale="ar"))


@settings(max_examples=150, deadline=None)
@given(
    field=st.sampled_from(FIELDS),
    value=st.text(
        st.one_of(st.characters(), st.sampled_from("\r\n\0<>\"'&%{}=?\u202e\u2067 ,;:@\u200f"))
    ),
    locale=st.sampled_from(LOCALES),
)
def test_any_text_in_any_field_stays_text(field: str, value: str, locale: str) -> None:
    is_harmless(compose(hostile(field, value), locale=locale))


@settings(max_examples=200, deadline=None)
@given(summary=st.text(max_size=120))
def test_any_summary_comes_back_as_it_was(summary: str) -> None:
    made = compose(msgspec.structs.replace(TIMED, summary=summary))
    assert parsed(on_the_wire(made))["Subject"] == made.message["Subject"]


def test_an_encoded_word_in_a_summary_does_not_become_a_header_field() -> None:
    """Python's own Subject decodes what it is given, line ends included."""
    summary = "=?utf-8?q?=0D=0ABcc:_victim@example.org?="
    raw = on_the_wire(compose(msgspec.structs.replace(TIMED, summary=summary)))
    assert b"victim" not in raw.partition(b"\r\n\r\n")[0]
    assert f"Reminder: {summary} –" in parsed(raw)["Subject"]


@pytest.mark.parametrize("summary", ["a " * 40, "ä " * 40, "日本 語 " * 10, "x" * 99, "é" * 99])
def test_long_subjects_lose_no_space_and_no_letter(summary: str) -> None:
    made = compose(msgspec.structs.replace(TIMED, summary=summary))
    raw = on_the_wire(made)
    assert summary.strip() in parsed(raw)["Subject"]
    head = raw.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert max(len(line) for line in head) <= max(78, len(summary.strip().split(" ")[0]) + 1)


def test_long_display_names_lose_no_space_and_no_letter() -> None:
    name = "Büro für Öffentlichkeit und überhaupt alles, was im Kalender so stehen könnte"
    own = changed(voice(), sender_name=name)
    made = compose_calendar_alarm(TIMED, ALICE, reader("de"), "k", voice=own, now=NOW)
    field = re.search(rb"^From: (.*\r\n(?: .*\r\n)*)", on_the_wire(made), re.MULTILINE)
    assert field is not None
    # The reader of Python's structured fields would add a space between encoded words.
    read = str(make_header(decode_header(field[1].decode())))
    assert read == f"{name} <calendar@mail.example.org>"


def test_a_repr_shows_nobody() -> None:
    for thing in (compose(TIMED), voice()):
        assert "alice" not in repr(thing)
        assert "example.org" not in repr(thing)


@pytest.mark.parametrize("locale", LOCALES)
def test_the_credit_warning_goes_to_the_account_and_shows_no_number(locale: str) -> None:
    account = changed(reader(locale), address="post@example.org")
    made = compose_credit_warning(account, "k", voice=voice(), now=NOW)
    message = check(made)
    assert made.recipient == "post@example.org"
    assert message["List-Id"] is None
    assert "567" in text(made)
    assert "1234" not in text(made) + html(made)
    without = compose_credit_warning(changed(account, sms_number=""), "k", voice=voice(), now=NOW)
    assert "567" not in text(without)


def test_the_credit_warning_needs_an_address() -> None:
    with pytest.raises(DecodeError, match="bad-recipient"):
        compose_credit_warning(Account("alice"), "k", voice=voice(), now=NOW)


def test_the_test_mail_says_when_and_in_which_language() -> None:
    made = compose_test_mail(ALICE, "de-AT", "k", voice=voice(), now=NOW)
    assert check(made)["Subject"] == "Test-E-Mail"
    assert "Dienstag, 24. November 2026, 08:50:02 UTC" in text(made)
    assert "Deutsch (Österreich)" in text(made)


@settings(max_examples=200, deadline=None)
@given(
    st.text(
        st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n =.-"), max_size=400
    )
)
def test_any_body_is_short_ascii_lines_and_comes_back(content: str) -> None:
    encoding, payload = encoded_body(content)
    assert payload.isascii()
    assert max(map(len, payload.split("\n"))) <= 76
    part = message_from_string(f"Content-Transfer-Encoding: {encoding}\n\n{payload}")
    raw = part.get_payload(decode=True)
    assert isinstance(raw, bytes)
    assert raw.decode().replace("\r\n", "\n") == content
