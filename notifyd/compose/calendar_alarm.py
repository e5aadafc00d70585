"""The mail for a calendar alarm, from the event alone and in the reader's language.

Everything in the alarm counts as hostile: it is stripped of controls and cut to size here, and
escaped by the templates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import unquote
from zoneinfo import ZoneInfo

from notifyd.compose.countdown import countdown, reference
from notifyd.compose.headers import Letter, automatic_mail, domain_of
from notifyd.compose.mail import Mail
from notifyd.compose.render import Speech, Voice
from notifyd.compose.typography import css_colour, ink_on, one_line, some_lines
from notifyd.compose.when import decode_span, in_words, known_zone
from shared.accounts import Account
from shared.events import Attendee, CalendarAlarm

_MAX_SUMMARY: Final = 300
_MAX_SUMMARY_IN_SUBJECT: Final = 100
_MAX_LINE: Final = 500
_MAX_NAME: Final = 120
_MAX_DESCRIPTION: Final = 8000
_MAX_PARTICIPANTS: Final = 30
#: Of calendars that have none.
_COLOUR: Final = "#3367d6"


@dataclass(frozen=True, slots=True)
class Participant:
    """Somebody as the mail shows them; any part may be ""."""

    name: str
    #: What is beside the name: a mail address or a number.
    address: str
    #: "accepted", ... in the reader's language.
    status: str = ""
    #: "yes", "no", "maybe", "open" or "".
    answer: str = ""


def compose_calendar_alarm(
    alarm: CalendarAlarm, recipient: str, reader: Account, key: str, *, voice: Voice, now: datetime
) -> Mail:
    """The mail that tells `recipient` of `alarm`; `reader`'s language, zone and clock count.

    `key` is the job's. Raises DecodeError: "bad-recipient", "unknown-start".
    """
    speech = voice.speech(reader.locale)
    zone = known_zone(reader.timezone) or known_zone(voice.default_timezone) or ZoneInfo("UTC")
    span = decode_span(alarm)
    since = reference(alarm, span, zone, now)
    when = in_words(span, speech, zone, reader.clock, since.year)
    summary = one_line(alarm.summary, _MAX_SUMMARY) or speech.gettext("Untitled event")
    participants = [*_participants(alarm, speech)]
    colour = css_colour(alarm.calendar_color, _COLOUR)
    shown = {
        "summary": summary,
        "when": when,
        "countdown": countdown(span, since, zone, speech),
        "repeats": bool(alarm.recurrence_id),
        "location": one_line(alarm.location, _MAX_LINE),
        "description": some_lines(alarm.description, _MAX_DESCRIPTION),
        "organizer": _organizer(alarm),
        "participants": participants[:_MAX_PARTICIPANTS],
        "unnamed": max(0, len(participants) - _MAX_PARTICIPANTS),
        "calendar": one_line(alarm.calendar_name, _MAX_NAME),
        "colour": colour,
        "ink": ink_on(colour),
        "set_by": "" if _is_own(alarm, recipient, reader) else one_line(alarm.account, _MAX_NAME),
    }
    letter = Letter(
        subject=speech.gettext(
            "Reminder: %(summary)s – %(when)s",
            summary=one_line(summary, _MAX_SUMMARY_IN_SUBJECT),
            when=when.short,
        ),
        text=speech.render("calendar_alarm.txt", **shown),
        html=speech.render("calendar_alarm.html", **shown),
        language=speech.language,
        list_id=voice.list_id or f"calendar-alarms.{domain_of(voice.sender)}",
    )
    return automatic_mail(
        letter,
        recipient,
        key,
        sender=voice.sender,
        sender_name=voice.sender_name or speech.gettext("Calendar"),
        now=now,
    )


def _is_own(alarm: CalendarAlarm, recipient: str, reader: Account) -> bool:
    """Whether it goes to who set the alarm, not to somebody named in it."""
    own = {reader.address.casefold(), reader.account.casefold()}
    return alarm.account == reader.account and recipient.casefold() in own


def _organizer(alarm: CalendarAlarm) -> Participant | None:
    """The organizer, named as in the list of attendees."""
    if not alarm.organizer:
        return None
    same = (a.name for a in alarm.attendees if a.uri.casefold() == alarm.organizer.casefold())
    name = one_line(next(same, ""), _MAX_NAME)
    shown = Participant(name, _address(alarm.organizer))
    return shown if shown.name or shown.address else None


def _participants(alarm: CalendarAlarm, speech: Speech) -> Iterator[Participant]:
    for attendee in alarm.attendees:
        shown = _participant(attendee, speech)
        if shown.name or shown.address:
            yield shown


def _participant(attendee: Attendee, speech: Speech) -> Participant:
    status, answer = _status(attendee.status, speech)
    name, address = one_line(attendee.name, _MAX_NAME), _address(attendee.uri)
    return Participant("" if name == address else name, address, status, answer)


def _address(uri: str) -> str:
    """What people know of a URI: the address of mailto:, the number of tel:, else nothing."""
    scheme, colon, rest = one_line(uri, _MAX_LINE).partition(":")
    if not colon:
        return scheme
    if scheme.lower() in ("mailto", "tel", "sip", "sips", "xmpp"):
        return one_line(unquote(rest.partition("?")[0]), _MAX_NAME)
    return ""


#: PARTSTAT (RFC 5545 §3.2.12): its words, and the kind of answer it is.
_STATUS: Final[dict[str, tuple[Callable[[Speech], str], str]]] = {
    "ACCEPTED": (lambda speech: speech.pgettext("participant", "accepted"), "yes"),
    "DECLINED": (lambda speech: speech.pgettext("participant", "declined"), "no"),
    "TENTATIVE": (lambda speech: speech.pgettext("participant", "tentative"), "maybe"),
    "NEEDS-ACTION": (lambda speech: speech.pgettext("participant", "no reply yet"), "open"),
    "DELEGATED": (lambda speech: speech.pgettext("participant", "delegated"), "open"),
}


def _status(partstat: str, speech: Speech) -> tuple[str, str]:
    word, answer = _STATUS.get(partstat.upper(), (None, ""))
    return (word(speech), answer) if word else ("", "")
