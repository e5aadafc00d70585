"""Whoever takes SMS from us: what it can do and say. Not: what it speaks, nor what an SMS costs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from shared.errors import ConfigError
from shared.outcome import Gone, Rejected, Retry, Unavailable
from shared.slow_sections import Sms


@dataclass(frozen=True, slots=True)
class Sent:
    """The provider has it; `receipt` is its name for it, `segments` its count if it told one."""

    receipt: str
    segments: int | None = None


@dataclass(frozen=True, slots=True)
class FateUnknown:
    """The request was (perhaps partly) written and no clear answer came: it may have been sent."""

    reason: str


#: All but FateUnknown and Sent say that it was certainly not sent.
SmsOutcome = Sent | FateUnknown | Retry | Unavailable | Rejected | Gone


class SmsProvider(Protocol):
    """Takes SMS from handlers of jobs; any number may be in `send` at once."""

    @property
    def can_look_up(self) -> bool:
        """Whether `lookup` can find out what became of an SMS."""

    async def send(self, to: str, text: str, key: str) -> SmsOutcome:
        """Hand over one SMS to `to` (E.164); the same `key` is the same SMS.

        Ends within the configured time; never raises for what the provider does. Cancelling it
        leaves the fate unknown.
        """

    async def lookup(
        self, to: str, text: str, since: datetime
    ) -> Sequence[Sent] | Retry | Unavailable:
        """What the provider took from us for `to` with this text from `since` on; oldest first."""

    async def close(self) -> None:
        """Leave the provider."""


def provider(section: Sms) -> SmsProvider | None:
    """The provider that `[sms]` describes, None for "none"; nothing is connected yet.

    Raises ConfigError for a token that cannot be read.
    """
    if section.provider == "none":
        return None
    # It would write whole URLs, and in those of a look-up there are numbers.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    token = _token(section.auth_token_file)
    if section.provider == "twilio":
        from notifyd.twilio_client import TwilioSms  # takes half a second and 30 MB

        return TwilioSms(section, token)
    from notifyd.http_sms import HttpSms

    return HttpSms(section, token)


def _token(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        token = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"sms.auth_token_file: {error}"]) from error
    if not token or not token.isascii() or not token.isprintable():
        raise ConfigError([f"sms.auth_token_file: {path} holds no token of one line"])
    return token
