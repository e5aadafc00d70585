"""One notification as Cyrus' `notify()` knows it: datagram, dlist text or JSON object, both ways.

Knows the eight fields and how each transport spells them. Does not know what a MESSAGE means
(`mboxevent`) nor how requests are found in a stream (`framing`).
"""

from __future__ import annotations

import re
from typing import Final, TypeVar

import msgspec

from shared.errors import DecodeError

#: Every reason a datagram, a stream request or a JSON object is refused for; metric labels.
REASONS: Final[frozenset[str]] = frozenset(
    {
        "empty",
        "not-terminated",  # a datagram that does not end in NUL was cut on the way
        "too-few-fields",
        "too-many-fields",
        "bad-option-count",
        "no-class",
        "no-message",
        "bad-field",  # a field has a type it cannot have (a list where text belongs, ...)
        "not-json",
        "not-an-object",
        "too-deep",
        "no-event-or-class",  # a JSON object that is neither a mailbox event nor a notification
        "unknown-request",  # a stream request that starts with neither `NOTIFY %(` nor `{`
        "bad-syntax",
        "file-literal",
        "oversized",
        "truncated",  # the connection ended inside a request
    }
)

#: What Cyrus' parser skips between two JSON lines or requests, and what may follow one.
BLANK: Final = b" \t\r\n"


class Notification(msgspec.Struct, frozen=True, gc=False):
    """What a producer handed over, not yet interpreted.

    None is "not given": dlist NIL; in a datagram none and "" look alike, so the empty string too.
    Text that was not UTF-8 carries U+FFFD. `message` stays bytes: JSON for EVENT and IMIP.
    """

    method: str | None
    class_: str
    priority: str | None
    user: str | None
    mailbox: str | None
    options: tuple[str, ...]
    message: bytes
    filepath: str | None


