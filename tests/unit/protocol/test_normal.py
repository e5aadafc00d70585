"""The normal form: plain names, plain text, one job per recipient, stable JSON."""

from __future__ import annotations

import json
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pusher.protocol.icaltext import parameter_value, text_value
from pusher.protocol.mboxevent import MailboxEvent, decode
from pusher.protocol.normal import alarm_jobs, calendar_alarm, normal_event
from shared.errors import DecodeError
from shared.events import Attendee, CalendarAlarm, ModSeqs, NormalEvent, Person, SieveNotify

COUNTERS = "9 10 1 2 3 4 5 6 7 8 9 11 12"


def message_new(**more: object) -> MailboxEvent:
    return decode(
        json.dumps(
            {
                "event": "MessageNew",
                "uri": "imap://mail.test/user/alice/Work%40example.org;UIDVALIDITY=5/;UID=77",
                "user": "bob@example.org",
                "vnd.cmu.mbtype": "e",
                "vnd.fastmail.counters": COUNTERS,
                "flagNames": "\\Seen $work",
                **more,
            }
        ).encode()
    )


def test_whose_mailbox_and_who_acted_are_told_apart() -> None:
    normal = normal_event(message_new())
    assert (normal.account, normal.actor) == ("alice@example.org", "bob@example.org")
    assert (normal.folder, normal.uidvalidity, normal.uid) == ("Work", 5, 77)
    assert normal.kind == "mail"
    assert normal.flags == ("\\Seen", "$work")
    assert normal.modseqs == ModSeqs(10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12)
    assert normal.modseqs_lag


def test_sender_and_subject_come_from_the_envelope() -> None:
    sender = '(("=?utf-8?Q?J=C3=BC?=" NIL "j" "h"))'
    text = f'("d" "Hello\t=?utf-8?Q?a=0Ab?=" {sender} NIL NIL NIL NIL NIL NIL NIL)'
    normal = normal_event(message_new(**{"vnd.cmu.envelope": text}))
    assert normal.subject == "Hello a b"
    assert normal.from_ == (Person("j@h", "Jü"),)
    assert b'"from":[{"email":"j@h","name":"J\xc3\xbc"}]' in normal.to_json()


def test_a_broken_envelope_loses_nothing_else() -> None:
    normal = normal_event(message_new(**{"vnd.cmu.envelope": "("}))
    assert (normal.subject, normal.uid) == (None, 77)


@pytest.mark.parametrize(
    ("message", "account"),
    [
        ({"event": "Login", "uri": "imap://h", "user": "alice"}, "alice"),
        ({"event": "MailboxModseq", "uri": "imap://h/shared/x", "user": "alice"}, None),
        ({"event": "MailboxModseq", "uri": "imap://h;UIDVALIDITY=1", "user": ""}, None),
        ({"event": "MailboxModseq", "uri": "nonsense", "user": "alice"}, "alice"),
        ({"event": "CalendarAlarm", "userId": "carol"}, "carol"),
        ({"event": "ApplePushServiceDAV", "user": "bob", "mailboxUser": "alice"}, "alice"),
        ({"event": "ApplePushService", "user": "bob"}, "bob"),
    ],
)
def test_account_without_owner_in_the_uri(message: dict[str, str], account: str | None) -> None:
    assert normal_event(decode(json.dumps(message).encode())).account == account


def test_json_names_are_snake_case_and_hold_no_secret() -> None:
    names = {field.encode_name for field in msgspec.structs.fields(NormalEvent)}
    assert all(re.fullmatch("[a-z]+(_[a-z]+)*", name) for name in names)
    message = b'{"event":"ApplePushService","user":"a","apsDeviceToken":"5ec7e7"}'
    assert b"5ec7e7" not in normal_event(decode(message)).to_json()


def test_json_of_an_event_is_stable() -> None:
    event = decode(
        b'{"event":"FlagsSet","uri":"imap://h/user/al;UIDVALIDITY=3","uidset":"2:4",'
        b'"flagNames":"\\\\Flagged","user":"al","aclRights":"","messages":0,'
        b'"vnd.fastmail.counters":"9 7 7 0 0 0 0 0 0 0 0 0 0"}'
    )
    assert json.loads(normal_event(event).to_json()) == {
        "version": 1,
        "event_type": "FlagsSet",
        "kind": "mail",
        "account": "al",
        "actor": "al",
        "folder": "INBOX",
        "uidvalidity": 3,
        "uids": "2:4",
        "messages": 0,
        "flags": ["\\Flagged"],
        "modseqs": {"highest": 7, "mail": 7},
        "modseqs_lag": True,
        "acl_rights": "",
    }


ALARM = {
    "event": "CalendarAlarm",
    "alarmTime": "20261124T024500Z",
    "alarmRecipients": ["mailto:a@x.test", "MAILTO:b@x.test", "a@x.test", ""],
    "userId": "alice@example.org",
    "calendarId": "Default",
    "calendarName": "Renamed 予定",
    "calendarColor": "#FF2968FF",
    "uid": "al-1@lab",
    "action": "email",
    "summary": r"Dentist\, at 9\; then\nwork \\o/ 2^n",
    "description": "bring\\npapers\r\\n\u202eand\tmore",
    "location": "Main St. 1",
    "timezone": "Europe/Berlin",
    "start": "20261124T030000",
    "end": "20261124T040000",
    "allDay": 0,
    "attendeeNames": ["Bob ^'The B^' O^^N^nx", ""],
    "attendeeEmails": ["mailto:bob@x.test", "tel:+1"],
    "attendeeStatus": ["ACCEPTED"],
    "organizer": "mailto:boss@x.test",
}


