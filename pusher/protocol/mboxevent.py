"""The JSON of a mailbox event: RFC 5423 as Cyrus speaks it, under plain names.

The only file that knows `vnd.cmu.*` and `vnd.fastmail.*`. Does not know what a value means to
whom: owner and folder are `imapurl`'s, `counters` and `mailbox_acl` have their own readers.
"""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any, Final, NoReturn

import msgspec

from shared.errors import DecodeError

#: What a decoder reads from; a memoryview may change afterwards.
Buffer = bytes | memoryview

#: Every reason `decode` refuses a message for; metric labels.
REASONS: Final[frozenset[str]] = frozenset(
    {"not-json", "not-an-object", "no-event-type", "too-deep"}
)

#: The event types of RFC 5423 §4, with the group Cyrus switches them by.
RFC5423_EVENTS: Final[dict[str, str]] = {
    "MessageAppend": "message",
    "MessageExpire": "message",
    "MessageExpunge": "message",
    "MessageNew": "message",
    "QuotaExceed": "quota",
    "QuotaWithin": "quota",
    "QuotaChange": "quota",
    "MessageRead": "flags",
    "MessageTrash": "flags",
    "FlagsSet": "flags",
    "FlagsClear": "flags",
    "Login": "access",
    "Logout": "access",
    "MailboxCreate": "mailbox",
    "MailboxDelete": "mailbox",
    "MailboxRename": "mailbox",
    "MailboxSubscribe": "subscription",
    "MailboxUnSubscribe": "subscription",
}

#: What Cyrus adds to them.
CYRUS_EVENTS: Final[dict[str, str]] = {
    "vnd.cmu.MessageCopy": "message",
    "vnd.cmu.MessageMove": "message",
    "MailboxModseq": "mailbox",
    "AclChange": "mailbox",
    "CalendarAlarm": "calendar",
    "ApplePushService": "applepushservice",
    "ApplePushServiceDAV": "applepushservice",
    "MessagesUnscheduled": "jmap",
}

_UP_TO_DATE: Final = frozenset({"MailboxModseq", "AclChange", "MailboxCreate"})


def lags(event_type: str) -> bool:
    """Whether the counters of such an event are from before the change it reports.

    Its `modseq` is the new one all the same, so: keep maxima, and let no event lower anything.
    """
    return event_type not in _UP_TO_DATE


_KINDS: Final = {
    "e": "mail",
    "c": "calendar",
    "a": "contacts",
    "b": "dav",
    "f": "sieve",
    "s": "submission",
    "p": "push",
    "n": "news",
    "j": "jmapnotification",
}


def kind(mbtype: str | None) -> str:
    """What a mailbox holds, by the first letter of its type (flags follow it); absent is "mail"."""
    return _KINDS.get(mbtype[0], "other") if mbtype else "mail"


# -1 is "unlimited"; what does not fit in 63 bits is nobody's counter.
_Number = Annotated[int, msgspec.Meta(ge=-1, le=2**63 - 1)]

_WIRE_NAMES: Final = {
    "event_type": "event",
    "mailbox_id": "mailboxID",
    "old_mailbox_id": "oldMailboxID",
    "unseen_messages": "vnd.cmu.unseenMessages",
    "midset": "vnd.cmu.midset",
    "old_uidset": "vnd.cmu.oldUidset",
    "flag_names": "flagNames",
    "message_size": "messageSize",
    "message_content": "messageContent",
    "envelope": "vnd.cmu.envelope",
    "body_structure": "bodyStructure",
    "emailid": "vnd.cmu.emailid",
    "threadid": "vnd.cmu.threadid",
    "dav_filename": "vnd.cmu.davFilename",
    "dav_uid": "vnd.cmu.davUid",
    "mbtype": "vnd.cmu.mbtype",
    "mailbox_acl": "vnd.cmu.mailboxACL",
    "visible_users": "vnd.cmu.visibleUsers",
    "cmu_session_id": "vnd.cmu.sessionId",
    "session_id": "vnd.fastmail.sessionId",
    "client_id": "vnd.fastmail.clientId",
    "trace_id": "vnd.fastmail.traceId",
    "cid": "vnd.fastmail.cid",
    "conv_exists": "vnd.fastmail.convExists",
    "conv_unseen": "vnd.fastmail.convUnseen",
    "counters": "vnd.fastmail.counters",
    "jmap_states": "vnd.fastmail.jmapStates",
    "jmap_email": "vnd.fastmail.jmapEmail",
    "compact_calendar_ids": "vnd.fastmail.compactCalendarIds",
    "server_fqdn": "serverFQDN",
    "server_domain": "serverDomain",
    "server_port": "serverPort",
    "client_ip": "clientIP",
    "client_port": "clientPort",
    "acl_subject": "aclSubject",
    "acl_rights": "aclRights",
    "disk_quota": "diskQuota",
    "disk_used": "diskUsed",
    "max_messages": "maxMessages",
    "mailbox_unique_id": "mailboxUniqueId",
    "alarm_time": "alarmTime",
    "alarm_recipients": "alarmRecipients",
    "alert_id": "alertId",
    "user_id": "userId",
    "calendar_id": "calendarId",
    "calendar_name": "calendarName",
    "calendar_color": "calendarColor",
    "calendar_owner": "calendarOwner",
    "calendar_event_id": "calendarEventId",
    "uid_ical": "uid",
    "recurrence_id": "recurrenceId",
    "all_day": "allDay",
    "attendee_names": "attendeeNames",
    "attendee_emails": "attendeeEmails",
    "attendee_status": "attendeeStatus",
    "aps_version": "apsVersion",
    "aps_account_id": "apsAccountId",
    "aps_device_token": "apsDeviceToken",
    "aps_subtopic": "apsSubtopic",
    "aps_topic": "apsTopic",
    "mailbox_user": "mailboxUser",
}


class MailboxEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False, rename=_WIRE_NAMES):
    """One mailbox event; None is "not told". In the order of the wire, which decoding relies on
    for its speed, not for its result.
    """

    event_type: Annotated[str, msgspec.Meta(min_length=1)]
    # of nearly every event
    timestamp: str | None = None
    service: str | None = None
    #: Cyrus: the mailbox's unique id, the same over renames. RFC 5423: a URI.
    mailbox_id: str | None = None
    uri: str | None = None
    #: A URI all the same.
    old_mailbox_id: str | None = None
    old_uidset: str | None = None
    # of messages
    modseq: _Number | None = None
    messages: _Number | None = None
    unseen_messages: _Number | None = None
    uidnext: _Number | None = None
    uidset: str | None = None
    midset: list[str] | None = None
    #: Joined by single spaces.
    flag_names: str | None = None
    message_size: _Number | None = None
    envelope: str | None = None
    body_structure: str | None = None
    cid: str | None = None
    emailid: str | None = None
    threadid: str | None = None
    jmap_email: dict[str, Any] | None = None
    dav_filename: str | None = None
    dav_uid: str | None = None
    # of nearly every event again
    pid: _Number | None = None
    #: Who acted, not whose mailbox it is; of push registrations, who registers.
    user: str | None = None
    mbtype: str | None = None
    server_fqdn: str | None = None
    mailbox_acl: str | None = None
    mailbox_unique_id: str | None = None
    visible_users: str | None = None
    cmu_session_id: str | None = None
    #: Sticks to the server process: identifies nothing.
    client_id: str | None = None
    session_id: str | None = None
    conv_exists: _Number | None = None
    conv_unseen: _Number | None = None
    counters: str | None = None
    #: Decimal text by JMAP type.
    jmap_states: dict[str, str] | None = None
    trace_id: str | None = None
    compact_calendar_ids: _Number | None = None
    # AclChange: as the client typed it. Rights are None for DELETEACL, "" when nothing is granted.
    acl_subject: str | None = None
    acl_rights: str | None = None
    # quota, in kB and messages
    disk_quota: _Number | None = None
    disk_used: _Number | None = None
    max_messages: _Number | None = None
    # Login, Logout
    server_domain: str | None = None
    server_port: _Number | None = None
    client_ip: str | None = None
    client_port: _Number | None = None
    # CalendarAlarm; texts are raw iCalendar values, see `icaltext`
    alarm_time: str | None = None
    alarm_recipients: list[str] | None = None
    #: Whose alarm it is; of MessagesUnscheduled, whose messages.
    user_id: str | None = None
    calendar_id: str | None = None
    calendar_name: str | None = None
    calendar_color: str | None = None
    calendar_owner: str | None = None
    calendar_event_id: str | None = None
    uid_ical: str | None = None
    recurrence_id: str | None = None
    alert_id: str | None = None
    action: str | None = None
    summary: str | None = None
    description: str | None = None
    location: str | None = None
    timezone: str | None = None
    start: str | None = None
    end: str | None = None
    all_day: _Number | bool | None = None
    attendee_names: list[str] | None = None
    attendee_emails: list[str] | None = None
    attendee_status: list[str] | None = None
    organizer: str | None = None
    # ApplePushService, ApplePushServiceDAV
    aps_version: _Number | None = None
    aps_account_id: str | None = None
    aps_device_token: str | None = None
    aps_subtopic: str | None = None
    aps_topic: str | None = None
    mailboxes: list[str] | None = None
    mailbox_user: str | None = None
    expiry: _Number | None = None
    # MessagesUnscheduled
    count: _Number | None = None
    # RFC 5423 §5, never sent by Cyrus; `mailbox` is other producers' word for the folder
    admin: str | None = None
    process: str | None = None
    tags: str | None = None
    message_content: str | None = None
    mailbox: str | None = None
    #: Wire names of the keys that were left out because their value cannot be. Never from the
    #: wire: a list of length 0 is all that decodes.
    bad_fields: Annotated[tuple[str, ...], msgspec.Meta(max_length=0)] = ()


