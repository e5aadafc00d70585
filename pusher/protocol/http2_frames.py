"""Frames of HTTP/2 (RFC 9113 §4, §6) as bytes, and what is wrong with them.

Knows how frames are written and read; not what they do to a connection.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from shared.errors import MailboxPusherError

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_BYTES: Final = 9
#: The longest frame we take: the least a peer may rely on (§4.2), so it is never announced.
MAX_FRAME_BYTES: Final = 16_384
MAX_INTEGER: Final = 2**31 - 1
DEFAULT_WINDOW_BYTES: Final = 65_535

# §6: the kinds of frames.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 5, 6, 7, 8, 9

# Flags; two frames give the first its own meaning.
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20

# §6.5.2: the settings.
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 1, 2, 3
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 4, 5, 6

#: Upper 16 and lower 8 bits of the length, kind, flags, stream (with its reserved bit).
FRAME_HEADER: Final = struct.Struct("!HBBBI")
_SETTING: Final = struct.Struct("!HI")
_U32: Final = struct.Struct("!I")
_GOAWAY: Final = struct.Struct("!II")


class ErrorCode(IntEnum):
    """Why a stream or a connection ended (§7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


def code_name(code: int) -> str:
    """Return an error code in words from a closed set; unknown ones mean nothing more (§7)."""
    try:
        return ErrorCode(code).name.lower().replace("_", "-")
    except ValueError:
        return "unknown-code"


class Http2Error(MailboxPusherError):
    """The server broke the protocol, and the connection with it; `code` is what it is told.

    `reason` is a short constant, usable as a metric label.
    """

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(f"{code.name}: {reason}")
        self.code = code
        self.reason = reason


class GoAway(NamedTuple):
    """The server's last word: it processes no stream above `last_stream`."""

    last_stream: int
    code: str
    detail: str


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return one frame."""
    size = len(payload)
    return FRAME_HEADER.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def client_settings(table_bytes: int, window_bytes: int, fields_bytes: int) -> bytes:
    """Return the SETTINGS frame of a client that wants no pushes from the server."""
    settings = {
        HEADER_TABLE_SIZE: table_bytes,
        ENABLE_PUSH: 0,
        INITIAL_WINDOW_SIZE: window_bytes,
        MAX_HEADER_LIST_SIZE: fields_bytes,
    }
    payload = b"".join(_SETTING.pack(name, value) for name, value in settings.items())
    return frame(SETTINGS, 0, 0, payload)


def number_frame(kind: int, stream: int, value: int) -> bytes:
    """Return a RST_STREAM or WINDOW_UPDATE frame."""
    return frame(kind, 0, stream, _U32.pack(value))


def goaway_frame(last_stream: int, code: int) -> bytes:
    """Return a GOAWAY frame."""
    return frame(GOAWAY, 0, 0, _GOAWAY.pack(last_stream, code))


SETTINGS_ACK: Final = frame(SETTINGS, ACK, 0, b"")

#: Kind: (payload sizes it may have, whether it stands on a stream; None: both), for what is fixed.
_SHAPES: Final[dict[int, tuple[int | None, bool | None]]] = {
    DATA: (None, True),
    HEADERS: (None, True),
    PRIORITY: (5, True),
    RST_STREAM: (4, True),
    SETTINGS: (None, False),
    PING: (8, False),
    GOAWAY: (None, False),
    WINDOW_UPDATE: (4, None),
    CONTINUATION: (None, True),
}


def check_shape(kind: int, stream: int, size: int) -> None:
    """Raise Http2Error if no such frame may come, not of that size or not there."""
    if kind == PUSH_PROMISE:
        raise Http2Error(ErrorCode.PROTOCOL_ERROR, "push-promise")  # our SETTINGS forbid it
    fixed, on_stream = _SHAPES.get(kind, (None, None))
    if fixed is not None and size != fixed:
        raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "frame-size")
    if on_stream is not None and on_stream != (stream != 0):
        raise Http2Error(ErrorCode.PROTOCOL_ERROR, "frame-on-wrong-stream")


def read_number(payload: bytes) -> int:
    """Return the value of a RST_STREAM or WINDOW_UPDATE frame, reserved bit included."""
    return int(_U32.unpack(payload)[0])


def read_goaway(payload: bytes, previous: GoAway | None) -> GoAway:
    """Return what a GOAWAY frame says; its last stream must not rise (§6.8)."""
    if len(payload) < _GOAWAY.size:
        raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "frame-size")
    last, code = _GOAWAY.unpack_from(payload)
    detail = payload[_GOAWAY.size :][:200].decode("ascii", "replace")
    last &= MAX_INTEGER
    if previous is not None:
        last = min(last, previous.last_stream)
    return GoAway(last, code_name(code), detail)


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """Return the settings in order; raise Http2Error for values they cannot have (§6.5.2)."""
    if len(payload) % _SETTING.size:
        raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "frame-size")
    settings = [(int(name), int(value)) for name, value in _SETTING.iter_unpack(payload)]
    for name, value in settings:
        if name == ENABLE_PUSH and value != 0:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "setting-enable-push")
        if name == INITIAL_WINDOW_SIZE and value > MAX_INTEGER:
            raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, "setting-window")
        if name == MAX_FRAME_SIZE and not MAX_FRAME_BYTES <= value < 2**24:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "setting-frame-size")
    return settings


def unpadded(flags: int, payload: bytes) -> bytes:
    """Return what is in a DATA or HEADERS frame, without padding and priority (§6.1, §6.2)."""
    start, end = 0, len(payload)
    if flags & PADDED:
        if not payload:
            raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "frame-size")
        start, end = 1, end - payload[0]
    if flags & WITH_PRIORITY:
        start += 5
    if start > end:
        raise Http2Error(ErrorCode.PROTOCOL_ERROR, "padding")
    return payload[start:end]
