"""New connections on the streams listener: read the request, authenticate, hand over or refuse.

Knows sockets, TLS and deadlines of connections that are not streams yet; not mailbox state: whom a
good request is handed to is the caller's `open_stream`. No task per connection: what arrives whole
is served at once, the rest waits in the reactor until its deadline.
"""

from __future__ import annotations

import errno
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from pusher.auth import Authenticator
from pusher.protocol import http1
from pusher.protocol.profile import PAGE, Profile, jmap_profile
from pusher.reactor import EPOLLIN, EPOLLOUT, Reactor
from shared.errors import ProtocolError

#: How long a refused client may take to read its answer before the connection is cut.
LINGER_SECONDS: Final = 2.0
#: How long accepting pauses when the machine has no descriptor left.
EXHAUSTED_SECONDS: Final = 0.2
_ACCEPTS_PER_ROUND: Final = 64
_READ_BYTES: Final = 16_384
_RETRY_AFTER: Final = {"Retry-After": "5"}
_EXHAUSTED: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class StreamRequest(NamedTuple):
    """A good request for a stream: whose, in which form, since when, and the response head."""

    account: str
    profile: Profile
    expires: float
    last_event_id: str | None
    head: bytes


#: Takes a connected, non-blocking socket (plain or TLS) over; ProtocolError refuses it.
OpenStream = Callable[[socket.socket, StreamRequest], None]


@dataclass
class HandshakeSettings:
    """What may change while connections come in."""

    authenticator: Authenticator
    cookie: str
    allowed_origins: frozenset[str] = frozenset()
    handshake_seconds: float = 8.0
    max_connections: int = 1 << 30


@dataclass
class HandshakeCounts:
    """What is counted, for the metrics page."""

    accepted: int = 0
    opened: int = 0
    refused: dict[int, int] = field(default_factory=dict)
    timed_out: int = 0
    vanished: int = 0
    exhausted: int = 0


class _Half:
    """A connection whose request is not whole, or whose refusal is still being read."""

    __slots__ = ("deadline", "is_refused", "is_secure", "reader", "socket")

    def __init__(self, connection: socket.socket, deadline: float, is_secure: bool) -> None:
        self.socket = connection
        self.reader = http1.RequestReader()
        self.deadline = deadline
        self.is_secure = is_secure  # TLS is done, or not in use
        self.is_refused = False


