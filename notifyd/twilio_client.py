"""SMS through Twilio: its own client library, over our connections.

Its library, because it knows the API's words. Our connections, because its asynchronous client
ignores its time limit, and because only so can a request that was never written be told from one
whose answer got lost.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextvars import ContextVar
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

from twilio.base.exceptions import TwilioException, TwilioRestException, TwilioServiceException
from twilio.http import HttpClient
from twilio.http.response import Response
from twilio.rest import Client
from twilio.rest.api.v2010.account.message import MessageInstance

from notifyd.compose.gsm7 import near
from notifyd.sms import FateUnknown, Sent, SmsOutcome
from notifyd.sms_wire import Answer, NoAnswerError, Wire, trouble
from shared.outcome import Gone, Rejected, Retry, Unavailable
from shared.slow_sections import Sms

#: What Twilio's error codes mean for us. What is wrong with ourselves – account, token, sender –
#: is wrong for every SMS: those wait until somebody has put it right.
#: https://www.twilio.com/docs/api/errors
_OUTCOMES: Final[dict[int, Retry | Unavailable | Rejected | Gone]] = {
    21610: Gone("opted out"),
    21211: Rejected("number is not valid"),
    21214: Rejected("number cannot be reached"),
    21217: Rejected("number is not valid"),
    21265: Rejected("number is not valid"),
    21408: Rejected("country is not enabled in the account"),
    21602: Rejected("text is missing"),
    21604: Rejected("number is missing"),
    21608: Rejected("number is not verified, as trial accounts need"),
    21612: Rejected("number cannot be reached from this sender"),
    21614: Rejected("number takes no SMS"),
    21617: Rejected("text is too long"),
    21635: Rejected("number is a landline"),
    60410: Rejected("country is blocked"),
    14107: Retry("too many at once", 10.0),
    20429: Retry("too many at once", 10.0),
    21611: Retry("the sender's queue is full", 60.0),
    30001: Retry("the queue is full", 60.0),
    30022: Retry("too many at once", 10.0),
    63038: Retry("the account's daily limit is reached", 3600.0),
    20003: Unavailable("credentials are refused"),
    20005: Unavailable("account is not active"),
    20006: Unavailable("access is denied"),
    20404: Unavailable("account is not found"),
    21212: Unavailable("sender is not valid"),
    21603: Unavailable("sender is missing"),
    21606: Unavailable("sender cannot send SMS"),
    21659: Unavailable("sender is not of this account"),
    21660: Unavailable("sender is not of this account"),
    21701: Unavailable("messaging service is not found"),
    21703: Unavailable("messaging service has no sender"),
    21704: Unavailable("messaging service has no sender"),
    21705: Unavailable("messaging service is not valid"),
}

#: A look-up reads no more of what was sent to one number lately.
_MOST_LOOKED_AT: Final = 200

#: The last answer to the task that asks: the library's exceptions keep no header fields.
_answer: ContextVar[Answer | None] = ContextVar("answer", default=None)


class TwilioSms:
    """A provider that sends from a number, a name or a messaging service (`sender` is MG…)."""

    can_look_up = True

    def __init__(self, section: Sms, token: str) -> None:
        assert section.account_sid is not None  # the section has checked both
        assert section.sender is not None
        self._wire = Wire(section.timeout_seconds)
        self._sender = section.sender
        self._by_service = section.sender.startswith("MG")
        # An empty environment would be taken for none, and the process's own be read for the rest.
        self._client = Client(
            section.account_sid,
            token,
            http_client=_Transport(self._wire, section.base_url),
            environment={"TWILIO_EDGE": "", "TWILIO_REGION": ""},
        )

    async def send(self, to: str, text: str, key: str) -> SmsOutcome:
        """See `SmsProvider.send`; Twilio knows no idempotency key."""
        _answer.set(None)
        whose = "messaging_service_sid" if self._by_service else "from_"
        try:
            message = await self._client.messages.create_async(
                to, body=text, **{whose: self._sender}
            )
        except NoAnswerError as error:
            return error.outcome
        except TwilioRestException as error:
            return _outcome(error.code)
        except TwilioServiceException as error:
            return _outcome(error.code)
        except (TwilioException, ValueError, TypeError, AttributeError, RecursionError):
            return _unreadable()
        return _sent(message) if message.sid else FateUnknown("answer without a SID")

    async def lookup(
        self, to: str, text: str, since: datetime
    ) -> Sequence[Sent] | Retry | Unavailable:
        """See `SmsProvider.lookup`.

        Not by DateSent, as Twilio's filter does: what waits to be sent has none yet.
        """
        _answer.set(None)
        try:
            found = await self._client.messages.list_async(to=to, limit=_MOST_LOOKED_AT)
        except NoAnswerError as error:
            return Unavailable(error.outcome.reason)
        except (TwilioException, ValueError, TypeError, AttributeError, RecursionError):
            return _not_told()
        wanted = _comparable(text)
        ours = [
            _sent(message)
            for message in reversed(found)
            if message.sid
            and _is_since(message, since)
            and self._is_ours(message)
            and _comparable(message.body or "").endswith(wanted)
        ]
        if not ours and len(found) >= _MOST_LOOKED_AT and _is_since(found[-1], since):
            return Retry("too many SMS to that number to look through")
        return ours

    async def close(self) -> None:
        """Leave the provider."""
        await self._wire.close()

    def _is_ours(self, message: MessageInstance) -> bool:
        if self._by_service:
            return bool(message.messaging_service_sid == self._sender)
        return bool(message.from_ == self._sender)


class _Transport(HttpClient):  # type: ignore[misc]  # the library has no types
    """Carries the library's requests over a Wire, to `base_url` if there is one."""

    def __init__(self, wire: Wire, base_url: str | None) -> None:
        super().__init__(logging.getLogger(__name__), is_async=True)
        self._wire = wire
        self._base = base_url.rstrip("/") if base_url else None

    async def request(
        self,
        method: str,
        uri: str,
        params: dict[str, object] | None = None,
        data: dict[str, object] | None = None,
        headers: dict[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        timeout: float | None = None,
        allow_redirects: bool = False,
    ) -> Response:
        answer = await self._wire.exchange(
            method, self._url(uri), headers=headers or {}, auth=auth, params=params, form=data
        )
        _answer.set(answer)
        return Response(answer.status, answer.text)

    def _url(self, uri: str) -> str:
        if self._base is None:
            return uri
        parts = urlsplit(uri)
        return f"{self._base}{parts.path}" + (f"?{parts.query}" if parts.query else "")


def _outcome(code: object) -> SmsOutcome:
    """What an answer that is no success says: first by its code, then by its status."""
    answer = _answer.get()
    assert answer is not None
    known = _OUTCOMES.get(code) if isinstance(code, int) else None
    if isinstance(known, Retry) and answer.after is not None:
        return Retry(f"Twilio {code}: {known.reason}", answer.after)
    if known is not None and answer.status < 500:
        return _named(known, f"Twilio {code}: {known.reason}")
    general = trouble(answer)
    if general is not None:
        return general
    if answer.status == 404:
        return Unavailable("HTTP 404")
    # Where there is no code the library puts the status.
    return Rejected(f"HTTP {code}" if code == answer.status else f"Twilio {code}")


def _named(outcome: Retry | Unavailable | Rejected | Gone, reason: str) -> SmsOutcome:
    if isinstance(outcome, Retry):
        return Retry(reason, outcome.after)
    return type(outcome)(reason)


def _unreadable() -> SmsOutcome:
    """An answer that the library cannot read: not Twilio's own words."""
    answer = _answer.get()
    if answer is not None and answer.status >= 300:
        return trouble(answer) or Unavailable(f"HTTP {answer.status} without an explanation")
    return FateUnknown("unreadable answer")


def _not_told() -> Retry | Unavailable:
    """Why a look-up gave nothing: never that there is nothing."""
    answer = _answer.get()
    if answer is None:
        return Unavailable("no answer")
    if answer.status == 429:
        return Retry("HTTP 429", answer.after)
    return Unavailable(f"HTTP {answer.status}")


def _is_since(message: MessageInstance, moment: datetime) -> bool:
    return message.date_created is None or bool(message.date_created >= moment)


def _sent(message: MessageInstance) -> Sent:
    told: Any = message.num_segments
    segments = int(told) if isinstance(told, str) and told.isascii() and told.isdigit() else None
    return Sent(str(message.sid), segments or None)  # a messaging service says 0 at first


def _comparable(text: str) -> str:
    """`text` without what Twilio may change: near characters (Smart Encoding), white space."""
    return " ".join(near(text).split())
