"""Heavy and hostile company for a real pusher, and probes that look at it from outside.

Events and slow requests in the server's own form, producers, crowds of readers, raw HTTP, mutated
captures; and what /proc and /metrics tell of the daemon meanwhile. Knows no part of pusher but the
encoders of its wire.
"""

from __future__ import annotations

import json
import os
import random
import re
import select
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from demo.closing import Closing
from demo.daemon import Daemon, Settings
from demo.waiting import wait_until
from pusher.protocol.notification import Notification, encode_datagram, encode_dlist
from tests.support.pusher_process import PusherProcess

CAPTURES = Path(__file__).parents[1] / "data" / "mboxevents"

OK = b"OK ()\r\n"
NO = b"NO ()\r\n"

#: Kernels count a socket's memory in its own way; less than this is not given anyway.
TINY_BUFFER = 2304


# --- what mail servers send ----------------------------------------------------------------------


def counters(number: int) -> str:
    """Return the counters of an account whose every modseq is `number`."""
    return " ".join(["9", *[str(number)] * 11, "1700000000"])


def modseq_event(account: str, number: int, **fields: object) -> bytes:
    """Return the JSON of a MailboxModseq that brings all numbers of `account` to `number`."""
    event = {
        "event": "MailboxModseq",
        "timestamp": "2026-11-21T04:00:00.000+00:00",
        "uri": f"imap://mail.example.org/user/{account.replace('@', '%40')};UIDVALIDITY=1700000000",
        "modseq": number,
        "pid": 4242,
        "vnd.cmu.mbtype": "e",
        "vnd.fastmail.counters": counters(number),
    }
    return json.dumps(event | fields).encode()


def _mailbox(message: bytes) -> Notification:
    return Notification("pusher", "EVENT", None, None, None, (), message, None)


def event_datagram(account: str, number: int) -> bytes:
    """Return `modseq_event` as the datagram of a Cyrus server."""
    return encode_datagram(_mailbox(modseq_event(account, number)))


def event_request(account: str, number: int, **fields: object) -> bytes:
    """Return `modseq_event` as the dlist request of a Cyrus server: fast."""
    return encode_dlist(_mailbox(modseq_event(account, number, **fields)))


def sieve_request(account: str, mark: str, filepath: Path | None = None) -> bytes:
    """Return a Sieve notification whose stored job shows `mark`: slow."""
    options, path = ("ann@example.org",), str(filepath) if filepath is not None else None
    message = f"mark={mark};\n\nAction(s) taken:\nKept\n".encode()
    return encode_dlist(
        Notification("mailto", "SIEVE", "normal", account, None, options, message, path)
    )


def alarm_json(account: str, mark: str, recipients: Sequence[str] = ()) -> bytes:
    """Return the JSON of an email CalendarAlarm whose stored job shows `mark`: slow."""
    return json.dumps(
        {
            "event": "CalendarAlarm",
            "alarmTime": "20261124T024500Z",
            "alarmRecipients": [f"mailto:{recipient}" for recipient in recipients],
            "userId": account,
            "calendarId": "Default",
            "calendarName": "personal",
            "uid": f"mark={mark};",
            "action": "email",
            "summary": "Stand-up",
            "timezone": "UTC",
            "start": "20261124T030000Z",
            "end": "20261124T033000Z",
            "allDay": 0,
        }
    ).encode()


def alarm_request(account: str, mark: str) -> bytes:
    """Return `alarm_json` as a dlist request."""
    return encode_dlist(_mailbox(alarm_json(account, mark)))


def marks(text: bytes) -> list[str]:
    """Return the marks in `text` (the payload of a job)."""
    return [mark.decode() for mark in re.findall(rb"mark=([\w-]+);", text)]


