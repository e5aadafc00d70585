"""What happened, in this project's own words: the form everything outside the wire works with.

No vendor's key and no wire spelling gets this far. Every struct is written as stable JSON with
the field names below: names are only ever added, and `version` counts what is not compatible.
Text is free of control characters and of bidirectional controls, but not escaped for any format;
`description` and `message` may have several lines, ended by LF.
"""

from __future__ import annotations

import hashlib
import json
from typing import TypeVar

import msgspec

from shared.errors import DecodeError

_T = TypeVar("_T", bound="_Versioned")


class _Versioned(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    # A factory, because plain defaults are not written and the version always must be.
    version: int = msgspec.field(default_factory=lambda: 1)

    def to_json(self) -> bytes:
        """This as compact UTF-8 JSON; what has its default value is left out."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls: type[_T], data: bytes | str) -> _T:
        """What `to_json` wrote, unknown keys ignored.

        Raises DecodeError: "bad-payload", or "unknown-version" for what a later release wrote.
        """
        try:
            value = msgspec.json.decode(data, type=cls)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            raise DecodeError("bad-payload") from None
        if value.version != 1:
            raise DecodeError("unknown-version")
        return value


class Person(msgspec.Struct, frozen=True, omit_defaults=True):
    """A name and an address, either of which may be missing; the address may be nonsense."""

    email: str
    name: str = ""


class Attendee(msgspec.Struct, frozen=True, omit_defaults=True):
    """One who takes part in a calendar event; `uri` may be mailto:, tel:, urn:uuid: ...

    `status` is PARTSTAT: "ACCEPTED", "DECLINED", "TENTATIVE", "NEEDS-ACTION", ... or "".
    """

    uri: str
    name: str = ""
    status: str = ""


class ModSeqs(msgspec.Struct, frozen=True, omit_defaults=True):
    """The owner's newest modification sequences, as the event told them; 0 is "never"."""

    highest: int = 0
    mail: int = 0
    calendar: int = 0
    contacts: int = 0
    notes: int = 0
    mail_folders: int = 0
    calendar_folders: int = 0
    contacts_folders: int = 0
    notes_folders: int = 0
    quota: int = 0
    sharing: int = 0
    uidvalidity: int = 0


class CalendarAlarm(_Versioned, frozen=True, kw_only=True, omit_defaults=True):
    """An alarm of a calendar event has gone off for one user; the payload of a calendar job.

    Times are in iCalendar's basic form: `20261124T024500Z` in UTC, without `Z` local time in
    `timezone`, `20261125` if `all_day`. `end` is exclusive. `timezone` is "UTC", a name of the
    tz database, or "" for floating time.
    """

    #: Whose alarm it is, not always the owner of the calendar.
    account: str
    #: The calendar's owner, "" if the server does not say.
    owner: str = ""
    calendar_id: str = ""
    calendar_name: str = ""
    #: "#FF2968FF" or "".
    calendar_color: str = ""
    calendar_event_id: str = ""
    uid: str = ""
    recurrence_id: str = ""
    alert_id: str = ""
    #: "display" or "email".
    action: str = ""
    alarm_time: str = ""
    #: Addresses without `mailto:`; empty means the user himself.
    recipients: tuple[str, ...] = ()
    summary: str = ""
    description: str = ""
    location: str = ""
    timezone: str = ""
    start: str = ""
    end: str = ""
    all_day: bool = False
    attendees: tuple[Attendee, ...] = ()
    #: A URI, mostly mailto:, or "".
    organizer: str = ""


class SieveNotify(_Versioned, frozen=True, kw_only=True, omit_defaults=True):
    """A Sieve script asks for somebody to be notified (RFC 5435); the payload of a Sieve job."""

    #: The owner of the script; "" if the server does not say.
    account: str = ""
    #: In lower case: "mailto", "sms", "tel", "xmpp", "https", or the name of a local notifier.
    method: str = ""
    #: The method's whole URI as the script has it, still percent-encoded; "" for a bare name.
    uri: str = ""
    #: Addresses or numbers of mailto, sms, tel and xmpp.
    recipients: tuple[str, ...] = ()
    #: Header fields and parameters of the URI (`subject`, `body`, ...), names in lower case.
    parameters: dict[str, str] = {}
    #: The script's `:options`, without what has become a recipient.
    options: tuple[str, ...] = ()
    #: "high", "normal" or "low".
    priority: str = "normal"
    message: str = ""
    #: Where the message that set it off lies, in raw RFC 5322; "" if there is none.
    filepath: str = ""


class NormalEvent(_Versioned, frozen=True, kw_only=True, omit_defaults=True):
    """Any mailbox event in full, for webhooks, traces and rules; what is None was not told."""

    #: As the producer names it: the names of RFC 5423 and Cyrus' own.
    event_type: str
    #: What the mailbox holds: "mail", "calendar", "contacts", ...; None if none is concerned.
    kind: str | None = None
    #: Whose mailbox it is (of a login, who logged in); None if nobody's, or not told.
    account: str | None = None
    #: Who did it.
    actor: str | None = None
    #: "INBOX", "Work/Reports": levels joined by "/".
    folder: str | None = None
    old_folder: str | None = None
    #: Stays the same when the folder is renamed.
    mailbox_id: str | None = None
    uidvalidity: int | None = None
    uid: int | None = None
    #: IMAP sequence sets: "2:4,6".
    uids: str | None = None
    old_uids: str | None = None
    uidnext: int | None = None
    modseq: int | None = None
    messages: int | None = None
    unseen_messages: int | None = None
    conversations: int | None = None
    unseen_conversations: int | None = None
    flags: tuple[str, ...] | None = None
    modseqs: ModSeqs | None = None
    #: Whether `modseqs` and `states` may be from before this change.
    modseqs_lag: bool = False
    #: JMAP state by JMAP type.
    states: dict[str, str] | None = None
    subject: str | None = None
    from_: tuple[Person, ...] | None = msgspec.field(default=None, name="from")
    to: tuple[Person, ...] | None = None
    message_ids: tuple[str, ...] | None = None
    size_bytes: int | None = None
    email_id: str | None = None
    thread_id: str | None = None
    conversation_id: str | None = None
    dav_name: str | None = None
    dav_uid: str | None = None
    acl_subject: str | None = None
    #: As given to the server (`+te`), None when the entry was removed.
    acl_rights: str | None = None
    #: -1 is "unlimited".
    quota_kilobytes: int | None = None
    used_kilobytes: int | None = None
    max_messages: int | None = None
    alarm: CalendarAlarm | None = None
    service: str | None = None
    server: str | None = None
    #: ISO 8601 with offset.
    timestamp: str | None = None
    session_id: str | None = None
    client_ip: str | None = None
    client_port: int | None = None


def job_key(*parts: str) -> str:
    """A stable key of `parts` for the queue: short and readable for people, exact by its hash."""
    exact = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
    readable = ":".join(part[:40] for part in parts if part)
    return f"{readable[:160]}:{exact}"
