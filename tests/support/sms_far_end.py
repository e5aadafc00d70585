"""An SMS provider on loopback that keeps a ledger of what it took, and fails as it is told to.

It speaks what Twilio's API says (creating and listing messages) and, on any other path, takes one
JSON object as `notifyd.http_sms` sends it. What it does next is the first of `script`; with nothing
left there it takes the SMS and says so.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

ACCOUNT, TOKEN = "AC" + "0" * 32, "a-secret-token"
PAGE = 50


@dataclass
class Request:
    """What came in."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        return _flat(self.body.decode())


@dataclass
class Message:
    """One SMS that was taken; as Twilio, it has a date of sending only once it was sent."""

    sid: str
    to: str
    body: str
    whose: dict[str, str]
    created: datetime
    segments: str = "1"

    def shown(self) -> dict[str, object]:
        return {
            "sid": self.sid, "to": self.to, "body": self.body, "status": "queued",
            "from": self.whose.get("From"), "direction": "outbound-api",
            "messaging_service_sid": self.whose.get("MessagingServiceSid"),
            "num_segments": self.segments, "date_sent": None,
            "date_created": format_datetime(self.created), "account_sid": ACCOUNT,
        }  # fmt: skip


Reply = tuple[int, dict[str, str], bytes]


@dataclass
class FarEnd:
    """Start it with `async with`; `url` is its address."""

    script: deque[str] = field(default_factory=deque)
    ledger: list[Message] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    #: Set when a request has come that is never answered.
    hanging: asyncio.Event = field(default_factory=asyncio.Event)
    #: How long ago the next SMS is said to have been taken.
    age: timedelta = timedelta()
    #: What is done to the words of the next SMS before they are shown.
    rewrite: Callable[[str], str] = str
    port: int = 0
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> FarEnd:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while (request := await _read(reader)) is not None:
                self.requests.append(request)
                if not await self._answer(request, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # such as a client that was killed in the midst of a request
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection goes on."""
        asked = self.script.popleft() if self.script else "ok"
        if asked in _ODD:
            await _ODD[asked](self, request, writer)
            return False
        status, headers, body = self._reply(request, asked)
        fields = {"content-type": "application/json", **headers, "content-length": str(len(body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        writer.write(f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + body)
        await writer.drain()
        return True

    def _reply(self, request: Request, asked: str) -> Reply:
        status, *rest = asked.split()
        headers = dict(pair.replace("_", " ").split("=", 1) for pair in rest)
        if status.isdigit() and len(status) == 5:  # one of Twilio's error codes
            http = int(headers.pop("status", "400"))
            problem = {"code": int(status), "message": "no +15105550101", "status": http}
            return http, headers, json.dumps(problem).encode()
        if status == "garbage":
            return int(headers.pop("status", "201")), headers, b"<html>\xff"
        if status != "ok":
            return int(status), headers, b"{}"
        return self._ok(request)

    def _ok(self, request: Request) -> Reply:
        if not request.path.startswith("/2010-04-01/"):
            asked = json.loads(request.body)
            message = self.take(asked["to"], asked["text"], {"From": asked.get("from", "")})
            return 200, {}, json.dumps({"id": message.sid, "segments": 1}).encode()
        basic = base64.b64encode(f"{ACCOUNT}:{TOKEN}".encode()).decode()
        if request.headers.get("authorization") != f"Basic {basic}":
            return 401, {}, json.dumps({"code": 20003, "message": "", "status": 401}).encode()
        if request.method == "GET":
            return 200, {}, json.dumps(self._page(request)).encode()
        form = request.form
        message = self.take(form["To"], form["Body"], form)
        return 201, {}, json.dumps(message.shown()).encode()

    def take(self, to: str, body: str, whose: dict[str, str]) -> Message:
        """Put one into the ledger."""
        sid = f"SM{len(self.ledger):032x}"
        created = datetime.now(UTC).replace(microsecond=0) - self.age
        self.ledger.append(Message(sid, to, self.rewrite(body), whose, created))
        return self.ledger[-1]

    def _page(self, request: Request) -> dict[str, object]:
        """Newest first, in pages; by DateSent nothing is found, as nothing was sent yet."""
        by_date = any(name.startswith("DateSent") for name in request.query)
        to = request.query.get("To")
        found = [m for m in reversed(self.ledger) if not by_date and to in (None, m.to)]
        size = min(int(request.query.get("PageSize", PAGE)), PAGE)
        at = int(request.query.get("Page", "0"))
        more = f"{request.path}?To={(to or '').replace('+', '%2B')}&PageSize={size}&Page={at + 1}"
        return {
            "messages": [m.shown() for m in found[at * size : (at + 1) * size]],
            "next_page_uri": more if len(found) > (at + 1) * size else None,
        }


async def _hang(far: FarEnd, _request: Request, _writer: asyncio.StreamWriter) -> None:
    far.hanging.set()
    await asyncio.Event().wait()


async def _cut(_far: FarEnd, _request: Request, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def _take_and_cut(far: FarEnd, request: Request, writer: asyncio.StreamWriter) -> None:
    far._ok(request)
    writer.transport.abort()


async def _take_and_hang(far: FarEnd, request: Request, writer: asyncio.StreamWriter) -> None:
    far._ok(request)
    await _hang(far, request, writer)


async def _half_an_answer(far: FarEnd, request: Request, writer: asyncio.StreamWriter) -> None:
    far._ok(request)
    writer.write(b"HTTP/1.1 201 X\r\ncontent-length: 500\r\n\r\n{")
    await writer.drain()


async def _trickle(far: FarEnd, request: Request, writer: asyncio.StreamWriter) -> None:
    """A byte now and then: no single step takes long."""
    far._ok(request)
    writer.write(b"HTTP/1.1 201 X\r\ncontent-length: 100000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


_Odd = Callable[[FarEnd, Request, asyncio.StreamWriter], Awaitable[None]]
_ODD: dict[str, _Odd] = {
    "black-hole": _hang,
    "cut": _cut,
    "taken-then-cut": _take_and_cut,
    "taken-then-black-hole": _take_and_hang,
    "half-an-answer": _half_an_answer,
    "slow": _trickle,
}


def _flat(query: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(query, keep_blank_values=True).items()}


async def _read(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    fields: dict[str, Any] = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    body = await reader.readexactly(int(fields.get("content-length", "0")))
    parts = urlsplit(target)
    return Request(method, parts.path, _flat(parts.query), fields, body)
