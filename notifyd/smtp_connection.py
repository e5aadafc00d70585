"""One connection to the SMTP server: opened, one mail after another over it, left.

The only file that knows aiosmtplib. Its exceptions become outcomes here, or one of two exceptions:
`UnreachableError` from `dial`, `StaleError` from `Connection.deliver`.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from dataclasses import dataclass, field

from aiosmtplib import (
    SMTP,
    SMTPAuthenticationError,
    SMTPException,
    SMTPResponseException,
    SMTPServerDisconnected,
)

from notifyd.compose.transfer import Transfer, refusal, said
from shared.errors import MailboxPusherError
from shared.outcome import Delivered, Outcome, Rejected, Retry, Unavailable
from shared.slow_sections import Smtp

#: A server that is left may take this long to say goodbye.
_QUIT_SECONDS = 1.0


class UnreachableError(MailboxPusherError):
    """No connection on which mails can be sent; `str()` says why."""


class CrowdedError(UnreachableError):
    """The server does not want another connection now (421), and may go on with those it has."""


class StaleError(MailboxPusherError):
    """A kept connection had ended before this mail began; nothing of the mail was sent."""


@dataclass(frozen=True, slots=True)
class Login:
    """How to open a connection; `context` verifies the server's certificate."""

    section: Smtp
    password: str | None = field(repr=False)
    context: ssl.SSLContext | None


async def dial(login: Login, own_name: str) -> Connection:
    """Open a connection, ready for a first mail, within the section's `timeout_seconds`.

    TLS and login are demanded if they are configured. `own_name` goes into EHLO. Raises
    UnreachableError, and CrowdedError if the server says that it has too many of us.
    """
    section = login.section
    client = SMTP(
        hostname=section.host,
        port=section.port,
        username=section.user,
        password=login.password,
        local_hostname=own_name,
        # Not the library's deadlines: its asyncio.wait_for can swallow a cancellation.
        timeout=None,
        use_tls=section.tls == "implicit",
        start_tls=section.tls == "starttls",
        tls_context=login.context,
    )
    try:
        async with asyncio.timeout(section.timeout_seconds):
            await _open(client)
        return Connection(client, section.timeout_seconds)
    except SMTPAuthenticationError as error:
        raise UnreachableError(f"login refused: {error.code} {said(error.message)}") from error
    except SMTPResponseException as error:
        kind = CrowdedError if error.code == 421 else UnreachableError
        raise kind(f"server refuses us: {error.code} {said(error.message)}") from error
    except TimeoutError as error:
        raise UnreachableError(f"no connection within {section.timeout_seconds:g} s") from error
    except (SMTPException, OSError, ValueError) as error:  # ValueError: a broken AUTH challenge
        raise UnreachableError(f"no connection: {said(str(error))}") from error


async def _open(client: SMTP) -> None:
    try:
        await client.connect()
        if client.is_ehlo_or_helo_needed:
            await client.ehlo()
        if client.transport is None:  # it can have ended together with its answer
            raise SMTPServerDisconnected("connection lost")
    except BaseException:
        client.close()
        raise


class Connection:
    """An open connection. One mail at a time; after an exception or a cancellation, `drop` it."""

    def __init__(self, client: SMTP, timeout_seconds: float) -> None:
        assert client.transport is not None
        self._client = client
        self._timeout_seconds = timeout_seconds
        # The library forgets it when it closes, and closes only what the server has taken.
        self._transport = client.transport
        self._takes_utf8 = client.supports_extension("smtputf8")
        self._is_used = False
        self._must_reset = False

    @property
    def is_alive(self) -> bool:
        """Whether another mail may be tried on it, as far as is known."""
        return self._client.is_connected

    async def deliver(self, mail: Transfer) -> Outcome:
        """Send `mail`; whatever happens, the next one finds the connection clean or not alive.

        Raises StaleError if this is not the first mail on it and the server had gone.
        """
        if mail.is_international and not self._takes_utf8:
            return Rejected("no SMTPUTF8 at the server")
        was_used, self._is_used = self._is_used, True
        step = "MAIL"
        try:
            async with self._deadline():
                await self._begin(mail)
            step = "RCPT"
            async with self._deadline():
                await self._client.rcpt(mail.recipient, encoding="utf-8")
            step = "DATA"
            async with self._deadline():
                reply = await self._client.data(mail.content)
        except SMTPResponseException as error:
            return self._refused(step, error, was_used)
        except TimeoutError:
            self.drop()
            return _lost(step, "no answer in time", is_down=was_used and step == "MAIL")
        except (SMTPException, OSError) as error:
            self.drop()
            if was_used and step == "MAIL":
                raise StaleError from error
            return _lost(step, "connection lost")
        self._must_reset = False
        return Delivered(said(reply.message))

    async def quit(self) -> None:
        """Leave in good order, but soon."""
        with suppress(SMTPException, OSError):  # a TimeoutError is an OSError
            async with asyncio.timeout(_QUIT_SECONDS):
                await self._client.quit()
        self.drop()

    def drop(self) -> None:
        """End it now; what is not sent yet never is."""
        self._client.close()
        if isinstance(self._transport, asyncio.WriteTransport):
            self._transport.abort()

    def _deadline(self) -> asyncio.Timeout:
        return asyncio.timeout(self._timeout_seconds)

    async def _begin(self, mail: Transfer) -> None:
        if self._must_reset:
            try:
                await self._client.rset()
            except SMTPResponseException as error:
                self.drop()
                raise StaleError from error
        self._must_reset = True
        options = ["SMTPUTF8"] if mail.is_international else []
        await self._client.mail(mail.sender, options=options, encoding="utf-8")

    def _refused(self, step: str, error: SMTPResponseException, was_used: bool) -> Outcome:
        if not 400 <= error.code <= 599 or error.code == 421:
            self.drop()
        if was_used and step == "MAIL" and not self.is_alive:
            raise StaleError from error  # such as: too many mails over one connection
        return refusal(step, error.code, error.message)


def _lost(step: str, how: str, is_down: bool = False) -> Outcome:
    """What becomes of a mail whose connection ended at `step`.

    Counted against the mail, because it can be the mail that the server cannot stand; only a
    server that says nothing at all to a next mail is taken to be down.
    """
    if is_down:
        return Unavailable(f"{how} at {step}")
    return Retry(f"fate unknown: {how} at DATA" if step == "DATA" else f"{how} at {step}")
