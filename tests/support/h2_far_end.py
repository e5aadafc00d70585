"""An HTTP/2 server that is not ours: python-hyper's h2, which checks every frame we send it.

Without sockets; whoever uses it carries the bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h2.settings
import hpack
from hyperframe.frame import Frame, HeadersFrame, SettingsFrame

Headers = list[tuple[str, str]]


@dataclass
class Received:
    """One request as h2 saw it."""

    headers: dict[str, str]
    body: bytearray = field(default_factory=bytearray)
    is_whole: bool = False
    reset_code: int | None = None


class H2Server:
    """One connection of h2 as server: `receive` bytes, answer, `take` bytes."""

    def __init__(self, settings: dict[h2.settings.SettingCodes, int] | None = None) -> None:
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        if settings:
            self.h2.local_settings = h2.settings.Settings(client=False, initial_values=settings)
        self.h2.initiate_connection()
        self.requests: dict[int, Received] = {}
        self.events: list[h2.events.Event] = []
        #: Called with each request that is whole.
        self.on_request: Callable[[int, Received], None] = lambda stream, request: None
        #: Widen windows as soon as bytes come.
        self.acknowledges = True

    def receive(self, data: bytes) -> None:
        """Take in what the client wrote; h2 raises if anything about it is wrong."""
        for event in self.h2.receive_data(data):
            self.events.append(event)
            if isinstance(event, h2.events.RequestReceived):
                names = [(str(name), str(value)) for name, value in event.headers]
                assert len(dict(names)) == len(names), "a header field came twice"
                self.requests[event.stream_id] = Received(dict(names))
            elif isinstance(event, h2.events.DataReceived):
                self.requests[event.stream_id].body += event.data
                if self.acknowledges and event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamReset):
                self.requests[event.stream_id].reset_code = int(event.error_code)
            elif isinstance(event, h2.events.StreamEnded):
                self.requests[event.stream_id].is_whole = True
                self.on_request(event.stream_id, self.requests[event.stream_id])

    def answer(self, stream: int, status: int = 200, body: bytes = b"", **headers: str) -> None:
        """Answer a request; header names are written with underscores."""
        fields: Headers = [(":status", str(status))]
        fields += [(name.replace("_", "-"), value) for name, value in headers.items()]
        self.h2.send_headers(stream, fields, end_stream=not body)
        if body:
            self.h2.send_data(stream, body, end_stream=True)

    def take(self) -> bytes:
        """Return what it wants written."""
        return self.h2.data_to_send()


class PlayedServer:
    """A server that says whatever a test wants, right or wrong, in frames of hyperframe.

    Header blocks are made by hpack's encoder; what the client wrote is read back as frames.
    """

    def __init__(self) -> None:
        self.encoder = hpack.Encoder()
        self.encoder.header_table_size = 0
        self._unread = bytearray()
        self._has_preface = False

    def settings(self, values: dict[int, int] | None = None) -> bytes:
        """Return what a server begins with, and the acknowledgement of the client's settings."""
        ours = SettingsFrame(0, settings=values or {})
        return ours.serialize() + SettingsFrame(0, flags=["ACK"]).serialize()

    def block(self, fields: Headers) -> bytes:
        """Return a header block."""
        return self.encoder.encode(fields)

    def headers(self, stream: int, status: int = 200, *flags: str, **fields: str) -> bytes:
        """Return a HEADERS frame; END_HEADERS is always set."""
        names = [(":status", str(status)), *((k.replace("_", "-"), v) for k, v in fields.items())]
        frame = HeadersFrame(stream, data=self.block(names), flags=["END_HEADERS", *flags])
        return frame.serialize()

    def answer(self, stream: int, status: int = 200, **fields: str) -> bytes:
        """Return a whole answer without a body."""
        return self.headers(stream, status, "END_STREAM", **fields)

    def read(self, data: bytes) -> list[Frame]:
        """Return the frames that the client wrote."""
        self._unread += data
        if not self._has_preface:
            assert self._unread.startswith(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            del self._unread[:24]
            self._has_preface = True
        frames = []
        while self._unread:
            frame, size = Frame.parse_frame_header(memoryview(bytes(self._unread[:9])))
            frame.parse_body(memoryview(bytes(self._unread[9 : 9 + size])))
            del self._unread[: 9 + size]
            frames.append(frame)
        return frames
