"""Cyrus' dlist, read: the tokens of one `NOTIFY %(key value ...)` CRLF, resumable at every byte.

Liberal where Cyrus' own parser is (escapes in quotes, `{N}` without plus, keys in any order,
unknown keys); knows nothing of connections. Writing is `notification.encode_dlist`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, TypeAlias

from pusher.protocol.notification import Notification, text
from shared.errors import DecodeError

#: One bare word: what Cyrus writes without quotes.
ATOM: Final = rb"[\x1f\x21\x23\x24\x26\x27\x2b-\x5b\x5d-\x7a\x7c-\x7e]+"

#: A list or key-value list is a list; NIL is None.
Value: TypeAlias = "bytes | list[Value] | None"

_START: Final = b"NOTIFY %("
_MAX_DEPTH: Final = 16
#: A thousand times what Cyrus sends; a megabyte of single letters would hold others up for seconds.
_MAX_VALUES: Final = 32_768
_LONGEST_LITERAL_HEAD: Final = 16

_atom: Final = re.compile(ATOM).match
_spaces: Final = re.compile(rb"[ \t]*").match
_quote_stop: Final = re.compile(rb'["\\\r\n\0]').search
_escape: Final = re.compile(rb"\\(.)", re.DOTALL)
_literal_head: Final = re.compile(rb"\{([0-9]{1,10})\+?\}\r?\n").match
_literal_start: Final = re.compile(rb"\{(?:[0-9]{1,10}(?:\+?(?:\}\r?)?)?)?\Z").match

_QUOTE, _OPEN, _CLOSE, _BRACE, _PERCENT = b'"(){%'


class Tokenizer:
    """Reads one request from the start of a buffer that only grows until `advance` succeeds."""

    def __init__(self, max_bytes: int) -> None:
        #: The values between the outer brackets, keys and values in turn.
        self.pairs: list[Value] = []
        self._max_bytes = max_bytes
        self._at = 0  # everything before is done with
        self._searched = 0  # of the token at `_at`: its end is not before this offset
        self._literal_end = 0  # of the literal at `_at`, once its head is complete
        self._open: list[list[Value]] = []
        self._room = _MAX_VALUES

    def advance(self, buffer: bytearray) -> int | None:
        """The offset behind the request, or None if more is needed; raises DecodeError.

        Reasons: "unknown-request", "bad-syntax", "file-literal", "oversized".
        """
        if not self._at and not self._start(buffer):
            return None
        while self._open:
            if not self._token(buffer):
                self._within_limit(len(buffer))
                return None
            self._within_limit(self._at)
        end = self._line_end(buffer)
        self._within_limit(end or 0)
        return end

    def _within_limit(self, size: int) -> None:
        if size > self._max_bytes:
            raise DecodeError("oversized")

    def _start(self, buffer: bytearray) -> bool:
        if buffer[: len(_START)] != _START[: len(buffer)]:
            raise DecodeError("unknown-request")
        if len(buffer) < len(_START):
            return False
        self._open.append(self.pairs)
        return self._move_to(len(_START))

    def _line_end(self, buffer: bytearray) -> int | None:
        ending = bytes(buffer[self._at : self._at + 2])
        if ending == b"\r\n":
            return self._at + 2
        if ending.startswith(b"\n"):
            return self._at + 1
        if ending not in (b"", b"\r"):
            raise DecodeError("bad-syntax")
        return None

    # Each of the rest takes one token at `_at` and says True, or False if it is not complete.

    def _token(self, buffer: bytearray) -> bool:
        if self._literal_end:
            return self._literal(buffer)
        if self._searched == self._at:
            self._skip_spaces(buffer)
        if self._at == len(buffer):
            return False
        reader = _READERS.get(buffer[self._at])
        return reader(self, buffer) if reader else self._bare(buffer)

    def _skip_spaces(self, buffer: bytearray) -> None:
        spaces = _spaces(buffer, self._at)
        if spaces is not None:
            self._move_to(spaces.end())

    def _bare(self, buffer: bytearray) -> bool:
        match = _atom(buffer, self._searched)
        if match is None and self._searched == self._at:
            raise DecodeError("bad-syntax")
        self._searched = match.end() if match else self._searched
        if self._searched == len(buffer):
            return False
        atom = bytes(buffer[self._at : self._searched])
        return self._value(None if atom == b"NIL" else atom, self._searched)

    def _quoted(self, buffer: bytearray) -> bool:
        self._searched = max(self._searched, self._at + 1)
        while stop := _quote_stop(buffer, self._searched):
            end = stop.start()
            if buffer[end] == _QUOTE:
                raw = bytes(buffer[self._at + 1 : end])
                return self._value(_escape.sub(rb"\1", raw), end + 1)
            if stop[0] != b"\\":
                raise DecodeError("bad-syntax")
            if end + 1 == len(buffer):
                self._searched = end
                return False
            self._searched = end + 2
        self._searched = max(self._searched, len(buffer))
        return False

    def _literal(self, buffer: bytearray) -> bool:
        if not self._literal_end and not self._literal_announced(buffer):
            return False
        if len(buffer) < self._literal_end:
            return False
        value = bytes(buffer[self._at : self._literal_end])
        end, self._literal_end = self._literal_end, 0
        return self._value(value, end)

    def _literal_announced(self, buffer: bytearray) -> bool:
        head = bytes(buffer[self._at : self._at + _LONGEST_LITERAL_HEAD])
        match = _literal_head(head)
        if match is None:
            if not _literal_start(head):
                raise DecodeError("bad-syntax")
            return False
        self._move_to(self._at + match.end())
        self._literal_end = self._at + int(match[1])
        self._within_limit(self._literal_end)
        return True

    def _percent(self, buffer: bytearray) -> bool:
        if len(buffer) < self._at + 2:
            self._searched = self._at
            return False
        if buffer[self._at + 1] == _BRACE:
            raise DecodeError("file-literal")
        if buffer[self._at + 1] != _OPEN:
            raise DecodeError("bad-syntax")
        return self._opened(2)

    def _list(self, _buffer: bytearray) -> bool:
        return self._opened(1)

    def _opened(self, length: int) -> bool:
        if len(self._open) == _MAX_DEPTH:
            raise DecodeError("bad-syntax")
        inner: list[Value] = []
        self._value(inner, self._at + length)
        self._open.append(inner)
        return True

    def _closed(self, _buffer: bytearray) -> bool:
        self._open.pop()
        return self._move_to(self._at + 1)

    def _value(self, value: Value, end: int) -> bool:
        self._room -= 1
        if not self._room:
            raise DecodeError("bad-syntax")
        self._open[-1].append(value)
        return self._move_to(end)

    def _move_to(self, offset: int) -> bool:
        self._at = self._searched = offset
        return True


_READERS: Final[dict[int, Callable[[Tokenizer, bytearray], bool]]] = {
    _QUOTE: Tokenizer._quoted,  # noqa: SLF001  # the class's own table
    _OPEN: Tokenizer._list,  # noqa: SLF001
    _CLOSE: Tokenizer._closed,  # noqa: SLF001
    _BRACE: Tokenizer._literal,  # noqa: SLF001
    _PERCENT: Tokenizer._percent,  # noqa: SLF001
}


def to_notification(pairs: list[Value]) -> Notification:
    """The notification in keys and values; unknown keys are ignored, missing ones are NIL.

    Raises DecodeError: "bad-syntax", "bad-field", "no-class", "no-message".
    """
    given = _by_name(pairs)
    class_ = _text(given.get(b"CLASS"))
    message = given.get(b"MESSAGE")
    if not class_:
        raise DecodeError("no-class")
    if message is None:
        raise DecodeError("no-message")
    return Notification(
        _text(given.get(b"METHOD")),
        class_,
        _text(given.get(b"PRIORITY")),
        _text(given.get(b"USER")),
        _text(given.get(b"MAILBOX")),
        _options(given.get(b"OPTIONS")),
        _bytes(message),
        _text(given.get(b"FILEPATH")),
    )


def _by_name(pairs: list[Value]) -> dict[bytes, Value]:
    if len(pairs) % 2:
        raise DecodeError("bad-syntax")
    names = [_bytes(name) for name in pairs[::2]]
    return dict(zip(names, pairs[1::2], strict=True))


def _bytes(value: Value) -> bytes:
    if isinstance(value, bytes):
        return value
    raise DecodeError("bad-field")


def _text(value: Value) -> str | None:
    return None if value is None else text(_bytes(value))


def _options(value: Value) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, bytes):
        return (text(value),)
    return tuple(text(_bytes(option)) for option in value)
