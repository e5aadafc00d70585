"""New jobs as rows, put in with few statements. Knows no file, no limits, no state of a job.

Each statement lets go of Python's global lock and has to get it back from whatever else runs in
the process: up to 5 ms each beside a busy event loop. So rows go in by tens.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from shared.jobqueue.attachment import Attachment
from shared.jobqueue.job import NewJob, digest

# Few sizes, so that SQLite's compiled statements are found again in the connection's cache.
_CHUNKS: Final = (64, 16, 4, 1)

_Values = tuple[object, ...]


class NewRow(NamedTuple):
    """A job about to be stored: the values of `_insert_sql` for it, and its attachment."""

    values: _Values
    #: (kind, key): what makes it the same job.
    identity: tuple[str, str]
    attachment: bytes | None
    #: What it may take on the disk: generous for the row, its two index entries and
    #: half-filled pages.
    cost_bytes: int


def new_row(job: NewJob, taken: Attachment, now: float) -> NewRow:
    """Return `job` with its attachment as a row; UnicodeError for a key that cannot be stored."""
    size = None if taken.body is None else len(taken.body)
    values = (
        job.kind,
        job.key,
        job.account,
        job.payload,
        now if job.due_at is None else job.due_at,
        size,
        int(taken.truncated),
        taken.error,
        digest(job.kind, job.key),
    )
    cost = 512 + len(job.payload) + (size or 0)
    return NewRow(values, (job.kind, job.key), taken.body, cost)


def insert(connection: sqlite3.Connection, rows: Sequence[NewRow], now: float) -> list[bool]:
    """Put the rows in, in their order; for each: True new, False known, also from further up."""
    firsts: dict[tuple[str, str], NewRow] = {}
    for row in rows:
        firsts.setdefault(row.identity, row)
    new: set[tuple[str, str]] = set()
    for chunk in _chunks(list(firsts.values())):
        values = [value for row in chunk for value in row.values]
        found = connection.execute(_insert_sql(len(chunk)), [now, *values]).fetchall()
        for job_id, kind, key in found:
            new.add((kind, key))
            _attach(connection, job_id, firsts[kind, key].attachment)
    return [row.identity in new and firsts[row.identity] is row for row in rows]


def _attach(connection: sqlite3.Connection, job_id: int, body: bytes | None) -> None:
    if body is not None:
        connection.execute("INSERT INTO attachments (job_id, body) VALUES (?, ?)", (job_id, body))


def _chunks(rows: Sequence[NewRow]) -> Iterator[Sequence[NewRow]]:
    start = 0
    for size in _CHUNKS:
        while len(rows) - start >= size:
            yield rows[start : start + size]
            start += size


@lru_cache
def _insert_sql(rows: int) -> str:
    """Return the statement for so many rows; its first parameter is the time."""
    values = ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?, ?)"] * rows)
    return f"""
        WITH new (now) AS (VALUES (?))
        INSERT INTO jobs (kind, key, account, payload, created_at, age_from, due_at,
                          attachment_bytes, attachment_truncated, attachment_error)
        SELECT column1, column2, column3, column4, now, now, column5, column6, column7, column8
        FROM new, (VALUES {values})
        WHERE NOT EXISTS (SELECT 1 FROM done_keys WHERE digest = column9)
          AND NOT EXISTS (SELECT 1 FROM jobs WHERE kind = column1 AND key = column2)
        RETURNING id, kind, key
    """
