"""`notifyd test mail|sms`: sends one, past the queue, and says what the service said."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import App, Parameter

from notifyd.compose.notices import compose_test_mail
from notifyd.compose.sieve_notify import e164
from notifyd.phrasebook import read_voice
from notifyd.queue_tables import escaped
from notifyd.sms import FateUnknown, Sent, provider
from notifyd.smtp import mailer
from shared.config import load
from shared.errors import ConfigError, DecodeError
from shared.outcome import Delivered, Gone, Outcome, Rejected, Retry, Unavailable

test_app = App(name="test", help="Send one mail or SMS to see that it works.")

_TEXT: Final = "mailbox-pusher: a test"
ConfigOption = Annotated[Path | None, Parameter(help="Configuration file.")]


@test_app.command
def mail(to: str, /, *, locale: str = "", config: ConfigOption = None) -> int:
    """Send a test mail to the address TO.

    Parameters
    ----------
    locale
        Its language; the configured one without it.
    """
    settings = load(config)

    async def work() -> Outcome:
        voice = read_voice(settings.mail)
        key, now = secrets.token_hex(16), datetime.now(UTC)
        message = compose_test_mail(to, locale, key, voice=voice, now=now)
        sender = mailer(settings.smtp)
        try:
            return await sender.send(message)
        finally:
            await sender.close()

    return _report(work)


@test_app.command
def sms(number: str, text: str = _TEXT, /, *, config: ConfigOption = None) -> int:
    """Send a test SMS to NUMBER; it costs no account any credit."""
    settings = load(config)

    async def work() -> Outcome | Sent | FateUnknown:
        service = provider(settings.sms)
        if service is None:
            raise ConfigError(["sms.provider: none is configured"])
        try:
            return await service.send(e164(number), text, secrets.token_hex(16))
        finally:
            await service.close()

    return _report(work)


def _report(work: Callable[[], Coroutine[Any, Any, Outcome | Sent | FateUnknown]]) -> int:
    try:
        outcome = asyncio.run(work())
    except DecodeError as error:
        return _complain(error.reason, os.EX_DATAERR)
    match outcome:
        case Delivered(detail=said) | Sent(receipt=said):
            sys.stdout.write(f"taken: {escaped(said)}\n")
            return os.EX_OK
        case Retry(reason=reason) | Unavailable(reason=reason) | FateUnknown(reason=reason):
            return _complain(f"not now: {reason}", os.EX_TEMPFAIL)
        case Rejected(reason=reason) | Gone(reason=reason):
            return _complain(f"refused: {reason}", os.EX_UNAVAILABLE)


def _complain(text: str, exit_code: int) -> int:
    sys.stderr.write(f"notifyd: {escaped(text)}\n")
    return exit_code