def text(raw: bytes) -> str:
    """UTF-8 as text; U+FFFD for what is not UTF-8, so that no notification is lost to one byte."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("utf-8", "replace")


def event_head(data: bytes) -> bytes:
    """What precedes MESSAGE in a datagram of CLASS EVENT; b"" if it is not as plain as nearly all
    are: METHOD and MESSAGE, nothing in between, nothing after.
    """
    head = data.find(b"\x00")
    start = head + len(_EVENT_HEAD)
    if not data.startswith(_EVENT_HEAD, head) or head < 1 or data[0] == _BRACE:
        return b""
    return data[:start] if data.find(b"\x00", start) == len(data) - 1 else b""


# CLASS EVENT, no PRIORITY, USER or MAILBOX, no OPTIONS.
_EVENT_HEAD: Final = b"\x00EVENT\x00\x00\x00\x000\x00"


def decode_datagram(data: bytes) -> Notification:
    """One datagram as a notification: NUL separated fields, or one JSON object (first byte `{`).

    Raises DecodeError with one of REASONS.
    """
    fields = data.split(b"\0")
    # Nearly all traffic: CLASS EVENT has nothing but METHOD and MESSAGE, and JSON holds no NUL.
    if len(fields) == 8 and fields[1:6] == _EVENT_FIELDS and not fields[7] and data[0] != _BRACE:
        method = text(fields[0]) or None
        return Notification(method, "EVENT", None, None, None, (), fields[6], None)
    if data[:1] == b"{":
        return decode_json(data)
    return _decode_fields(fields)


_EVENT_FIELDS: Final = [b"EVENT", b"", b"", b"", b"0"]
_BRACE: Final = 0x7B


def _decode_fields(fields: list[bytes]) -> Notification:
    if fields == [b""]:
        raise DecodeError("empty")
    if fields.pop():
        raise DecodeError("not-terminated")
    if len(fields) < 7:
        raise DecodeError("too-few-fields")
    after_options = 6 + _option_count(fields[5])
    rest = fields[after_options:]
    if not rest:
        raise DecodeError("too-few-fields")
    if len(rest) > 2:
        raise DecodeError("too-many-fields")
    method, class_, priority, user, mailbox = (text(field) or None for field in fields[:5])
    if class_ is None:
        raise DecodeError("no-class")
    options = tuple(text(field) for field in fields[6:after_options])
    filepath = text(rest[1]) or None if len(rest) == 2 else None
    return Notification(method, class_, priority, user, mailbox, options, rest[0], filepath)


def _option_count(field: bytes) -> int:
    if not field.isdigit() or len(field) > 5:
        raise DecodeError("bad-option-count")
    return int(field)


class _Head(msgspec.Struct, gc=False):
    """The two keys that tell a mailbox event from a notification; the rest is only skipped."""

    event: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_head: Final = msgspec.json.Decoder(_Head)


def decode_json(data: bytes) -> Notification:
    """One JSON object as a notification; raises DecodeError with one of REASONS.

    With a key `event` it is a mailbox event and MESSAGE is the object itself, byte for byte. Else
    it carries the notification's fields under their lower- or upper-case names; an object as
    `message` is encoded again.
    """
    head = _json(_head, data)
    if head.event is not msgspec.UNSET:
        return Notification(None, "EVENT", None, None, None, (), data.strip(BLANK), None)
    return _from_object(_json(_object, data))


_object: Final = msgspec.json.Decoder(dict[str, object])
_T = TypeVar("_T")


def _json(decoder: msgspec.json.Decoder[_T], data: bytes) -> _T:
    try:
        try:
            return decoder.decode(data)
        except UnicodeDecodeError:
            return decoder.decode(data.decode("utf-8", "replace"))
    except msgspec.ValidationError:
        raise DecodeError("not-an-object") from None
    except msgspec.DecodeError:
        raise DecodeError("not-json") from None
    except RecursionError:
        raise DecodeError("too-deep") from None


def _from_object(given: dict[str, object]) -> Notification:
    def get(name: str) -> object:
        return given[name] if name in given else given.get(name.upper())

    class_ = _text_field(get("class"))
    if not class_:
        raise DecodeError("no-event-or-class")
    return Notification(
        _text_field(get("method")),
        class_,
        _text_field(get("priority")),
        _text_field(get("user")),
        _text_field(get("mailbox")),
        _options_field(get("options")),
        _message_field(get("message")),
        _text_field(get("filepath")),
    )


def _text_field(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise DecodeError("bad-field")


def _options_field(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, list) and all(isinstance(option, str) for option in value):
        return tuple(value)
    raise DecodeError("bad-field")


def _message_field(value: object) -> bytes:
    if value is None:
        raise DecodeError("no-message")
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict):
        return msgspec.json.encode(value)
    raise DecodeError("bad-field")


def encode_datagram(n: Notification) -> bytes:
    """The datagram Cyrus would send for `n`; ValueError if a field holds NUL, which ends fields."""
    head = [n.method, n.class_, n.priority, n.user, n.mailbox, str(len(n.options)), *n.options]
    fields = [(field or "").encode() for field in head]
    fields.append(n.message)
    if n.filepath is not None:
        fields.append(n.filepath.encode())
    if any(b"\0" in field for field in fields):
        raise ValueError("a notification field holds NUL")
    return b"\0".join(fields) + b"\0"


def encode_dlist(n: Notification) -> bytes:
    """The request Cyrus would write for `n` on a `dlist:` connection, CRLF included."""
    options = b" ".join(_dlist_value(option.encode()) for option in n.options)
    return (
        b"NOTIFY %%(METHOD %b CLASS %b PRIORITY %b USER %b MAILBOX %b"
        b" OPTIONS (%b) MESSAGE %b FILEPATH %b)\r\n"
    ) % (
        *(_dlist_text(field) for field in (n.method, n.class_, n.priority, n.user, n.mailbox)),
        options,
        _dlist_value(n.message),
        _dlist_text(n.filepath),
    )


def _dlist_text(value: str | None) -> bytes:
    return b"NIL" if value is None else _dlist_value(value.encode())


# Cyrus' own classes: an odd 0x1F passes as an atom, and quotes never hold an escape or a `%`.
_is_atom: Final = re.compile(
    rb"(?!NIL\Z)[\x1f\x21\x23\x24\x26\x27\x2b-\x5b\x5d-\x7a\x7c-\x7e]+\Z"
).match
_is_quotable: Final = re.compile(rb'[^\r\n"%\\\x80-\xff]*\Z').match
_LONGEST_SHORT_FORM: Final = 1023


def _dlist_value(value: bytes) -> bytes:
    if len(value) <= _LONGEST_SHORT_FORM:
        if _is_atom(value):
            return value
        if _is_quotable(value):
            return b'"%b"' % value
    return b"{%d+}\r\n%b" % (len(value), value)
