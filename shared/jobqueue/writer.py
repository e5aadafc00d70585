"""Enqueueing from an event loop: one dedicated thread that commits what came in meanwhile at once.

Group commit: while one fsync runs, others queue up and share the next. Not: whose loop it is.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, NamedTuple

from shared.errors import QueueError
from shared.jobqueue import failures
from shared.jobqueue.doorbell import ring
from shared.jobqueue.job import NewJob
from shared.jobqueue.lifecycle import JobQueue

Done = Callable[[QueueError | None], None]
Hop = Callable[[Callable[[], None]], object]

_MAX_BATCH_BYTES: Final = 8 * 1024 * 1024
_MAX_BACKLOG_BYTES: Final = 64 * 1024 * 1024

# What hits the whole file: trying each job alone would only take longer to say so.
_HITS_ALL: Final = (failures.LOCKED, failures.CORRUPT, failures.NO_ACCESS, failures.IO_ERROR)

# What says nothing about the queue's health.
_JOBS_OWN_FAULT: Final = (failures.BAD_JOB, failures.TOO_BIG, failures.CLOSED)


@dataclass(frozen=True)
class WriterState:
    """What /readyz and metrics want to know; counts are jobs since the start."""

    running: bool = False
    #: Submitted and not answered yet.
    backlog: int = 0
    stored: int = 0
    #: Known already; acknowledged like stored ones.
    repeated: int = 0
    refused: int = 0
    #: Why the last commit or probe failed, "" once one succeeded again.
    last_error: str = ""
    #: One of `failures.REASONS`, or "".
    last_reason: str = ""
    #: When it failed, seconds since the epoch.
    last_error_at: float | None = None


class _Submission(NamedTuple):
    jobs: Sequence[NewJob]
    done: Done
    cost_bytes: int


class QueueWriter:
    """Takes jobs from any thread and stores them durably in its own.

    While idle it probes the queue each `probe_seconds`, so `state` tells of a full disk before the
    first job meets it, and of its end without one. Does not close the queue given to it.

    `hop` carries a call into the submitter's loop, e.g. `TrioToken.run_sync_soon`: one for all that
    a commit stored, which is much cheaper than one each. Without it, `done` is called in the writer
    thread.
    """

    def __init__(
        self,
        queue: JobQueue,
        *,
        clock: Callable[[], float],
        max_batch: int = 256,
        max_backlog: int = 10_000,
        probe_seconds: float = 5.0,
        hop: Hop | None = None,
    ) -> None:
        self._queue = queue
        self._clock = clock
        self._max_batch = max_batch
        self._max_backlog = max_backlog
        self._probe_seconds = probe_seconds
        self._hop: Hop = hop or _call
        self._wake = threading.Condition()
        # All below are guarded by _wake.
        self._waiting: deque[_Submission] = deque()
        self._waiting_bytes = 0
        self._backlog = 0
        self._closing = False
        self._state = WriterState()
        self._thread = threading.Thread(target=self._run, name="queue-writer", daemon=True)

    @property
    def state(self) -> WriterState:
        """A snapshot; never blocks for longer than a few instructions."""
        with self._wake:
            return replace(self._state, backlog=self._backlog)

    def start(self) -> None:
        """Start the thread."""
        with self._wake:
            self._state = replace(self._state, running=True)
        self._thread.start()

    def close(self) -> None:
        """Store what was submitted, then stop; later submissions are refused. Idempotent."""
        with self._wake:
            self._closing = True
            self._wake.notify()
            running = self._state.running
        if running:
            self._thread.join()
        self._refuse_rest()

    def submit(self, jobs: Sequence[NewJob], done: Done) -> None:
        """Hand over jobs that are stored all or none; never blocks.

        `done(None)` is called through `hop` after the commit, `done(error)` if nothing was stored;
        at once and in the caller's thread when overloaded or closed. It must not block and should
        not raise.
        """
        submission = _Submission(jobs, done, self._cost_bytes(jobs))
        with self._wake:
            refused = self._refusal(submission)
            if refused is None:
                self._waiting.append(submission)
                self._waiting_bytes += submission.cost_bytes
                self._backlog += len(jobs)
                self._wake.notify()
            else:
                self._state = replace(self._state, refused=self._state.refused + len(jobs))
        if refused is not None:
            _tell([submission], refused)

    def _refusal(self, submission: _Submission) -> QueueError | None:
        if self._closing:
            return QueueError(failures.CLOSED)
        if self._backlog + len(submission.jobs) > self._max_backlog:
            return QueueError(failures.OVERLOADED, f"{self._backlog} jobs wait for the disk")
        if self._waiting and self._waiting_bytes + submission.cost_bytes > _MAX_BACKLOG_BYTES:
            return QueueError(failures.OVERLOADED, f"{self._waiting_bytes} bytes wait for the disk")
        return None

    def _cost_bytes(self, jobs: Sequence[NewJob]) -> int:
        """Return what the jobs will take in memory when committed; files are not read yet."""
        cost = 0
        for job in jobs:
            cost += len(job.payload)
            if job.attachment is not None:
                cost += len(job.attachment)
            elif job.attachment_path is not None:
                cost += self._queue.max_attachment_bytes
        return cost

    def _run(self) -> None:
        try:
            while (batch := self._next_batch()) is not None:
                if batch:
                    self._commit(batch)
                else:
                    self._probe()
        finally:
            with self._wake:
                self._closing = True
                self._state = replace(self._state, running=False)

    def _next_batch(self) -> list[_Submission] | None:
        """Wait for submissions; [] when it is time to probe, None when closed and drained."""
        with self._wake:
            if not self._waiting and not self._closing:
                self._wake.wait(self._probe_seconds)
            if not self._waiting:
                return None if self._closing else []
            return self._take_batch()

    def _take_batch(self) -> list[_Submission]:
        """Take as many as one transaction should hold, at least one."""
        batch = [self._waiting.popleft()]
        jobs, cost = len(batch[0].jobs), batch[0].cost_bytes
        while self._waiting:
            jobs += len(self._waiting[0].jobs)
            cost += self._waiting[0].cost_bytes
            if jobs > self._max_batch or cost > _MAX_BATCH_BYTES:
                break
            batch.append(self._waiting.popleft())
        self._waiting_bytes -= sum(submission.cost_bytes for submission in batch)
        return batch

    def _commit(self, batch: list[_Submission]) -> None:
        """Store a batch in one transaction; if that fails, each alone, so that one bad job
        does not take others with it."""
        try:
            added = self._enqueue(batch)
        except QueueError as error:
            if len(batch) > 1 and error.reason not in _HITS_ALL:
                for submission in batch:
                    self._commit([submission])
            else:
                self._refuse(batch, error)
        else:
            self._accept(batch, added)

    def _enqueue(self, batch: list[_Submission]) -> int:
        jobs = [job for submission in batch for job in submission.jobs]
        try:
            return sum(self._queue.enqueue(jobs, self._clock()))
        except QueueError:
            raise
        except Exception as error:  # a bug must cost its own job only, never the thread
            raise QueueError(failures.BROKEN, type(error).__name__) from error

    def _accept(self, batch: list[_Submission], added: int) -> None:
        total = _count(batch)
        with self._wake:
            self._backlog -= total
            self._state = replace(
                self._state,
                stored=self._state.stored + added,
                repeated=self._state.repeated + total - added,
                last_error="",
                last_reason="",
                last_error_at=None,
            )
        self._answer(batch, None)
        if added:
            ring(self._queue.path)

    def _answer(self, batch: list[_Submission], error: QueueError | None) -> None:
        with suppress(Exception):  # a loop that is gone at shutdown
            self._hop(partial(_tell, batch, error))

    def _refuse(self, batch: list[_Submission], error: QueueError) -> None:
        total = _count(batch)
        with self._wake:
            self._backlog -= total
            self._state = replace(self._state, refused=self._state.refused + total)
        if error.reason not in _JOBS_OWN_FAULT:
            self._note(error)
        self._answer(batch, error)

    def _refuse_rest(self) -> None:
        with self._wake:
            rest = list(self._waiting)
            self._waiting.clear()
        if rest:
            self._refuse(rest, QueueError(failures.CLOSED))

    def _probe(self) -> None:
        try:
            self._queue.check_writable()
        except QueueError as error:
            self._note(error)
        else:
            self._note(None)

    def _note(self, error: QueueError | None) -> None:
        now = self._clock()
        with self._wake:
            self._state = replace(
                self._state,
                last_error=str(error) if error else "",
                last_reason=error.reason if error else "",
                last_error_at=now if error else None,
            )


def _count(batch: list[_Submission]) -> int:
    return sum(len(submission.jobs) for submission in batch)


def _call(call: Callable[[], None]) -> None:
    call()


def _tell(batch: list[_Submission], error: QueueError | None) -> None:
    for submission in batch:
        with suppress(Exception):  # one that raises must not stop others from being told
            submission.done(error)