class Doorkeeper:
    """Accepts on one listening socket and answers for each connection until it is a stream.

    `open_count` says how many streams there are; `clock` is monotonic seconds.
    """

    def __init__(
        self,
        reactor: Reactor,
        listener: socket.socket,
        settings: HandshakeSettings,
        open_stream: OpenStream,
        open_count: Callable[[], int],
        *,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.counts = HandshakeCounts()
        self._reactor = reactor
        self._listener = listener
        self._open_stream = open_stream
        self._open_count = open_count
        self._tls = tls
        self._clock = clock
        self._halves: dict[int, _Half] = {}
        self._resume_at: float | None = None
        self._is_closed = False
        self._family = int(listener.family), int(listener.type), listener.proto
        listener.setblocking(False)
        reactor.add(listener.fileno(), EPOLLIN, self._on_listener, last=True)

    def __len__(self) -> int:
        return len(self._halves)

    def stop_accepting(self) -> None:
        """Close the listener; half-read requests go on until `close`."""
        if not self._is_closed:
            self._is_closed = True
            self._reactor.remove(self._listener.fileno())
            self._listener.close()

    def close(self) -> None:
        """Close the listener and every connection that is not a stream yet."""
        self.stop_accepting()
        for half in list(self._halves.values()):
            self._drop(half)

    def tick(self) -> None:
        """Cut what passed its deadline; accept again after a pause. Call it every 0.1 to 1 s."""
        now = self._clock()
        for half in [half for half in self._halves.values() if half.deadline <= now]:
            if half.is_refused:
                self._drop(half)
                continue
            self.counts.timed_out += 1
            if half.is_secure:
                self._refuse(half, ProtocolError(408, "the request took too long"), None)
            else:
                self._drop(half)
        if self._resume_at is not None and self._resume_at <= now and not self._is_closed:
            self._resume_at = None
            self._reactor.add(self._listener.fileno(), EPOLLIN, self._on_listener, last=True)

    # --- connections -----------------------------------------------------------------------------

    def _on_listener(self, _descriptor: int, _events: int) -> None:
        for _ in range(_ACCEPTS_PER_ROUND):
            try:
                connection = self._accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._pause()
                    return
                continue  # the client was gone before we came
            self._welcome(connection)

    def _accept(self) -> socket.socket:
        # What socket.accept does, without asking the listener for its family each time.
        descriptor, _ = self._listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001
        return socket.socket(*self._family, fileno=descriptor)

    def _pause(self) -> None:
        # Without it the listener would stay readable and the loop turn in place.
        self.counts.exhausted += 1
        self._reactor.remove(self._listener.fileno())
        self._resume_at = self._clock() + EXHAUSTED_SECONDS

    def _welcome(self, connection: socket.socket) -> None:
        self.counts.accepted += 1
        connection.setblocking(False)
        secure = self._tls is None
        if self._tls is not None:
            try:
                connection = self._tls.wrap_socket(
                    connection, server_side=True, do_handshake_on_connect=False
                )
            except OSError:
                connection.close()
                return
        half = _Half(connection, self._clock() + self.settings.handshake_seconds, secure)
        self._advance(half)

    def _on_ready(self, descriptor: int, _events: int) -> None:
        half = self._halves.get(descriptor)
        if half is None:
            return
        if half.is_refused:
            self._drain(half)
        else:
            self._advance(half)

    def _advance(self, half: _Half) -> None:
        """Do what can be done now; wait in the reactor for the rest."""
        request: http1.Request | None = None
        try:
            if not half.is_secure:
                self._secure(half)
            while request is None:
                data = half.socket.recv(_READ_BYTES)
                if not data:
                    self.counts.vanished += 1
                    self._drop(half)
                    return
                request = half.reader.feed(data)
            self._serve(half, request)
        except (BlockingIOError, ssl.SSLWantReadError):
            self._wait(half, EPOLLIN)
        except ssl.SSLWantWriteError:
            self._wait(half, EPOLLOUT)
        except ProtocolError as error:
            self._refuse(half, error, request)
        except OSError:
            self.counts.vanished += 1
            self._drop(half)

    def _secure(self, half: _Half) -> None:
        assert isinstance(half.socket, ssl.SSLSocket)
        half.socket.do_handshake()
        half.is_secure = True

    def _wait(self, half: _Half, events: int) -> None:
        descriptor = half.socket.fileno()
        if descriptor in self._halves:
            self._reactor.epoll.modify(descriptor, events)
        else:
            self._halves[descriptor] = half
            self._reactor.add(descriptor, events, self._on_ready, close=self._close_descriptor)

    def _forget(self, half: _Half) -> None:
        descriptor = half.socket.fileno()
        if self._halves.pop(descriptor, None) is not None:
            self._reactor.remove(descriptor)

    def _close_descriptor(self, descriptor: int) -> None:
        if descriptor in self._halves:
            self._drop(self._halves[descriptor])

    def _drop(self, half: _Half) -> None:
        self._forget(half)
        half.socket.close()

    # --- requests --------------------------------------------------------------------------------

    def _serve(self, half: _Half, request: http1.Request) -> None:
        cors = self._cors(request)
        if request.method == "OPTIONS":
            self._answer(half, http1.head(204, _PREFLIGHT | cors))
            return
        wanted = self._stream_request(request, cors)
        self._forget(half)
        self._open_stream(half.socket, wanted)
        self.counts.opened += 1

    def _stream_request(self, request: http1.Request, cors: dict[str, str]) -> StreamRequest:
        profile = _profile(request)
        if request.method != "GET":
            raise ProtocolError(405, "a stream is opened with GET")
        if http1.has_body(request):
            raise ProtocolError(413, "a stream request has no body")
        identity = self.settings.authenticator.identify(_token(request, self.settings.cookie))
        if self._open_count() + len(self._halves) >= self.settings.max_connections:
            raise ProtocolError(503, "no room for another stream; try again soon")
        query = request.query
        last = request.headers.get("last-event-id") or query.get("lastEventId")
        head = http1.head(200, _STREAM_HEADERS | cors) if cors else _STREAM_HEAD
        return StreamRequest(
            identity.account, profile, identity.expires, last[:64] if last else None, head
        )

    def _cors(self, request: http1.Request) -> dict[str, str]:
        """Return the headers that let the asking origin read the answer; 403 for a foreign one.

        A cookie is sent by the browser whoever asks, so a foreign origin is turned away rather
        than only kept from reading.
        """
        origin = request.headers.get("origin")
        if origin is None:
            return {}
        allowed = self.settings.allowed_origins
        if origin in allowed:
            return {
                "Access-Control-Allow-Origin": origin,
                "Access-Control-Allow-Credentials": "true",
                "Vary": "Origin",
            }
        if "*" in allowed:
            return {"Access-Control-Allow-Origin": "*"}
        host = request.headers.get("host")
        if host and origin in (f"http://{host}", f"https://{host}"):
            return {}
        raise ProtocolError(403, "this origin is not allowed")

    # --- refusals --------------------------------------------------------------------------------

    def _refuse(self, half: _Half, error: ProtocolError, request: http1.Request | None) -> None:
        refused = self.counts.refused
        refused[error.status] = refused.get(error.status, 0) + 1
        headers = dict(_REFUSAL_HEADERS.get(error.status, {}))
        if request is not None and error.status != 403:
            headers |= self._cors(request)
        self._answer(half, http1.problem(error.status, error.detail, headers))

    def _answer(self, half: _Half, response: bytes) -> None:
        """Send a whole response and let the client read it before the connection goes.

        Closing at once with unread input would reset the connection and lose the answer.
        """
        half.is_refused = True
        half.deadline = min(half.deadline, self._clock() + LINGER_SECONDS)
        try:
            half.socket.send(response)
            half.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._drop(half)
            return
        self._wait(half, EPOLLIN)

    def _drain(self, half: _Half) -> None:
        try:
            # Below TLS if need be: what is still coming is thrown away unread.
            while socket.socket.recv(half.socket, _READ_BYTES):
                pass
        except BlockingIOError:
            return
        except OSError:
            pass
        self._drop(half)


_STREAM_HEADERS: Final = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
    "Connection": "close",
}
_STREAM_HEAD: Final = http1.head(200, _STREAM_HEADERS)
_PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "GET",
    "Access-Control-Allow-Headers": "Authorization, Cache-Control, Last-Event-ID",
    "Access-Control-Max-Age": "86400",
    "Content-Length": "0",
    "Connection": "close",
}
_REFUSAL_HEADERS: Final[Mapping[int, Mapping[str, str]]] = {
    401: {"WWW-Authenticate": "Bearer"},
    405: {"Allow": "GET, OPTIONS"},
    429: _RETRY_AFTER,
    503: _RETRY_AFTER,
}


def _profile(request: http1.Request) -> Profile:
    if request.path == "/events":
        return PAGE
    if request.path in ("/jmap/eventsource", "/jmap/eventsource/"):
        query = request.query
        return jmap_profile(
            query.get("types") or "*", query.get("closeafter") or "no", query.get("ping") or "0"
        )
    raise ProtocolError(404, "no such stream")


def _token(request: http1.Request, cookie: str) -> str | None:
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    for pair in request.headers.get("cookie", "").split(";"):
        name, _, value = pair.strip().partition("=")
        if name == cookie:
            return value.strip('"')
    return request.query.get("token")
