"""Sends mails through the `sendmail` program that most mail servers bring along."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from tempfile import TemporaryFile
from typing import IO, Final

from notifyd.compose.mail import Mail
from notifyd.compose.transfer import Transfer, exit_outcome, transfer
from shared.errors import DecodeError
from shared.outcome import Outcome, Rejected, Retry, Unavailable
from shared.slow_sections import Smtp

#: Of what it writes on standard error, so much is read.
_MAX_ERRORS: Final = 4000


class SendmailMailer:
    """A mailer with at most `connections` processes at once, each within `timeout_seconds`."""

    def __init__(self, section: Smtp) -> None:
        self._section = section
        self._slots = asyncio.Semaphore(section.connections)
        self._running: set[asyncio.subprocess.Process] = set()

    async def send(self, mail: Mail) -> Outcome:
        """See `notifyd.smtp.Mailer`.

        Options as Postfix, Exim and others have them: a line with a single dot does not end the
        mail, nothing bounces if the sender is null, and no address is taken for an option. A mail
        that needs SMTPUTF8 is handed over like any other: the program cannot be asked, it finds
        out by itself (Postfix: `smtputf8_autodetect_classes`) or refuses.
        """
        try:
            ready = transfer(mail, linesep="\n")
        except DecodeError as error:
            return Rejected(error.reason)
        async with self._slots:
            return await self._send(ready)

    async def close(self) -> None:
        """See `notifyd.smtp.Mailer`."""
        for process in self._running:
            _kill(process)

    async def _send(self, mail: Transfer) -> Outcome:
        # A file, not a pipe: a delivery left in the background may hold a pipe for long.
        with TemporaryFile() as errors:
            try:
                process = await self._start(mail, errors)
            except OSError as error:
                return Unavailable(f"sendmail cannot be started: {error.strerror}")
            self._running.add(process)
            try:
                async with asyncio.timeout(self._section.timeout_seconds):
                    await process.communicate(mail.content)
            except TimeoutError:
                seconds = self._section.timeout_seconds
                return Retry(f"fate unknown: sendmail did not end within {seconds:g} s")
            finally:
                self._running.discard(process)
                await _end(process)
            errors.seek(0)
            text = errors.read(_MAX_ERRORS).decode("utf-8", "replace")
        assert process.returncode is not None
        return exit_outcome(process.returncode, text)

    async def _start(self, mail: Transfer, errors: IO[bytes]) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(self._section.sendmail, "-i", "-f", mail.sender or "<>", "--", mail.recipient),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,  # so that what it starts is killed with it
        )


async def _end(process: asyncio.subprocess.Process) -> None:
    _kill(process)
    await process.wait()


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
