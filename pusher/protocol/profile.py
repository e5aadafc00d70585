"""What one reader asked for when it opened its stream; equal wishes share one object."""

from __future__ import annotations

from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from pusher.protocol import numbers
from shared.errors import ProtocolError

#: JMAP type names (RFC 8621, 8620, calendars and contacts drafts) and the number each one is.
#: Cyrus calls the same states so in `vnd.fastmail.jmapStates`.
JMAP_TYPES = {
    "Email": numbers.MAIL,
    "Thread": numbers.MAIL,
    "EmailDelivery": numbers.DELIVERY,
    "Mailbox": numbers.MAIL_FOLDERS,
    "EmailSubmission": numbers.SUBMISSION,
    "CalendarEvent": numbers.CALENDAR,
    "Calendar": numbers.CALENDAR_FOLDERS,
    "ContactCard": numbers.CONTACTS,
    "Contact": numbers.CONTACTS,
    "ContactGroup": numbers.CONTACTS,
    "AddressBook": numbers.CONTACTS_FOLDERS,
    "Note": numbers.NOTES,
    "Quota": numbers.QUOTA,
    "SieveScript": numbers.SIEVE,
}

#: Least and most seconds between JMAP pings; RFC 8620 §7.3 asks for at most 30 and at least 300.
PING_SECONDS = (30, 300)


class Shape(Enum):
    """The two forms an EventSource reader can ask for."""

    PAGE = "page"
    JMAP = "jmap"


class Profile(NamedTuple):
    """The wishes of a reader; `mask` has the bits of the numbers it wants to hear of."""

    shape: Shape
    types: tuple[str, ...]
    mask: int
    closes_after_state: bool
    ping_seconds: int  # 0: no ping events, only comments against idle connections


PAGE = Profile(Shape.PAGE, (), numbers.PAGE_NUMBERS, closes_after_state=False, ping_seconds=0)


@lru_cache(4096)
def jmap_profile(types: str, closeafter: str, ping: str) -> Profile:
    """Return the profile of a JMAP EventSource request (RFC 8620 §7.3) or raise ProtocolError 400.

    `types` is `*` or a comma list; names we have no number for never change, so they are dropped.
    `ping` is clamped into PING_SECONDS.
    """
    if closeafter not in ("state", "no"):
        raise ProtocolError(400, "closeafter must be 'state' or 'no'")
    if not (ping.isascii() and ping.isdecimal()):
        raise ProtocolError(400, "ping must be a number of seconds")
    wanted = set(types.split(","))
    names = tuple(name for name in JMAP_TYPES if "*" in wanted or name in wanted)
    mask = 0
    for name in names:
        mask |= 1 << JMAP_TYPES[name]
    seconds = int(ping[:9])
    low, high = PING_SECONDS
    clamped = min(max(seconds, low), high) if seconds else 0
    return interned(Profile(Shape.JMAP, names, mask, closeafter == "state", clamped))


@lru_cache(4096)
def interned(profile: Profile) -> Profile:
    """Return the one object for all readers with these wishes; streams keep a reference each."""
    return PAGE if profile == PAGE else profile
