"""Any SMS provider, or a script in front of one, that takes one JSON object for one SMS."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from notifyd.sms import Sent, SmsOutcome
from notifyd.sms_wire import Answer, NoAnswerError, Wire, trouble
from shared.outcome import Gone, Rejected, Retry, Unavailable
from shared.slow_sections import Sms

_RECEIPTS: Final = ("id", "message_id", "messageId", "sid")
_MOST_RECEIPT: Final = 100


class HttpSms:
    """`POST base_url` with `{"to", "text", "from"}`, the token as Bearer, and an Idempotency-Key.

    2xx is taken (`id` and `segments` of the answer are read), 410 a number that wants no more,
    other 4xx a refusal. It cannot be asked later.
    """

    can_look_up = False

    def __init__(self, section: Sms, token: str) -> None:
        assert section.base_url is not None  # the section has checked it
        self._url = section.base_url
        self._sender = section.sender
        self._token = token
        self._wire = Wire(section.timeout_seconds)

    async def send(self, to: str, text: str, key: str) -> SmsOutcome:
        """See `SmsProvider.send`."""
        # Our keys name people; the provider needs to know only which are equal.
        headers = {"Idempotency-Key": sha256(key.encode()).hexdigest()}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        asked = {"to": to, "text": text} | ({"from": self._sender} if self._sender else {})
        try:
            answer = await self._wire.exchange("POST", self._url, headers=headers, json=asked)
        except NoAnswerError as error:
            return error.outcome
        return trouble(answer) or _outcome(answer)

    async def lookup(
        self, to: str, text: str, since: datetime
    ) -> Sequence[Sent] | Retry | Unavailable:
        """Nothing, as nothing is known."""
        return ()

    async def close(self) -> None:
        """Leave the provider."""
        await self._wire.close()


def _outcome(answer: Answer) -> SmsOutcome:
    if answer.status < 300:
        told = _object(answer.text)
        receipt = next((str(told[name]) for name in _RECEIPTS if told.get(name)), "")
        segments = told.get("segments")
        counted = segments if type(segments) is int and 0 < segments < 100 else None
        return Sent(receipt[:_MOST_RECEIPT], counted)
    if answer.status == 410:
        return Gone("HTTP 410")
    if answer.status == 404:
        return Unavailable("HTTP 404")
    return Rejected(f"HTTP {answer.status}")


def _object(text: str) -> dict[str, Any]:
    """The JSON object in `text`; empty if it is none, as an answer needs no content."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}
