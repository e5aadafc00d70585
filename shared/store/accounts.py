"""Accounts in the central database: reading, writing, importing. Not: their SMS (`ledger.py`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from itertools import islice
from typing import Any, Final, Literal, NamedTuple, TypedDict, Unpack

from sqlalchemy import ColumnElement, Row, case, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.accounts import Account
from shared.store.database import Database, insert_into
from shared.store.tables import accounts
from shared.store.values import address_key, can_be_key

_C: Final = accounts.c
_FIELDS: Final = tuple(field.name for field in fields(Account))
_SELECT: Final = select(*(_C[name] for name in _FIELDS))

_CHUNK: Final = 500
_SECONDS_PER_CHUNK: Final = 1.0


class Changes(TypedDict, total=False):
    """What `set` and an import may change; what is left out stays as it is."""

    address: str
    locale: str
    timezone: str
    clock: Literal["12", "24"] | None
    sms_number: str
    sms_credit: int


class Imported(NamedTuple):
    """What an import did."""

    added: int
    changed: int


class AccountStore:
    """The accounts of a `Database`, whose errors and deadlines hold here as well.

    Values are stored as given: who takes them from people checks them (`fields.py`). `wall` is
    the clock of `updated_at`.
    """

    def __init__(self, database: Database, wall: Callable[[], float] = time.time) -> None:
        self._database = database
        self._wall = wall

    async def get(self, account: str) -> Account | None:
        """Return an account by its name; None if there is none."""
        return await self._first(account, _C.account == account)

    async def get_many(self, names: Collection[str]) -> dict[str, Account]:
        """Return those of the accounts that there are, by name; one question for all."""
        wanted = [name for name in names if can_be_key(name)]
        async with self._database.reading() as connection:
            rows = (await connection.execute(_SELECT.where(_C.account.in_(wanted)))).all()
        found = map(_account, rows)
        return {account.account: account for account in found}

    async def by_address(self, address: str) -> Account | None:
        """Return whose mail address this is; of several, the first by name.

        An account without an address of its own has its name. Case matters before the `@` only.
        """
        return await self._first(address, _C.address_key == address_key(address))

    async def _first(self, text: str, condition: ColumnElement[bool]) -> Account | None:
        if not can_be_key(text):
            return None
        async with self._database.reading() as connection:
            query = _SELECT.where(condition).order_by(_C.account).limit(1)
            row = (await connection.execute(query)).first()
        return _account(row) if row else None

    async def list(self, prefix: str = "", limit: int = 1000, after: str = "") -> Sequence[Account]:
        """Return accounts in bytewise order of their names; `after` is the last one seen."""
        if not (can_be_key(prefix) and can_be_key(after)):
            return []
        query = _SELECT.where(_C.account > after, _C.account >= prefix)
        query = query.where(func.substr(_C.account, 1, len(prefix)) == prefix)  # LIKE ignores case
        async with self._database.reading() as connection:
            rows = await connection.execute(query.order_by(_C.account).limit(limit))
            return [_account(row) for row in rows]

    async def add(self, account: Account) -> bool:
        """Store a new account; False if there is one of that name, which stays as it is."""
        async with self._database.writing() as connection:
            insert = insert_into(connection, accounts).values(**self._row(account))
            result = await connection.execute(insert.on_conflict_do_nothing())
            return result.rowcount == 1

    async def put(self, account: Account) -> None:
        """Store an account, whole, whether there was one of that name or not."""
        async with self._database.writing() as connection:
            values = self._row(account)
            insert = insert_into(connection, accounts).values(**values)
            await connection.execute(
                insert.on_conflict_do_update(index_elements=[_C.account], set_=values)
            )

    async def set(self, account: str, **changes: Unpack[Changes]) -> Account | None:
        """Change some of an account and return it as it is now; None if there is none."""
        if not can_be_key(account):
            return None
        change = update(accounts).where(_C.account == account)
        change = change.values(**self._changed(account, changes))
        async with self._database.writing() as connection:
            row = (await connection.execute(change.returning(*_SELECT.selected_columns))).first()
        return _account(row) if row else None

    async def add_credit(self, account: str, units: int) -> Account | None:
        """Add to an account's credit, or take away, to 0 at the least; None if there is none.

        The one write that must not be blindly repeated after StoreError("unavailable").
        """
        if not can_be_key(account):
            return None
        credit = _C.sms_credit + units
        change = update(accounts).where(_C.account == account)
        change = change.values(sms_credit=case((credit < 0, 0), else_=credit))
        async with self._database.writing() as connection:
            row = (await connection.execute(change.returning(*_SELECT.selected_columns))).first()
        return _account(row) if row else None

    async def delete(self, account: str) -> bool:
        """Delete an account and its credit; what was sent for it stays known. False if none was."""
        if not can_be_key(account):
            return False
        async with self._database.writing() as connection:
            result = await connection.execute(delete(accounts).where(_C.account == account))
            return result.rowcount == 1

    async def import_many(self, rows: Mapping[str, Changes]) -> Imported:
        """Add the accounts named, or change what is given of those that exist: all or nothing."""
        added = 0
        seconds = self._database.seconds + len(rows) / _CHUNK * _SECONDS_PER_CHUNK
        async with self._database.writing(seconds) as connection:
            # In the order of names, or two imports at once could each wait for the other.
            for chunk in _chunks(sorted(rows)):
                known = select(func.count()).select_from(accounts).where(_C.account.in_(chunk))
                added += len(chunk) - (await connection.scalar(known) or 0)
                await self._import(connection, {account: rows[account] for account in chunk})
        return Imported(added, len(rows) - added)

    async def _import(self, connection: AsyncConnection, rows: Mapping[str, Changes]) -> None:
        """Insert or change; the rows that give the same fields share one statement."""
        groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for account, changes in rows.items():
            values = self._changed(account, changes)
            values.setdefault("address_key", address_key(account))
            groups.setdefault(tuple(sorted(changes)), []).append({"account": account, **values})
        for names, values_of_group in groups.items():
            insert = insert_into(connection, accounts)
            keys = ("address_key",) if "address" in names else ()
            taken = {name: insert.excluded[name] for name in (*names, *keys, "updated_at")}
            await connection.execute(
                insert.on_conflict_do_update(index_elements=[_C.account], set_=taken),
                values_of_group,
            )

    def _row(self, account: Account) -> dict[str, Any]:
        key = address_key(account.address or account.account)
        return {**asdict(account), "address_key": key, "updated_at": self._wall()}

    def _changed(self, account: str, changes: Changes) -> dict[str, Any]:
        values: dict[str, Any] = {**changes, "updated_at": self._wall()}
        if "address" in changes:
            values["address_key"] = address_key(changes["address"] or account)
        return values


def _account(row: Row[Any]) -> Account:
    return Account(**dict(zip(_FIELDS, row, strict=True)))


def _chunks(names: Iterable[str]) -> Iterator[Sequence[str]]:
    left = iter(names)
    while chunk := list(islice(left, _CHUNK)):
        yield chunk
