"""When an event is: read from an alarm, and put into words for one reader.

All wording of dates comes from CLDR through babel. The tables of time zones are the machine's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache, lru_cache
from typing import Final, Literal
from zoneinfo import ZoneInfo, available_timezones

from babel import Locale
from babel.core import get_global
from babel.dates import (
    format_date,
    format_interval,
    format_skeleton,
    get_time_format,
    get_timezone_name,
)

from notifyd.compose.render import Speech
from notifyd.compose.typography import one_line, plain_spaces
from shared.errors import DecodeError
from shared.events import CalendarAlarm

_basic: Final = re.compile(r"(\d{4})(\d\d)(\d\d)(?:T(\d\d)(\d\d)(\d\d)(Z?))?", re.ASCII).fullmatch
_MAX_ZONE: Final = 60


@dataclass(frozen=True, slots=True)
class Span:
    """From when to when an event lasts.

    Times are in UTC, or naive if they float; those of an all-day event are naive midnights.
    """

    start: datetime
    #: Exclusive; the start itself if it lasts no time or none is known.
    end: datetime
    all_day: bool
    #: The event's own; None if it has none, or one nobody knows.
    zone: ZoneInfo | None
    #: What it calls the one nobody knows.
    unknown_zone: str = ""


def decode_span(alarm: CalendarAlarm) -> Span:
    """When `alarm`'s event is. Raises DecodeError "unknown-start"; a bad end is no end."""
    zone = known_zone(alarm.timezone)
    all_day = alarm.all_day or "T" not in alarm.start
    start = moment(alarm.start, None if all_day else zone)
    if start is None:
        raise DecodeError("unknown-start")
    end = moment(alarm.end, zone) or start
    if all_day:
        start, end = _midnight(start), _midnight(moment(alarm.end, None) or start)
    if (start.tzinfo is None) != (end.tzinfo is None) or end < start:
        end = start
    unknown = "" if zone else one_line(alarm.timezone, _MAX_ZONE)
    return Span(start, end, all_day, zone, unknown)


def _midnight(time: datetime) -> datetime:
    return datetime(time.year, time.month, time.day)


def moment(text: str, zone: ZoneInfo | None) -> datetime | None:
    """An iCalendar date or date-time: in UTC, naive if without zone; None if it is not one.

    A local time that a change of clocks skips counts from before the change (RFC 5545 §3.3.5).
    """
    match = _basic(text)
    if not match:
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    try:
        found = datetime(year, month, day, hour, minute, min(second, 59))  # 60: a leap second
    except ValueError:
        return None
    if not 1583 <= year <= 9998:  # Gregorian, and room for any offset
        return None
    if match[7] == "Z":
        return found.replace(tzinfo=UTC)
    return found.replace(tzinfo=zone).astimezone(UTC) if zone and match[4] else found


@cache
def _zone_names() -> frozenset[str]:
    return frozenset(available_timezones() - {"localtime", "Factory"})


def known_zone(name: str) -> ZoneInfo | None:
    """The zone of that name in the tz database, or that Windows calls so; None if nobody does."""
    windows: str | None = get_global("windows_zone_mapping").get(name)
    name = windows or name
    return ZoneInfo(name) if name in _zone_names() else None


@dataclass(frozen=True, slots=True)
class When:
    """An event's time in a reader's words. What there is nothing to say about is ""."""

    #: "Tuesday, November 24, 2026", or the first and the last day.
    day: str
    #: "10:00 – 11:00 AM", "All day", "3 days"; "" if `day` has the times.
    hours: str
    #: "Central European Standard Time".
    zone: str
    #: The same in the event's own zone, if its clocks show another time.
    elsewhere: str
    #: For a subject: "Tue, Nov 24, 10:00 AM".
    short: str
    #: For a leaf of a calendar: "Nov" and "24".
    month: str
    number: str


def in_words(
    span: Span,
    speech: Speech,
    zone: ZoneInfo,
    clock: Literal["12", "24"] | None,
    this_year: int,
) -> When:
    """`span` for who lives in `zone` and reads hours as `clock` says; None is as the locale."""
    dates = _Dates(speech, _skeleton(speech, clock))
    if span.all_day:
        return _whole_days(span, dates, this_year)
    start, end = _at(span.start, zone), _at(span.end, zone)
    day, hours = dates.between(start, end)
    floats = span.start.tzinfo is None
    return When(
        day=day,
        hours=hours,
        zone="" if floats else dates.zone(span.start.astimezone(zone)),
        elsewhere=_elsewhere(span, dates, zone),
        short=dates.joined(dates.short_day(start, this_year), dates.time(start)),
        month=dates.month(start),
        number=str(start.day),
    )


def _at(time: datetime, zone: ZoneInfo) -> datetime:
    """What clocks in `zone` show, naive; floating time is the same everywhere."""
    return time.astimezone(zone).replace(tzinfo=None) if time.tzinfo else time


def _skeleton(speech: Speech, clock: Literal["12", "24"] | None) -> str:
    if clock:
        return "hm" if clock == "12" else "Hm"
    return _usual_skeleton(speech.locale)


