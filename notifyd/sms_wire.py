"""One HTTP exchange with an SMS provider, and whether it can have done anything if it failed.

An SMS costs money and wakes people: what matters is if the request was begun to be written. Knows
no provider's words.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Final

import httpx

from notifyd.sms import FateUnknown
from shared.outcome import Retry, Unavailable

_MOST_AFTER_SECONDS: Final = 3600.0
#: An idle connection is left before most servers would end it, just as we write.
_IDLE_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; its repr shows nothing of whom it is about."""

    status: int
    text: str = field(repr=False)
    #: Retry-After in seconds, None if it was not given.
    after: float | None = None


class NoAnswerError(Exception):
    """There is no answer; `outcome` says whether the request can have had an effect."""

    def __init__(self, outcome: Unavailable | FateUnknown) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


class Wire:
    """Connections to one provider; every exchange ends within `timeout_seconds`."""

    def __init__(self, timeout_seconds: float, connections: int = 20) -> None:
        self._timeout_seconds = timeout_seconds
        # Proxies and authorities of the environment are not asked: the configuration says all.
        self._client = httpx.AsyncClient(
            timeout=timeout_seconds,
            limits=httpx.Limits(max_connections=connections, keepalive_expiry=_IDLE_SECONDS),
            follow_redirects=False,
            trust_env=False,
        )

    async def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        auth: tuple[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        form: Mapping[str, Any] | None = None,
        json: object = None,
    ) -> Answer:
        """Write one request, return its answer of any status. Raises NoAnswerError."""
        attempt = _Attempt()
        request = self._client.build_request(
            method,
            url,
            headers=headers,
            params=params,
            data=form,
            json=json,
            extensions={"trace": attempt.trace},
        )
        with attempt:
            # httpx' own limits are for each step: a far end that trickles would never end.
            async with asyncio.timeout(self._timeout_seconds):
                response = await self._client.send(request, auth=auth)
        return Answer(response.status_code, response.text, _after(response))

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()


class _Attempt:
    """Notes if a request was begun to be written, and words its failure by that."""

    def __init__(self) -> None:
        self._begun = False

    async def trace(self, event: str, _info: object) -> None:
        if event.endswith(".send_request_headers.started"):
            self._begun = True

    def __enter__(self) -> None:
        return

    def __exit__(
        self,
        _type: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if not isinstance(error, httpx.HTTPError | httpx.InvalidURL | TimeoutError):
            return
        reason = "no answer in time" if _is_timeout(error) else type(error).__name__
        if self._begun:
            raise NoAnswerError(FateUnknown(reason)) from error
        raise NoAnswerError(Unavailable(f"cannot be reached: {reason}")) from error


def _is_timeout(error: BaseException) -> bool:
    return isinstance(error, TimeoutError | httpx.TimeoutException)


def _after(response: httpx.Response) -> float | None:
    """Retry-After (RFC 9110 §10.2.3) in seconds, not more than an hour."""
    written = response.headers.get("retry-after", "").strip()
    if written.isascii() and written.isdigit():
        return min(float(written[:9]), _MOST_AFTER_SECONDS)
    try:
        when = parsedate_to_datetime(written).timestamp()
    except (ValueError, OverflowError):
        return None
    return min(max(when - time.time(), 0.0), _MOST_AFTER_SECONDS)


def trouble(answer: Answer) -> FateUnknown | Retry | Unavailable | None:
    """What a status says that means the same from everybody; None if it needs the answer's words.

    A 5xx may come from something in front of what has sent it by now. Only a 503 that says when to
    come again is from one that has not (RFC 9110 §15.6.4).
    """
    status = answer.status
    if status == 429 or (status == 503 and answer.after is not None):
        return Retry(f"HTTP {status}", answer.after)
    if status in (408, 425):
        return Retry(f"HTTP {status}", answer.after)
    if status >= 500 or status < 200:
        return FateUnknown(f"HTTP {status}")
    if 300 <= status < 400 or status in (401, 403, 405, 407):
        return Unavailable(f"HTTP {status}")
    return None
