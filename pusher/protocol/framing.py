"""Finds the requests in one stream connection: Cyrus' `NOTIFY %(...)` CRLF, or JSON lines.

Bytes in, notifications out; no socket. Resumable at every byte, and linear: where a token was
looked for and not found, the next data goes on, nothing is searched again.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from pusher.protocol.dlist import ATOM, Tokenizer, to_notification
from pusher.protocol.notification import BLANK, Notification, decode_json, text
from shared.errors import DecodeError


class Rejected(msgspec.Struct, frozen=True):
    """A request that was framed well and makes no sense; the next one is unaffected."""

    #: One of `notification.REASONS`.
    reason: str


Item = Notification | Rejected

_blanks: Final = re.compile(rb"[ \r\n]+").match

# A mailbox event in one piece, as Cyrus always writes it: only METHOD and MESSAGE differ.
_event: Final = re.compile(
    rb"NOTIFY %\(METHOD (" + ATOM + rb") CLASS EVENT PRIORITY NIL USER NIL MAILBOX NIL"
    rb" OPTIONS \(\) MESSAGE \{([0-9]{1,9})\+\}\r\n"
).match
_EVENT_TAIL: Final = b" FILEPATH NIL)\r\n"


def whole_event(data: bytes) -> bytes | None:
    """The MESSAGE of `data` if that is one whole dlist request of CLASS EVENT and nothing else.

    For those who can do without a StreamFraming in by far the most cases.
    """
    match = _event(data)
    if match is None:
        return None
    start = match.end()
    end = start + int(match[2])
    return data[start:end] if data[end:] == _EVENT_TAIL else None


class StreamFraming:
    """The reader of one connection that carries any number of requests.

    `error` is None until the framing itself breaks ("unknown-request", "bad-syntax",
    "file-literal", "oversized"): what completed before is still returned by that `feed`, later
    ones return nothing, and the caller answers NO and closes.
    """

    def __init__(self, max_bytes: int = 1_048_576) -> None:
        self.error: DecodeError | None = None
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._searched = 0  # of a JSON line: no LF before this offset
        self._dlist: Tokenizer | None = None

    @property
    def idle(self) -> bool:
        """Whether no part of an unfinished request has arrived: closing now loses nothing."""
        return not self._buffer

    def feed(self, data: bytes) -> list[Item]:
        """The requests that `data` completes, in order; see `error` for what cannot go on."""
        if self.error is not None:
            return []
        items: list[Item] = []
        if not self._buffer:
            data = data[self._take_whole_events(data, items) :]
        self._buffer += data
        try:
            while self._buffer and self._advance(items):
                pass
        except DecodeError as error:
            self._fail(error)
        return items

    def finish(self) -> list[Item]:
        """What the end of the connection completes: a JSON line without its LF, or nothing.

        A request that was cut off is Rejected("truncated"). Nothing may be fed afterwards.
        """
        if self.error is not None or not self._buffer:
            return []
        line = bytes(self._buffer)
        self._buffer.clear()
        item = _line(line) if line.startswith(b"{") else Rejected("truncated")
        return [Rejected("truncated") if item == Rejected("not-json") else item]

    def _take_whole_events(self, data: bytes | bytearray, items: list[Item]) -> int:
        """Take the mailbox events `data` starts with; returns the offset behind them."""
        at = 0
        while match := _event(data, at):
            end = match.end() + int(match[2])
            after = end + len(_EVENT_TAIL)
            if not data.startswith(_EVENT_TAIL, end) or after - at > self._max_bytes:
                break
            method = None if match[1] == b"NIL" else text(match[1])
            message = bytes(data[match.end() : end])
            items.append(Notification(method, "EVENT", None, None, None, (), message, None))
            at = after
        return at

    def _advance(self, items: list[Item]) -> bool:
        """Take one request off the buffer; False if it needs more data."""
        if self._dlist is None:
            self._skip_blanks()
            if not self._buffer:
                return False
            if self._buffer[0] == _BRACE:
                return self._advance_line(items)
            # After a request that came in pieces, whole ones may follow in the same data.
            if whole := self._take_whole_events(self._buffer, items):
                del self._buffer[:whole]
                return True
            self._dlist = Tokenizer(self._max_bytes)
        return self._advance_dlist(self._dlist, items)

    def _skip_blanks(self) -> None:
        if blanks := _blanks(self._buffer):
            end = blanks.end()
            del blanks  # a match holds on to the buffer, which then cannot shrink
            del self._buffer[:end]

    def _advance_line(self, items: list[Item]) -> bool:
        end = self._buffer.find(b"\n", self._searched)
        self._searched = len(self._buffer)
        if (self._searched if end < 0 else end + 1) > self._max_bytes:
            raise DecodeError("oversized")
        if end < 0:
            return False
        items.append(_line(self._consume(end + 1)))
        self._searched = 0
        return True

    def _advance_dlist(self, dlist: Tokenizer, items: list[Item]) -> bool:
        end = dlist.advance(self._buffer)
        if end is None:
            return False
        self._consume(end)
        self._dlist = None
        try:
            items.append(to_notification(dlist.pairs))
        except DecodeError as error:
            items.append(Rejected(error.reason))
        return True

    def _consume(self, end: int) -> bytes:
        taken = bytes(self._buffer[:end])
        del self._buffer[:end]
        return taken

    def _fail(self, error: DecodeError) -> None:
        self.error = error
        self._buffer.clear()
        self._dlist = None


_BRACE: Final = 0x7B


def _line(line: bytes) -> Item:
    try:
        return decode_json(line.rstrip(BLANK))
    except DecodeError as error:
        return Rejected(error.reason)