class Producer(Closing):
    """One open connection to the stream socket; every wait has a deadline."""

    def __init__(self, path: Path, within: float = 5.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._within = within
        self._got = b""
        try:
            self._socket.settimeout(within)
            self._socket.connect(str(path))
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        self._socket.settimeout(self._within)
        self._socket.sendall(data)

    def end(self) -> None:
        """Say that nothing more is to come."""
        self._socket.shutdown(socket.SHUT_WR)

    def reply(self, within: float | None = None) -> bytes:
        """Return the next reply, its CRLF included; b"" when the connection was closed."""
        deadline = time.monotonic() + (self._within if within is None else within)
        while b"\n" not in self._got:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = self._socket.recv(65_536)
            except ConnectionResetError:
                data = b""
            if not data:
                rest, self._got = self._got, b""
                return rest
            self._got += data
        line, _, self._got = self._got.partition(b"\n")
        return line + b"\n"

    def ask(self, request: bytes) -> bytes:
        """Send `request` and return its reply."""
        self.send(request)
        return self.reply()


class DatagramSender:
    """Sends datagrams as Cyrus does (blocking), and notes the longest it had to wait."""

    def __init__(self, path: Path, within: float = 10.0) -> None:
        self.waits: list[float] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(within)
        self._socket.connect(str(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send one datagram."""
        began = time.monotonic()
        self._socket.send(data)
        self.waits.append(time.monotonic() - began)


# --- readers -------------------------------------------------------------------------------------


class Reader:
    """One raw stream of a `Crowd`: its bytes so far, and whether the other side has ended it."""

    def __init__(self, connection: socket.socket, account: str) -> None:
        self.socket = connection
        self.account = account
        self.received = b""  # the last few kilobytes
        self.is_ended = False

    @property
    def is_open_stream(self) -> bool:
        """Whether the response head came and the first block with it."""
        return b"\r\n\r\n" in self.received and self.received.endswith(b"\n\n")

    def has_seen(self, number: int) -> bool:
        """Tell whether the newest whole block says that the mail modseq is `number`."""
        wanted = (b'"mailModSeq":%d,' % number, b'"Email":"%d"' % number)
        last = self.received.rpartition(b"\n\n")[0].rpartition(b"\ndata: ")[2]
        return any(text in last for text in wanted)

    def read(self) -> None:
        """Take what is there."""
        try:
            while data := self.socket.recv(65_536):
                self.received = (self.received + data)[-8192:]
        except BlockingIOError:
            return
        except OSError:
            pass
        self.is_ended = True


class Crowd:
    """Many raw readers in one thread; only those told to `listen` ever read.

    `receive_buffer` bytes is what the kernel may take in for each: small, so that a reader that
    does not read is soon noticed.
    """

    def __init__(self, port: int, receive_buffer: int | None = None) -> None:
        self.readers: list[Reader] = []
        self._port = port
        self._receive_buffer = receive_buffer
        self._epoll = select.epoll()
        self._listening: dict[int, Reader] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for reader in self.readers:
            reader.socket.close()
        self._epoll.close()

    def join(self, account: str, token: str, path: str = "/events", headers: str = "") -> Reader:
        """Connect and ask for a stream; the answer is read by `pump`."""
        connection = socket.socket()
        reader = Reader(connection, account)
        self.readers.append(reader)
        if self._receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        connection.settimeout(10)
        connection.connect(("127.0.0.1", self._port))
        connection.sendall(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {token}\r\n{headers}\r\n".encode()
        )
        connection.setblocking(False)
        self.listen(reader)
        return reader

    def listen(self, reader: Reader) -> None:
        """Read what comes for `reader` from now on."""
        self._listening[reader.socket.fileno()] = reader
        self._epoll.register(reader.socket.fileno(), select.EPOLLIN)

    def ignore(self, reader: Reader) -> None:
        """Read nothing more of `reader`."""
        if self._listening.pop(reader.socket.fileno(), None) is not None:
            self._epoll.unregister(reader.socket.fileno())

    def pump(self, until: Callable[[], bool], what: str, within: float = 15.0) -> None:
        """Read for the listening ones until `until()`; TimeoutError after `within` seconds."""
        deadline = time.monotonic() + within
        while not until():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {within:g} s for {what}")
            self.read_some(0.05)

    def read_some(self, wait: float = 0.0) -> None:
        """Read what is there, waiting up to `wait` seconds for something."""
        for descriptor, _ in self._epoll.poll(wait):
            reader = self._listening.get(descriptor)
            if reader is not None:
                reader.read()
                if reader.is_ended:
                    self.ignore(reader)

    def pump_until_open(self, within: float = 30.0) -> None:
        """Read until every stream has its first block."""
        missing = list(self.readers)

        def all_open() -> bool:
            missing[:] = [reader for reader in missing if not reader.is_open_stream]
            return not missing

        self.pump(all_open, "all streams to open", within)


def all_have(readers: Iterable[Reader], number: int) -> Callable[[], bool]:
    """Return a condition: each of `readers` has seen the mail modseq `number` last."""
    missing = list(readers)

    def have() -> bool:
        missing[:] = [reader for reader in missing if not reader.has_seen(number)]
        return not missing

    return have


# --- HTTP ----------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """A whole response; names of `headers` are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, object]:
        """The problem document; AssertionError if it is none."""
        assert self.headers["content-type"] == "application/problem+json", self.headers
        document: dict[str, object] = json.loads(self.body)
        assert document["status"] == self.status
        return document


def parse_answer(raw: bytes) -> Answer:
    """Return the response in `raw`."""
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(": ") for line in lines)
    return Answer(int(first.split(" ")[1]), {name.lower(): text for name, _, text in pairs}, body)


def exchange(port: int, request: bytes, within: float = 5.0) -> Answer:
    """Send `request` and return the answer, read until the other side closes."""
    with socket.create_connection(("127.0.0.1", port), within) as connection:
        connection.sendall(request)
        return parse_answer(read_to_end(connection, within))


def read_to_end(connection: socket.socket, within: float = 5.0) -> bytes:
    """Return what comes until the other side closes; TimeoutError if it does not."""
    deadline = time.monotonic() + within
    received = b""
    while True:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            data = connection.recv(65_536)
        except ConnectionResetError:
            data = b""
        if not data:
            return received
        received += data


def get(target: str, headers: dict[str, str] | None = None, method: str = "GET") -> bytes:
    """Return the bytes of a request."""
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


# --- the daemon from outside ---------------------------------------------------------------------


def metrics(pusher: Daemon) -> dict[str, float]:
    """Return the daemon's metrics: {'pusher_streams_total{kind="opened"}': 3.0}."""
    status, page = pusher.get("/metrics")
    assert status == 200
    lines = (line.rpartition(" ") for line in page.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def metric(pusher: Daemon, name: str) -> float:
    """Return one metric."""
    return metrics(pusher)[name]


def resident_bytes(pid: int) -> int:
    """Return how much memory a process holds."""
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float:
    """Return the CPU time a process has used, threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_for_metric(
    pusher: Daemon, name: str, wanted: Callable[[float], bool], within: float = 10.0
) -> float:
    """Return the value of a metric once it is `wanted`."""
    found = [0.0]

    def is_so() -> bool:
        found[0] = metric(pusher, name)
        return wanted(found[0])

    wait_until(is_so, f"{name} (now {found[0]:g})", within)
    return found[0]


class SystemdPusher(PusherProcess):
    """A pusher that is passed all its sockets, as systemd does; they outlive it.

    What is sent while no process runs waits in them.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings)
        self._sockets = [
            _listening(socket.AF_UNIX, socket.SOCK_STREAM, str(self.stream_socket)),
            _listening(socket.AF_UNIX, socket.SOCK_DGRAM, str(self.datagram_socket)),
            _listening(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", self.streams_port)),
            _listening(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", self.api_port)),
        ]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            super().__exit__(kind, error, traceback)
        finally:
            for listener in self._sockets:
                listener.close()

    def _descriptors(self) -> tuple[int, ...]:
        return tuple(listener.fileno() for listener in self._sockets)

    def _command(self) -> list[str]:
        given = ",".join(map(str, self._descriptors()))
        return [sys.executable, "-c", _PASS_SOCKETS, given, *super()._command()]


# sd_listen_fds(3): descriptors from 3 on, and LISTEN_PID is the process that is to use them.
_PASS_SOCKETS = """
import os, sys
given = [os.dup(int(text)) for text in sys.argv[1].split(",")]
high = [os.dup2(descriptor, 100 + at) for at, descriptor in enumerate(given)]
for at, descriptor in enumerate(high):
    os.dup2(descriptor, 3 + at, inheritable=True)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(high))}
os.closerange(3 + len(high), 200)
os.execv(sys.argv[2], sys.argv[2:])
"""


def _listening(
    family: socket.AddressFamily, kind: socket.SocketKind, address: str | tuple[str, int]
) -> socket.socket:
    listener = socket.socket(family, kind)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    if kind == socket.SOCK_STREAM:
        listener.listen(4096)
    return listener


def log_lines(pusher: Daemon) -> list[dict[str, object]]:
    """Return the daemon's log; ValueError if a line is not JSON."""
    return [json.loads(line) for line in pusher.log.splitlines()]


# --- mutations -----------------------------------------------------------------------------------


def captures(suffix: str) -> list[bytes]:
    """Return what a real server sent: "dgram" or "dlist"."""
    return [path.read_bytes() for path in sorted(CAPTURES.glob(f"*.{suffix}"))]


class Mutator:
    """Breaks captures in every way we could think of; the same ones for the same `seed`."""

    def __init__(self, originals: Sequence[bytes], others: Sequence[bytes], seed: int) -> None:
        self._originals = originals
        self._others = others
        self._random = random.Random(seed)
        self._ways: tuple[Callable[[bytes], bytes], ...] = (
            self._flip_bits,
            self._truncate,
            self._duplicate,
            self._delete,
            self._splice,
            self._lie_about_length,
            self._huge_number,
            self._insert,
            self._replace_value,
            self._deep,
            self._other_transport,
            self._line_ends,
        )

    def next(self) -> bytes:
        """Return one more broken capture: mostly one wound, sometimes several."""
        data = self._random.choice(self._originals)
        for _ in range(1 if self._random.random() < 0.7 else self._random.randint(2, 6)):
            data = self._random.choice(self._ways)(data) or b"x"
        if self._random.random() < 0.0002:
            return data * (1 + (1 << 20) // len(data))
        return data

    def chunks(self, data: bytes) -> list[bytes]:
        """Return `data` cut in pieces at random."""
        cuts = sorted(self._random.randrange(len(data) + 1) for _ in range(3))
        return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]

    def _at(self, data: bytes) -> int:
        return self._random.randrange(len(data) + 1)

    def _flip_bits(self, data: bytes) -> bytes:
        flipped = bytearray(data)
        for _ in range(self._random.choice((1, 1, 2, 8))):
            flipped[self._random.randrange(len(data))] ^= 1 << self._random.randrange(8)
        return bytes(flipped)

    def _truncate(self, data: bytes) -> bytes:
        return data[: self._at(data)]

    def _duplicate(self, data: bytes) -> bytes:
        a, b = sorted((self._at(data), self._at(data)))
        return data[:b] + data[a:b] + data[b:]

    def _delete(self, data: bytes) -> bytes:
        a = self._at(data)
        return data[:a] + data[a + self._random.choice((1, 1, 2, 5, 40)) :]

    def _splice(self, data: bytes) -> bytes:
        other = self._random.choice(self._originals)
        return data[: self._at(data)] + other[self._random.randrange(len(other)) :]

    def _lie_about_length(self, data: bytes) -> bytes:
        lie = self._random.choice(
            (b"0", b"1", b"7", b"1048577", b"999999999", b"99999999999999999999", b"-1", b"", b"x")
        )
        return re.sub(rb"\{\d+\+?\}", lambda _: b"{%b+}" % lie, data, count=1)

    def _huge_number(self, data: bytes) -> bytes:
        digits = self._random.choice(
            (b"18446744073709551616", b"-1", b"1e999", b"9" * 5000, b"0x10", b"1.5", b"NaN", b"00")
        )
        found = list(re.finditer(rb"\d+", data))
        if not found:
            return data
        number = self._random.choice(found)
        return data[: number.start()] + digits + data[number.end() :]

    def _insert(self, data: bytes) -> bytes:
        at = self._at(data)
        return data[:at] + self._random.choice(_POISON) + data[at:]

    def _replace_value(self, data: bytes) -> bytes:
        found = list(re.finditer(rb'":("[^"]*"|\d+)', data))
        if not found:
            return data
        value = self._random.choice(found)
        other = self._random.choice(
            (b"null", b"[]", b"{}", b"true", b'""', b'"\\u0000\\r\\n\\u202e"', b'"\\ud800"', b"1e3")
        )
        return data[: value.start() + 2] + other + data[value.end() :]

    def _deep(self, data: bytes) -> bytes:
        at, depth = self._at(data), self._random.choice((3, 3, 60, 60, 2000, 20_000))
        brackets = self._random.choice((b"[", b"(", b'{"a":', b"%(", b"[["))
        return data[:at] + brackets * depth + data[at:]

    def _other_transport(self, data: bytes) -> bytes:
        other = self._random.choice(self._others)
        return other if self._random.random() < 0.5 else data[: self._at(data)] + other

    def _line_ends(self, data: bytes) -> bytes:
        ends = self._random.choice((b"\r", b"\n", b"\n\n", b"\0", b"\r\n\r\n"))
        return data.replace(self._random.choice((b"\r\n", b" ", b"\0", b",")), ends)


_POISON = (
    b"\0",
    b"\r\n",
    b"\n\ndata: poison\n\n",
    b"\xff\xfe",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\xe2\x80\xae",
    b'"',
    b"\\",
    b"{",
    b"}",
    b"(",
    b")",
    b"%{3+}\r\nabc",
    b"NOTIFY %(",
    b"{3+}\r\n",
    b"NIL",
    b" " * 4096,
    b'{"event":"MessageNew"}\n',
    b'"a":' * 100,
)
