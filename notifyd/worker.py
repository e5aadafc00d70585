"""Works on the queue: claims what is due, has it handled, and writes down what became of it.

The only place where a job changes its state. Knows lanes, leases, ages and waits; a handler knows
what a job means and answers with an Outcome.

Each kind of job has a lane of its own, with so many jobs at once, so that one service that is down
never holds up another. A lane whose service is `Unavailable` hands its jobs back untouched and
tries again every `PROBE_SECONDS` with a single one: nothing is counted against the jobs, and all
go on at once when the service is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog

from shared.errors import DecodeError, QueueError
from shared.jobqueue import Bury, Defer, Doorbell, Finish, HandBack, Job, JobQueue, Settlement
from shared.log import Limited
from shared.outcome import Delivered, Gone, Outcome, Rejected, Retry, Unavailable
from shared.retry import RetryPolicy

log = structlog.get_logger()

Handler = Callable[[Job], Awaitable[Outcome]]

#: The queue is looked into this often, whether or not the doorbell rang.
POLL_SECONDS: Final = 1.0
#: A lane whose service is down tries it this often.
PROBE_SECONDS: Final = 2.0
_RECOVER_SECONDS: Final = 5.0
_PURGE_SECONDS: Final = 60.0
#: What can become of a job in one attempt.
RESULTS: Final = ("done", "deferred", "buried", "handed-back", "lost")


@dataclass
class Lane:
    """The jobs of one kind: who handles them, how many at once, and for how long they are news."""

    handler: Handler
    concurrency: int
    retry: RetryPolicy
    busy: set[int] = field(default_factory=set)
    #: Why its service is down; "" if it is not.
    down: str = ""
    probe_at: float = 0.0

    def room(self, now: float) -> int:
        """Return how many jobs it takes now; `now` is monotonic seconds."""
        if self.down:
            return 1 if not self.busy and now >= self.probe_at else 0
        return self.concurrency - len(self.busy)


class Worker:
    """One worker on one queue; `name` is unique per start (see `JobQueue`).

    `wall` is seconds since the epoch, `clock` monotonic seconds, `jitter` a random number in 0..1.
    """

    def __init__(
        self,
        queue: JobQueue,
        lanes: Mapping[str, Lane],
        name: str,
        *,
        lease_seconds: float,
        max_attempts: int,
        jitter: Callable[[], float],
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lanes = dict(lanes)
        self.results: Counter[tuple[str, str]] = Counter()
        #: Why the queue cannot be worked on; "" if it can.
        self.queue_problem = ""
        self._queue = queue
        self._name = name
        self._lease_seconds = lease_seconds
        self._max_attempts = max_attempts
        self._jitter = jitter
        self._wall = wall
        self._clock = clock
        self._limited = Limited()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._settlements: list[Settlement] = []
        self._look = asyncio.Event()
        self._unsettled = asyncio.Event()
        self._is_stopping = False
        self._is_done = False

    @property
    def in_flight(self) -> int:
        """How many jobs are being worked on."""
        return len(self._tasks)

    def wake(self) -> None:
        """Look into the queue now."""
        self._look.set()

    def not_ready(self) -> list[str]:
        """Return what keeps jobs from being done just now."""
        reasons = [f"queue: {self.queue_problem}"] if self.queue_problem else []
        return reasons + [f"{kind}: {lane.down}" for kind, lane in self.lanes.items() if lane.down]

    async def run(self) -> None:
        """Work until `stop`; hand back what is left then."""
        async with asyncio.TaskGroup() as group:
            settling = group.create_task(self._settle_until_done())
            keeping = group.create_task(self._keep_house())
            with _doorbell(self._queue, self.wake):
                await self._claim_until_stopped()
            self._is_done = True
            self._unsettled.set()
            await settling
            keeping.cancel()
        with contextlib.suppress(QueueError):
            await asyncio.to_thread(self._queue.release, self._name)

    async def stop(self, patience_seconds: float) -> None:
        """Claim no more, let what is being sent end, and after `patience_seconds` cut it off."""
        self._is_stopping = True
        self._look.set()
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()), timeout=patience_seconds)
        for task in list(self._tasks.values()):
            task.cancel()

    # --- claiming --------------------------------------------------------------------------------

    async def _claim_until_stopped(self) -> None:
        while not self._is_stopping:
            self._look.clear()
            try:
                found = await self._claim()
                self.queue_problem = ""
            except QueueError as error:
                found = 0
                self._queue_failed(error)
            if not found:
                await self._rest()
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def _claim(self) -> int:
        """Take what the lanes have room for; return how many jobs that were."""
        found = 0
        for kind, lane in self.lanes.items():
            room, is_probe = self._room(lane), bool(lane.down)
            if room <= 0:
                continue
            if is_probe:
                lane.probe_at = self._clock() + PROBE_SECONDS
            jobs = await asyncio.to_thread(
                self._queue.claim, self._name, [kind], room, self._lease_seconds, self._wall()
            )
            if self._is_stopping:
                break  # begun now they would be cut off; `run` hands them back
            for job in jobs:
                if lane.down and not is_probe:  # it went down while we claimed
                    self._hand_back(lane, job, lane.down)
                else:
                    self._start(lane, job)
            found += len(jobs)
        return found

    def _room(self, lane: Lane) -> int:
        return 0 if self._is_stopping else lane.room(self._clock())

    async def _rest(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._look.wait(), POLL_SECONDS)

    def _start(self, lane: Lane, job: Job) -> None:
        lane.busy.add(job.id)
        task = asyncio.create_task(self._work(lane, job))
        self._tasks[job.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(job.id))

    def _queue_failed(self, error: QueueError) -> None:
        self.queue_problem = error.reason
        if self._limited.allows("queue") is not None:
            log.error("queue_failed", reason=error.reason, error=str(error))

    # --- one job ---------------------------------------------------------------------------------

    async def _work(self, lane: Lane, job: Job) -> None:
        with structlog.contextvars.bound_contextvars(job_id=job.id, kind=job.kind):
            age = self._wall() - job.age_from
            if age > lane.retry.max_age_seconds:
                why = f": {job.reason}" if job.reason else ""
                self._bury(job, f"too old to be sent{why}")
                return
            outcome = await self._outcome(lane, job)
            self._settle_by(lane, job, outcome, age)

    async def _outcome(self, lane: Lane, job: Job) -> Outcome:
        try:
            return await lane.handler(job)
        except DecodeError as error:
            return Rejected(error.reason)
        except QueueError as error:
            return Unavailable(f"queue: {error.reason}")
        except Exception as error:  # the fence of one job: a bug must not stop the others
            log.exception("internal_error")
            return Retry(f"internal error: {type(error).__name__}")

    def _settle_by(self, lane: Lane, job: Job, outcome: Outcome, age: float) -> None:
        if not isinstance(outcome, Unavailable):
            lane.down = ""
        match outcome:
            case Delivered(detail=detail):
                log.info("done", attempt=job.attempts, receipt=detail)
                self._note(job, "done", Finish(job.id))
            case Unavailable(reason=reason):
                self._hand_back(lane, job, reason)
            case Retry(reason=reason, after=after):
                self._try_again(lane, job, reason, after, age)
            case Rejected(reason=reason) | Gone(reason=reason):
                self._bury(job, reason)

    def _try_again(
        self, lane: Lane, job: Job, reason: str, after: float | None, age: float
    ) -> None:
        wait = lane.retry.delay(job.attempts, age, self._jitter(), after)
        if wait is None:
            self._bury(job, f"given up: {reason}")
            return
        log.info("deferred", attempt=job.attempts, reason=reason, seconds=round(wait, 1))
        self._note(job, "deferred", Defer(job.id, self._wall() + wait, reason))

    def _bury(self, job: Job, reason: str) -> None:
        log.warning("buried", attempt=job.attempts, reason=reason)
        self._note(job, "buried", Bury(job.id, reason))

    def _hand_back(self, lane: Lane, job: Job, reason: str) -> None:
        if not lane.down:
            log.error("service_down", reason=reason)
        lane.down, lane.probe_at = reason, self._clock() + PROBE_SECONDS
        self._note(job, "handed-back", HandBack(job.id, reason))

    def _note(self, job: Job, result: str, settlement: Settlement) -> None:
        self.results[job.kind, result] += 1
        self._settlements.append(settlement)
        self._unsettled.set()

    # --- writing down what became of jobs --------------------------------------------------------

    async def _settle_until_done(self) -> None:
        # Never cancelled: what is on its way to the disk then would be done a second time.
        while not self._is_done:
            await self._unsettled.wait()
            if not await self._settle() and not self._is_done:
                await asyncio.sleep(POLL_SECONDS)
        await self._settle()  # what came to an end while the last ones were written down

    async def _settle(self) -> bool:
        """Write down all that is to be; False if the queue takes nothing now."""
        self._unsettled.clear()
        taken, self._settlements = self._settlements, []
        if not taken:
            return True
        try:
            lost = await asyncio.to_thread(self._queue.settle, taken, self._name, self._wall())
        except QueueError as error:
            # Their claims are renewed all the same, so nobody does them twice meanwhile.
            self._settlements = taken + self._settlements
            self._unsettled.set()
            self._queue_failed(error)
            return False
        self.queue_problem = ""
        done = {settlement.job_id for settlement in taken}
        for kind, lane in self.lanes.items():
            self.results[kind, "lost"] += len(lane.busy.intersection(lost))
            lane.busy -= done
        if lost:
            log.warning("claims_lost", jobs=lost)
        self._look.set()
        return True

    # --- claims of ours and of the dead ----------------------------------------------------------

    async def _keep_house(self) -> None:
        purge_at = 0.0
        while True:
            try:
                await self._renew()
                await asyncio.to_thread(self._queue.recover, self._wall(), self._max_attempts)
                if self._clock() >= purge_at:
                    await asyncio.to_thread(self._queue.purge, self._wall())
                    purge_at = self._clock() + _PURGE_SECONDS
            except QueueError as error:
                self._queue_failed(error)
            await asyncio.sleep(min(self._lease_seconds / 3, _RECOVER_SECONDS))

    async def _renew(self) -> None:
        ours = [job_id for lane in self.lanes.values() for job_id in lane.busy]
        if ours:
            await asyncio.to_thread(
                self._queue.renew, ours, self._name, self._lease_seconds, self._wall()
            )


@contextlib.contextmanager
def _doorbell(queue: JobQueue, wake: Callable[[], None]) -> Iterator[None]:
    """Have `wake` called when the queue's doorbell rings; without a bell there is the poll."""
    try:
        bell = Doorbell(queue.path)
    except OSError as error:
        log.warning("no_doorbell", error=str(error))
        yield
        return

    def answer() -> None:
        bell.drain()
        wake()

    loop = asyncio.get_running_loop()
    loop.add_reader(bell.fileno(), answer)
    try:
        yield
    finally:
        loop.remove_reader(bell.fileno())
        bell.close()
