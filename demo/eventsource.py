"""A small blocking EventSource reader (HTML §9.2) over a raw socket, with deadlines.

Shows what a browser's hides: the status, the headers, each block as it came, and its bytes.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from demo.closing import Closing


class StreamEndError(ConnectionError):
    """The other side has ended the stream."""


@dataclass(frozen=True)
class Block:
    """One block of a stream, up to its blank line; `raw` is the text as it came."""

    event: str
    id: str | None
    data: str
    retry: int | None
    comments: tuple[str, ...]
    raw: str

    @property
    def is_comment(self) -> bool:
        """Whether it keeps the connection alive and says nothing else."""
        return not (self.event or self.data or self.retry is not None or self.id is not None)

    @property
    def json(self) -> Any:
        """The data as JSON; ValueError if it is none."""
        return json.loads(self.data)


class EventStream(Closing):
    """An open stream. `status`, `headers` (names in lower case), `last_id`; close it after use.

    `url` is http://HOST:PORT/PATH; `within` seconds are allowed until the response head is there.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        last_event_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        within: float = 5.0,
    ) -> None:
        parts = urlsplit(url)
        self.last_id = last_event_id
        #: Every block so far, comments too, oldest first.
        self.blocks: list[Block] = []
        self._buffer = b""  # as it came
        self._text = b""  # without the transfer coding
        self._is_chunked = False
        deadline = time.monotonic() + within
        self._socket = socket.create_connection((parts.hostname, parts.port or 80), within)
        try:
            sent = {"Host": parts.netloc, "Accept": "text/event-stream", **(headers or {})}
            if token is not None:
                sent["Authorization"] = f"Bearer {token}"
            if last_event_id is not None:
                sent["Last-Event-ID"] = last_event_id
            target = parts.path + (f"?{parts.query}" if parts.query else "")
            lines = [f"GET {target} HTTP/1.1", *(f"{key}: {sent[key]}" for key in sent)]
            self._socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
            self.status, self.headers = self._read_head(deadline)
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def next_block(self, within: float = 5.0) -> Block:
        """Return the next block that is not a mere comment; TimeoutError, or StreamEndError."""
        deadline = time.monotonic() + within
        while (block := self._next(deadline)).is_comment:
            pass
        return block

    def wait_for(self, wanted: Callable[[Block], bool], within: float = 10.0) -> Block:
        """Return the first coming block that is `wanted`; TimeoutError says what came instead."""
        deadline = time.monotonic() + within
        first = len(self.blocks)
        try:
            while not wanted(block := self._next(deadline)):
                pass
        except TimeoutError:
            came = "".join(block.raw for block in self.blocks[first:]) or "nothing"
            raise TimeoutError(
                f"the block did not come within {within:g} s; came:\n{came}"
            ) from None
        return block

    def quiet_for(self, seconds: float) -> list[Block]:
        """Return the blocks (no comments) that come in the next `seconds`."""
        deadline = time.monotonic() + seconds
        came: list[Block] = []
        while True:
            try:
                block = self._next(deadline)
            except TimeoutError:
                return came
            if not block.is_comment:
                came.append(block)

    # --- bytes -----------------------------------------------------------------------------------

    def _next(self, deadline: float) -> Block:
        while b"\n\n" not in self._text:
            self._read_some(deadline)
            self._decode()
        raw, _, self._text = self._text.partition(b"\n\n")
        block = _parse(raw.decode() + "\n\n")
        if block.id is not None:
            self.last_id = block.id
        self.blocks.append(block)
        return block

    def _read_head(self, deadline: float) -> tuple[int, dict[str, str]]:
        while b"\r\n\r\n" not in self._buffer:
            self._read_some(deadline)
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        self._is_chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        self._decode()
        return int(first.split(" ")[1]), headers

    def _read_some(self, deadline: float) -> None:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("nothing came in time")
        self._socket.settimeout(remaining)
        data = self._socket.recv(65_536)
        if not data:
            raise StreamEndError("the stream has ended")
        self._buffer += data

    def _decode(self) -> None:
        if not self._is_chunked:
            self._text, self._buffer = self._text + self._buffer, b""
            return
        while b"\r\n" in self._buffer:
            size, _, rest = self._buffer.partition(b"\r\n")
            length = int(size.split(b";")[0], 16)
            if length == 0:
                raise StreamEndError("the stream has ended")
            if len(rest) < length + 2:
                return
            self._text, self._buffer = self._text + rest[:length], rest[length + 2 :]


def _parse(raw: str) -> Block:
    event, event_id, retry = "", None, None
    data: list[str] = []
    comments: list[str] = []
    for line in raw.rstrip("\n").split("\n"):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            event = value
        elif name == "id":
            event_id = value
        elif name == "data":
            data.append(value)
        elif name == "retry":
            retry = int(value)
        elif name == "":
            comments.append(value)
    return Block(event, event_id, "\n".join(data), retry, tuple(comments), raw)
