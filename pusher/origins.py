"""Pools of HTTP/2 connections to push services: requests in, one result each.

An `Origin` is one service with one credential: host, port and TLS context. It queues what does not
fit, opens connections when they are needed, moves on when one is closing, sends again what was
certainly never processed, and keeps deadlines. Not: what an answer means, and who is told.
"""

from __future__ import annotations

import random
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import structlog
import trio

from pusher.dialing import Dial
from pusher.http2_connection import Connection
from pusher.http2_pool import Pool, PoolSettings
from pusher.protocol.hpack_prefix import Request
from pusher.protocol.http2_answers import Answer, Done, NeverProcessed, Result
from pusher.state.breaker import Breaker
from pusher.state.deadlines import Deadlines

log = structlog.get_logger()

_REQUESTS_PER_WRITE: Final = 64
#: How often one request is sent again after it was certainly not processed.
_MOST_TRIES: Final = 10


@dataclass(frozen=True, slots=True)
class OriginSettings:
    """How much waits for an origin, and for how long."""

    #: Requests that wait for a place on a connection; beyond, `submit` refuses.
    queue: int = 10_000
    #: Of one request, from `submit` to its result.
    deadline_seconds: float = 30
    pool: PoolSettings = field(default_factory=PoolSettings)


class _Push:
    """A request on its way; `done` is None once nobody waits for it any more."""

    __slots__ = ("connection", "deadline", "done", "origin", "request", "stream", "tries")

    def __init__(self, origin: Origin, request: Request, done: Done, deadline: float) -> None:
        self.origin = origin
        self.request = request
        self.done: Done | None = done
        self.deadline = deadline
        self.connection: Connection | None = None
        self.stream = 0
        self.tries = 0

    def settle(self, result: Result) -> None:
        """Take what the connection says has become of it."""
        self.origin.settle(self, result)