class MailboxChange(msgspec.Struct, frozen=True, kw_only=True, gc=False, rename=_WIRE_NAMES):
    """The part of a MailboxEvent that says whose numbers move; reading it takes half the time."""

    event_type: Annotated[str, msgspec.Meta(min_length=1)]
    uri: str | None = None
    modseq: _Number | None = None
    user: str | None = None
    mbtype: str | None = None
    mailbox_acl: str | None = None
    counters: str | None = None
    #: JSON, not looked into, as most events need nothing of it; empty if there is none.
    jmap_states: msgspec.Raw = msgspec.Raw()
    acl_subject: str | None = None
    user_id: str | None = None


class MailboxModseq(msgspec.Struct, frozen=True, kw_only=True, gc=False, rename=_WIRE_NAMES):
    """The part of the commonest event that says where it belongs and what it tells."""

    uri: str
    mbtype: str | None = None
    mailbox_acl: str | None = None
    counters: str


_modseq: Final = msgspec.json.Decoder(MailboxModseq)
_change: Final = msgspec.json.Decoder(MailboxChange)
_event: Final = msgspec.json.Decoder(MailboxEvent)
_FIELDS: Final = tuple(
    field for field in msgspec.structs.fields(MailboxEvent) if field.name != "bad_fields"
)


#: Reads an event as far as it concerns numbers; raises one of CHANGE_ERRORS if anything in it is
#: odd: then `decode` knows better.
decode_change: Final = _change.decode
#: Reads a MailboxModseq that has counters, with the same errors; does not look at its type.
decode_modseq: Final = _modseq.decode
CHANGE_ERRORS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def states(event: MailboxChange | MailboxEvent) -> dict[str, str]:
    """The JMAP states an event tells: decimal text by type name; empty if none, or odd."""
    told = event.jmap_states
    if told is None or isinstance(told, dict):
        return told or {}
    try:
        return _states(told) if told else {}
    except CHANGE_ERRORS:
        return {}


_states: Final = msgspec.json.Decoder(dict[str, str]).decode


def decode(message: bytes) -> MailboxEvent:
    """The event in one JSON object; unknown keys and event types pass.

    A wrong value loses its field, not the event (see `bad_fields`), and bytes that are not UTF-8
    become U+FFFD. Raises DecodeError with one of REASONS.
    """
    try:
        return _event.decode(message)
    except (msgspec.MsgspecError, ValueError):  # ValueError: UTF-8, or a number of 5000 digits
        return _without_bad_fields(_any_object(message))
    except RecursionError:
        raise DecodeError("too-deep") from None


def _without_bad_fields(given: dict[str, Any]) -> MailboxEvent:
    values: dict[str, Any] = {}
    bad: list[str] = []
    for field in _FIELDS:
        if field.encode_name in given:
            try:
                values[field.name] = msgspec.convert(given[field.encode_name], field.type)
            except (msgspec.ValidationError, RecursionError):
                bad.append(field.encode_name)
    if "event_type" not in values:
        raise DecodeError("no-event-type")
    return MailboxEvent(**values, bad_fields=tuple(bad))


def _any_object(message: bytes) -> dict[str, Any]:
    # The standard library's reader takes the halves of surrogate pairs msgspec stops at.
    text = message.decode("utf-8", "replace")
    try:
        lenient = json.loads(
            text, parse_constant=_no_constant, parse_float=_float, parse_int=_integer
        )
        clean = json.dumps(lenient, ensure_ascii=False).encode("utf-8", "replace")
        given = msgspec.json.decode(clean)
    except RecursionError:
        raise DecodeError("too-deep") from None
    except ValueError:
        raise DecodeError("not-json") from None
    if not isinstance(given, dict):
        raise DecodeError("not-an-object")
    return given


def _float(digits: str) -> float:
    # 1e999 is good JSON, but would be infinite here. No field takes a float, so any will do.
    return max(-sys.float_info.max, min(float(digits), sys.float_info.max))


def _integer(digits: str) -> int | float:
    # As long as that it is no good value, and Python would refuse to read it.
    return int(digits) if len(digits) < 30 else _float(digits)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)
