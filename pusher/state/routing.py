"""Who is concerned by a mailbox event, and which of their numbers it moves.

A pure table of meaning: event in, `Route` out. Knows event types, owners and readers; not who is
connected, nor what a stream looks like.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from pusher.protocol import acl, imapurl
from pusher.protocol.mboxevent import MailboxChange, MailboxEvent, kind, lags
from pusher.protocol.numbers import (
    CALENDAR,
    CALENDAR_FOLDERS,
    CONTACTS,
    CONTACTS_FOLDERS,
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


class Route(NamedTuple):
    """Whom the events of one type in one mailbox concern."""

    #: Whose mailbox it is; None if it is nobody's, or cannot be told.
    account: str | None
    #: Why such an event goes no further unless it has counters; "" if it moves numbers.
    rests: str
    #: The number it moves.
    position: int
    #: Its counters are from after the change.
    fresh: bool
    #: Its modseq is one of the number it moves.
    has_modseq: bool
    #: It brings a new message into a mail folder.
    delivers: bool
    #: Its counters tell all: it is fresh, and what it moves is counted.
    is_complete: bool
    #: Others who may see the mailbox, or could until now.
    readers: frozenset[str]


def route(event: MailboxChange | MailboxEvent) -> Route:
    """Return whom `event` concerns."""
    uri = event.uri
    if uri is None:
        return _find_route(event.event_type, None, event.mbtype, None, None, _actor(event))
    # Nearly always the mailbox is known and nobody's rights have changed: then it is enough to
    # compare, which touches a third of the memory that hashing all of it does.
    known = _last_of.get(uri)
    if (
        known is not None
        and known[0] == event.event_type
        and known[1] == event.mailbox_acl
        and known[2] == event.mbtype
        and event.acl_subject is None
    ):
        return known[3]
    mailbox = uri.partition("/;UID=")[0]
    rights, actor = event.mailbox_acl, _actor(event)
    parts = uri, rights, actor, event.event_type, event.mbtype, event.acl_subject
    is_short = sum(len(part) for part in parts if part is not None) < _LONGEST_REMEMBERED
    find = _route if is_short else _find_route
    found = find(event.event_type, mailbox, event.mbtype, rights, event.acl_subject, actor)
    if (
        is_short
        and mailbox == uri
        and found.account is not None
        and event.event_type not in _OWN_EVENTS
        and event.acl_subject is None
        and kind(event.mbtype) != "sieve"  # whose it is may depend on who acted
    ):
        if len(_last_of) >= _MOST_REMEMBERED:
            _last_of.clear()
        type_, mbtype = sys.intern(event.event_type), event.mbtype and sys.intern(event.mbtype)
        _last_of[uri] = (type_, rights, mbtype, found)
    return found


_MOST_REMEMBERED: Final = 32_768
_LONGEST_REMEMBERED: Final = 2048
#: No token can name a longer account.
_LONGEST_ACCOUNT: Final = 1024
_last_of: dict[str, tuple[str, str | None, str | None, Route]] = {}


def _actor(event: MailboxChange | MailboxEvent) -> str | None:
    return event.user_id or event.user


def _find_route(
    event_type: str,
    uri: str | None,
    mbtype: str | None,
    mailbox_acl: str | None,
    acl_subject: str | None,
    actor: str | None,
) -> Route:
    account = _owner(event_type, uri, mbtype, mailbox_acl, actor)
    if account is not None:
        # One object in all tables is found without comparing.
        account = sys.intern(account) if len(account) <= _LONGEST_ACCOUNT else None
    readers = _others(account, mailbox_acl, acl_subject if event_type == "AclChange" else None)
    what = kind(mbtype)
    is_about_folders = event_type in _FOLDER_EVENTS
    position = _FOLDERS.get(what, MAIL_FOLDERS) if is_about_folders else _CONTENT.get(what, MAIL)
    rests = "changes nothing" if event_type in _NO_CHANGE else ""
    if account is None and not readers:
        rests = "owner unknown"
    return Route(
        account,
        rests,
        position,
        fresh=not lags(event_type),
        has_modseq=not is_about_folders,
        delivers=event_type in _DELIVERIES and position == MAIL,
        is_complete=not lags(event_type) and position not in (SUBMISSION, SIEVE),
        readers=readers,
    )


_route: Final = lru_cache(maxsize=4096)(_find_route)


def _owner(
    event_type: str,
    uri: str | None,
    mbtype: str | None,
    mailbox_acl: str | None,
    actor: str | None,
) -> str | None:
    """Return whose account it is about: the owner in `uri`, else the best hint there is.

    The actor counts only where there is no mailbox, or the event is about himself.
    """
    if event_type in _OWN_EVENTS or uri is None:
        return actor or None
    name = imapurl.parse(uri)
    if name.owner is not None:
        return name.owner
    if kind(mbtype) == "sieve" and name.folder in ("", "user"):
        # timsieved names no mailbox; a script's only reader is its owner.
        users = acl.readers(mailbox_acl or "").users
        return next(iter(users)) if len(users) == 1 else actor or None
    return None


def _others(
    account: str | None, mailbox_acl: str | None, acl_subject: str | None
) -> frozenset[str]:
    users = acl.readers(mailbox_acl or "").users
    if acl_subject:
        # Who lost his rights has something to refresh as well, and is in no list any more.
        users |= {acl_subject.removeprefix("-")}
    return frozenset(user for user in users if user != account and len(user) <= _LONGEST_ACCOUNT)


def uncounted(states: Mapping[str, str]) -> list[tuple[int, int]]:
    """Return the numbers that JMAP states have and the counters lack: (position, number) each."""
    found = []
    for name, position in (("EmailSubmission", SUBMISSION), ("SieveScript", SIEVE)):
        text = states.get(name, "")
        if text.isascii() and text.isdecimal() and len(text) < 19 and text != "0":
            found.append((position, int(text)))
    return found
