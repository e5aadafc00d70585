"""The mails whose wording is kept as files: every language, every kind of event."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from notifyd.compose.calendar_alarm import compose_calendar_alarm
from notifyd.compose.mail import Mail
from notifyd.compose.notices import compose_credit_warning, compose_test_mail
from notifyd.compose.render import Voice
from notifyd.phrasebook import read_voice
from shared.accounts import Account
from shared.events import Attendee, CalendarAlarm
from shared.slow_sections import Mail as MailSection

MAILS = Path(__file__).parents[1] / "data" / "mails"
LOCALES = ("en", "de", "fr", "es", "ja", "ar", "pl", "pt-BR")
ALICE = "alice@example.org"
NOW = datetime(2026, 11, 24, 8, 50, 2, tzinfo=UTC)

TIMED = CalendarAlarm(
    account=ALICE,
    calendar_id="Default",
    calendar_name="Team Büro",
    calendar_color="#0B8043FF",
    uid="timed@example.org",
    alert_id="1",
    action="email",
    alarm_time="20261124T085000Z",
    summary="Budget 2027: Q&A <draft>",
    description=(
        "Please read the figures first: https://example.org/budget?year=2027&v=2.\n\n"
        "1. What we spend\n2. What we save\n\nBring your laptops."
    ),
    location="Große Halle, 2nd floor – https://meet.example.org/r/42",
    timezone="Europe/Berlin",
    start="20261124T100000",
    end="20261124T113000",
    attendees=(
        Attendee("mailto:zoe@example.org", "Zoë Müller", "ACCEPTED"),
        Attendee("mailto:taro@example.org", "山田 太郎", "TENTATIVE"),
        Attendee("mailto:ahmad@example.org", "أحمد المصري", "DECLINED"),
        Attendee("mailto:bozena.kowalska@example.org", "", "NEEDS-ACTION"),
        Attendee("urn:uuid:5", "Room 4", "DELEGATED"),
    ),
    organizer="mailto:zoe@example.org",
)
ALL_DAY = CalendarAlarm(
    account=ALICE,
    calendar_name="Holidays",
    calendar_color="#F6BF26",
    uid="all-day@example.org",
    action="email",
    alarm_time="20261223T180000",
    summary="Winter party – 冬の休み – عطلة الشتاء",
    location="Zakopane",
    start="20261224",
    end="20261227",
    all_day=True,
)
RECURRING = CalendarAlarm(
    account=ALICE,
    calendar_name="personal",
    uid="recurring@example.org",
    recurrence_id="20261125T100000",
    action="email",
    alarm_time="20261125T073000Z",
    summary="Standup",
    timezone="Europe/Berlin",
    start="20261125T100000",
    end="20261125T101500",
)
OTHER_ZONE = CalendarAlarm(
    account="bob@example.org",
    calendar_name="Sales",
    calendar_color="#FF2968FF",
    uid="other-zone@example.org",
    action="email",
    alarm_time="20261201T030000Z",
    recipients=(ALICE,),
    summary="Call with New York",
    timezone="America/New_York",
    start="20261130T220000",
    end="20261130T234500",
    organizer="mailto:bob@example.org",
)
MISSING = CalendarAlarm(account=ALICE, action="email", start="20261124T100000")

ALARMS = {
    "timed": TIMED,
    "all-day": ALL_DAY,
    "recurring": RECURRING,
    "other-zone": OTHER_ZONE,
    "missing-fields": MISSING,
}
NOTICES = ("credit-warning", "test-mail")


@cache
def voice() -> Voice:
    """The voice of an installation that has set nothing but the sender."""
    return read_voice(MailSection(sender="calendar@mail.example.org"))


def reader(locale: str) -> Account:
    """Alice in Berlin."""
    return Account(ALICE, locale=locale, timezone="Europe/Berlin", sms_number="+491701234567")


def mail(name: str, locale: str) -> Mail:
    """The mail called `name` in that language."""
    key = f"job:{name}"
    if name == "credit-warning":
        return compose_credit_warning(reader(locale), key, voice=voice(), now=NOW)
    if name == "test-mail":
        return compose_test_mail(ALICE, locale, key, voice=voice(), now=NOW)
    return compose_calendar_alarm(ALARMS[name], ALICE, reader(locale), key, voice=voice(), now=NOW)


def all_names() -> Iterator[tuple[str, str]]:
    """Every (name, locale)."""
    for locale in LOCALES:
        for name in (*ALARMS, *NOTICES):
            yield name, locale


def golden_file(name: str, locale: str) -> Path:
    """Where the mail is kept."""
    return MAILS / locale / f"{name}.txt"


def written(mail: Mail) -> str:
    """The mail as people read it: header fields and bodies decoded."""
    message = mail.message
    fields = [f"{name}: {value}" for name, value in message.items()]
    envelope = [f"MAIL FROM:<{mail.sender}>", f"RCPT TO:<{mail.recipient}>"]
    parts = [
        f"\n===== {part.get_content_type()} =====\n{html_or_text(part.get_content())}"
        for part in message.iter_parts()
    ]
    return "\n".join([*envelope, *fields, *parts])


def html_or_text(content: str) -> str:
    """`content` with LF alone, as files have it."""
    return content.replace("\r\n", "\n")


def html(mail: Mail) -> str:
    """The mail's HTML."""
    body = mail.message.get_body(("html",))
    assert body is not None
    return html_or_text(body.get_content())


def text(mail: Mail) -> str:
    """The mail's plain text."""
    body = mail.message.get_body(("plain",))
    assert body is not None
    return html_or_text(body.get_content())
