"""A played SMS provider and a ledger that dies at any step, for the exactly-once of an SMS.

The ledger itself is the real one; only the process around it is played.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from notifyd.compose.sieve_notify import SmsText
from notifyd.sms import FateUnknown, Sent, SmsOutcome
from notifyd.texting import Texter
from shared.outcome import Delivered, Gone, Outcome, Rejected, Retry, Unavailable
from shared.store import Ledger, SendState, Store

NOW = 1_800_000_000.0
CREDIT = 100
ALICE, NUMBER, KEY = "alice@example.org", "+15105550101", "job"
SMS = SmsText(NUMBER, "Post: Rechnung", 3)
#: What the provider counts, one less than we did.
UNITS = 2


@asynccontextmanager
async def no_answer(seconds: float) -> AsyncIterator[None]:
    """As the deadline of a database: it has passed, whatever is asked."""
    if seconds > 0:
        raise TimeoutError
    yield


class CrashError(BaseException):
    """The process has died here: nothing below the test may catch it."""


class Crashes:
    """Dies when it gets to one of `places` ("settle before", …), once each, or at random."""

    def __init__(self, *places: str, chance: random.Random | None = None) -> None:
        self.left = set(places)
        self.count = 0
        self._chance = chance

    def at(self, place: str) -> None:
        by_chance = self._chance is not None and self.count < 12 and self._chance.random() < 0.3
        if place in self.left or by_chance:
            self.left.discard(place)
            self.count += 1
            raise CrashError(place)


@dataclass
class Provider:
    """Takes SMS as its script says, and knows at once what it took.

    Script: "ok"; "taken" and "not taken": the answer is lost; an outcome.
    """

    script: list[str | SmsOutcome] = field(default_factory=list)
    can_look_up: bool = True
    taken: list[str] = field(default_factory=list)
    #: What happened, in order: "post", "found", "vain".
    trace: list[str] = field(default_factory=list)
    clock: float = NOW
    crash: Crashes | None = None
    lookup_fails: list[Retry | Unavailable] = field(default_factory=list)
    #: The next answers wait for it.
    gate: asyncio.Event | None = None
    #: Set when an answer waits.
    posted: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, to: str, text: str, key: str) -> SmsOutcome:
        assert (to, text) == (SMS.number, SMS.text)
        self.trace.append("post")
        self._may_crash("post before")
        answer = self.script.pop(0) if self.script else "ok"
        if answer in ("ok", "taken"):
            self.taken.append(key)
        receipt = f"SM{len(self.taken) - 1}"
        if self.gate is not None:
            self.posted.set()
            await self.gate.wait()
        self._may_crash("post after")
        if answer == "ok":
            return Sent(receipt, UNITS)
        if isinstance(answer, str):
            return FateUnknown("no answer in time")
        return answer

    async def lookup(
        self, to: str, text: str, since: datetime
    ) -> Sequence[Sent] | Retry | Unavailable:
        assert (to, text) == (SMS.number, SMS.text)
        assert since.timestamp() < self.clock - 60
        self._may_crash("lookup before")
        if self.lookup_fails:
            return self.lookup_fails.pop(0)
        found = [Sent(f"SM{number}", UNITS) for number in range(len(self.taken))]
        self.trace.append("found" if found else "vain")
        await asyncio.sleep(0)
        self._may_crash("lookup after")
        return found

    async def close(self) -> None:
        """Nothing is open."""

    def _may_crash(self, where: str) -> None:
        if self.crash is not None:
            self.crash.at(where)


class Brittle:
    """A ledger that dies before or after any of its steps."""

    def __init__(self, ledger: Ledger, crashes: Crashes) -> None:
        self._ledger = ledger
        self._crashes = crashes

    def __getattr__(self, name: str) -> Any:
        step = getattr(self._ledger, name)

        async def brittle(*arguments: Any, **named: Any) -> Any:
            self._crashes.at(f"{name} before")
            result = await step(*arguments, **named)
            self._crashes.at(f"{name} after")
            return result

        return brittle


@dataclass
class World:
    """A ledger in which Alice has credit, a provider, and a worker that never gives up."""

    store: Store
    provider: Provider = field(default_factory=Provider)
    crashes: Crashes = field(default_factory=Crashes)
    now: float = NOW

    @property
    def ledger(self) -> Ledger:
        return self.store.ledger

    def texter(self) -> Texter:
        """A new process."""
        self.provider.crash = self.crashes
        ledger: Any = Brittle(self.ledger, self.crashes)
        return Texter(self.provider, ledger, lambda: self.now)

    async def send(self, key: str = KEY) -> Outcome:
        """What the job's next attempt comes to."""
        return await self.texter().send(key, ALICE, SMS)

    async def work(self, key: str = KEY) -> Delivered | Rejected | Gone:
        """Try as the worker does, over crashes and waits, until the job is done or buried."""
        for _ in range(40):
            try:
                outcome = await self.send(key)
            except CrashError:
                self.pass_time(5)  # the dead one's claim ends
                continue
            if isinstance(outcome, Delivered | Rejected | Gone):
                return outcome
            self.pass_time((outcome.after if isinstance(outcome, Retry) else None) or 2.0)
        raise AssertionError(f"no end: {self.provider.trace}")

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.provider.clock = self.now

    async def state(self, key: str = KEY) -> SendState:
        send = await self.ledger.get_send(key)
        assert send is not None
        return send.state

    async def check_credit(self) -> None:
        """Each unit is where the provider's own ledger says."""
        audit = await self.ledger.audit()
        assert audit.total == CREDIT
        assert audit.reserved == audit.sending == audit.unknown == 0
        assert audit.sent == UNITS * len(self.provider.taken)
