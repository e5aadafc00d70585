"""How long until an event: "Starts in 10 minutes", "Tomorrow", "Started 2 hours ago"."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from notifyd.compose.render import Speech
from notifyd.compose.when import Span, moment
from shared.events import CalendarAlarm

#: A mail this much later than its alarm counts from when it is written.
_LATE: Final = timedelta(minutes=5)
_HOUR: Final = 60
_DAY: Final = 24 * _HOUR
_WEEK: Final = 7 * _DAY


def reference(alarm: CalendarAlarm, span: Span, zone: ZoneInfo, now: datetime) -> datetime:
    """The moment to count from: the alarm's, or `now` if that is long over; in `zone`.

    So a mail in time says what the calendar says ("in 10 minutes", not 9), and a late one lies not.
    """
    at = moment(alarm.alarm_time, span.zone)
    if at is None:
        return now.astimezone(zone)
    gone_off = _instant(at, span.zone or zone)
    return (now if now - gone_off > _LATE else gone_off).astimezone(zone)


def _instant(time: datetime, zone: ZoneInfo) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=zone)


def countdown(span: Span, since: datetime, zone: ZoneInfo, speech: Speech) -> str:
    """How long from `since` to the start; floating time is `zone`'s."""
    if span.all_day:
        today = since.astimezone(span.zone or zone).date()
        return _days_until((span.start.date() - today).days, speech)
    start = _instant(span.start, zone)
    # Subtraction of aware times in one zone would ignore a change of clocks between them.
    minutes = round((start.timestamp() - since.timestamp()) / 60)
    if minutes == 0:
        return speech.gettext("Starts now")
    return _towards(minutes > 0, _length(abs(minutes), speech), speech)


def _days_until(days: int, speech: Speech) -> str:
    if days == 0:
        return speech.gettext("Today")
    if days == 1:
        return speech.gettext("Tomorrow")
    return _towards(days > 0, _length(abs(days) * _DAY, speech), speech)


def _towards(coming: bool, duration: str, speech: Speech) -> str:
    if coming:
        return speech.gettext("Starts in %(duration)s", duration=duration)
    return speech.gettext("Started %(duration)s ago", duration=duration)


def _length(minutes: int, speech: Speech) -> str:
    """Two neighbouring units at most, in the grammatical case that "in" and "ago" need."""
    if minutes % _WEEK == 0:
        return _weeks(minutes // _WEEK, speech)
    if minutes >= _DAY:
        return _two(_days(minutes // _DAY, speech), _hours(minutes % _DAY // _HOUR, speech), speech)
    if minutes >= _HOUR:
        return _two(_hours(minutes // _HOUR, speech), _minutes(minutes % _HOUR, speech), speech)
    return _minutes(minutes, speech)


def _two(large: str, small: str, speech: Speech) -> str:
    if not small:
        return large
    return speech.pgettext("duration", "%(large)s %(small)s", large=large, small=small)


def _weeks(num: int, speech: Speech) -> str:
    return speech.npgettext("duration", "%(num)d week", "%(num)d weeks", num)


def _days(num: int, speech: Speech) -> str:
    return speech.npgettext("duration", "%(num)d day", "%(num)d days", num)


def _hours(num: int, speech: Speech) -> str:
    return speech.npgettext("duration", "%(num)d hour", "%(num)d hours", num) if num else ""


def _minutes(num: int, speech: Speech) -> str:
    return speech.npgettext("duration", "%(num)d minute", "%(num)d minutes", num) if num else ""
