"""Times in words: whole days, several days, zones, floating times, changes of clocks."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Literal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifyd.compose.countdown import countdown, reference
from notifyd.compose.when import When, decode_span, in_words, known_zone, moment
from shared.errors import DecodeError
from shared.events import CalendarAlarm
from tests.support.alarm_mails import LOCALES, voice

BERLIN = ZoneInfo("Europe/Berlin")
NEW_YORK = "America/New_York"
NOW = datetime(2026, 11, 24, 8, 50, tzinfo=UTC)


def alarm(start: str, end: str = "", timezone: str = "", **more: object) -> CalendarAlarm:
    return CalendarAlarm(account="a", start=start, end=end, timezone=timezone, **more)  # type: ignore[arg-type]


def words(
    alarm: CalendarAlarm,
    locale: str = "en",
    zone: str = "Europe/Berlin",
    clock: Literal["12", "24"] | None = None,
) -> When:
    speech = voice().speech(locale)
    return in_words(decode_span(alarm), speech, ZoneInfo(zone), clock, 2026)


def until(alarm: CalendarAlarm, locale: str = "en", now: datetime | None = None) -> str:
    span = decode_span(alarm)
    since = reference(alarm, span, BERLIN, now or datetime(1999, 1, 1, tzinfo=UTC))
    return countdown(span, since, BERLIN, voice().speech(locale))


def test_one_day_has_its_date_once() -> None:
    when = words(alarm("20261124T100000", "20261124T113000", "Europe/Berlin"))
    assert when.day == "Tuesday, November 24, 2026"
    assert when.hours == "10:00 – 11:30 AM"
    assert when.zone == "Central European Standard Time"
    assert when.elsewhere == ""
    assert when.short == "Tue, Nov 24, 10:00 AM"
    assert (when.month, when.number) == ("Nov", "24")


def test_several_days_have_both_dates() -> None:
    when = words(alarm("20261124T100000", "20261126T090000", "Europe/Berlin"))
    assert when.day == "Tue, Nov 24, 2026, 10:00 AM – Thu, Nov 26, 2026, 9:00 AM"
    assert when.hours == ""


def test_until_midnight_is_still_one_day() -> None:
    when = words(alarm("20261124T220000", "20261125T000000", "Europe/Berlin"), "de")
    assert (when.day, when.hours) == ("Dienstag, 24. November 2026", "22:00 – 00:00")


@pytest.mark.parametrize("end", ["", "20261124T100000", "20261124T090000", "nonsense", "20261125"])
def test_an_end_that_is_none_leaves_the_start(end: str) -> None:
    when = words(alarm("20261124T100000", end, ""))
    if end == "20261125":  # a date where a time belongs: its midnight
        assert when.hours == "10:00 AM – 12:00 AM"
    else:
        assert when.hours == "10:00 AM"
    assert when.day == "Tuesday, November 24, 2026"


@pytest.mark.parametrize(
    ("end", "day", "hours"),
    [
        ("20261125", "Tuesday, November 24, 2026", "All day"),
        ("20261124", "Tuesday, November 24, 2026", "All day"),
        ("", "Tuesday, November 24, 2026", "All day"),
        ("nonsense", "Tuesday, November 24, 2026", "All day"),
        ("20261127", "Tue, Nov 24 – Thu, Nov 26, 2026", "3 days"),
    ],
)
def test_the_end_of_whole_days_is_exclusive(end: str, day: str, hours: str) -> None:
    when = words(alarm("20261124", end, all_day=True))
    assert (when.day, when.hours, when.short) == (day, hours, "Tue, Nov 24")


@pytest.mark.parametrize(
    ("locale", "day"),
    [
        ("de", "Mi., 30. Dez. 2026 – Sa., 2. Jan. 2027"),
        ("ja", "2026年12月30日(水)～2027年1月2日(土)"),
        ("ar", "الأربعاء، 30 ديسمبر 2026 – السبت، 2 يناير 2027"),
    ],
)
def test_whole_days_over_the_end_of_the_year(locale: str, day: str) -> None:
    assert words(alarm("20261230", "20270103", all_day=True), locale).day == day


@pytest.mark.parametrize("timezone", ["", "Europe/Berlin", "Pacific/Kiritimati", "Mars/Olympus"])
def test_whole_days_are_the_same_days_everywhere(timezone: str) -> None:
    when = words(alarm("20261124", "20261125", timezone, all_day=True), zone="Pacific/Honolulu")
    assert when.day == "Tuesday, November 24, 2026"
    assert (when.zone, when.elsewhere) == ("", "")


def test_the_event_s_own_zone_is_told_where_it_differs() -> None:
    when = words(alarm("20261124T040000", "20261124T053000", NEW_YORK))
    assert when.hours == "10:00 – 11:30 AM"
    assert when.elsewhere == (
        "In the time zone of the event: 4:00 – 5:30 AM (Eastern Standard Time)"
    )


def test_another_day_in_the_event_s_zone_is_told() -> None:
    when = words(alarm("20261130T220000", "20261130T234500", NEW_YORK), "de")
    assert (when.day, when.hours) == ("Dienstag, 1. Dezember 2026", "04:00–05:45 Uhr")
    assert "Mo., 30. Nov., 22:00–23:45 Uhr" in when.elsewhere


def test_zones_that_differ_by_name_alone_are_told_once() -> None:
    when = words(alarm("20261124T100000", "20261124T113000", "Europe/Paris"))
    assert when.elsewhere == ""


def test_zones_that_differ_in_one_half_of_the_year_are_told_then() -> None:
    """Brisbane has no summer time, Sydney has."""
    winter = words(alarm("20260701T100000", "", "Australia/Brisbane"), zone="Australia/Sydney")
    summer = words(alarm("20261201T100000", "", "Australia/Brisbane"), zone="Australia/Sydney")
    assert winter.elsewhere == ""
    assert "10:00" in summer.elsewhere
    assert summer.hours == "11:00 AM"


def test_times_in_utc_are_shown_in_the_reader_s_zone() -> None:
    when = words(alarm("20261124T090000Z", "20261124T103000Z", "UTC"), "de")
    assert when.hours == "10:00–11:30 Uhr"
    assert "09:00–10:30 Uhr (Koordinierte Weltzeit)" in when.elsewhere


def test_floating_time_is_the_same_everywhere() -> None:
    for zone in ("Asia/Tokyo", "America/Lima"):
        when = words(alarm("20261124T100000", "20261124T110000"), zone=zone)
        assert (when.hours, when.zone, when.elsewhere) == ("10:00 – 11:00 AM", "", "")


@pytest.mark.parametrize(
    "name",
    ["Mars/Olympus", "localtime", "../../etc/passwd", "/etc/passwd", "America", "\0", "x" * 99],
)
def test_a_zone_nobody_knows_floats_and_is_named(name: str) -> None:
    when = words(alarm("20261124T100000", "", name))
    assert (when.hours, when.zone) == ("10:00 AM", "")
    shown = "x" * 59 + "…" if name[0] == "x" else name.strip("\0")
    assert when.elsewhere == (f"Time zone of the event: {shown}" if shown else "")


def test_the_names_windows_gives_to_zones_are_known() -> None:
    assert known_zone("W. Europe Standard Time") == BERLIN
    assert words(alarm("20261124T100000", "", "W. Europe Standard Time")).zone


@pytest.mark.parametrize(
    ("start", "hours"),
    [
        ("20260329T023000", "3:30 AM"),  # skipped: counts from before the change
        ("20261025T023000", "2:30 AM"),  # twice: the first
    ],
)
def test_local_times_at_a_change_of_clocks(start: str, hours: str) -> None:
    assert words(alarm(start, "", "Europe/Berlin")).hours == hours


def test_an_event_over_a_change_of_clocks_keeps_its_ends() -> None:
    when = words(alarm("20261024T230000", "20261025T040000", "Europe/Berlin"), "de")
    assert when.day.endswith("So., 25. Okt. 2026, 04:00")


@pytest.mark.parametrize(
    ("locale", "clock", "short"),
    [
        ("en", None, "Tue, Nov 24, 2:00 PM"),
        ("en", "24", "Tue, Nov 24, 14:00"),
        ("en-GB", None, "Tue 24 Nov, 14:00"),
        ("de", None, "Di., 24. Nov., 14:00"),
        ("de", "12", "Di., 24. Nov., 2:00 PM"),
        ("ja", None, "11月24日(火) 14:00"),
        ("ja", "12", "11月24日(火) 午後2:00"),
        ("ar", None, "الثلاثاء، 24 نوفمبر، 2:00 م"),
        ("ar", "24", "الثلاثاء، 24 نوفمبر، 14:00"),
        ("pl", None, "wt., 24 lis, 14:00"),
        ("fr", None, "mar. 24 nov., 14:00"),
        ("fr-CA", None, "mar. 24 nov., 14 h 00"),
        ("es", None, "mar, 24 nov, 14:00"),
        ("pt-BR", None, "ter., 24 de nov., 14:00"),
    ],
)
def test_hours_are_as_the_reader_wants_or_the_country_has_them(
    locale: str, clock: Literal["12", "24"] | None, short: str
) -> None:
    assert words(alarm("20261124T140000", "", "Europe/Berlin"), locale, clock=clock).short == short


def test_the_country_s_own_months_are_used() -> None:
    assert words(alarm("20270105T140000"), "de-AT").day == "Dienstag, 5. Jänner 2027"


def test_another_year_is_told_in_short_too() -> None:
    assert words(alarm("20270105T140000")).short == "Tue, Jan 5, 2027, 2:00 PM"


@pytest.mark.parametrize(
    "start",
    ["", "nonsense", "20261324T100000", "20261124T250000", "00010101T000000", "99991231T235959Z",
     "2026-11-24T10:00:00", "20261124T1000", "٢٠٢٦١١٢٤", "20261124T100000Z\n"],
)  # fmt: skip
def test_a_start_that_is_none_is_refused_by_name(start: str) -> None:
    with pytest.raises(DecodeError, match="unknown-start"):
        decode_span(alarm(start, timezone="Europe/Berlin"))


def test_a_leap_second_is_a_second() -> None:
    assert moment("20161231T235960Z", None) == datetime(2016, 12, 31, 23, 59, 59, tzinfo=UTC)


@given(start=st.text(), end=st.text(), timezone=st.text(), all_day=st.booleans())
def test_any_text_is_a_time_or_refused(start: str, end: str, timezone: str, all_day: bool) -> None:
    with suppress(DecodeError):
        assert words(alarm(start, end, timezone, all_day=all_day)).day


@given(
    start=st.from_regex(r"\d{8}(T[0-2]\d[0-5]\d[0-5]\dZ?)?", fullmatch=True),
    end=st.from_regex(r"\d{8}(T[0-2]\d[0-5]\d[0-5]\dZ?)?", fullmatch=True),
    timezone=st.sampled_from(["", "UTC", NEW_YORK, "Europe/Berlin", "Asia/Kathmandu", "?"]),
    all_day=st.booleans(),
    locale=st.sampled_from(LOCALES),
)
def test_any_time_has_words(
    start: str, end: str, timezone: str, all_day: bool, locale: str
) -> None:
    made = alarm(start, end, timezone, all_day=all_day, alarm_time=end)
    with suppress(DecodeError):
        when = words(made, locale)
        assert when.day
        assert when.short
        assert until(made, locale, NOW)


@pytest.mark.parametrize(
    ("at", "said"),
    [
        ("20261124T085000Z", "Starts in 10 minutes"),
        ("20261124T085900Z", "Starts in 1 minute"),
        ("20261124T090000Z", "Starts now"),
        ("20261124T085940Z", "Starts now"),
        ("20261124T073000Z", "Starts in 1 hour 30 minutes"),
        ("20261124T070000Z", "Starts in 2 hours"),
        ("20261123T080000Z", "Starts in 1 day 1 hour"),
        ("20261123T090000Z", "Starts in 1 day"),
        ("20261110T090000Z", "Starts in 2 weeks"),
        ("20261124T091500Z", "Started 15 minutes ago"),
        ("20261124T095000", "Starts in 10 minutes"),
    ],
)
def test_how_long_until_it_starts(at: str, said: str) -> None:
    assert until(alarm("20261124T100000", "", "Europe/Berlin", alarm_time=at)) == said


@pytest.mark.parametrize(
    ("at", "said"),
    [
        ("20261124T090000", "Today"),
        ("20261123T230000", "Tomorrow"),
        ("20261123T000000", "Tomorrow"),
        ("20261121T090000", "Starts in 3 days"),
        ("20261117T090000", "Starts in 1 week"),
        ("20261126T090000", "Started 2 days ago"),
    ],
)
def test_how_long_until_a_whole_day(at: str, said: str) -> None:
    assert until(alarm("20261124", "20261125", all_day=True, alarm_time=at)) == said


def test_a_whole_day_begins_where_the_event_is() -> None:
    """23:30 on the 23rd in Tokyo is still "tomorrow" there, and long the 23rd in Berlin too."""
    made = alarm("20261124", "20261125", "Asia/Tokyo", all_day=True, alarm_time="20261123T153000Z")
    assert until(made) == "Today"


def test_hours_are_real_hours_over_a_change_of_clocks() -> None:
    made = alarm("20261025T040000", "", "Europe/Berlin", alarm_time="20261024T230000")
    assert until(made) == "Starts in 6 hours"


def test_a_late_mail_counts_from_when_it_is_written() -> None:
    made = alarm("20261124T090000Z", "", "UTC", alarm_time="20261124T085000Z")
    assert until(made, now=datetime(2026, 11, 24, 8, 52, tzinfo=UTC)) == "Starts in 10 minutes"
    late = datetime(2026, 11, 24, 11, 0, tzinfo=UTC)
    assert until(made, now=late) == "Started 2 hours ago"


@pytest.mark.parametrize(
    ("locale", "minutes", "said"),
    [
        ("pl", 1, "Rozpoczyna się za 1 minutę"),
        ("pl", 2, "Rozpoczyna się za 2 minuty"),
        ("pl", 5, "Rozpoczyna się za 5 minut"),
        ("pl", 12, "Rozpoczyna się za 12 minut"),
        ("pl", 22, "Rozpoczyna się za 22 minuty"),
        ("ar", 1, "يبدأ بعد دقيقة واحدة"),
        ("ar", 2, "يبدأ بعد دقيقتين"),
        ("ar", 3, "يبدأ بعد 3 دقائق"),
        ("ar", 11, "يبدأ بعد 11 دقيقة"),
        ("ja", 1, "1分後に開始"),
        ("fr", 1, "Commence dans 1 minute"),
        ("de", 2, "Beginnt in 2 Minuten"),
        ("pt-BR", 10, "Começa em 10 minutos"),
        ("es", 10, "Empieza en 10 minutos"),
    ],
)
def test_plurals_are_each_language_s_own(locale: str, minutes: int, said: str) -> None:
    start = f"20261124T09{minutes:02}00Z"
    assert until(alarm(start, "", "UTC", alarm_time="20261124T090000Z"), locale) == said