def alarm(**changes: object) -> CalendarAlarm:
    return calendar_alarm(decode(json.dumps({**ALARM, **changes}).encode()))


def test_calendar_alarm_is_read_with_its_escapes_decoded() -> None:
    assert alarm() == CalendarAlarm(
        account="alice@example.org",
        calendar_id="Default",
        calendar_name="Renamed 予定",
        calendar_color="#FF2968FF",
        uid="al-1@lab",
        action="email",
        alarm_time="20261124T024500Z",
        recipients=("a@x.test", "b@x.test"),
        summary="Dentist, at 9; then work \\o/ 2^n",
        description="bring\npapers\nand more",
        location="Main St. 1",
        timezone="Europe/Berlin",
        start="20261124T030000",
        end="20261124T040000",
        attendees=(
            Attendee("mailto:bob@x.test", 'Bob "The B" O^N x', "ACCEPTED"),
            Attendee("tel:+1"),
        ),
        organizer="mailto:boss@x.test",
    )


def test_newer_servers_say_more_and_floating_time_has_no_zone() -> None:
    more = alarm(
        timezone="[floating]", allDay=1, alertId="A1", recurrenceId="20261124",
        calendarEventId="E1", calendarOwner="carol",
    )  # fmt: skip
    assert (more.timezone, more.all_day) == ("", True)
    assert (more.alert_id, more.recurrence_id) == ("A1", "20261124")
    assert (more.calendar_event_id, more.owner) == ("E1", "carol")
    assert alarm(allDay=True).all_day


def test_an_alarm_is_one_job_for_each_recipient() -> None:
    jobs = alarm_jobs(alarm())
    assert [recipient for _, recipient in jobs] == ["a@x.test", "b@x.test"]
    assert len({key for key, _ in jobs}) == 2
    assert all("alice@example.org:Default:al-1@lab" in key for key, _ in jobs)


def test_an_alarm_without_recipients_is_the_users_own() -> None:
    assert [recipient for _, recipient in alarm_jobs(alarm(alarmRecipients=[]))] == [
        "alice@example.org"
    ]


def test_the_same_alarm_again_is_the_same_job() -> None:
    again = alarm(pid=2, serverFQDN="other", summary="changed", description="")
    assert alarm_jobs(again) == alarm_jobs(alarm())
    # Known, because jobs of an earlier run of the program are found by it.
    assert alarm_jobs(alarm())[0][0] == (
        "alice@example.org:Default:al-1@lab:20261124T030000:20261124T024500Z:email:a@x.test:"
        "89aed8326e4c4a38c9acab9989665d74"
    )


@pytest.mark.parametrize(
    "change",
    [{"userId": "bob"}, {"calendarId": "work"}, {"uid": "al-2@lab"}, {"start": "20261125"},
     {"recurrenceId": "20261125"}, {"alertId": "2"}, {"alarmTime": "20261124T024600Z"},
     {"action": "display"}, {"alarmRecipients": ["mailto:c@x.test"]},
     {"uid": "al-1@lab:20261124T030000", "start": ""}],
    ids=str,
)  # fmt: skip
def test_a_different_alarm_is_a_different_job(change: dict[str, object]) -> None:
    assert not {key for key, _ in alarm_jobs(alarm(**change))} & {
        key for key, _ in alarm_jobs(alarm())
    }


@pytest.mark.parametrize("payload", [alarm(), SieveNotify(account="a", parameters={"body": "x"})])
def test_a_payload_survives_its_json(payload: CalendarAlarm | SieveNotify) -> None:
    assert type(payload).from_json(payload.to_json()) == payload
    assert b'"version":1' in payload.to_json()


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "bad-payload"),
        (b"[]", "bad-payload"),
        (b"\xff", "bad-payload"),
        (b'{"version":1}', "bad-payload"),
        (b'{"version":1,"account":1}', "bad-payload"),
        (b'{"version":2,"account":"a"}', "unknown-version"),
    ],
)
def test_a_payload_that_is_none_is_refused(payload: bytes, reason: str) -> None:
    with pytest.raises(DecodeError) as refused:
        CalendarAlarm.from_json(payload)
    assert refused.value.reason == reason


def test_keys_a_later_release_adds_are_ignored() -> None:
    assert CalendarAlarm.from_json('{"version":1,"account":"a","new":1}').account == "a"


@pytest.mark.parametrize(
    ("raw", "right"),
    [
        ("", ""),
        (r"a\nb\Nc", "a\nb\nc"),
        (r"a\,b\;c\\n", "a,b;c\\n"),
        (r"\x \ ", r"\x \ "),
        ("a\\", "a\\"),
        ("2^n", "2^n"),
    ],
)
def test_text_values(raw: str, right: str) -> None:
    assert text_value(raw) == right


@pytest.mark.parametrize(
    ("raw", "right"),
    [("a^nb", "a\nb"), ("^'q^'", '"q"'), ("^^n", "^n"), ("^x ^", "^x ^"), (r"Doe\, J", "Doe, J")],
)
def test_parameter_values(raw: str, right: str) -> None:
    assert parameter_value(raw) == right


@given(st.text())
def test_escaped_text_is_read_back(text: str) -> None:
    escaped = re.sub(r"([\\,;])", r"\\\1", text).replace("\n", "\\n")
    assert text_value(escaped) == text
