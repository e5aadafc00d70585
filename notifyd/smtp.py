"""Sends mails to one SMTP server over a few connections that are kept, or through `sendmail`.

Knows when a connection is opened, reused and left; what is said over one is in `smtp_connection`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from notifyd.compose.mail import Mail
from notifyd.compose.transfer import Transfer, transfer
from notifyd.sendmail import SendmailMailer
from notifyd.smtp_connection import (
    Connection,
    CrowdedError,
    Login,
    StaleError,
    UnreachableError,
    dial,
)
from shared.errors import ConfigError, DecodeError
from shared.outcome import Outcome, Rejected, Unavailable
from shared.slow_sections import Smtp

#: A connection that nobody needs is left after this long, before most servers would end it.
_IDLE_SECONDS: Final = 30.0
#: A server that does not want as many connections as configured is asked again after this long.
_CROWDED_SECONDS: Final = 60.0
_NEVER: Final = float("-inf")


class Mailer(Protocol):
    """Takes mails from handlers of jobs; any number may be in `send` at once."""

    async def send(self, mail: Mail) -> Outcome:
        """Hand `mail` over and tell what became of it; it may be cancelled at any time."""

    async def close(self) -> None:
        """Leave the service, within seconds; a mail that is still being sent is cut off."""


def mailer(section: Smtp) -> Mailer:
    """The mailer that `[smtp]` describes; nothing is connected yet.

    Raises ConfigError for a password or authorities that cannot be read, or a missing program.
    """
    if section.transport == "sendmail":
        if not os.access(section.sendmail, os.X_OK):
            raise ConfigError([f"smtp.sendmail: {section.sendmail} is no program we may run"])
        return SendmailMailer(section)
    return SmtpMailer(Login(section, _password(section), _context(section)))


class SmtpMailer:
    """A mailer over SMTP with at most `connections` at once; who waits longest is next."""

    def __init__(
        self,
        login: Login,
        *,
        idle_seconds: float = _IDLE_SECONDS,
        crowded_seconds: float = _CROWDED_SECONDS,
    ) -> None:
        self._login = login
        self._idle_seconds = idle_seconds
        self._crowded_seconds = crowded_seconds
        self._slots = asyncio.Semaphore(login.section.connections)
        #: Slots taken away because the server has enough of us, the first to come back first.
        self._withheld: deque[asyncio.TimerHandle] = deque()
        self._dialing = 0
        self._busy: set[Connection] = set()
        #: Connections that wait for a mail, the one used last at the end, each with its end.
        self._idle: dict[Connection, asyncio.TimerHandle] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._own_name = login.section.hello_name or ""
        #: When it was last found out, in the loop's seconds, that the server is down, and why.
        self._down_at, self._down = _NEVER, Unavailable("")
        self._is_closed = False

    async def send(self, mail: Mail) -> Outcome:
        """See `Mailer`. `Unavailable` is meant for all mails that come now."""
        try:
            ready = transfer(mail)
        except DecodeError as error:
            return Rejected(error.reason)
        began = asyncio.get_running_loop().time()
        while True:
            await self._slots.acquire()
            give_back: Callable[[], None] = self._slots.release
            try:
                if self._is_closed:
                    return Unavailable("closed")
                if self._down_at >= began:  # found out while we waited: each would wait in turn
                    return self._down
                return await self._send(ready)
            except CrowdedError as error:
                if not (self._busy or self._dialing):
                    return self._found_down(str(error))
                give_back = self._withhold_slot  # and wait for one of those the server has
            finally:
                give_back()

    async def close(self) -> None:
        """See `Mailer`."""
        self._is_closed = True
        for connection in self._busy:
            connection.drop()
        self._leave_idle()
        await asyncio.gather(*self._leaving)
        await asyncio.sleep(0)  # transports end in the loop's next round

    async def _send(self, mail: Transfer) -> Outcome:
        while (kept := self._kept()) is not None:
            with suppress(StaleError):
                return await self._deliver(kept, mail)
        try:
            fresh = await self._dial()
        except CrowdedError:
            raise
        except UnreachableError as error:
            return self._found_down(str(error))
        return await self._deliver(fresh, mail)

    async def _dial(self) -> Connection:
        self._dialing += 1
        try:
            self._own_name = self._own_name or await _own_name()
            return await dial(self._login, self._own_name)
        finally:
            self._dialing -= 1

    async def _deliver(self, connection: Connection, mail: Transfer) -> Outcome:
        self._busy.add(connection)
        try:
            outcome = await connection.deliver(mail)
        except BaseException:
            connection.drop()  # half a mail may be under way
            raise
        finally:
            self._busy.discard(connection)
        if isinstance(outcome, Unavailable):
            connection.drop()
            return self._found_down(outcome.reason)
        self._down_at = _NEVER
        self._keep(connection)
        return outcome

    def _found_down(self, reason: str) -> Unavailable:
        self._down_at, self._down = asyncio.get_running_loop().time(), Unavailable(reason)
        self._leave_idle()
        while self._withheld:
            self._withheld[0].cancel()
            self._restore_slot()
        return self._down

    def _withhold_slot(self) -> None:
        loop = asyncio.get_running_loop()
        self._withheld.append(loop.call_later(self._crowded_seconds, self._restore_slot))

    def _restore_slot(self) -> None:
        self._withheld.popleft()
        self._slots.release()

    # --- connections that wait for the next mail -------------------------------------------------

    def _kept(self) -> Connection | None:
        """Take the connection used last of those that are still there."""
        while self._idle:
            connection, end = self._idle.popitem()
            end.cancel()
            if connection.is_alive:
                return connection
        return None

    def _keep(self, connection: Connection) -> None:
        if connection.is_alive:
            loop = asyncio.get_running_loop()
            self._idle[connection] = loop.call_later(self._idle_seconds, self._leave, connection)

    def _leave(self, connection: Connection) -> None:
        self._idle.pop(connection).cancel()
        task = asyncio.create_task(connection.quit())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def _leave_idle(self) -> None:
        for connection in list(self._idle):
            self._leave(connection)


async def _own_name() -> str:
    """Our FQDN for EHLO (RFC 5321 §4.1.1.1); asks the name service, in a thread."""
    name = await asyncio.to_thread(socket.getfqdn)
    return name if name.isascii() and name.isprintable() and " " not in name else "localhost"


def _password(section: Smtp) -> str | None:
    if section.password_file is None:
        return None
    try:
        password = section.password_file.read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"smtp.password_file: {error}"]) from error
    if not password:
        raise ConfigError([f"smtp.password_file: {section.password_file} is empty"])
    return password


def _context(section: Smtp) -> ssl.SSLContext | None:
    """What verifies the server: name and chain, always; None without TLS."""
    if section.tls == "none":
        return None
    try:
        return ssl.create_default_context(cafile=section.ca_file)
    except OSError as error:
        raise ConfigError([f"smtp.ca_file: {section.ca_file}: {error}"]) from error
