"""What a worker can do with a job it has claimed, as SQL. Knows one job at a time, no order."""

from __future__ import annotations

import sqlite3
from typing import Final

from shared.jobqueue.job import Bury, Defer, Finish, HandBack, Settlement
from shared.jobqueue.verbs import remember_done

# Whose claim it is decides, not whether the lease ran out: until recovered it is still theirs.
_MINE_SQL: Final = "id = :id AND state = 'claimed' AND worker = :worker"
_DEFER_SQL: Final = f"""
    UPDATE jobs SET state = 'ready', due_at = :due_at, reason = :reason,
                    worker = NULL, lease_until = NULL
    WHERE {_MINE_SQL}
"""
_HAND_BACK_SQL: Final = f"""
    UPDATE jobs SET state = 'ready', attempts = attempts - 1, due_at = max(due_at, :now),
                    reason = :reason,
                    worker = NULL, lease_until = NULL
    WHERE {_MINE_SQL}
"""
_BURY_SQL: Final = f"""
    UPDATE jobs SET state = 'buried', held = 0, ended_at = :now, reason = :reason,
                    worker = NULL, lease_until = NULL
    WHERE {_MINE_SQL}
"""


def settle(connection: sqlite3.Connection, settlement: Settlement, worker: str, now: float) -> bool:
    """Carry one out in the caller's transaction; False if the job is not `worker`'s any more."""
    values = {"id": settlement.job_id, "worker": worker, "now": now}
    match settlement:
        case Finish():
            sql = f"DELETE FROM jobs WHERE {_MINE_SQL} RETURNING kind, key"
            rows = connection.execute(sql, values).fetchall()
            remember_done(connection, ((row["kind"], row["key"]) for row in rows), now)
            return bool(rows)
        case Defer(due_at=due_at, reason=reason):
            deferred = {**values, "due_at": max(due_at, now), "reason": reason}
            return connection.execute(_DEFER_SQL, deferred).rowcount == 1
        case HandBack(reason=reason):
            return connection.execute(_HAND_BACK_SQL, {**values, "reason": reason}).rowcount == 1
        case Bury(reason=reason):
            return connection.execute(_BURY_SQL, {**values, "reason": reason}).rowcount == 1
