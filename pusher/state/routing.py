"""Who is concerned by a mailbox event, and which of their numbers it moves.

A pure table of meaning: event in, `Route` out. Knows event types, owners and readers; not who is
connected, nor what a stream looks like.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple
from zlib import crc32

from pusher.protocol import acl, counters, imapurl
from pusher.protocol.counters import Counters
from pusher.protocol.mboxevent import MailboxEvent, kind, lags
from pusher.protocol.numbers import (
    CALENDAR,
    CALENDAR_FOLDERS,
    CONTACTS,
    CONTACTS_FOLDERS,
    DELIVERY,
    MAIL,
    MAIL_FOLDERS,
    SIEVE,
    SUBMISSION,
)

#: The number that a change inside a mailbox of each kind moves.
_CONTENT: Final[Mapping[str, int]] = {
    "calendar": CALENDAR,
    "contacts": CONTACTS,
    "dav": CALENDAR,  # counted with the calendars (caldavmodseq)
    "sieve": SIEVE,
    "submission": SUBMISSION,
}
#: The number that a change to the set of mailboxes of each kind moves.
_FOLDERS: Final[Mapping[str, int]] = {
    "calendar": CALENDAR_FOLDERS,
    "contacts": CONTACTS_FOLDERS,
    "dav": CALENDAR_FOLDERS,
}
_FOLDER_EVENTS: Final = frozenset(
    {
        "MailboxCreate",
        "MailboxDelete",
        "MailboxRename",
        "MailboxSubscribe",
        "MailboxUnSubscribe",
        "AclChange",
    }
)
#: Events that change nothing a reader sees, unless they carry counters that say otherwise.
_NO_CHANGE: Final = frozenset(
    {
        "Login",
        "Logout",
        "QuotaChange",
        "QuotaExceed",
        "QuotaWithin",
        "CalendarAlarm",
        "ApplePushService",
        "ApplePushServiceDAV",
    }
)
#: Events about what one user did to himself: `user` is the account, whoever owns the mailbox.
_OWN_EVENTS: Final = frozenset({"MailboxSubscribe", "MailboxUnSubscribe", "Login", "Logout"})
_DELIVERIES: Final = frozenset({"MessageNew", "MessageAppend"})
_NOBODY: Final[frozenset[str]] = frozenset()


class Route(NamedTuple):
    """Whom an event concerns. The fields after `account` are arguments of `ModseqTable.apply`."""

    #: Whose mailbox it is; None if it is nobody's, or cannot be told.
    account: str | None
    #: Why the event goes no further, for the trace; "" if it moves numbers.
    rests: str
    position: int
    counters: Counters | None
    modseq: int | None
    fresh: bool
    mailbox: int
    also: tuple[tuple[int, int], ...]
    #: Others who may see the mailbox, or could until now.
    readers: frozenset[str]


def route(event: MailboxEvent, account: str | None = None) -> Route:
    """Return whom `event` concerns; `account` overrides the owner for events that hide it."""
    event_type = event.event_type
    told = counters.parse(event.counters) if event.counters is not None else None
    if account is None:
        account = owner_of(event)
    rests = "changes nothing" if told is None and event_type in _NO_CHANGE else ""
    what = kind(event.mbtype)
    modseq = event.modseq
    mailbox = 0
    if event_type in _FOLDER_EVENTS:
        position, modseq = _FOLDERS.get(what, MAIL_FOLDERS), None
    else:
        position = _CONTENT.get(what, MAIL)
        if told is None and modseq is not None:
            mailbox = crc32((event.mailbox_id or event.uri or "").partition(";")[0].encode())
    also: tuple[tuple[int, int], ...] = ()
    if modseq is not None and event_type in _DELIVERIES and position == MAIL:
        also = ((DELIVERY, modseq),)
    if event.jmap_states is not None:
        also += _uncounted(event.jmap_states)
    readers = _NOBODY if event.mailbox_acl is None else _others(event, account)
    if account is None and not readers:
        rests = rests or "owner unknown"
    return Route(
        account, rests, position, told, modseq, not lags(event_type), mailbox, also, readers
    )


def owner_of(event: MailboxEvent) -> str | None:
    """Return whose account the event is about: the owner in `uri`, else the best hint there is.

    `user` is who acted, so it counts only where there is no mailbox, or the event is about him.
    """
    if event.event_type in _OWN_EVENTS or event.uri is None:
        return event.user_id or event.user or None
    name = imapurl.parse(event.uri)
    if name.owner is not None or name.folder:
        return name.owner
    if kind(event.mbtype) == "sieve" and event.mailbox_acl:
        # timsieved names no mailbox; a script's only reader is its owner.
        users = acl.readers(event.mailbox_acl).users
        return next(iter(users)) if len(users) == 1 else event.user or None
    return None


def _others(event: MailboxEvent, account: str | None) -> frozenset[str]:
    users = acl.readers(event.mailbox_acl or "").users
    if event.event_type == "AclChange" and event.acl_subject:
        # Who lost his rights has something to refresh as well, and is in no list any more.
        users |= {event.acl_subject.removeprefix("-")}
    if not users or (len(users) == 1 and account in users):
        return _NOBODY
    return users - {account} if account is not None else users


def _uncounted(states: Mapping[str, str]) -> tuple[tuple[int, int], ...]:
    """Return the two states that the counters string lacks."""
    found = []
    for name, position in (("EmailSubmission", SUBMISSION), ("SieveScript", SIEVE)):
        text = states.get(name, "")
        if text.isascii() and text.isdecimal() and len(text) < 19 and text != "0":
            found.append((position, int(text)))
    return tuple(found)
