"""What a job goes through: enqueue, claim, finish, defer, bury, recover. Not: what it means."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from shared.errors import QueueError
from shared.jobqueue import failures
from shared.jobqueue.attachment import Attachment, cut, take_over
from shared.jobqueue.database import Database, used_bytes
from shared.jobqueue.inserting import NewRow, insert, new_row
from shared.jobqueue.job import (
    Bury,
    Defer,
    Finish,
    Job,
    NewJob,
    Recovered,
    Settlement,
)
from shared.jobqueue.room import BALLAST_BYTES, Ballast, free_bytes
from shared.jobqueue.settling import settle
from shared.jobqueue.verbs import OperatorQueue
from shared.jobqueue.view import GET_SQL, READY_SQL, job_from_row

DONE_KEPT_SECONDS: Final = 7 * 86400.0
MAX_PAYLOAD_BYTES: Final = 1024 * 1024
_PURGE_ROWS: Final = 10_000
_VACUUM_PAGES: Final = 1_000

_DUE_SQL: Final = f"""
    SELECT due_at, id FROM jobs WHERE {READY_SQL} AND kind = :kind AND due_at <= :now
    ORDER BY due_at, id LIMIT :limit
"""


class JobQueue(OperatorQueue):
    """The whole queue. See the package's docstring for the contract.

    `worker` names one running worker, unique per process start (pid and random): two workers of
    one name could finish each other's claims.
    """

    def __init__(
        self, database: Database, ballast: Ballast, *, min_free: int, max_bytes: int, max_body: int
    ) -> None:
        super().__init__(database)
        self._ballast = ballast
        self._min_free_bytes = min_free
        self._max_bytes = max_bytes
        self._max_attachment_bytes = max_body
        ballast.ensure(min_free)

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        min_free_bytes: int = 64 * 1024 * 1024,
        max_bytes: int = 1024 * 1024 * 1024,
        max_attachment_bytes: int = 1024 * 1024,
        busy_timeout_seconds: float = 5.0,
    ) -> Self:
        """Open the queue at `path`, made (mode 0600) with its directories if it is not there.

        QueueError("schema") for a newer program's queue or another program's file.
        """
        ballast = Ballast(path)
        database = Database(
            path,
            ballast=ballast,
            # Enqueue stops at max_bytes by itself; finishing may still need a page or two.
            max_bytes=max_bytes + BALLAST_BYTES,
            busy_timeout_seconds=busy_timeout_seconds,
        )
        return cls(
            database,
            ballast,
            min_free=min_free_bytes,
            max_bytes=max_bytes,
            max_body=max_attachment_bytes,
        )

    @property
    def max_attachment_bytes(self) -> int:
        """The most of an attachment that is kept."""
        return self._max_attachment_bytes

    def enqueue(self, jobs: Sequence[NewJob], now: float) -> list[bool]:
        """Store all jobs durably or, with QueueError, none; for each: True new, False known.

        Files named by `attachment_path` are read first.
        """
        with failures.translated():
            rows = [self._row(job, now) for job in jobs]
        incoming = sum(row.cost_bytes for row in rows)
        self._refuse_on_full_disk(incoming)

        def work(connection: sqlite3.Connection) -> list[bool]:
            if used_bytes(connection) + incoming > self._max_bytes:
                raise QueueError(failures.QUEUE_FULL, f"limit {self._max_bytes} bytes")
            return insert(connection, rows, now)

        added = self._database.write(work, last_reserve=False)
        self._ballast.ensure(self._min_free_bytes)
        return added

    def check_writable(self) -> None:
        """Raise the QueueError an enqueue would meet now, if any."""
        self._refuse_on_full_disk(0)

        def work(connection: sqlite3.Connection) -> None:
            if used_bytes(connection) > self._max_bytes:
                raise QueueError(failures.QUEUE_FULL, f"limit {self._max_bytes} bytes")

        self._database.write(work, last_reserve=False)
        self._ballast.ensure(self._min_free_bytes)

    def claim(
        self,
        worker: str,
        kinds: Collection[str] | None,
        limit: int,
        lease_seconds: float,
        now: float,
    ) -> list[Job]:
        """Take up to `limit` due jobs of `kinds` (None: any) for `lease_seconds`, earliest first.

        Each comes with its attachment, and with this attempt counted.
        """
        wanted = sorted(self._ready_kinds() if kinds is None else set(kinds))
        due: list[tuple[float, int]] = []
        for kind in wanted:
            values = {"kind": kind, "now": now, "limit": limit}
            due += [(row[0], row[1]) for row in self._database.read(_DUE_SQL, values)]
        ids = [job_id for _, job_id in sorted(due)[:limit]]
        if not ids:
            return []  # looking costs no write: an idle worker polls each second
        claim = {"worker": worker, "until": now + lease_seconds}
        return self._database.write(
            lambda connection: [
                job for job_id in ids for job in _claim(connection, {"id": job_id, **claim})
            ]
        )

    def renew(self, ids: Sequence[int], worker: str, lease_seconds: float, now: float) -> list[int]:
        """Prolong claims to `lease_seconds` from `now`; return the ids that are still `worker`'s.

        Stop working on the others: somebody else may have them.
        """
        sql = """
            UPDATE jobs SET lease_until = :until WHERE state = 'claimed' AND worker = :worker
            AND id IN (SELECT value FROM json_each(:ids)) RETURNING id
        """
        return self._ids(
            sql, {"until": now + lease_seconds, "worker": worker, "ids": json.dumps(list(ids))}
        )

    def finish(self, job_id: int, worker: str, now: float) -> bool:
        """Remove a job that is done and remember its key; False if the claim was lost."""
        return not self.settle([Finish(job_id)], worker, now)

    def defer(self, job_id: int, worker: str, due_at: float, reason: str, now: float) -> bool:
        """Put a claimed job back until `due_at`, and say why; False if the claim was lost.

        A `due_at` in the past means `now`: behind those that are due already.
        """
        return not self.settle([Defer(job_id, due_at, reason)], worker, now)

    def bury(self, job_id: int, worker: str, reason: str, now: float) -> bool:
        """Give a claimed job up and keep it for a human; False if the claim was lost."""
        return not self.settle([Bury(job_id, reason)], worker, now)

    def settle(self, settlements: Sequence[Settlement], worker: str, now: float) -> list[int]:
        """Do all of them in one commit; return the ids of jobs whose claim was lost."""

        def work(connection: sqlite3.Connection) -> list[int]:
            return [
                settlement.job_id
                for settlement in settlements
                if not settle(connection, settlement, worker, now)
            ]

        return self._database.write(work)

    def release(self, worker: str, ids: Sequence[int] | None = None) -> list[int]:
        """Hand claims (None: all of `worker`'s) back as if never taken: due as before, no attempt.

        For a worker that stops before it began; returns the ids handed back.
        """
        sql = """
            UPDATE jobs SET state = 'ready', attempts = attempts - 1,
                            worker = NULL, lease_until = NULL
            WHERE state = 'claimed' AND worker = :worker
              AND (:ids IS NULL OR id IN (SELECT value FROM json_each(:ids))) RETURNING id
        """
        return self._ids(
            sql, {"worker": worker, "ids": None if ids is None else json.dumps(list(ids))}
        )

    def recover(self, now: float, max_attempts: int) -> Recovered:
        """Take back claims whose lease is over: due at once, or buried after `max_attempts`."""
        lost = self._database.read(
            "SELECT 1 FROM jobs WHERE state = 'claimed' AND lease_until <= :now LIMIT 1",
            {"now": now},
        )
        self._ballast.ensure(self._min_free_bytes)
        if not lost:
            return Recovered(0, 0)
        values = {"now": now, "max_attempts": max_attempts}
        return self._database.write(lambda connection: _recover(connection, values))

    def purge(self, now: float, keep_seconds: float = DONE_KEPT_SECONDS) -> int:
        """Forget keys of jobs done more than `keep_seconds` ago; return how many.

        Bounded work: call it every few minutes, again at once while it returns something. Gives
        free pages back to the disk, too.
        """

        def work(connection: sqlite3.Connection) -> int:
            sql = """
                DELETE FROM done_keys WHERE digest IN
                (SELECT digest FROM done_keys WHERE done_at < ? ORDER BY done_at LIMIT ?)
            """
            return connection.execute(sql, (now - keep_seconds, _PURGE_ROWS)).rowcount

        forgotten = self._database.write(work)
        self._database.give_back(_VACUUM_PAGES)
        return forgotten

    def _ids(self, sql: str, values: Mapping[str, object]) -> list[int]:
        return self._database.write(
            lambda connection: [row["id"] for row in connection.execute(sql, values).fetchall()]
        )

    def _refuse_on_full_disk(self, incoming: int) -> None:
        with failures.translated():
            free = free_bytes(self.path.parent)
        if free - incoming < self._min_free_bytes:
            raise QueueError(
                failures.DISK_FULL, f"{free} bytes free, {self._min_free_bytes} must stay"
            )

    def _row(self, job: NewJob, now: float) -> NewRow:
        if len(job.payload) > MAX_PAYLOAD_BYTES:
            raise QueueError(failures.TOO_BIG, f"payload of {len(job.payload)} bytes")
        return new_row(job, self._attachment(job), now)

    def _attachment(self, job: NewJob) -> Attachment:
        if job.attachment is not None:
            return cut(job.attachment, self._max_attachment_bytes)
        if job.attachment_path is not None:
            return take_over(job.attachment_path, self._max_attachment_bytes)
        return Attachment()


def _claim(connection: sqlite3.Connection, claim: Mapping[str, object]) -> list[Job]:
    """Claim one job if it is still to be had, and return it in a list."""
    taken = connection.execute(
        f"""
        UPDATE jobs SET state = 'claimed', attempts = attempts + 1,
                        worker = :worker, lease_until = :until
        WHERE id = :id AND {READY_SQL}
        """,
        claim,
    ).rowcount
    rows = connection.execute(GET_SQL, {"id": claim["id"]}).fetchall() if taken else []
    return [job_from_row(row) for row in rows]


def _recover(connection: sqlite3.Connection, values: Mapping[str, object]) -> Recovered:
    buried = connection.execute(
        """
        UPDATE jobs SET state = 'buried', held = 0, ended_at = :now, worker = NULL,
                        lease_until = NULL,
                        reason = 'given up: no worker survived it in ' || attempts || ' attempts'
        WHERE state = 'claimed' AND lease_until <= :now AND attempts >= :max_attempts
        """,
        values,
    ).rowcount
    made_due = connection.execute(
        """
        UPDATE jobs SET state = 'ready', due_at = :now, worker = NULL, lease_until = NULL
        WHERE state = 'claimed' AND lease_until <= :now
        """,
        values,
    ).rowcount
    return Recovered(made_due, buried)
