"""Where mail servers hand in their events: two UNIX sockets, answered before any work is done.

Knows sockets, replies and their order; `protocol` knows what the bytes mean, the `Taker` what is to
be done with them. A producer waits for framing only, for slow events also for one commit: Cyrus
holds mailbox locks meanwhile. An event that arrives whole costs no task and no wait.
"""

from __future__ import annotations

import errno
import socket
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Final, Protocol

from pusher.protocol.framing import Item, Rejected, StreamFraming, whole_event
from pusher.protocol.mboxevent import Buffer
from pusher.protocol.notification import Notification, decode_datagram, event_head
from pusher.reactor import EPOLLIN, Reactor
from shared.errors import DecodeError, QueueError

#: The one reply every Cyrus takes well, and the one it logs as a refusal.
OK: Final = b"OK ()\r\n"
NO: Final = b"NO ()\r\n"
#: Events taken per round, so that readers are told and streams are served in between.
PER_ROUND: Final = 32
_READ_BYTES: Final = 65_536
_ROUNDS_AT_STOP: Final = 1024
_EXHAUSTED: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_EXHAUSTED_SECONDS: Final = 0.2

#: How the JSON of most events begins, which for sure are no alarms: Cyrus names the type first.
SURELY_FAST: Final = b'{"event":"M'
#: The commonest of them.
MODSEQ: Final = b'{"event":"MailboxModseq",'

Done = Callable[[QueueError | None], None]


class Taker(Protocol):
    """What intake hands notifications to; synchronous, never waits."""

    def is_slow(self, notification: Notification) -> bool:
        """Tell whether the producer must wait until it is durable; must be quick."""

    def take(self, notification: Notification) -> None:
        """Act on a fast one; the producer has its answer already."""

    def take_event(self, message: Buffer) -> None:
        """Do what `take` does, given the JSON of a fast event; it may change afterwards."""

    def take_short(self, message: Buffer) -> bool:
        """Do what `take_event` does, given a MailboxModseq; False: not done, give it to that."""

    def keep(self, notification: Notification, done: Done) -> None:
        """Make a slow one durable, then call `done` in this thread."""

    def reject(self, reason: str) -> None:
        """Account for input that made no sense."""


class _Producer:
    """One stream connection; replies keep the order of its requests."""

    __slots__ = ("ended", "framing", "heard_at", "replies", "socket")

    def __init__(self, connection: socket.socket, max_bytes: int, now: float) -> None:
        self.socket = connection
        self.framing = StreamFraming(max_bytes)
        self.heard_at = now
        self.replies: deque[list[bytes]] = deque()  # [] = not known yet
        self.ended = False