class Origin:
    """One push service with one credential. `run` does the work; `submit` and `request` feed it.

    `breaker` counts failures to connect, and what the owner reports with `failed`; while it is
    open requests are refused, then one goes through as a probe.
    """

    def __init__(
        self,
        name: str,
        dial: Dial,
        settings: OriginSettings | None = None,
        *,
        breaker: Breaker | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self.settings = settings or OriginSettings()
        self.breaker = breaker or Breaker()
        #: How many requests were answered.
        self.answers = 0
        self._jitter = jitter
        self._queue: OrderedDict[_Push, None] = OrderedDict()
        self._deadlines: Deadlines[_Push] = Deadlines()
        self._unsettled = 0
        self._pool = Pool(name, dial, self.settings.pool, self, jitter)
        self._is_stopping = False
        self._settled = trio.Event()
        self._room = trio.lowlevel.ParkingLot()
        self._nap = trio.CancelScope()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Work until cancelled; whatever is open is settled then."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_deadlines)
                nursery.start_soon(self._pool.run)
                task_status.started()
        finally:
            self._is_stopping = True
            self._refuse_queued("closed")

    # --- for those who send ----------------------------------------------------------------------

    @property
    def queued(self) -> int:
        """How many requests wait for a place on a connection."""
        return len(self._queue)

    @property
    def unsettled(self) -> int:
        """How many requests have no result yet, queued ones included."""
        return self._unsettled

    @property
    def connections(self) -> int:
        """How many connections take requests."""
        return len(self._pool.ready)

    @property
    def counts(self) -> Counter[str]:
        """What happened, by name: connections, failures by reason, requests sent again, …"""
        return self._pool.counts

    def submit(
        self, request: Request, done: Done, *, deadline: float | None = None
    ) -> NeverProcessed | None:
        """Take `request` over, or say why not ("full", "circuit-open", "closed").

        None is returned if it is taken over; `done` is then called once with its result, later,
        and must not block. `deadline` is on trio's clock.
        """
        taken = self._take(request, done, deadline)
        return taken if isinstance(taken, NeverProcessed) else None

    async def request(self, request: Request, *, deadline: float | None = None) -> Result:
        """Send `request` and return what became of it; waits while the queue is full.

        If this is cancelled the request goes on when it was sent already; its answer is dropped.
        """
        if deadline is None:
            deadline = trio.current_time() + self.settings.deadline_seconds
        task = trio.lowlevel.current_task()
        results: list[Result] = []

        def done(result: Result) -> None:
            results.append(result)
            trio.lowlevel.reschedule(task)

        while isinstance(taken := self._take(request, done, deadline), NeverProcessed):
            await trio.lowlevel.checkpoint()
            if taken.reason != "full":
                return taken
            with trio.move_on_at(deadline) as scope:
                await self._room.park()
            if scope.cancelled_caught:
                return NeverProcessed("deadline")
        push = taken

        def abort(_: object) -> trio.lowlevel.Abort:
            self._abandon(push)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        return results[0]

    def failed(self, after: float | None = None) -> None:
        """Tell that an answer means trouble at the service (5xx); `after` is its Retry-After."""
        if self.breaker.failed(trio.current_time(), self._jitter(), after=after):
            self._refuse_queued("circuit-open")

    def renew(self) -> None:
        """Use new connections from now on: an answer said that the present ones are no good."""
        self._pool.renew()

    async def drain(self, seconds: float) -> None:
        """Take nothing more, and wait so long at most for what is on its way; then cancel `run`."""
        self._is_stopping = True
        self._room.unpark_all()
        with trio.move_on_after(seconds):
            while self._unsettled:
                self._settled = trio.Event()
                await self._settled.wait()

    def _take(self, request: Request, done: Done, deadline: float | None) -> _Push | NeverProcessed:
        if self._is_stopping:
            return NeverProcessed("closed")
        if len(self._queue) >= self.settings.queue:
            return NeverProcessed("full")
        if deadline is None:
            deadline = trio.current_time() + self.settings.deadline_seconds
        if self.breaker.is_open and not self.breaker.admits(trio.current_time()):
            return NeverProcessed("circuit-open")
        push = _Push(self, request, done, deadline)
        self._unsettled += 1
        self._queue[push] = None
        if self._deadlines.add(push):
            self._nap.deadline = min(self._nap.deadline, self._deadlines.next_at())
        self._pool.call()
        return push

    # --- what becomes of them --------------------------------------------------------------------

    def settle(self, push: _Push, result: Result) -> None:
        """Take a connection's word for `push`; what was never processed is sent again."""
        if type(result) is NeverProcessed and self._send_again(push, result):
            return
        self._finish(push, result)

    def _send_again(self, push: _Push, result: NeverProcessed) -> bool:
        is_late = push.deadline <= trio.current_time()
        if push.done is None or is_late or push.tries >= _MOST_TRIES:
            return False
        self.counts[f"again-{result.reason}"] += 1
        push.connection = None
        self._queue[push] = None
        self._queue.move_to_end(push, last=False)
        self._pool.call()
        return True

    def _finish(self, push: _Push, result: Result) -> None:
        self._deadlines.discard(push)
        self._unsettled -= 1
        if type(result) is Answer:
            self.answers += 1
        done, push.done = push.done, None
        if done is not None:
            try:
                done(result)
            except Exception:  # one push's fault is not its connection's
                log.exception("push_callback_failed", origin=self.name)
        if self.breaker.is_troubled:
            self._judge(result)
        if not self._unsettled:
            self._settled.set()

    def _judge(self, result: Result) -> None:
        """Let an answer close the circuit, and a probe without one keep it open."""
        if isinstance(result, Answer) and result.status < 500:
            self.breaker.succeeded()
        elif self.breaker.is_probing:
            self.failed()

    def _abandon(self, push: _Push) -> None:
        """Drop what nobody waits for; a stream that is open is left to its answer or deadline."""
        push.done = None
        if push in self._queue:
            del self._queue[push]
            self._room.unpark()
            self._finish(push, NeverProcessed("cancelled"))

    def _refuse_queued(self, reason: str) -> None:
        queued = list(self._queue)
        self._queue.clear()
        self._room.unpark_all()
        for push in queued:
            self._finish(push, NeverProcessed(reason))

    async def _keep_deadlines(self) -> None:
        while True:
            with trio.CancelScope(deadline=self._deadlines.next_at()) as self._nap:
                await trio.sleep_forever()
            for push in self._deadlines.take_due(trio.current_time()):
                if push in self._queue:
                    del self._queue[push]
                    self._room.unpark()
                    self._finish(push, NeverProcessed("deadline"))
                elif push.connection is not None:
                    push.connection.engine.cancel(push.stream, "deadline")
                    push.connection.wake()

    # --- for the pool ----------------------------------------------------------------------------

    def refill(self, connection: Connection) -> None:
        """Send what is queued, as much as fits and makes a good write."""
        queue, engine = self._queue, connection.engine
        if not queue:
            return
        is_first = not engine.open_streams
        sent = 0
        while queue and sent < _REQUESTS_PER_WRITE and engine.room:
            push, _ = queue.popitem(last=False)
            push.tries += 1
            push.connection = connection
            push.stream = engine.send(push.request, push.settle)
            sent += 1
        if sent:
            connection.is_used(is_first=is_first)
            self._room.unpark(count=sent)
            if engine.is_closing:
                self._pool.changed(connection)
        if queue:
            self._pool.call()

    def trouble(self, reason: str, is_lasting: bool) -> None:
        """Count a failure of the service; if that opens the circuit, refuse what is queued."""
        now, jitter = trio.current_time(), self._jitter()
        if self.breaker.failed(now, jitter, at_once=is_lasting):
            self._refuse_queued(reason)
