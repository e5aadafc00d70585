"""The durable local queue: the one place where pusher and notifyd meet.

The contract, in words; the storage (SQLite, WAL, fsync at each commit) is an implementation detail.

- **enqueue returns after the commit.** What was acknowledged survives kill -9 and power loss.
- **The same (kind, key) is one job**, while it is stored and for a remembered period after it is
  done or deleted, so a repeated event does not become a second mail. Only a digest is remembered.
- **claim hides a job from others for a lease and counts an attempt.** Whoever lost the lease
  cannot finish, defer or bury any more: those answer False and change nothing.
- **recover makes the expired claims of a dead worker due again**, and buries after N attempts.
  Expired leases are taken back by `recover` only, so call it now and then, and at start.
- **Buried jobs stay for a human**, with the reason; `retry` starts them afresh.
- **Held jobs are not claimed** until released by `unhold`; a job held while a worker has it
  finishes normally, or stays when deferred.
- **Order:** by due time, then by id (order of arrival).
- **Effects may repeat, work is never lost.** A worker killed between its effect and `finish` will
  meet the job again: effects need a key of their own.
- **Payload** is versioned JSON (`{"v": 1, …}`); the queue never looks inside. An attachment is one
  binary blob beside it, taken over from a file just before the commit when asked to.
- **Full disk:** enqueue is refused below `min_free_bytes` and above `max_bytes`; finishing goes on
  on the room so kept, then on a ballast file given up at ENOSPC and re-made when there is room.

Times are seconds since the epoch and always come from the caller. Everything but `QueueWriter` is
synchronous and thread-safe: an event loop calls it in a thread. All failures are
`shared.errors.QueueError`, with one of the reasons in `shared.jobqueue.failures`.
"""

from __future__ import annotations

from shared.jobqueue.doorbell import Doorbell, ring
from shared.jobqueue.job import (
    STATES,
    Bury,
    Defer,
    Finish,
    HandBack,
    Job,
    NewJob,
    Recovered,
    Settlement,
    State,
)
from shared.jobqueue.lifecycle import DONE_KEPT_SECONDS, JobQueue
from shared.jobqueue.verbs import OperatorQueue
from shared.jobqueue.view import SHAPE_BOUNDS_SECONDS, QueueView
from shared.jobqueue.writer import QueueWriter, WriterState

__all__ = [
    "DONE_KEPT_SECONDS",
    "SHAPE_BOUNDS_SECONDS",
    "STATES",
    "Bury",
    "Defer",
    "Doorbell",
    "Finish",
    "HandBack",
    "Job",
    "JobQueue",
    "NewJob",
    "OperatorQueue",
    "QueueView",
    "QueueWriter",
    "Recovered",
    "Settlement",
    "State",
    "WriterState",
    "ring",
]
