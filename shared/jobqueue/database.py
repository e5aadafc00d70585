"""One SQLite file opened the durable way: creation, schema, pragmas, transactions, reopening.

Knows nothing of what a job goes through. One connection, used under a lock, from any thread.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

from shared.errors import QueueError
from shared.jobqueue import failures
from shared.jobqueue.failures import translated
from shared.jobqueue.room import Ballast

T = TypeVar("T")

SCHEMA_VERSION: Final = 1
# Tells our file from another program's database that the configuration names by mistake ("MBPQ").
APPLICATION_ID: Final = 0x4D425051

_VACUUM_STEP_PAGES: Final = 64

# Attachments have a table of their own: SQLite rewrites a whole row when a claim changes it.
_SCHEMA: Final = (
    """
    CREATE TABLE jobs (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL,
        key TEXT NOT NULL,
        account TEXT NOT NULL,
        state TEXT NOT NULL DEFAULT 'ready' CHECK (state IN ('ready', 'claimed', 'buried')),
        held INTEGER NOT NULL DEFAULT 0,
        attempts INTEGER NOT NULL DEFAULT 0,
        created_at REAL NOT NULL,
        age_from REAL NOT NULL,
        due_at REAL NOT NULL,
        reason TEXT NOT NULL DEFAULT '',
        worker TEXT,
        lease_until REAL,
        ended_at REAL,
        attachment_bytes INTEGER,
        attachment_truncated INTEGER NOT NULL,
        attachment_error TEXT NOT NULL,
        payload BLOB NOT NULL,
        UNIQUE (kind, key)
    ) STRICT
    """,
    "CREATE INDEX jobs_ready ON jobs (kind, due_at, id) WHERE state = 'ready' AND held = 0",
    "CREATE INDEX jobs_claimed ON jobs (lease_until) WHERE state = 'claimed'",
    """
    CREATE TABLE attachments (
        job_id INTEGER PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
        body BLOB NOT NULL
    ) STRICT
    """,
    "CREATE TABLE done_keys (digest BLOB PRIMARY KEY, done_at REAL NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE INDEX done_keys_by_age ON done_keys (done_at)",
)


class Database:
    """The opened file. `read` and `write` raise QueueError and leave it usable again afterwards.

    `ballast` is given up when a write that may use the last reserve meets a full disk.
    """

    def __init__(
        self,
        path: Path,
        *,
        ballast: Ballast | None = None,
        max_bytes: int | None = None,
        read_only: bool = False,
        busy_timeout_seconds: float = 5.0,
    ) -> None:
        self.path = path
        self._ballast = ballast
        self._max_bytes = max_bytes
        self._read_only = read_only
        self._busy_timeout_seconds = busy_timeout_seconds
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None
        self._closed = False
        with translated():
            self._connected()

    def close(self) -> None:
        """Close the file; idempotent. Using it afterwards is QueueError("closed")."""
        with self._lock:
            self._closed = True
            self._disconnect()

    def read(self, sql: str, values: Mapping[str, object] | None = None) -> list[sqlite3.Row]:
        """Return all rows; holds no lock on the file afterwards."""
        with self._lock, self._guarded():
            return self._connected().execute(sql, values or {}).fetchall()

    def write(self, work: Callable[[sqlite3.Connection], T], *, last_reserve: bool = True) -> T:
        """Run `work` in one transaction and return its result once that is durable.

        With `last_reserve`, a full disk costs the ballast and one more try, so `work` may run
        twice; on an error nothing of it has happened.
        """
        with self._lock:
            try:
                return self._transaction(work)
            except QueueError as error:
                full = error.reason in (failures.DISK_FULL, failures.IO_ERROR)
                if not (full and last_reserve and self._ballast and self._ballast.drop()):
                    raise
            return self._transaction(work)

    def give_back(self, pages: int) -> None:
        """Return up to about `pages` freed pages to the disk, as far as that has room for the log.

        In small commits: moving pages together needs room itself, and other writers want their
        turn.
        """
        with suppress(QueueError):  # a later call goes on; nothing depends on it
            for _ in range(0, pages, _VACUUM_STEP_PAGES):
                with self._lock, self._guarded():
                    connection = self._connected()
                    if _pragma(connection, "freelist_count") == 0:
                        return
                    # A script: `execute` stops after the first of this statement's empty rows.
                    connection.executescript(f"PRAGMA incremental_vacuum({_VACUUM_STEP_PAGES})")

    def _transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._guarded():
            connection = self._connected()
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                self._roll_back(connection)
                raise
            return result

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        if not connection.in_transaction:
            return  # SQLite has done it by itself, as it does after some errors
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._disconnect()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            with translated():
                yield
        except QueueError as error:
            # After these the connection's own view may be wrong: the next use gets a fresh one.
            if error.reason in (failures.IO_ERROR, failures.CORRUPT, failures.NO_ACCESS):
                self._disconnect()
            raise

    def _connected(self) -> sqlite3.Connection:
        """Return the connection, renewed if the file was removed or replaced under it.

        Without this, jobs would be acknowledged into a file nobody can find any more.
        """
        if self._closed:
            raise QueueError(failures.CLOSED)
        if self._connection is not None and self._inode != _inode(self.path):
            self._disconnect()
        if self._connection is None:
            self._connection = self._connect()
            self._inode = _inode(self.path)
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None

    def _connect(self) -> sqlite3.Connection:
        if self._read_only:
            if not self.path.exists():
                raise QueueError(failures.MISSING, str(self.path))
            return self._prepared(self._raw_connection("ro"), _check_filled)
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _only_one_at_a_time(self.path.parent):
            _create_private(self.path)
            return self._prepared(self._raw_connection("rw"), self._set_up)

    def _raw_connection(self, mode: str) -> sqlite3.Connection:
        return sqlite3.connect(
            f"file:{quote(os.fsencode(self.path))}?mode={mode}",
            uri=True,
            timeout=self._busy_timeout_seconds,
            isolation_level=None,
            check_same_thread=False,
        )

    def _prepared(
        self, connection: sqlite3.Connection, prepare: Callable[[sqlite3.Connection], None]
    ) -> sqlite3.Connection:
        try:
            connection.row_factory = sqlite3.Row
            prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_up(self, connection: sqlite3.Connection) -> None:
        if _pragma(connection, "user_version") == 0:
            _create_schema(connection)
        _check_schema(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 100")
        connection.execute("PRAGMA journal_size_limit = 1048576")
        connection.execute("PRAGMA foreign_keys = ON")
        # What a statement sets aside while it runs must not meet a full disk elsewhere.
        connection.execute("PRAGMA temp_store = MEMORY")
        if self._max_bytes is not None:
            pages = self._max_bytes // _pragma(connection, "page_size")
            connection.execute(f"PRAGMA max_page_count = {pages}")


def used_bytes(connection: sqlite3.Connection) -> int:
    """Return how much of the file holds something; freed pages are used again first."""
    pages = _pragma(connection, "page_count") - _pragma(connection, "freelist_count")
    return pages * _pragma(connection, "page_size")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    with closing(connection.execute(f"PRAGMA {name}")) as cursor:
        return int(cursor.fetchone()[0])


def _create_schema(connection: sqlite3.Connection) -> None:
    if _pragma(connection, "schema_version") != 0:
        raise QueueError(failures.SCHEMA, "not a queue: it holds other tables")
    # Must come before the first table; gives pages back to the disk after a backlog is drained.
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    for statement in _SCHEMA:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")


def _check_filled(connection: sqlite3.Connection) -> None:
    if _pragma(connection, "schema_version") == 0:
        raise QueueError(failures.MISSING, "the file is still empty")
    _check_schema(connection)


def _check_schema(connection: sqlite3.Connection) -> None:
    version = _pragma(connection, "user_version")
    if _pragma(connection, "application_id") != APPLICATION_ID:
        raise QueueError(failures.SCHEMA, "not a queue of this program")
    if version > SCHEMA_VERSION:
        raise QueueError(failures.SCHEMA, f"version {version} is newer than {SCHEMA_VERSION}")


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


@contextmanager
def _only_one_at_a_time(directory: Path) -> Iterator[None]:
    """Let one process at a time create: switching to WAL does not wait for locks by itself."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _create_private(path: Path) -> None:
    """Make an empty file only we can read, unless there is one; its name is durable then.

    An existing file is never opened here: closing it would drop SQLite's locks in this process.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
