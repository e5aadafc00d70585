"""Making the tables of the central database, and changing them with a new version.

The steps are in `migrations/versions`. Loads alembic, so it is imported by who migrates only.
"""

from __future__ import annotations

import io
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from shared.errors import StoreError
from shared.slow_sections import Store as StoreSection
from shared.store import failures
from shared.store.database import Database, Deadline, Schema, schema_advice
from shared.store.engines import make_sqlite_file, sqlite_path
from shared.store.tables import LOCK

_FOLDER = Path(__file__).parent / "migrations"

#: Longest time for all steps, and for waiting until another process has done them.
PATIENCE_SECONDS = 3600.0


async def migrate(section: StoreSection, *, deadline: Deadline, revision: str = "head") -> Schema:
    """Bring the tables to this version, all or nothing; return how they were before.

    Makes the file of an embedded store. Two at once wait for each other. A newer schema is
    StoreError("schema"). An older `revision` ("base" is no tables) goes back to that.
    """
    path = sqlite_path(section)
    if path is not None:
        make_sqlite_file(path)
    database = Database(section, deadline=deadline, patient=True)
    try:
        found = await database.schema()
        if found is Schema.NEWER:
            raise StoreError(failures.SCHEMA, schema_advice(found))
        async with database.writing(PATIENCE_SECONDS) as connection:
            await connection.run_sync(_run, revision)
    finally:
        await database.close()
    return found


async def ensure_schema(section: StoreSection, *, deadline: Deadline) -> None:
    """Make the tables of an embedded store; for PostgreSQL only demand that they are there.

    For a daemon's start: several of them share one PostgreSQL, and the operator says when that
    changes. StoreError("schema") says that it has to.
    """
    if sqlite_path(section) is not None:
        await migrate(section, deadline=deadline)
        return
    database = Database(section, deadline=deadline)
    try:
        await database.check()
    finally:
        await database.close()


def migration_sql(section: StoreSection) -> str:
    """Return what `migrate` would run on an empty database, for a careful operator."""
    output = io.StringIO()
    config = _config(output)
    config.attributes["dialect"] = "postgresql" if sqlite_path(section) is None else "sqlite"
    command.upgrade(config, "head", sql=True)
    return output.getvalue()


def _run(connection: Connection, revision: str) -> None:
    if connection.dialect.name == "postgresql":
        # Before alembic looks what is there; SQLite's BEGIN IMMEDIATE has done the same. Alembic
        # keeps its context in a global, so this is also for two tasks of one process.
        connection.exec_driver_sql(LOCK)
    config = _config(io.StringIO())
    config.attributes["connection"] = connection
    if revision == "head":
        command.upgrade(config, revision)
    else:
        command.downgrade(config, revision)


def _config(output: io.StringIO) -> Config:
    config = Config(output_buffer=output)
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    return config
