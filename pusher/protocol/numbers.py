"""The numbers of an account: their positions, change masks, and the form readers are told them in.

A change mask has bit `1 << position` for each number that moved, and RESYNC if all were replaced.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

(
    HIGHEST,
    MAIL,
    CALENDAR,
    CONTACTS,
    NOTES,
    MAIL_FOLDERS,
    CALENDAR_FOLDERS,
    CONTACTS_FOLDERS,
    NOTES_FOLDERS,
    QUOTA,
    RACL,
    SUBMISSION,
    SIEVE,
    DELIVERY,
    SHARED,
) = range(15)

#: How many positions there are.
POSITIONS = 15

#: What people call them, in the order of the positions.
NAMES = (
    "highest",
    "mail",
    "calendar",
    "contacts",
    "notes",
    "mailFolders",
    "calendarFolders",
    "contactsFolders",
    "notesFolders",
    "quota",
    "sharedWithMe",
    "submission",
    "sieve",
    "delivery",
    "shared",
)

#: Bit of a change mask: the numbers were replaced, readers must start over.
RESYNC = 1 << 15
#: Bits of the three numbers that the modseq shape shows.
PAGE_NUMBERS = 1 << MAIL | 1 << CALENDAR | 1 << CONTACTS


class Numbers(msgspec.Struct, frozen=True, gc=False):
    """The state of one account as readers are told it; positions index `values`."""

    id: int
    values: Sequence[int]


#: Of an account that nothing is known of.
UNKNOWN = Numbers(0, (0,) * POSITIONS)
