"""Looking into the queue: what is there, how old, what is next. Changes nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from shared.jobqueue.database import Database
from shared.jobqueue.job import Job, State

# A claimed job may be marked held for later; what shows is that it is being worked on.
STATE_SQL: Final = "CASE WHEN state = 'ready' AND held = 1 THEN 'held' ELSE state END"
READY_SQL: Final = "state = 'ready' AND held = 0"

_COLUMNS: Final = f"""
    id, kind, key, account, payload, {STATE_SQL} AS state, attempts, created_at, age_from, due_at,
    reason, worker, lease_until, ended_at, attachment_bytes, attachment_truncated, attachment_error
"""
_BODY: Final = "(SELECT body FROM attachments WHERE job_id = jobs.id) AS attachment"

GET_SQL: Final = f"SELECT {_COLUMNS}, {_BODY} FROM jobs WHERE id = :id"

_LIST_SQL: Final = f"""
    SELECT {_COLUMNS}, NULL AS attachment FROM jobs
    WHERE id > :after
      AND (:state IS NULL OR :state = {STATE_SQL})
      AND (:kind IS NULL OR kind = :kind)
      AND (:account IS NULL OR account = :account)
    ORDER BY id LIMIT :limit
"""
_PAGE_ROWS: Final = 200

#: Upper bounds of the columns of `shape`; its last column is everything older.
SHAPE_BOUNDS_SECONDS: Final = (5.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0)


def job_from_row(row: sqlite3.Row) -> Job:
    """Build a Job from a row of GET_SQL."""
    values = dict(row)
    values["attachment_truncated"] = bool(values["attachment_truncated"])
    return Job(**values)


class QueueView:
    """The reading half, for operators, metrics and workers; each call sees a consistent moment."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @staticmethod
    def open_read_only(path: Path) -> QueueView:
        """Open an existing queue, whether or not the programs run; QueueError("missing")."""
        return QueueView(Database(path, read_only=True))

    @property
    def path(self) -> Path:
        """Where the queue is stored."""
        return self._database.path

    def close(self) -> None:
        """Close the file; idempotent."""
        self._database.close()

    def get(self, job_id: int) -> Job | None:
        """Return one job with its attachment, or None if it is not (or no longer) stored."""
        if not 0 < job_id < 2**63:
            return None  # more than SQLite can count to
        rows = self._database.read(GET_SQL, {"id": job_id})
        return job_from_row(rows[0]) if rows else None

    def jobs(
        self,
        state: State | None = None,
        *,
        kind: str | None = None,
        account: str | None = None,
        limit: int | None = None,
        after: int = 0,
    ) -> Iterator[Job]:
        """Yield jobs by id, those above `after`, without attachments.

        Reads page by page, so a slow reader stops nobody; what changes meanwhile may or may not
        be seen.
        """
        left = limit if limit is not None else -1
        while left:
            page = _PAGE_ROWS if left < 0 else min(left, _PAGE_ROWS)
            values = {
                "after": after,
                "state": state,
                "kind": kind,
                "account": account,
                "limit": page,
            }
            rows = self._database.read(_LIST_SQL, values)
            yield from map(job_from_row, rows)
            if len(rows) < page:
                return
            after = rows[-1]["id"]
            left -= len(rows)

    def counts(self) -> dict[tuple[str, State], int]:
        """Return how many jobs there are: {(kind, state): number}, without zeros."""
        rows = self._database.read(
            f"SELECT kind, {STATE_SQL} AS shown, count(*) AS n FROM jobs GROUP BY kind, shown"
        )
        return {(row["kind"], row["shown"]): row["n"] for row in rows}

    def oldest_age(self, now: float) -> float | None:
        """Return the seconds since the oldest job came that is not buried; None without one."""
        rows = self._database.read(
            "SELECT min(created_at) AS oldest FROM jobs WHERE state <> 'buried'"
        )
        oldest = rows[0]["oldest"]
        return None if oldest is None else max(0.0, now - oldest)

    def next_due(self, now: float) -> float | None:
        """Return when to look next, `now` or later: a job falls due or a lease ends then.

        None: nothing to wait for but new jobs.
        """
        moments = [due for kind in self._ready_kinds() for due in self._first_due(kind)]
        rows = self._database.read(
            "SELECT min(lease_until) AS moment FROM jobs WHERE state = 'claimed'"
        )
        if rows[0]["moment"] is not None:
            moments.append(rows[0]["moment"])
        return max(now, min(moments)) if moments else None

    def lag_seconds(self, now: float) -> float:
        """Return for how long the most overdue job has been waiting for a worker; 0.0: none."""
        dues = [due for kind in self._ready_kinds() for due in self._first_due(kind)]
        return max(0.0, now - min(dues)) if dues else 0.0

    def shape(self, now: float, *, state: State | None = None) -> dict[str, tuple[int, ...]]:
        """Return the age table: {kind: jobs per age column}, like Postfix's qshape.

        Column i counts ages below SHAPE_BOUNDS_SECONDS[i] (and not in an earlier one), the last
        column all older ones. Without `state`: everything but buried jobs.
        """
        columns = ", ".join(_shape_columns())
        rows = self._database.read(
            f"SELECT kind, {columns} FROM jobs"
            f" WHERE (:state IS NULL AND state <> 'buried') OR :state = {STATE_SQL}"
            " GROUP BY kind ORDER BY kind",
            {"now": now, "state": state},
        )
        return {row[0]: tuple(row)[1:] for row in rows}

    def integrity(self) -> list[str]:
        """Return what is damaged in the file, in SQLite's words; empty if nothing. Reads it all."""
        rows = self._database.read("PRAGMA integrity_check")
        found = [str(row[0]) for row in rows]
        return [] if found == ["ok"] else found

    def _ready_kinds(self) -> list[str]:
        """Return the kinds with ready jobs, one step in the index each, however many jobs."""
        kinds: list[str] = []
        sql = f"SELECT min(kind) AS kind FROM jobs WHERE {READY_SQL} AND kind > :last"
        while True:
            kind = self._database.read(sql, {"last": kinds[-1] if kinds else ""})[0]["kind"]
            if kind is None:
                return kinds
            kinds.append(kind)

    def _first_due(self, kind: str) -> list[float]:
        sql = f"SELECT min(due_at) AS due FROM jobs WHERE {READY_SQL} AND kind = :kind"
        due = self._database.read(sql, {"kind": kind})[0]["due"]
        return [] if due is None else [due]


def _shape_columns() -> Iterator[str]:
    age = ":now - created_at"
    lower: float | None = None
    for upper in SHAPE_BOUNDS_SECONDS:
        above = "" if lower is None else f"{age} >= {lower} AND "
        yield f"sum({above}{age} < {upper})"
        lower = upper
    yield f"sum({age} >= {lower})"
