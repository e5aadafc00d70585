"""The tables: the same from the steps as from `tables.py`, there and back, on both databases."""

from __future__ import annotations

import asyncio
import io
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from shared.accounts import Account
from shared.errors import StoreError
from shared.slow_sections import Store as StoreSection
from shared.store import Database, Schema, Store, tables
from shared.store import migrate as migrating
from shared.store.migrate import ensure_schema, migrate, migration_sql
from tests.support.postgres import PostgresServer

pytestmark = [pytest.mark.asyncio, pytest.mark.real]


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def section(request: pytest.FixtureRequest, tmp_path: Path) -> StoreSection:
    if request.param == "sqlite":
        return StoreSection(url=f"sqlite:///{tmp_path}/state.db")
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.section()


async def look(section: StoreSection, question: Any) -> Any:
    """Return `question(connection)`, asked of the database itself."""
    database = Database(section, deadline=asyncio.timeout)
    try:
        async with database.reading() as connection:
            return await connection.run_sync(question)
    finally:
        await database.close()


async def schema(section: StoreSection) -> Schema:
    database = Database(section, deadline=asyncio.timeout)
    try:
        return await database.schema()
    finally:
        await database.close()


def table_names(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names()) - {tables.VERSION_TABLE}


def differences(connection: Connection) -> list[Any]:
    options = {"version_table": tables.VERSION_TABLE, "compare_server_default": True}
    context = MigrationContext.configure(connection, opts=options)
    return list(compare_metadata(context, tables.METADATA))


def constraint_names(connection: Connection) -> set[str | None]:
    found = inspect(connection)
    return {
        name
        for table in tables.METADATA.tables
        for name in (
            found.get_pk_constraint(table)["name"],
            *(check["name"] for check in found.get_check_constraints(table)),
            *(index["name"] for index in found.get_indexes(table)),
        )
    }


def our_names() -> set[str]:
    """The names of all constraints and indexes in `tables.py`, by its naming convention."""
    return {
        str(name)
        for table in tables.METADATA.tables.values()
        for name in (
            *(constraint.name for constraint in table.constraints),
            *(index.name for index in table.indexes),
        )
    }


async def test_steps_make_exactly_the_tables_of_the_code(section: StoreSection) -> None:
    assert await schema(section) is Schema.MISSING
    assert await migrate(section, deadline=asyncio.timeout) is Schema.MISSING
    assert await schema(section) is Schema.CURRENT
    assert await look(section, differences) == []
    assert await look(section, constraint_names) == our_names()


async def test_migrating_again_changes_nothing(section: StoreSection) -> None:
    await migrate(section, deadline=asyncio.timeout)
    async with Store(section, deadline=asyncio.timeout) as store:
        await store.accounts.put(Account("alice"))
        assert await migrate(section, deadline=asyncio.timeout) is Schema.CURRENT
        assert await store.accounts.get("alice") is not None


async def test_up_down_and_up_again(section: StoreSection) -> None:
    await migrate(section, deadline=asyncio.timeout)
    await migrate(section, deadline=asyncio.timeout, revision="base")
    assert await look(section, table_names) == set()
    assert await schema(section) is Schema.MISSING
    await migrate(section, deadline=asyncio.timeout)
    assert await look(section, differences) == []


async def test_several_migrating_at_once_wait_for_each_other(section: StoreSection) -> None:
    await asyncio.gather(*(migrate(section, deadline=asyncio.timeout) for _ in range(4)))
    assert await look(section, differences) == []


async def test_step_that_fails_leaves_the_tables_as_they_were(
    section: StoreSection, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = migrating._run

    def run_and_fail(connection: Connection, revision: str) -> None:
        run(connection, revision)
        connection.exec_driver_sql("SELECT * FROM nowhere")

    monkeypatch.setattr(migrating, "_run", run_and_fail)
    with pytest.raises(StoreError):
        await migrate(section, deadline=asyncio.timeout)
    assert await look(section, table_names) == set()


async def test_tables_of_a_newer_version_are_left_alone(section: StoreSection) -> None:
    await migrate(section, deadline=asyncio.timeout)
    database = Database(section, deadline=asyncio.timeout)
    async with database.writing() as connection:
        await connection.exec_driver_sql(f"UPDATE {tables.VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(StoreError, match="newer version") as raised:
        await database.check()
    assert raised.value.reason == "schema"
    await database.close()
    for change in (migrate, ensure_schema):
        with pytest.raises(StoreError, match="newer version"):
            await change(section, deadline=asyncio.timeout)


async def test_daemon_makes_the_embedded_tables_but_never_those_of_a_shared_database(
    section: StoreSection,
) -> None:
    if section.url.startswith("sqlite"):
        await ensure_schema(section, deadline=asyncio.timeout)
    else:
        with pytest.raises(StoreError, match="run `notifyd migrate`") as raised:
            await ensure_schema(section, deadline=asyncio.timeout)
        assert raised.value.reason == "schema"
        await migrate(section, deadline=asyncio.timeout)
        await ensure_schema(section, deadline=asyncio.timeout)
    assert await schema(section) is Schema.CURRENT


async def test_missing_tables_are_a_schema_to_be_made_and_no_breakage(
    section: StoreSection,
) -> None:
    await migrate(section, deadline=asyncio.timeout, revision="base")
    async with Store(section, deadline=asyncio.timeout) as store:
        with pytest.raises(StoreError) as raised:
            await store.accounts.get("alice")
        assert raised.value.reason == "schema"


async def test_written_out_sql_makes_the_same_tables(
    section: StoreSection, postgres: PostgresServer
) -> None:
    sql = migration_sql(section)
    if section.url.startswith("sqlite"):
        with sqlite3.connect(section.url.removeprefix("sqlite:///")) as connection:
            connection.executescript(sql)
        connection.close()
    else:
        postgres.sql(sql, section.url.partition("?")[0].rpartition("/")[2])
    assert await schema(section) is Schema.CURRENT
    assert await look(section, differences) == []


async def test_code_knows_the_newest_step_and_steps_sort_as_text() -> None:
    scripts = ScriptDirectory.from_config(migrating._config(io.StringIO()))
    revisions = [script.revision for script in scripts.walk_revisions()]
    assert scripts.get_heads() == [tables.REVISION]
    assert revisions == sorted(revisions, reverse=True)
