"""How each of the two databases is opened: URL, secret, file modes, and what every connection sets.

Knows no tables and no transactions.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from sqlalchemy import URL, Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from shared.errors import StoreError
from shared.sections import Store as StoreSection
from shared.store import failures

if TYPE_CHECKING:
    from asyncpg import Connection as Asyncpg

_SQLITE: Final = "sqlite:///"

#: Execution option of a connection: its transaction is going to write.
WRITES: Final = "store_writes"

# PostgreSQL lets our locks go if we stop in the midst of a transaction, after this many timeouts.
_IDLE_TIMEOUTS: Final = 2


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
    return _postgresql(section, patient) if path is None else _sqlite(section, path, patient)


def _sqlite(section: StoreSection, path: Path, patient: bool) -> AsyncEngine:
    # One connection: writers would only wait for each other in SQLite, which is not fair to them.
    engine = create_async_engine(
        URL.create(
            "sqlite+aiosqlite",
            database=f"file:{quote(str(path))}",
            query={"mode": "rw", "uri": "true"},  # rw: a missing file is an error, not a new store
        ),
        connect_args={"timeout": section.timeout_seconds},
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


def _postgresql(section: StoreSection, patient: bool) -> AsyncEngine:
    seconds = section.timeout_seconds
    settings = {
        "application_name": "mailbox-pusher",
        "default_transaction_isolation": "read committed",
        "idle_in_transaction_session_timeout": f"{round(seconds * _IDLE_TIMEOUTS * 1000)}ms",
    }
    if patient:
        del settings["idle_in_transaction_session_timeout"]

    def connect() -> Awaitable[Asyncpg]:
        import asyncpg

        # asyncpg reads the URL itself, as libpq does: sslmode, host=/run/postgresql, PGPASSFILE.
        return asyncpg.connect(
            section.url,
            password=_password(section),
            timeout=seconds,
            command_timeout=None if patient else seconds,
            server_settings=settings,
        )

    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        pool_size=section.connections,
        max_overflow=0,
        pool_timeout=seconds,
        hide_parameters=True,
    )


def _password(section: StoreSection) -> str | None:
    """Read the secret anew for each connection, so that a changed one needs no restart."""
    if section.password_file is None:
        return None
    try:
        return section.password_file.read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        detail = f"store.password_file: {type(error).__name__}"
        raise StoreError(failures.UNAVAILABLE, detail) from error
