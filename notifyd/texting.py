"""One SMS, exactly once: takes the credit, sends, and clears up what an earlier try left unclear.

Brings the ledger and the provider together; knows neither's inside, nor what is said. An SMS is
sent only by who wrote "sending" into the ledger just before. Whoever finds that word there – after
a crash, a lost answer – asks the provider instead, and sends again only when it has answered twice
that it knows nothing of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final
from weakref import WeakValueDictionary

from notifyd.compose.sieve_notify import SmsText
from notifyd.sms import FateUnknown, Sent, SmsProvider
from shared.outcome import Delivered, Gone, Outcome, Rejected, Retry, Unavailable
from shared.store import Ledger, Send, SendState, Verdict

#: A provider's list may lack what it took a moment ago: what it does not know is asked for again.
GRACE_SECONDS: Final = 60.0
#: Our clock and the provider's differ by less.
_CLOCK_SECONDS: Final = 120.0
_MOST_ATTEMPTS: Final = 2

#: What was sent is forgotten after this long; no job comes again so late.
_KEPT_SECONDS: Final = 90 * 86400.0

OUT_OF_CREDIT: Final = "out of SMS credit"


class Texter:
    """Sends SMS of jobs; `wall` is seconds since the epoch. Raises StoreError like the ledger."""

    def __init__(self, provider: SmsProvider, ledger: Ledger, wall: Callable[[], float]) -> None:
        self._provider = provider
        self._ledger = ledger
        self._wall = wall
        #: By number and text: who looks one up must not meet another that is just being sent and
        #: not yet written down, or two jobs would claim one SMS.
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def send(self, key: str, account: str, sms: SmsText) -> Outcome:
        """Send the SMS of the job `key` at the account's expense, or say what became of it."""
        async with self._turns.setdefault((sms.number, sms.text), asyncio.Lock()):
            return await self._send_or_clear_up(key, account, sms)

    async def _send_or_clear_up(self, key: str, account: str, sms: SmsText) -> Outcome:
        taken = await self._ledger.reserve(key, account, sms.number, sms.segments, self._wall())
        match taken.verdict:
            case Verdict.NEW | Verdict.RESERVED:
                return await self._send(key, sms)
            case Verdict.SENT:
                return Delivered(taken.send.provider_id or "" if taken.send else "")
            case Verdict.OUT_OF_CREDIT:
                return Rejected(OUT_OF_CREDIT)
            case Verdict.OPTED_OUT:
                return Gone("this number has opted out")
            case Verdict.NO_ACCOUNT:
                return Rejected("no such account")
        assert taken.send is not None
        return await self._clear_up(key, sms, taken.send)

    async def _send(self, key: str, sms: SmsText) -> Outcome:
        attempt = await self._ledger.mark_sending(key, self._wall())
        if not attempt:
            return Retry("somebody else is sending it")
        answer = await self._provider.send(sms.number, sms.text, key)
        match answer:
            case Sent(receipt=receipt, segments=segments):
                await self._ledger.settle(key, receipt, segments, self._wall())
                return Delivered(receipt)
            case FateUnknown(reason=reason):
                return Retry(f"fate unknown: {reason}", GRACE_SECONDS / 2)
            case Retry() | Unavailable():
                await self._ledger.back_to_reserved(key, attempt=attempt)
            case Rejected():
                await self._ledger.refund(key, self._wall(), attempt=attempt)
            case Gone(reason=reason):
                await self._ledger.opt_out(sms.number, reason, self._wall())
                await self._ledger.refund(key, self._wall(), attempt=attempt)
        return answer

    async def _clear_up(self, key: str, sms: SmsText, row: Send) -> Outcome:
        """Find out what became of an SMS that may have been sent."""
        began = row.sending_at or row.reserved_at
        if not self._provider.can_look_up:
            await self._ledger.mark_unknown(key, self._wall(), attempt=row.attempt)
            return Rejected("fate unknown, and the provider cannot be asked")
        since = datetime.fromtimestamp(began - _CLOCK_SECONDS, UTC)
        found = await self._provider.lookup(row.number, sms.text, since)
        if isinstance(found, Retry | Unavailable):
            return found
        for sent in found:
            if not await self._ledger.is_settled(sent.receipt, key):
                await self._ledger.settle(key, sent.receipt, sent.segments, self._wall())
                return Delivered(sent.receipt)
        return await self._not_found(key, row)

    async def _not_found(self, key: str, row: Send) -> Outcome:
        now = self._wall()
        if row.state is not SendState.UNKNOWN:
            await self._ledger.mark_unknown(key, now, attempt=row.attempt)
            return Retry("fate unknown: the provider does not know it yet", GRACE_SECONDS)
        waited = now - (row.settled_at or now)
        if waited < GRACE_SECONDS:
            return Retry("fate unknown: the provider does not know it yet", GRACE_SECONDS - waited)
        if row.attempt >= _MOST_ATTEMPTS:
            await self._ledger.refund(key, now, attempt=row.attempt)
            return Rejected("the provider lost it twice")
        await self._ledger.back_to_reserved(key, attempt=row.attempt)
        return Retry("the provider never got it", 0.0)


async def tend(ledger: Ledger, given_up_seconds: float, now: float) -> None:
    """Give back the credit of SMS that were given up before they were sent; forget old ones.

    A job older than `given_up_seconds` was buried or deleted. What may have been sent keeps its
    credit: nobody knows better.
    """
    for send in await ledger.unfinished(now - given_up_seconds):
        if send.state is SendState.RESERVED:
            await ledger.refund(send.job_key, now, attempt=send.attempt)
    await ledger.purge(now - _KEPT_SECONDS)
