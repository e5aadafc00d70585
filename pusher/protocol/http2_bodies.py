"""Flow control (RFC 9113 §5.2): bodies on their way out, as fast as the server's windows let them
through, and the one window it has for answers.
"""

from __future__ import annotations

from typing import Final

from pusher.protocol import http2_frames as h2
from pusher.protocol.http2_frames import ErrorCode, Http2Error

_MAX_FRAME_BYTES: Final = 1 << 20
_RECEIVE_WINDOW: Final = 1 << 20
_pack = h2.FRAME_HEADER.pack


#: What widens the server's window at the start.
WIDENED: Final = h2.number_frame(h2.WINDOW_UPDATE, 0, _RECEIVE_WINDOW - h2.DEFAULT_WINDOW_BYTES)


class Inbound:
    """The window that we give the server for the bodies of all answers together."""

    __slots__ = ("_taken",)

    def __init__(self) -> None:
        self._taken = 0

    def took(self, size: int) -> int:
        """Take note of a DATA frame of `size`; return by how much to widen the window now."""
        self._taken += size
        if self._taken > _RECEIVE_WINDOW:
            raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, "receive-window")
        if self._taken <= _RECEIVE_WINDOW // 2:
            return 0
        increment, self._taken = self._taken, 0
        return increment


class _Unsent:
    """A body of which something could not be sent yet."""

    __slots__ = ("at", "body", "window")

    def __init__(self, body: bytes, window: int) -> None:
        self.body = body
        self.window = window
        self.at = 0


class Bodies:
    """All windows for what we send; frames are appended to `out`."""

    def __init__(self, out: list[bytes]) -> None:
        #: How many bytes the connection may carry now.
        self.window = h2.DEFAULT_WINDOW_BYTES
        self._initial = h2.DEFAULT_WINDOW_BYTES
        self._frame_bytes = h2.MAX_FRAME_BYTES
        self._unsent: dict[int, _Unsent] = {}
        self._out = out

    def __contains__(self, stream: int) -> bool:
        return stream in self._unsent

    def send(self, stream: int, body: bytes) -> None:
        """Send `body`, which is not empty, at once or when the windows allow it."""
        size = len(body)
        if size <= self.window and size <= self._initial and size <= self._frame_bytes:
            self._out.append(_pack(size >> 8, size & 0xFF, h2.DATA, h2.END_STREAM, stream))
            self._out.append(body)
            self.window -= size
        else:
            self._unsent[stream] = _Unsent(body, self._initial)
            self._go_on(stream)

    def forget(self, stream: int) -> bool:
        """Send no more of a stream's body; tell whether something was left."""
        return self._unsent.pop(stream, None) is not None

    def clear(self) -> None:
        """Send nothing any more."""
        self._unsent.clear()

    def grow(self, increment: int) -> None:
        """Widen the connection's window."""
        self.window += increment
        if self.window > h2.MAX_INTEGER:
            raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, "window-update")
        for stream in list(self._unsent):
            self._go_on(stream)

    def grow_stream(self, stream: int, increment: int) -> bool:
        """Widen a stream's window; return False if it is too wide then (§6.9.1)."""
        unsent = self._unsent.get(stream)
        if unsent is None:
            return True  # its body has gone: what else it may send does not matter
        unsent.window += increment
        if unsent.window > h2.MAX_INTEGER:
            return False
        self._go_on(stream)
        return True

    def set_initial(self, size: int) -> None:
        """Move the windows of all streams, below zero even (§6.9.2)."""
        change, self._initial = size - self._initial, size
        for stream, unsent in list(self._unsent.items()):
            unsent.window += change
            if unsent.window > h2.MAX_INTEGER:
                raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, "setting-window")
            self._go_on(stream)

    def set_frame_bytes(self, size: int) -> None:
        """Follow the server's SETTINGS_MAX_FRAME_SIZE, within reason."""
        self._frame_bytes = min(size, _MAX_FRAME_BYTES)

    def _go_on(self, stream: int) -> None:
        unsent = self._unsent[stream]
        while True:
            left = len(unsent.body) - unsent.at
            size = min(left, self.window, unsent.window, self._frame_bytes)
            if size <= 0:
                return
            flags = h2.END_STREAM if size == left else 0
            piece = unsent.body[unsent.at : unsent.at + size]
            self._out.append(h2.frame(h2.DATA, flags, stream, piece))
            self.window -= size
            unsent.window -= size
            unsent.at += size
            if flags:
                del self._unsent[stream]
                return
