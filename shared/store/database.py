"""Transactions on the central database, each with a deadline; breakages come as StoreError.

Knows no tables but the one with the schema's revision. Which runtime it is on, only the caller
knows: the drivers need asyncio's loop, the deadline comes as an argument.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Select, Table, column, literal_column, select, table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.errors import StoreError
from shared.slow_sections import Store as StoreSection
from shared.store import failures
from shared.store.engines import WRITES, open_engine, sqlite_path
from shared.store.failures import translated
from shared.store.tables import REVISION, VERSION_TABLE

#: Gives up what is inside after so many seconds with TimeoutError, such as `asyncio.timeout`.
Deadline = Callable[[float], AbstractAsyncContextManager[object]]

# SQLite waits for a lock inside a call that cannot be given up; its own timeout comes first.
_SQLITE_GRACE_SECONDS: Final = 1.0

_PROBE: Final[Select[Any]] = select(literal_column("1"))
_REVISION: Final[Select[Any]] = select(column("version_num")).select_from(table(VERSION_TABLE))


class Schema(StrEnum):
    """How the tables found compare with those this version works on."""

    CURRENT = "current"
    MISSING = "missing"
    OLDER = "older"
    NEWER = "newer"


class Database:
    """The opened store. Connects when first used, and anew whenever that is needed.

    Every method raises StoreError("unavailable") after `timeout_seconds` at the latest. Then a
    write may have happened, or may even happen later; so repeating any of ours must be harmless.
    """

    def __init__(self, section: StoreSection, *, deadline: Deadline, patient: bool = False) -> None:
        self._path = sqlite_path(section)
        self._engine = open_engine(section, patient=patient)
        self._deadline = deadline
        self.seconds = section.timeout_seconds

    async def close(self) -> None:
        """Close all connections; idempotent."""
        await self._engine.dispose()

    async def check(self) -> None:
        """Return if the store answers and has our tables; StoreError otherwise. For readiness."""
        found = await self.schema()
        if found is not Schema.CURRENT:
            raise StoreError(failures.SCHEMA, schema_advice(found))

    async def schema(self) -> Schema:
        """Return how the tables found compare with ours."""
        try:
            async with self.reading() as connection:
                found = await connection.scalar(_REVISION)
        except StoreError as error:
            if error.reason == failures.SCHEMA:
                return Schema.MISSING
            raise
        return _compared(found)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """`async with` a transaction that only reads."""
        async with self._transaction(False, self.seconds) as connection:
            yield connection

    @asynccontextmanager
    async def writing(self, seconds: float | None = None) -> AsyncIterator[AsyncConnection]:
        """`async with` a transaction: committed at its end, undone by any exception.

        `await connection.rollback()` inside undoes what was done so far. `seconds` is a deadline
        other than the configured one.
        """
        async with self._transaction(True, seconds or self.seconds) as connection:
            yield connection

    @asynccontextmanager
    async def _transaction(self, writes: bool, seconds: float) -> AsyncIterator[AsyncConnection]:
        if self._path is not None:
            seconds += _SQLITE_GRACE_SECONDS
            if not self._path.exists():
                raise StoreError(failures.SCHEMA, schema_advice(Schema.MISSING))
        with translated():
            async with self._deadline(seconds), self._connected(writes) as connection:
                yield connection
                await connection.commit()

    @asynccontextmanager
    async def _connected(self, writes: bool) -> AsyncIterator[AsyncConnection]:
        connection = await self._live_connection(writes)
        try:
            yield connection
        except BaseException as error:
            await self._let_go(connection, error)
            raise
        await connection.close()

    async def _live_connection(self, writes: bool) -> AsyncConnection:
        """Return a connection in a transaction; a pooled one may have died since its last use."""
        connection = self._engine.connect()
        try:
            return await self._begun(connection, writes)
        except BaseException as error:
            await self._let_go(connection, error)
            if not failures.lost_connection(error):
                raise
        connection = self._engine.connect()  # the pool has thrown away all others as well
        try:
            return await self._begun(connection, writes)
        except BaseException as error:
            await self._let_go(connection, error)
            raise

    async def _begun(self, connection: AsyncConnection, writes: bool) -> AsyncConnection:
        await connection.start()
        await connection.execution_options(**{WRITES: writes})
        await connection.execute(_PROBE)
        return connection

    async def _let_go(self, connection: AsyncConnection, error: BaseException) -> None:
        """Give the connection back, or throw it away at once if it may not answer any more."""
        started = connection.sync_connection
        if started is None:  # never got as far as a connection
            return
        given_up = isinstance(error, TimeoutError) or not isinstance(error, Exception)
        if given_up and self._path is None and not started.invalidated:
            await connection.invalidate()
        with suppress(Exception):  # the first error is the one to tell
            await connection.close()


def insert_into(connection: AsyncConnection, target: Table) -> postgresql.Insert | sqlite.Insert:
    """Return an INSERT that may say ON CONFLICT, which both databases spell the same."""
    on_postgresql = connection.dialect.name == "postgresql"
    return postgresql.insert(target) if on_postgresql else sqlite.insert(target)


def schema_advice(found: Schema) -> str:
    """Return what to do about a schema that is not ours."""
    if found is Schema.NEWER:
        return "the tables are of a newer version of this program"
    return failures.ADVICE


def _compared(found: str | None) -> Schema:
    if found is None:
        return Schema.MISSING
    if found == REVISION:
        return Schema.CURRENT
    return Schema.OLDER if found < REVISION else Schema.NEWER
