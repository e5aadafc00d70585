"""Why the queue could not keep its promise: SQLite's errors in the words of this project."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from shared.errors import QueueError

DISK_FULL: Final = "disk-full"
QUEUE_FULL: Final = "queue-full"
OVERLOADED: Final = "overloaded"
CLOSED: Final = "closed"
LOCKED: Final = "locked"
MISSING: Final = "missing"
SCHEMA: Final = "schema"
CORRUPT: Final = "corrupt"
NO_ACCESS: Final = "no-access"
IO_ERROR: Final = "io-error"
BAD_JOB: Final = "bad-job"
TOO_BIG: Final = "too-big"
BROKEN: Final = "broken"

#: Every reason a QueueError of this package can have, for metrics to start at zero.
REASONS: Final = (
    DISK_FULL,
    QUEUE_FULL,
    OVERLOADED,
    CLOSED,
    LOCKED,
    MISSING,
    SCHEMA,
    CORRUPT,
    NO_ACCESS,
    IO_ERROR,
    BAD_JOB,
    TOO_BIG,
    BROKEN,
)

# Primary result codes: https://www.sqlite.org/rescode.html
_BY_CODE: Final = {
    sqlite3.SQLITE_FULL: DISK_FULL,
    sqlite3.SQLITE_BUSY: LOCKED,
    sqlite3.SQLITE_LOCKED: LOCKED,
    sqlite3.SQLITE_CORRUPT: CORRUPT,
    sqlite3.SQLITE_NOTADB: CORRUPT,
    sqlite3.SQLITE_CANTOPEN: NO_ACCESS,
    sqlite3.SQLITE_READONLY: NO_ACCESS,
    sqlite3.SQLITE_PERM: NO_ACCESS,
    sqlite3.SQLITE_AUTH: NO_ACCESS,
    sqlite3.SQLITE_IOERR: IO_ERROR,
    sqlite3.SQLITE_CONSTRAINT: BAD_JOB,
    sqlite3.SQLITE_MISMATCH: BAD_JOB,
    sqlite3.SQLITE_TOOBIG: TOO_BIG,
}


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return NO_ACCESS if isinstance(error, PermissionError) else IO_ERROR
    if isinstance(error, sqlite3.ProgrammingError | sqlite3.InterfaceError):
        return BAD_JOB  # a parameter SQLite cannot hold
    if isinstance(error, sqlite3.Error):
        return _BY_CODE.get(getattr(error, "sqlite_errorcode", -1) & 0xFF, BROKEN)
    return BAD_JOB


@contextmanager
def translated() -> Iterator[None]:
    """Turn what the database, the disk or a value too odd to store raises into QueueError.

    The detail never holds content of a job: SQLite's messages name columns, not values.
    """
    try:
        yield
    except (UnicodeError, OverflowError) as error:
        raise QueueError(BAD_JOB, type(error).__name__) from error
    except (sqlite3.Error, OSError) as error:
        raise QueueError(_reason(error), str(error)) from error
