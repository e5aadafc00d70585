"""From the wire's words to the project's: events, alarms and Sieve requests in normal form."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import zip_longest
from typing import Final

from pusher.protocol import counters, imapurl
from pusher.protocol.envelope import Address, Envelope, decode_envelope
from pusher.protocol.icaltext import parameter_value, text_value
from pusher.protocol.mboxevent import MailboxEvent, kind, lags
from pusher.protocol.sieve import sieve_jobs, sieve_notify
from shared.errors import DecodeError
from shared.events import Attendee, CalendarAlarm, ModSeqs, NormalEvent, Person, job_key
from shared.plaintext import plain, plain_lines

__all__ = [
    "alarm_jobs",
    "calendar_alarm",
    "normal_event",
    "sieve_jobs",
    "sieve_notify",
    "without_mailto",
]

_NO_NAME: Final = imapurl.parse("")


def normal_event(event: MailboxEvent) -> NormalEvent:
    """`event` in normal form; never raises. Device tokens and ACLs are left out on purpose."""
    name = imapurl.parse(event.uri) if event.uri else _NO_NAME
    envelope = _envelope(event.envelope)
    return NormalEvent(
        event_type=_line(event.event_type) or "",
        kind=_kind(event, name),
        account=_account(event, name),
        actor=_line(event.user) or None,
        folder=_line(name.folder) or None,
        old_folder=_folder(event.old_mailbox_id),
        mailbox_id=_line(event.mailbox_id),
        uidvalidity=name.uidvalidity,
        uid=name.uid,
        uids=_line(event.uidset),
        old_uids=_line(event.old_uidset),
        uidnext=event.uidnext,
        modseq=event.modseq,
        messages=event.messages,
        unseen_messages=event.unseen_messages,
        conversations=event.conv_exists,
        unseen_conversations=event.conv_unseen,
        flags=_words(event.flag_names),
        modseqs=_modseqs(event.counters),
        modseqs_lag=event.counters is not None and lags(event.event_type),
        states=_states(event.jmap_states),
        subject=envelope.subject if envelope else None,
        from_=_people(envelope.from_) if envelope else None,
        to=_people(envelope.to) if envelope else None,
        message_ids=_lines(event.midset) if event.midset is not None else None,
        size_bytes=event.message_size,
        email_id=_line(event.emailid),
        thread_id=_line(event.threadid),
        conversation_id=_line(event.cid),
        dav_name=_line(event.dav_filename),
        dav_uid=_line(event.dav_uid),
        acl_subject=_line(event.acl_subject),
        acl_rights=_line(event.acl_rights),
        quota_kilobytes=event.disk_quota,
        used_kilobytes=event.disk_used,
        max_messages=event.max_messages,
        alarm=calendar_alarm(event) if event.event_type == "CalendarAlarm" else None,
        service=_line(event.service),
        server=_line(event.server_fqdn),
        timestamp=_line(event.timestamp),
        session_id=_line(event.session_id or event.cmu_session_id),
        client_ip=_line(event.client_ip),
        client_port=event.client_port,
    )


def _line(text: str | None) -> str | None:
    return None if text is None else plain(text)


def _lines(texts: Iterable[str] | None) -> tuple[str, ...]:
    return tuple(map(plain, texts or ()))


def _words(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(plain(text).split())


def _kind(event: MailboxEvent, name: imapurl.MailboxName) -> str | None:
    if event.event_type == "CalendarAlarm":
        return "calendar"
    return kind(event.mbtype) if name.folder or event.mbtype else None


def _account(event: MailboxEvent, name: imapurl.MailboxName) -> str | None:
    """Whose event it is. Without a mailbox in the URI the one it names otherwise, or the actor."""
    if name.owner or name.folder:
        return name.owner
    return _line(event.user_id or event.mailbox_user or event.user) or None


def _folder(uri: str | None) -> str | None:
    return plain(imapurl.parse(uri).folder) or None if uri else None


def _modseqs(text: str | None) -> ModSeqs | None:
    told = counters.parse(text) if text is not None else None
    return None if told is None else ModSeqs(*told)


def _states(states: dict[str, str] | None) -> dict[str, str] | None:
    return states and {plain(name): plain(state) for name, state in states.items()}


def _envelope(text: str | None) -> Envelope | None:
    try:
        return decode_envelope(text) if text else None
    except DecodeError:
        return None


def _people(addresses: Iterable[Address]) -> tuple[Person, ...]:
    return tuple(Person(address.email, address.name or "") for address in addresses)


def calendar_alarm(event: MailboxEvent) -> CalendarAlarm:
    """The alarm in a CalendarAlarm event, iCalendar's escapes decoded; what is missing is ""."""
    return CalendarAlarm(
        account=plain(event.user_id or ""),
        owner=plain(event.calendar_owner or ""),
        calendar_id=plain(event.calendar_id or ""),
        calendar_name=_read(event.calendar_name, text_value),
        calendar_color=plain(event.calendar_color or ""),
        calendar_event_id=plain(event.calendar_event_id or ""),
        uid=_read(event.uid_ical, text_value),
        recurrence_id=plain(event.recurrence_id or ""),
        alert_id=plain(event.alert_id or ""),
        action=plain(event.action or "").lower(),
        alarm_time=plain(event.alarm_time or ""),
        recipients=_recipients(event.alarm_recipients or ()),
        summary=_read(event.summary, text_value),
        description=plain_lines(text_value(event.description or "")),
        location=_read(event.location, text_value),
        timezone="" if event.timezone == "[floating]" else plain(event.timezone or ""),
        start=plain(event.start or ""),
        end=plain(event.end or ""),
        all_day=bool(event.all_day),
        attendees=_attendees(event),
        organizer=plain(event.organizer or ""),
    )


def _read(raw: str | None, unescape: Callable[[str], str]) -> str:
    return plain(unescape(raw)) if raw else ""


def _recipients(uris: Iterable[str]) -> tuple[str, ...]:
    """The addresses without their scheme, each once, in order."""
    addresses = (plain(without_mailto(uri)).strip() for uri in uris)
    return tuple(dict.fromkeys(address for address in addresses if address))


def without_mailto(uri: str) -> str:
    """The address of a mailto: URI, in any case; anything else as it is."""
    return uri[7:] if uri[:7].lower() == "mailto:" else uri


def _attendees(event: MailboxEvent) -> tuple[Attendee, ...]:
    columns = (event.attendee_emails, event.attendee_names, event.attendee_status)
    rows = zip_longest(*(column or () for column in columns), fillvalue="")
    return tuple(
        Attendee(plain(uri), _read(name, parameter_value), plain(status))
        for uri, name, status in rows
    )


def alarm_jobs(alarm: CalendarAlarm) -> list[tuple[str, str]]:
    """One (key, recipient) for each who is to be told; the user himself if nobody is named.

    The key is the same whenever the same alarm is reported again, by this or another server.
    """
    return [(_alarm_key(alarm, to), to) for to in alarm.recipients or (alarm.account,)]


def _alarm_key(alarm: CalendarAlarm, recipient: str) -> str:
    return job_key(
        alarm.account,
        alarm.calendar_id,
        alarm.uid,
        alarm.recurrence_id or alarm.start,
        alarm.alert_id,
        alarm.alarm_time,
        alarm.action,
        recipient,
    )
