"""`notifyd migrate` and `notifyd users …`: the central database in an operator's hands.

Works on the database itself, whether the programs run or not. Not: how accounts look
(`users_tables.py`), nor what is a good value (`shared.store.fields`).
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final, cast

from cyclopts import App, Parameter

from notifyd import users_tables as tables
from notifyd.queue_tables import as_json, escaped
from shared.accounts import Account
from shared.config import load
from shared.errors import StoreError
from shared.store import Changes, Schema, Store, fields
from shared.store import failures as reasons
from shared.store.rows import Format, parse

Flag = Parameter(negative="")

#: What the shell gets when the store says no, by StoreError.reason; sysexits.h.
EXIT_CODES: Final = {
    reasons.UNAVAILABLE: os.EX_TEMPFAIL,
    reasons.SCHEMA: os.EX_CONFIG,
    reasons.BROKEN: os.EX_SOFTWARE,
}
_PAGE: Final = 1000
_DONE: Final = {
    Schema.MISSING: "tables made",
    Schema.OLDER: "tables brought up to date",
    Schema.CURRENT: "tables are up to date already",
}

users_app = App(name="users", help="Look at the accounts of the central database and change them.")
credit_app = App(name="credit", help="Change how many SMS segments an account may still send.")
users_app.command(credit_app)


@Parameter(name="*")
@dataclass(frozen=True)
class Where:
    """The options of every verb."""

    config: Path | None = None
    """Configuration file."""


@Parameter(name="*")
@dataclass(frozen=True)
class Look(Where):
    """The options of a verb that reads."""

    json: Annotated[bool, Flag] = False
    """Write JSON, one object a line."""


@Parameter(name="*")
@dataclass(frozen=True)
class Given:
    """What is said of an account; "" empties a field, then the configured default holds."""

    address: str | None = None
    """Where its mail goes, if that is not the account's name."""

    locale: str | None = None
    """Language, such as `de` or `pt-BR`."""

    timezone: str | None = None
    """Time zone, such as `Europe/Berlin`."""

    clock: str | None = None
    """Hours as `12` (3 PM) or `24` (15:00)."""

    sms_number: str | None = None
    """International number, such as `+491701234567`."""

    sms_credit: str | None = None
    """SMS segments it may still send."""


_HERE = Where()
_LOOK = Look()
_NOTHING = Given()


def migrate(*, sql: Annotated[bool, Flag] = False, where: Where = _HERE) -> int:
    """Make the tables of the central database, or bring them to this version.

    Parameters
    ----------
    sql
        Only write what would be run on an empty database.
    """
    from shared.store import migrate as steps  # alembic: nobody else needs it

    section = load(where.config).store
    if sql:
        sys.stdout.write(steps.migration_sql(section))
        return os.EX_OK
    try:
        found = asyncio.run(steps.migrate(section, deadline=asyncio.timeout))
    except StoreError as error:
        return _failed(error)
    _write([_DONE[found]])
    return os.EX_OK


@users_app.command
def add(account: str, /, *, given: Given = _NOTHING, where: Where = _HERE) -> int:
    """Add an account."""
    problems, changes = _checked(account, given)
    if problems:
        return _complain("; ".join(problems), os.EX_USAGE)

    async def work(store: Store) -> int:
        if await store.accounts.add(Account(account, **changes)):
            return os.EX_OK
        return _complain(f"there is an account {account} already", os.EX_CANTCREAT)

    return _run(work, where)


@users_app.command(name="set")
def set_fields(account: str, /, *, given: Given = _NOTHING, where: Where = _HERE) -> int:
    """Change what is given of an account; the rest stays as it is."""
    problems, changes = _checked(account, given)
    if not changes and not problems:
        problems = ["say what to change"]
    if problems:
        return _complain("; ".join(problems), os.EX_USAGE)

    async def work(store: Store) -> int:
        changed = await store.accounts.set(account, **changes)
        return os.EX_OK if changed else _unknown([account])

    return _run(work, where)


@users_app.command
def show(account: str, /, *, look: Look = _LOOK) -> int:
    """Show an account."""

    async def work(store: Store) -> int:
        found = await store.accounts.get(account)
        if found is None:
            return _unknown([account])
        _write([tables.account_json(found)] if look.json else tables.show_lines(found))
        return os.EX_OK

    return _run(work, look)


