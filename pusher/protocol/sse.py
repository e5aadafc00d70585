"""text/event-stream blocks (HTML §9.2) in the two shapes readers know: ours and JMAP's.

Knows how a state is written; not when, or to whom. Everything that comes from events is a number or
goes through JSON with ASCII escapes, so no CR, LF or NUL can reach a line.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from pusher.protocol.numbers import (
    CALENDAR,
    CONTACTS,
    MAIL,
    PAGE_NUMBERS,
    RESYNC,
    Numbers,
)
from pusher.protocol.profile import JMAP_TYPES, Profile, Shape

#: Largest integer that JavaScript keeps exact; larger ones are written as strings.
MAX_SAFE_INTEGER = 2**53 - 1

#: A comment: keeps proxies and address translators from forgetting an idle connection.
COMMENT_PING = b":\n\n"


def page_numbers(values: Sequence[int]) -> bytes:
    """Return the JSON object of the modseq shape: mail, calendar and contacts modseq."""
    mail, calendar, contacts = values[MAIL], values[CALENDAR], values[CONTACTS]
    if mail > MAX_SAFE_INTEGER or calendar > MAX_SAFE_INTEGER or contacts > MAX_SAFE_INTEGER:
        shown = [n if n <= MAX_SAFE_INTEGER else str(n) for n in (mail, calendar, contacts)]
        keys = ("mailModSeq", "calendarModSeq", "contactsModSeq")
        return _json(dict(zip(keys, shown, strict=True)))
    return b'{"mailModSeq":%d,"calendarModSeq":%d,"contactsModSeq":%d}' % (mail, calendar, contacts)


def push(numbers: Numbers) -> bytes:
    """Return the block of the modseq shape, as FastMail's web client has read it since 2014."""
    return push_row(numbers.id, numbers.values)


def push_row(event_id: int, values: Sequence[int]) -> bytes:
    """Return the same for an id and values that begin with the numbers in their positions."""
    mail, calendar, contacts = values[MAIL], values[CALENDAR], values[CONTACTS]
    if event_id <= MAX_SAFE_INTEGER:  # then each of its parts is
        return _PUSH % (event_id, mail, calendar, contacts)
    return b"event: push\nid: %d\ndata: %b\n\n" % (event_id, page_numbers(values))


_PUSH = b'event: push\nid: %d\ndata: {"mailModSeq":%d,"calendarModSeq":%d,"contactsModSeq":%d}\n\n'


def state_change(account: str, numbers: Numbers, types: tuple[str, ...], mask: int) -> bytes:
    """Return a JMAP StateChange (RFC 8620 §7.1) of the types in `mask`; b"" if there are none."""
    changed = {
        name: str(numbers.values[JMAP_TYPES[name]])
        for name in types
        if mask >> JMAP_TYPES[name] & 1 and numbers.values[JMAP_TYPES[name]]
    }
    return _json({"@type": "StateChange", "changed": {account: changed}}) if changed else b""


def change(profile: Profile, account: str, numbers: Numbers, mask: int) -> bytes:
    """Return what a reader of `account` hears of a change; b"" if it did not ask for it."""
    if mask & RESYNC:
        return resync(profile, account, numbers)
    if profile.shape is Shape.PAGE:
        return push(numbers) if mask & PAGE_NUMBERS else b""
    if not mask & profile.mask:
        return b""
    data = state_change(account, numbers, profile.types, mask)
    return b"event: state\nid: %d\ndata: %b\n\n" % (numbers.id, data) if data else b""


def shared_change(profile: Profile, owner: str, numbers: Numbers, mask: int) -> bytes:
    """Return what a reader hears of a mailbox that `owner` shares with it; b"" if nothing.

    The values are the owner's, the id is the reader's own.
    """
    if not mask & profile.mask:
        return b""
    if profile.shape is Shape.PAGE:
        text = b'{"account":%b,"numbers":%b}' % (_json(owner), page_numbers(numbers.values))
        return b"event: shared\nid: %d\ndata: %b\n\n" % (numbers.id, text)
    data = state_change(owner, numbers, profile.types, mask)
    return b"event: state\nid: %d\ndata: %b\n\n" % (numbers.id, data) if data else b""


def resync(profile: Profile, account: str, numbers: Numbers | None) -> bytes:
    """Return the blocks that say "start over", then what is known, for clients of either age."""
    if numbers is None:
        return b"event: resync\nid: 0\ndata: {}\n\n"
    if not any(numbers.values):
        return b"event: resync\nid: %d\ndata: {}\n\n" % numbers.id
    if profile.shape is Shape.PAGE:
        data = page_numbers(numbers.values)
        return b"event: resync\nid: %d\ndata: %b\n\n" % (numbers.id, data) + push(numbers)
    data = state_change(account, numbers, profile.types, ~0)
    block = b"event: resync\nid: %d\ndata: %b\n\n" % (numbers.id, data or b"{}")
    return block + b"event: state\nid: %d\ndata: %b\n\n" % (numbers.id, data) if data else block


def opening(retry_milliseconds: int, event_id: int, blocks: bytes) -> bytes:
    """Return the first bytes of a stream; its first block carries an id in any case.

    A first block without one makes clients forget their Last-Event-ID. When there is something to
    say at once, it is that first block: an id must not run ahead of what it stands for.
    """
    retry = b"retry: %d\n" % retry_milliseconds
    return retry + blocks if blocks else retry + b"id: %d\n\n" % event_id


def ping(profile: Profile) -> bytes:
    """Return what keeps this reader's connection alive; it never sets an id."""
    if profile.shape is Shape.JMAP and profile.ping_seconds:
        return b'event: ping\ndata: {"interval":%d}\n\n' % profile.ping_seconds
    return COMMENT_PING


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")