class Intake:
    """Serves both sockets in the reactor and gives what arrives to `taker`.

    `counts` has connections, requests and datagrams, and why connections were cut.
    """

    def __init__(
        self,
        reactor: Reactor,
        taker: Taker,
        *,
        stream: socket.socket | None,
        datagram: socket.socket | None,
        max_bytes: int,
        idle_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._reactor = reactor
        self._taker = taker
        self._max_bytes = max_bytes
        self._idle_seconds = idle_seconds
        self._clock = clock
        self._stream = stream
        self._datagram = datagram
        self._buffer = bytearray(max_bytes + 1)
        self._view = memoryview(self._buffer)
        self._datagrams_expected = 1
        self._fast_head, self._fast_start = b"\x00", 0  # no datagram begins so
        self._commonest_head = b"\x00"
        self._producers: dict[int, _Producer] = {}
        self._resume_at: float | None = None
        if stream is not None:
            stream.setblocking(False)
            reactor.add(stream.fileno(), EPOLLIN, self._on_listener, last=True)
        if datagram is not None:
            datagram.setblocking(False)
            reactor.add(datagram.fileno(), EPOLLIN, self._on_datagrams)

    def __len__(self) -> int:
        return len(self._producers)

    def stop(self) -> None:
        """Take what lies in the sockets, then stop listening; open connections go on."""
        if self._datagram is not None:
            for _ in range(_ROUNDS_AT_STOP):  # a flood does not keep us from stopping
                if not self._take_datagrams():
                    break
            self._reactor.remove(self._datagram.fileno())
            self._datagram.close()
            self._datagram = None
        if self._stream is not None:
            self._on_listener(0, 0)
            if self._resume_at is None:
                self._reactor.remove(self._stream.fileno())
            self._stream.close()
            self._stream = None

    def close(self) -> None:
        """Stop, and close all connections; unanswered producers see a closed connection."""
        self.stop()
        for producer in list(self._producers.values()):
            self._close(producer)

    @property
    def is_waiting(self) -> bool:
        """True while a producer still waits for an answer that is to come."""
        return any(producer.replies for producer in self._producers.values())

    def tick(self) -> None:
        """Cut producers that stopped in the middle of a request; call it about once a second."""
        now = self._clock()
        late = now - self._idle_seconds
        for producer in list(self._producers.values()):
            if not producer.framing.idle and producer.heard_at <= late:
                self._taker.reject("truncated")
                self._cut(producer, "half-request")
        if self._resume_at is not None and self._resume_at <= now and self._stream is not None:
            self._resume_at = None
            self._reactor.add(self._stream.fileno(), EPOLLIN, self._on_listener, last=True)

    # --- datagrams -------------------------------------------------------------------------------

    def _on_datagrams(self, _descriptor: int, _events: int) -> None:
        self._take_datagrams()

    def _take_datagrams(self) -> bool:
        """Take some; True if there may be more."""
        assert self._datagram is not None
        receive, buffer, view = self._datagram.recv_into, self._buffer, self._view
        take_short, take_event = self._taker.take_short, self._taker.take_event
        head, start, commonest = self._fast_head, self._fast_start, self._commonest_head
        # Looking in vain is not free either: take as many as there were last time, or twice that.
        most = self._datagrams_expected
        for taken in range(most):
            try:
                size = receive(view)
            except BlockingIOError:
                self.counts["datagrams"] += taken
                self._datagrams_expected = max(1, taken)
                return False
            # One mail server writes the same head each time; what follows it is not even copied.
            # (JSON holds no NUL, so what the short way takes was one field.)
            if buffer.startswith(commonest) and take_short(view[start : size - 1]):
                continue
            if buffer.startswith(head) and buffer.find(b"\x00", start) == size - 1:
                take_event(view[start : size - 1])
            else:
                self._take_datagram(bytes(view[:size]))
                head, start, commonest = self._fast_head, self._fast_start, self._commonest_head
        self.counts["datagrams"] += most
        self._datagrams_expected = min(2 * most, PER_ROUND)
        return True

    def _take_datagram(self, data: bytes) -> None:
        taker = self._taker
        try:
            if len(data) > self._max_bytes:
                raise DecodeError("oversized")
            notification = decode_datagram(data)
        except DecodeError as error:
            taker.reject(error.reason)
            return
        if taker.is_slow(notification):
            taker.keep(notification, _nobody_waits)
        else:
            taker.take(notification)
            head = event_head(data)
            if head and data.startswith(SURELY_FAST, len(head)):
                self._fast_head, self._fast_start = head + SURELY_FAST, len(head)
                self._commonest_head = head + MODSEQ

    # --- stream connections ----------------------------------------------------------------------

    def _on_listener(self, _descriptor: int, _events: int) -> None:
        assert self._stream is not None
        served: list[socket.socket] = []
        for _ in range(PER_ROUND):
            try:
                connection, _address = self._stream.accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._pause()
                    break
                continue
            self._welcome(connection, served)
        # Cyrus closes once it has its answer, by now most likely; then there is nothing to watch.
        for connection in served:
            self._read(self._producer(connection))

    def _welcome(self, connection: socket.socket, served: list[socket.socket]) -> None:
        """Serve a new connection; put it into `served` if its only request was answered."""
        self.counts["connections"] += 1
        try:
            data = connection.recv(_READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            self._watch(self._producer(connection))
            return
        except OSError:
            connection.close()
            return
        message = whole_event(data)
        if message is None or not message.startswith(SURELY_FAST):
            self._take_data(self._producer(connection), data)
            return
        self.counts["requests"] += 1
        try:
            connection.send(OK, socket.MSG_DONTWAIT)
        except OSError:
            connection.close()
        else:
            served.append(connection)
        if not (message.startswith(MODSEQ) and self._taker.take_short(message)):
            self._taker.take_event(message)

    def _producer(self, connection: socket.socket) -> _Producer:
        connection.setblocking(False)
        return _Producer(connection, self._max_bytes, self._clock())

    def _watch(self, producer: _Producer) -> None:
        descriptor = producer.socket.fileno()
        if descriptor >= 0 and descriptor not in self._producers:
            self._producers[descriptor] = producer
            self._reactor.add(descriptor, EPOLLIN, self._on_producer, close=self._close_descriptor)

    def _pause(self) -> None:
        self.counts["no-descriptors"] += 1
        if self._stream is not None and self._resume_at is None:
            self._reactor.remove(self._stream.fileno())
            self._resume_at = self._clock() + _EXHAUSTED_SECONDS

    def _on_producer(self, descriptor: int, _events: int) -> None:
        producer = self._producers.get(descriptor)
        if producer is not None:
            self._read(producer)

    def _read(self, producer: _Producer) -> None:
        try:
            data = producer.socket.recv(_READ_BYTES)
        except BlockingIOError:
            self._watch(producer)
        except OSError:
            self._close(producer)
        else:
            self._take_data(producer, data)

    def _take_data(self, producer: _Producer, data: bytes) -> None:
        """Take what a producer sent; b"" is its end."""
        if not data:
            self._end(producer)
            return
        producer.heard_at = self._clock()
        framing = producer.framing
        for item in framing.feed(data):
            self._request(producer, item)
        if framing.error is not None:
            self._taker.reject(framing.error.reason)
            self._cut(producer, "bad-framing")
        else:
            self._watch(producer)

    def _end(self, producer: _Producer) -> None:
        """The producer has said all it will; close once it has all its answers."""
        for item in producer.framing.finish():
            self._request(producer, item)
        producer.ended = True
        if not producer.replies:
            self._close(producer)
            return
        descriptor = producer.socket.fileno()
        self._producers[descriptor] = producer
        self._reactor.remove(descriptor)

    def _request(self, producer: _Producer, item: Item) -> None:
        self.counts["requests"] += 1
        taker = self._taker
        if isinstance(item, Rejected):
            taker.reject(item.reason)
            self._reply(producer, NO)
        elif taker.is_slow(item):
            reply: list[bytes] = []
            producer.replies.append(reply)
            taker.keep(item, lambda error: self._kept(producer, reply, error))
        else:
            # Answer first: whoever waits here holds locks in the mail server.
            self._reply(producer, OK)
            taker.take(item)

    def _kept(self, producer: _Producer, reply: list[bytes], error: QueueError | None) -> None:
        reply.append(OK if error is None else NO)
        replies = producer.replies
        while replies and replies[0]:
            self._send(producer, replies.popleft()[0])
        if producer.ended and not replies:
            self._close(producer)

    def _reply(self, producer: _Producer, answer: bytes) -> None:
        if producer.replies:
            producer.replies.append([answer])
        else:
            self._send(producer, answer)

    def _send(self, producer: _Producer, answer: bytes) -> None:
        try:
            if producer.socket.send(answer) == len(answer):
                return
        except BlockingIOError:
            pass
        except OSError:
            return  # gone; the read side will notice
        # Tens of thousands of answers lie unread: it has stopped listening to us.
        self._close(producer)
        self.counts["cut-replies-unread"] += 1

    def _cut(self, producer: _Producer, why: str) -> None:
        self.counts[f"cut-{why}"] += 1
        self._send(producer, NO)
        self._close(producer)

    def _close_descriptor(self, descriptor: int) -> None:
        if descriptor in self._producers:
            self._close(self._producers[descriptor])

    def _close(self, producer: _Producer) -> None:
        descriptor = producer.socket.fileno()
        if descriptor >= 0:
            self._producers.pop(descriptor, None)
            self._reactor.remove(descriptor)
            producer.socket.close()


def _nobody_waits(_error: QueueError | None) -> None:
    """A datagram has no way back; the loss of one that could not be kept is counted by `keep`."""
