"""An HTTP/2 client connection (RFC 9113) without the connection: requests in, bytes out; bytes in,
answers out.

Made for pushes: many small POSTs on one connection, with small answers. What it exists for is to
tell apart, whatever the server does, requests that were answered, that were certainly never
processed, and whose fate is unknown – also of those still open when the server says GOAWAY.
It holds no queue: who has requests asks for `room` first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Final

from pusher.protocol import http2_frames as h2
from pusher.protocol.hpack_prefix import FieldTable, Request
from pusher.protocol.http2_answers import (
    MAX_FIELDS_BYTES,
    STATUS_200,
    Answer,
    AnswerFields,
    Done,
    FateUnknown,
    HeaderBlock,
    NeverProcessed,
    PartialAnswer,
    Result,
)
from pusher.protocol.http2_bodies import WIDENED, Bodies, Inbound
from pusher.protocol.http2_frames import ErrorCode, GoAway, Http2Error, code_name

_MAX_UNREAD_BYTES: Final = 1 << 16
_WHOLE: Final = h2.END_STREAM | h2.END_HEADERS
_pack, _unpack_from = h2.FRAME_HEADER.pack, h2.FRAME_HEADER.unpack_from


class Http2Client:
    """One connection. Call `take` for the bytes to write, `feed` with those that were read.

    Each request's `done` is called exactly once, from within `feed`, `cancel`, `close` or
    `lost`; it must not raise, may send further requests, and must not call those four. `feed`
    raises Http2Error when the server breaks the protocol: then all is settled, and what `take`
    still returns (GOAWAY) may be written before the connection is closed.
    """

    def __init__(
        self,
        *,
        most_streams: int = 1000,
        most_body_bytes: int = 16_384,
        table_bytes: int = 0,
        last_stream: int = h2.MAX_INTEGER,
    ) -> None:
        """`most_body_bytes` of an answer are kept; streams above `last_stream` are not opened."""
        #: The server's SETTINGS are here; before, there is no room for requests (§3.4).
        self.is_ready = False
        #: No further requests: the server said GOAWAY, stream ids are used up, or it is over.
        self.is_closing = False
        self.goaway: GoAway | None = None
        #: Answers to `ping` so far.
        self.pongs = 0
        #: How many requests may be open at once, as the server and we wish.
        self.limit = self._most_streams = most_streams
        self._most_body_bytes = most_body_bytes
        self._next, self._last = 1, last_stream
        self._taken = -1  # the newest stream whose bytes were handed out
        self._streams: dict[int, Done] = {}
        self._partial: dict[int, PartialAnswer] = {}
        self._table = FieldTable()
        self._fields = AnswerFields(table_bytes)
        self._inbound = Inbound()
        self._received = bytearray()
        self._needed = 0
        self._block = HeaderBlock()
        self._has_begun = self._is_over = False
        self._replies = 0  # bytes in `_out` that the server made us write
        ours = h2.client_settings(table_bytes, most_body_bytes, MAX_FIELDS_BYTES)
        self._out = [h2.PREFACE, ours, WIDENED]
        self._bodies = Bodies(self._out)

    # --- requests --------------------------------------------------------------------------------

    @property
    def open_streams(self) -> int:
        """How many requests have no result yet."""
        return len(self._streams)

    @property
    def room(self) -> int:
        """How many requests may be sent now; less once bodies have used up the window."""
        if self.is_closing or not self.is_ready or self._bodies.window <= 0:
            return 0
        return max(0, self.limit - len(self._streams))

    def send(self, request: Request, done: Done) -> int:
        """Open a stream for `request` and return its id; there must be room."""
        assert self.room, "send() without room"
        stream, body = self._next, request.body
        self._next += 2
        if self._next > self._last:
            self.is_closing = True
        block = self._table.block(request)
        size, out = len(block), self._out
        flags = h2.END_HEADERS if body else _WHOLE
        out.append(_pack(size >> 8, size & 0xFF, h2.HEADERS, flags, stream))
        out.append(block)
        self._streams[stream] = done
        if body:
            self._bodies.send(stream, body)
        return stream

    def take(self) -> bytes:
        """Return what is to be written now; from then on its requests count as sent."""
        data = b"".join(self._out)
        self._out.clear()
        self._replies = 0
        self._taken = self._next - 2
        self._has_begun = True
        return data

    def ping(self, opaque: bytes) -> None:
        """Ask for a sign of life; `opaque` are eight bytes. `pongs` counts the answers."""
        self._out.append(h2.frame(h2.PING, 0, 0, opaque))

    def cancel(self, stream: int, reason: str) -> None:
        """Give up waiting for a request's answer; unknown streams are settled ones."""
        if stream in self._streams:
            self._out.append(h2.number_frame(h2.RST_STREAM, stream, ErrorCode.CANCEL))
            self._settle(stream, FateUnknown(reason))

    def close(self, reason: str, code: ErrorCode = ErrorCode.NO_ERROR) -> None:
        """Settle all that is open and say goodbye, which may be written still."""
        if not self._is_over:
            self.lost(reason)
            if self._has_begun:
                self._out.append(h2.goaway_frame(0, code))

    def retire(self) -> None:
        """Send no more requests; those that are open are still answered."""
        self.is_closing = True

    def lost(self, reason: str) -> None:
        """Settle all that is open: the connection has ended."""
        self.is_closing = self._is_over = True
        self._out.clear()  # what was not taken was never sent, and must not be any more
        self._bodies.clear()
        streams, self._streams = self._streams, {}
        partial, self._partial = self._partial, {}
        for stream, done in streams.items():
            if stream in partial:
                done(partial[stream].answer(is_whole=False))
            else:
                done(NeverProcessed("not-sent") if stream > self._taken else FateUnknown(reason))

    # --- bytes of the server ---------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Take in what the server sent, in pieces of any size; raises Http2Error."""
        if self._is_over:
            return
        if self._received:
            self._received += data
            if len(self._received) < self._needed:
                return
            data = bytes(self._received)
            self._received.clear()
        try:
            used = self._read(data)
            if self._replies > _MAX_UNREAD_BYTES:
                raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM, "flood")
        except Http2Error as error:
            self.close(error.reason, error.code)
            raise
        if used < len(data):
            self._received += data[used:]

    def _read(self, data: bytes) -> int:
        """Read all whole frames; return how many bytes they took."""
        at, end, streams = 0, len(data), self._streams
        while end - at >= h2.HEADER_BYTES:
            high, low, kind, flags, stream = _unpack_from(data, at)
            start = at + h2.HEADER_BYTES
            stop = start + (high << 8 | low)
            if stop - start > h2.MAX_FRAME_BYTES:
                raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "frame-size")
            if stop > end:
                self._needed = stop - at
                return at
            at = stop
            if (  # a whole 200 without a body, on a stream where nothing is odd
                kind == h2.HEADERS
                and flags == _WHOLE
                and stop > start
                and data[start] == STATUS_200
                and self._fields.are_independent
                and stream in streams
                and stream <= self._taken
                and stream not in self._partial
                and stream not in self._bodies
                and not self._block.is_open
            ):
                streams.pop(stream)(Answer(200, data[start:stop]))
            else:
                self._frame(kind, flags, stream & h2.MAX_INTEGER, data[start:stop])
        self._needed = h2.HEADER_BYTES
        return at

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if not self.is_ready and (kind != h2.SETTINGS or flags & h2.ACK):
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "no-settings-first")
        if self._block.is_open != (kind == h2.CONTINUATION):
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "header-block-interrupted")
        h2.check_shape(kind, stream, len(payload))
        handler = self._HANDLERS.get(kind)
        if handler is not None:
            handler(self, flags, stream, payload)

    # --- one frame each --------------------------------------------------------------------------

    def _on_headers(self, flags: int, stream: int, payload: bytes) -> None:
        self._check_not_idle(stream)
        self._block.begin(flags, stream, h2.unpadded(flags, payload))
        self._on_block()

    def _on_continuation(self, flags: int, stream: int, payload: bytes) -> None:
        self._block.go_on(flags, stream, payload)
        self._on_block()

    def _on_block(self) -> None:
        if self._block.is_open:
            return
        stream, ends = self._block.stream, self._block.ends_stream
        # Also on closed streams: the tables move with it.
        status, headers = self._fields.read(self._block.take())
        partial = self._partial.get(stream)
        if stream not in self._streams:
            return
        if partial is not None:  # trailers
            if ends:
                self._answered(stream)
            else:
                self._reset(stream, ErrorCode.PROTOCOL_ERROR, "malformed-answer")
        elif status is None or (status < 200 and ends):
            self._reset(stream, ErrorCode.PROTOCOL_ERROR, "malformed-answer")
        elif status >= 200:
            self._partial[stream] = PartialAnswer(status, headers)
            if ends:
                self._answered(stream)

    def _on_data(self, flags: int, stream: int, payload: bytes) -> None:
        self._check_not_idle(stream)
        if increment := self._inbound.took(len(payload)):
            self._reply(h2.number_frame(h2.WINDOW_UPDATE, 0, increment))
        data = h2.unpadded(flags & ~h2.WITH_PRIORITY, payload)
        if stream not in self._streams:
            return
        partial = self._partial.get(stream)
        if partial is None:
            self._reset(stream, ErrorCode.PROTOCOL_ERROR, "malformed-answer")
            return
        left = self._most_body_bytes - len(partial.body)
        partial.body += data[:left]
        if flags & h2.END_STREAM and len(data) <= left:
            self._answered(stream)
        elif len(data) >= left:  # its window is used up: more than this would never come
            self._reset(stream, ErrorCode.CANCEL, "answer-too-long")

    def _on_window_update(self, flags: int, stream: int, payload: bytes) -> None:
        increment = h2.read_number(payload) & h2.MAX_INTEGER
        if not stream:
            if not increment:
                raise Http2Error(ErrorCode.PROTOCOL_ERROR, "window-update")
            self._bodies.grow(increment)
            return
        self._check_not_idle(stream)
        if not increment:
            self._reset(stream, ErrorCode.PROTOCOL_ERROR, "window-update")
        elif not self._bodies.grow_stream(stream, increment):
            self._reset(stream, ErrorCode.FLOW_CONTROL_ERROR, "window-update")

    def _on_settings(self, flags: int, stream: int, payload: bytes) -> None:
        if flags & h2.ACK:
            if payload:
                raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "frame-size")
            self._fields.agreed()
            return
        settings = h2.read_settings(payload)
        self._reply(h2.SETTINGS_ACK)  # before any DATA that the new windows let through
        for name, value in settings:
            if name == h2.HEADER_TABLE_SIZE:
                self._table.resize(value)
            elif name == h2.MAX_CONCURRENT_STREAMS:
                self.limit = min(value, self._most_streams)
            elif name == h2.INITIAL_WINDOW_SIZE:
                self._bodies.set_initial(value)
            elif name == h2.MAX_FRAME_SIZE:
                self._bodies.set_frame_bytes(value)
        self.is_ready = True

    def _on_reset(self, flags: int, stream: int, payload: bytes) -> None:
        code = h2.read_number(payload)
        self._check_not_idle(stream)
        if code == ErrorCode.REFUSED_STREAM:
            self._settle(stream, NeverProcessed("refused-stream"))
        else:
            self._settle(stream, FateUnknown(f"reset-{code_name(code)}"))

    def _on_ping(self, flags: int, stream: int, payload: bytes) -> None:
        if flags & h2.ACK:
            self.pongs += 1
        else:
            self._reply(h2.frame(h2.PING, h2.ACK, 0, payload))

    def _on_goaway(self, flags: int, stream: int, payload: bytes) -> None:
        self.goaway = goaway = h2.read_goaway(payload, self.goaway)
        self.is_closing = True
        for stream in [each for each in self._streams if each > goaway.last_stream]:
            self._settle(stream, NeverProcessed("goaway"))

    # --- ends ------------------------------------------------------------------------------------

    def _answered(self, stream: int) -> None:
        partial = self._partial.pop(stream)
        done = self._streams.pop(stream)
        if self._bodies.forget(stream):  # it did not want the rest (§8.1)
            self._reply(h2.number_frame(h2.RST_STREAM, stream, ErrorCode.NO_ERROR))
        done(partial.answer(is_whole=True))

    def _reset(self, stream: int, code: ErrorCode, reason: str) -> None:
        """End a stream on our part; those that are closed already are left alone."""
        if stream in self._streams:
            self._reply(h2.number_frame(h2.RST_STREAM, stream, code))
            self._settle(stream, FateUnknown(reason))

    def _settle(self, stream: int, result: Result) -> None:
        """Report `result`, or the answer as far as it came: a status says more than any reason."""
        done = self._streams.pop(stream, None)
        partial = self._partial.pop(stream, None)
        self._bodies.forget(stream)
        if done is not None:
            done(result if partial is None else partial.answer(is_whole=False))

    # --- small things ----------------------------------------------------------------------------

    def _check_not_idle(self, stream: int) -> None:
        if (stream and stream % 2 == 0) or stream > self._taken:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "idle-stream")

    def _reply(self, frame: bytes) -> None:
        self._out.append(frame)
        self._replies += len(frame) + 33  # what a small object takes beside its bytes

    _HANDLERS: ClassVar[dict[int, Callable[[Http2Client, int, int, bytes], None]]] = {
        h2.DATA: _on_data,
        h2.HEADERS: _on_headers,
        h2.RST_STREAM: _on_reset,
        h2.SETTINGS: _on_settings,
        h2.PING: _on_ping,
        h2.GOAWAY: _on_goaway,
        h2.WINDOW_UPDATE: _on_window_update,
        h2.CONTINUATION: _on_continuation,
    }