@users_app.command(name="list")
def list_accounts(prefix: str = "", /, *, limit: int | None = None, look: Look = _LOOK) -> int:
    """List accounts by name, all or those whose name begins with PREFIX."""

    async def work(store: Store) -> int:
        left = limit if limit is not None else sys.maxsize
        page = await store.accounts.list(prefix, min(left, _PAGE))
        _write([] if look.json else [tables.LIST_HEADER])
        while page:
            _write(map(tables.account_json if look.json else tables.list_row, page))
            left -= len(page)
            page = await store.accounts.list(prefix, min(left, _PAGE), after=page[-1].account)
        return os.EX_OK

    return _run(work, look)


@users_app.command(name="import")
def import_accounts(
    file: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    form: Annotated[Format | None, Parameter(name="--format")] = None,
    dry_run: Annotated[bool, Flag] = False,
    look: Look = _LOOK,
) -> int:
    """Add or change the accounts of a file, all or none: CSV with a header, or JSON lines.

    Parameters
    ----------
    file
        The file; `-` is the standard input.
    form
        How it is written, if it cannot be told from its first character.
    dry_run
        Only check it.
    """
    try:
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        return _complain(str(error), os.EX_NOINPUT)
    try:
        rows, problems = parse(raw.decode("utf-8"), form)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        rows, problems = {}, [f"line {line}: not UTF-8"]
    for problem in problems:
        _complain(problem, os.EX_DATAERR)
    if problems:
        return os.EX_DATAERR
    if dry_run:
        return os.EX_OK

    async def work(store: Store) -> int:
        done = await store.accounts.import_many(rows)
        text = (
            as_json(done._asdict()) if look.json else f"{done.added} added {done.changed} changed"
        )
        _write([text])
        return os.EX_OK

    return _run(work, look)


@users_app.command
def delete(*accounts: str, where: Where = _HERE) -> int:
    """Delete accounts with their credit."""
    if not accounts:
        return _complain("name the accounts", os.EX_USAGE)

    async def work(store: Store) -> int:
        unknown = [name for name in accounts if not await store.accounts.delete(name)]
        return _unknown(unknown) if unknown else os.EX_OK

    return _run(work, where)


@credit_app.command(name="add")
def add_credit(account: str, units: str, /, *, look: Look = _LOOK) -> int:
    """Add UNITS to the credit of an account and show what it is now."""
    return _change_credit(account, units, 1, look)


@credit_app.command(name="take")
def take_credit(account: str, units: str, /, *, look: Look = _LOOK) -> int:
    """Take UNITS from the credit of an account, to 0 at the least, and show what it is now."""
    return _change_credit(account, units, -1, look)


def _change_credit(account: str, units: str, sign: int, look: Look) -> int:
    try:
        change = sign * fields.sms_credit(units)
    except ValueError as error:
        return _complain(f"{error} (got {units!r})", os.EX_USAGE)

    async def work(store: Store) -> int:
        found = await store.accounts.get(account)
        if found is not None and found.sms_credit + change > fields.MOST_CREDIT:
            return _complain(f"nobody may have more than {fields.MOST_CREDIT}", os.EX_DATAERR)
        found = await store.accounts.add_credit(account, change)
        if found is None:
            return _unknown([account])
        credit = {"account": account, "sms_credit": found.sms_credit}
        _write([as_json(credit) if look.json else str(found.sms_credit)])
        return os.EX_OK

    return _run(work, look, hint="; look at it with `users show` before you try again")


def _checked(account: str, given: Given) -> tuple[list[str], Changes]:
    """Return what is wrong with the arguments, and what they say in its normal form."""
    changes: dict[str, object] = {}
    problems: list[str] = []
    texts = {"account": account, **asdict(given)}
    for name, check in {"account": fields.account, **fields.CHECKS}.items():
        if (text := texts[name]) is None:
            continue
        try:
            changes[name] = check(text)
        except ValueError as error:
            problems.append(f"{name}: {error} (got {text!r})")
    changes.pop("account", None)
    return problems, cast("Changes", changes)


def _run(work: Callable[[Store], Awaitable[int]], where: Where, *, hint: str = "") -> int:
    """Let `work` use the store; return its exit code, or the one that says why there was none."""

    async def with_store() -> int:
        async with Store(load(where.config).store, deadline=asyncio.timeout) as store:
            return await work(store)

    try:
        return asyncio.run(with_store())
    except StoreError as error:
        return _failed(error, hint if error.reason == reasons.UNAVAILABLE else "")


def _failed(error: StoreError, hint: str = "") -> int:
    return _complain(f"store: {error}{hint}", EXIT_CODES[error.reason])


def _unknown(accounts: Iterable[str]) -> int:
    return _complain(f"no such account: {', '.join(accounts)}", os.EX_NOUSER)


def _write(lines: Iterable[str]) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)


def _complain(text: str, exit_code: int) -> int:
    sys.stderr.write(f"notifyd: {escaped(text)}\n")
    return exit_code
