"""An SMTP server that answers as a test says: refuses, stalls, cuts; and remembers all it saw.

    async with FarEnd() as server:
        server.answers["RCPT"] = ["450 4.2.0 later"]    # once; then it takes mails again
        server.always["DATA"] = CUT

Steps are GREETING, EHLO, STARTTLS, AUTH, RSET, MAIL, RCPT, DATA (the command), CONTENT (in its
midst), END (after the final dot) and QUIT.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from demo.ports import free_ports

#: Answers that are none: say nothing until the client goes; do not even read; close; close with
#: a reset. `CUT` after an answer closes behind it.
STALL: Final = "(stall)"
DEAF: Final = "(deaf)"
CUT: Final = "(cut)"
RESET: Final = "(reset)"

_GOOD: Final = {
    "GREETING": "220 far.example.org ESMTP",
    "STARTTLS": "220 2.0.0 go ahead",
    "AUTH": "235 2.7.0 welcome",
    "RSET": "250 2.0.0 forgotten",
    "MAIL": "250 2.1.0 sender ok",
    "RCPT": "250 2.1.5 recipient ok",
    "DATA": "354 go on",
    "CONTENT": "",
    "END": "250 2.0.0 Ok: queued as 4F00D",
    "QUIT": "221 2.0.0 bye",
}


class FarEnd:
    """Takes mails into `contents` on a `port` of 127.0.0.1; each step's answer can be set."""

    def __init__(
        self, extensions: tuple[str, ...] = ("PIPELINING", "8BITMIME", "SMTPUTF8")
    ) -> None:
        self.extensions = list(extensions)
        #: Step: what to answer next, each once, before `always`.
        self.answers: defaultdict[str, list[str]] = defaultdict(list)
        self.always: dict[str, str] = {}
        #: For STARTTLS, or from the first byte on with `is_implicit`.
        self.context: ssl.SSLContext | None = None
        self.is_implicit = False
        #: Most connections at once; those beyond get 421.
        self.most = 1000
        self.connections = 0
        self.commands: list[str] = []
        #: Whole mails, by what came between 354 and the final dot, dots and all as they were meant.
        self.contents: list[bytes] = []
        #: What had come of mails that were not ended by a dot.
        self.fragments: list[bytes] = []
        self.reached: Counter[str] = Counter()
        (self.port,) = free_ports(1)
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}
        self._moved = asyncio.Condition()
        self._is_ending = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    @property
    def open_connections(self) -> int:
        """How many clients are connected now."""
        return len(self._open)

    async def start(self) -> None:
        """Listen, again after `stop` on the same port."""
        context = self.context if self.is_implicit else None
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=context)

    async def stop(self) -> None:
        """Refuse connections and end those there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self.cut_all()

    async def cut_all(self) -> None:
        """End all connections there are, as a restarted server does."""
        tasks = [task for task in self._open.values() if task is not None]
        for writer in list(self._open):
            writer.transport.abort()
        self._is_ending.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._is_ending.clear()

    async def until(self, step: str, times: int = 1) -> None:
        """Wait until clients have been at `step` so often."""
        await self._wait_for(lambda: self.reached[step] >= times)

    async def until_empty(self) -> None:
        """Wait until no client is connected."""
        await self._wait_for(lambda: not self._open)

    async def _wait_for(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10), self._moved:
            await self._moved.wait_for(condition)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open[writer] = asyncio.current_task()
        try:
            await self._talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, _LeftError, ssl.SSLError):
            pass
        finally:
            writer.transport.abort()
            del self._open[writer]
            await self._tell()

    async def _tell(self) -> None:
        async with self._moved:
            self._moved.notify_all()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) > self.most:
            self.answers["GREETING"].insert(0, "421 4.7.0 too many connections")
        if not await self._answer("GREETING", reader, writer):
            return
        while line := await reader.readline():
            command = line.decode("utf-8", "replace").rstrip("\r\n")
            self.commands.append(command)
            step = command[:8].upper() if command.upper() == "STARTTLS" else command[:4].upper()
            if not await self._answer(step, reader, writer) and step != "STARTTLS":
                continue
            if step == "STARTTLS" and self.context is not None:
                await writer.start_tls(self.context)
            elif step == "DATA":
                await self._take(reader, writer)
            elif step == "QUIT":
                return

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines: list[bytes] = []
        try:
            if self.answers["CONTENT"] or "CONTENT" in self.always:
                lines.append(await reader.readline())
                await self._answer("CONTENT", reader, writer)
            while (line := await reader.readuntil(b"\r\n")) != b".\r\n":
                lines.append(line.removeprefix(b"."))
        except BaseException:
            self.fragments.append(b"".join(lines))
            raise
        if await self._answer("END", reader, writer):
            self.contents.append(b"".join(lines))

    async def _answer(
        self, step: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer at `step`; False if it is a refusal."""
        self.reached[step] += 1
        await self._tell()
        answer = self._next(step)
        if answer == STALL:
            with suppress(ConnectionError):
                await _until_left(reader)
            raise _LeftError
        if answer == DEAF:
            await self._is_ending.wait()
            raise _LeftError
        if answer in (CUT, RESET):
            if answer == RESET:
                linger = b"\1\0\0\0\0\0\0\0"
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, linger
                )
            raise _LeftError
        if answer:
            writer.write(answer.removesuffix(CUT).encode() + b"\r\n")
            await writer.drain()
        if answer.startswith("421") or answer.endswith(CUT):
            raise _LeftError
        return answer[:1] in "23"

    def _next(self, step: str) -> str:
        if self.answers[step]:
            return self.answers[step].pop(0)
        if step in self.always:
            return self.always[step]
        if step == "EHLO":
            lines = ["far.example.org", *self.extensions]
            return "\r\n".join([*(f"250-{line}" for line in lines[:-1]), f"250 {lines[-1]}"])
        return _GOOD.get(step, "500 5.5.1 what?")

    def parameters(self, verb: str) -> list[str]:
        """What followed `verb` in the commands so far, such as "FROM:<> SMTPUTF8" for MAIL."""
        return [
            match[1]
            for command in self.commands
            if (match := re.fullmatch(rf"{verb} (.*)", command))
        ]


class _LeftError(Exception):
    """The connection is to be closed."""


async def _until_left(reader: asyncio.StreamReader) -> None:
    """Read nothing more into memory than the client's window, until it is gone."""
    while not reader.at_eof():
        await reader.read(65536)