@lru_cache(maxsize=256)
def _usual_skeleton(locale: Locale) -> str:
    pattern = get_time_format("short", locale).pattern
    return "hm" if "h" in re.sub("'[^']*'", "", pattern) or "K" in pattern else "Hm"


def _whole_days(span: Span, dates: _Dates, this_year: int) -> When:
    last = max(span.end - timedelta(days=1), span.start)
    days = (last - span.start).days + 1
    speech = dates.speech
    several = speech.npgettext("length", "%(num)d day", "%(num)d days", days)
    return When(
        day=dates.days(span.start, last) if days > 1 else dates.day(span.start),
        hours=several if days > 1 else speech.gettext("All day"),
        zone="",
        elsewhere="",
        short=dates.short_day(span.start, this_year),
        month=dates.month(span.start),
        number=str(span.start.day),
    )


def _elsewhere(span: Span, dates: _Dates, zone: ZoneInfo) -> str:
    speech = dates.speech
    if span.unknown_zone:
        return speech.gettext("Time zone of the event: %(zone)s", zone=span.unknown_zone)
    if span.zone is None or span.start.tzinfo is None:
        return ""
    start, end = _at(span.start, span.zone), _at(span.end, span.zone)
    here = _at(span.start, zone), _at(span.end, zone)
    if (start, end) == here:
        return ""
    same_days = (start.date(), end.date()) == (here[0].date(), here[1].date())
    return speech.gettext(
        "In the time zone of the event: %(when)s (%(zone)s)",
        when=dates.times(start, end) if same_days else dates.brief(start, end),
        zone=dates.zone(span.start.astimezone(span.zone)),
    )


@dataclass(frozen=True, slots=True)
class _Dates:
    """Words for naive local times."""

    speech: Speech
    #: "hm" or "Hm", CLDR's for twelve or twenty-four hours.
    hours: str

    def between(self, start: datetime, end: datetime) -> tuple[str, str]:
        """The day and the hours; hours are "" if both ends need their day."""
        if _one_evening(start, end):
            return self.day(start), self.times(start, end)
        ends = (self.joined(self.short_day(at), self.time(at)) for at in (start, end))
        return self.range(*ends), ""

    def brief(self, start: datetime, end: datetime) -> str:
        """Both in short, with days."""
        if _one_evening(start, end):
            return self.joined(self.short_day(start, start.year), self.times(start, end))
        ends = (self.joined(self.short_day(at, at.year), self.time(at)) for at in (start, end))
        return self.range(*ends)

    def times(self, start: datetime, end: datetime) -> str:
        """Hours from one to another; days are told where it is not one evening."""
        if start == end:
            return self.time(start)
        if not _one_evening(start, end):
            return self.brief(start, end)
        if start.date() != end.date():  # babel would add the days to the hours
            return self.range(self.time(start), self.time(end))
        ends = _on_no_day(start), _on_no_day(end)
        return _interval(self.hours, *ends, self.speech.locale)

    def day(self, at: datetime) -> str:
        return _date("full", at.date(), self.speech.locale)

    def month(self, at: datetime) -> str:
        return _date("LLL", at.date(), self.speech.locale)

    def days(self, first: datetime, last: datetime) -> str:
        return _interval("yMMMEd", first, last, self.speech.locale)

    def short_day(self, at: datetime, this_year: int | None = None) -> str:
        skeleton = "MMMEd" if at.year == this_year else "yMMMEd"
        return _words(skeleton, _midnight(at), self.speech.locale)

    def time(self, at: datetime) -> str:
        return _words(self.hours, _on_no_day(at), self.speech.locale)

    def zone(self, at: datetime) -> str:
        return plain_spaces(get_timezone_name(at, "long", locale=self.speech.locale))

    def joined(self, date: str, time: str) -> str:
        return self.speech.gettext("%(date)s, %(time)s", date=date, time=time)

    def range(self, start: str, end: str) -> str:
        return self.speech.gettext("%(start)s – %(end)s", start=start, end=end)


def _one_evening(start: datetime, end: datetime) -> bool:
    """Whether both are on one day, its last midnight included."""
    return start.date() == (end - timedelta(microseconds=1) if end > start else end).date()


# CLDR's words, kept: alarms come at round hours of near days, and many about one event. What does
# not count is the same in each call, the day for hours and the hour for days.

_KEPT: Final = 2048


def _on_no_day(at: datetime) -> datetime:
    return at.replace(year=2000, month=1, day=1)


@lru_cache(maxsize=_KEPT)
def _words(skeleton: str, at: datetime, locale: Locale) -> str:
    return plain_spaces(format_skeleton(skeleton, at, locale=locale))


@lru_cache(maxsize=_KEPT)
def _interval(skeleton: str, start: datetime, end: datetime, locale: Locale) -> str:
    return plain_spaces(format_interval(start, end, skeleton, locale=locale))


@lru_cache(maxsize=_KEPT)
def _date(form: str, day: date, locale: Locale) -> str:
    return plain_spaces(format_date(day, form, locale))
