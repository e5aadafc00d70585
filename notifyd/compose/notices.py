"""Small mails about the service itself: the SMS credit is used up; a test."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

from babel.dates import format_date, format_time

from notifyd.compose.headers import Letter, automatic_mail
from notifyd.compose.mail import Mail
from notifyd.compose.render import Speech, Voice
from notifyd.compose.typography import plain_spaces
from notifyd.compose.when import known_zone
from shared.accounts import Account

#: So much of a number is shown: enough to know one's own.
_DIGITS: Final = 3


def compose_credit_warning(account: Account, key: str, *, voice: Voice, now: datetime) -> Mail:
    """Tell `account` that its SMS credit is used up. Raises DecodeError: "bad-recipient"."""
    speech = voice.speech(account.locale)
    number = account.sms_number
    ending = number[-_DIGITS:] if number[-_DIGITS:].isdigit() and len(number) > 2 * _DIGITS else ""
    return _notice(
        "credit_warning",
        speech.gettext("Your SMS credit is used up"),
        account.address or account.account,
        key,
        speech=speech,
        voice=voice,
        now=now,
        ending=ending,
    )


def compose_test_mail(to: str, locale: str, key: str, *, voice: Voice, now: datetime) -> Mail:
    """A mail that shows that mails arrive. Raises DecodeError: "bad-recipient"."""
    speech = voice.speech(locale)
    zone = known_zone(voice.default_timezone) or ZoneInfo("UTC")
    return _notice(
        "test_mail",
        speech.gettext("Test mail"),
        to,
        key,
        speech=speech,
        voice=voice,
        now=now,
        written=speech.gettext(
            "%(date)s, %(time)s",
            date=plain_spaces(format_date(now.astimezone(zone), "full", speech.locale)),
            time=plain_spaces(format_time(now, "long", tzinfo=zone, locale=speech.locale)),
        ),
        spoken=speech.locale.get_display_name() or speech.language,
    )


def _notice(
    name: str,
    subject: str,
    to: str,
    key: str,
    *,
    speech: Speech,
    voice: Voice,
    now: datetime,
    **shown: object,
) -> Mail:
    letter = Letter(
        subject=subject,
        text=speech.render(f"{name}.txt", subject=subject, **shown),
        html=speech.render(f"{name}.html", subject=subject, **shown),
        language=speech.language,
    )
    sender_name = voice.sender_name or speech.gettext("Notifications")
    return automatic_mail(letter, to, key, sender=voice.sender, sender_name=sender_name, now=now)
