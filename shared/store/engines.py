"""Which database the store is, and how the embedded one is opened. PostgreSQL: `postgresql.py`.

Knows no tables and no transactions.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import URL, Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from shared.slow_sections import Store as StoreSection
from shared.store import failures

_SQLITE: Final = "sqlite:///"

#: Execution option of a connection: its transaction is going to write.
WRITES: Final = "store_writes"


class _SqliteConnection(sqlite3.Connection):
    """A connection whose transaction ends with it.

    SQLite keeps a closed connection, and its lock, until each of its statements is finished; one
    that was cancelled may wait for the garbage collector.
    """

    def close(self) -> None:
        with suppress(sqlite3.Error):
            self.rollback()
        super().close()


def sqlite_path(section: StoreSection) -> Path | None:
    """Return the file of an embedded store; None if the store is PostgreSQL."""
    url = section.url
    return Path(url.removeprefix(_SQLITE)).absolute() if url.startswith(_SQLITE) else None


def make_sqlite_file(path: Path) -> None:
    """Make the file and its folder, for our eyes only; what is there already stays as it is."""
    with failures.translated():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))


def open_engine(section: StoreSection, *, patient: bool = False) -> AsyncEngine:
    """Return an engine that has not connected yet; `patient` lets statements take their time."""
    path = sqlite_path(section)
    if path is not None:
        return _sqlite(section, path, patient)
    from shared.store import postgresql  # loads asyncpg

    return postgresql.open_engine(section, patient=patient)


def _sqlite(section: StoreSection, path: Path, patient: bool) -> AsyncEngine:
    # One connection: writers would only wait for each other in SQLite, which is not fair to them.
    engine = create_async_engine(
        URL.create(
            "sqlite+aiosqlite",
            database=f"file:{quote(str(path))}",
            query={"mode": "rw", "uri": "true"},  # rw: a missing file is an error, not a new store
        ),
        connect_args={"timeout": section.timeout_seconds, "factory": _SqliteConnection},
        pool_size=1,
        max_overflow=0,
        pool_timeout=section.timeout_seconds,
        hide_parameters=True,
    )

    def connected(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # or the driver begins by itself, and never for DDL
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")  # a credit spent stays spent, power cut or not
        # A migration makes tables anew, which would delete what refers to the old one.
        cursor.execute(f"PRAGMA foreign_keys = {'OFF' if patient else 'ON'}")
        cursor.close()

    def begin(connection: Connection) -> None:
        # A transaction that reads first and writes later could lose its place to another: BUSY.
        writes = connection.get_execution_options().get(WRITES)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    event.listen(engine.sync_engine, "connect", connected)
    event.listen(engine.sync_engine, "begin", begin)
    return engine
