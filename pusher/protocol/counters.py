"""`vnd.fastmail.counters`: one text of numbers, three generations of it, as named numbers.

The counters belong to the owner of the mailbox and lag behind in most events
(`mboxevent.lags`): keep the maximum per name.
"""

from __future__ import annotations

from typing import Annotated, Final, NamedTuple

import msgspec


class Counters(NamedTuple):
    """The newest modification sequences of one owner; 0 is "never" or "not told".

    `*_folders` move when the set of mailboxes of that kind changes. `racl` moves when others share
    something with this owner. `uidvalidity` is the last one given out: 32 bit, not a modseq.
    """

    highest: int
    mail: int
    calendar: int
    contacts: int
    notes: int
    mail_folders: int
    calendar_folders: int
    contacts_folders: int
    notes_folders: int
    quota: int
    racl: int
    uidvalidity: int


_Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
# A JSON list of integers is the quickest exact reader: no sign, no `_`, no other script's digits.
_decode: Final = msgspec.json.Decoder(list[_Number]).decode


def numbers(text: str) -> list[int]:
    """The plain numbers in `text`, [] if it is anything but numbers up to 2**63-1; for speed.

    Of today's generation there are 13 or more, and 1 to 12 are the fields of Counters in order.
    """
    if "," in text:
        return []
    try:
        return _decode(f"[{text.replace(' ', ',')}]")
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return []


def parse(text: str) -> Counters | None:
    """The counters in `text`, or None if it is none of the known generations.

    13 numbers or more: Cyrus 3.2 and later (the first is the version of the file's format, what
    follows the 13th is unknown and ignored). 11: Cyrus 3.0, without quota and racl. 6: 2014.
    """
    found = numbers(text)
    return Counters._make(found[1:13]) if len(found) >= 13 else _older(found)


def _older(numbers: list[int]) -> Counters | None:
    if len(numbers) == 11:
        return Counters._make((*numbers[1:10], 0, 0, numbers[10]))
    if len(numbers) == 6:
        return Counters._make((*numbers[1:5], 0, 0, 0, 0, 0, 0, 0, numbers[5]))
    return None
