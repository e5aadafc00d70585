"""Why the store did not answer: what two databases and their drivers raise, in our reasons."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import DBAPIError, InvalidRequestError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from shared.errors import StoreError

UNAVAILABLE: Final = "unavailable"
SCHEMA: Final = "schema"
BROKEN: Final = "broken"

#: Every reason a StoreError can have, for metrics to start at zero.
REASONS: Final = (UNAVAILABLE, SCHEMA, BROKEN)

#: What to do about missing tables.
ADVICE: Final = "run `notifyd migrate` first"

# What time or an operator cures, by the first characters of SQLSTATE (PostgreSQL, appendix A):
# connection, login, database missing, rolled back, no right, out of resources, read-only standby,
# cut off while idle in a transaction, lock not had, cancelled or shutting down, disk.
_CURABLE: Final = ("08", "28", "3D", "40", "42501", "53", "25006", "25P03", "55P03", "57", "58")
_NO_TABLE: Final = ("42P01", "42703", "3F000")

# Primary result codes: https://www.sqlite.org/rescode.html
_SQLITE_CURABLE: Final = ("BUSY", "LOCKED", "FULL", "IOERR", "CANTOPEN", "READONLY", "PERM", "AUTH")
_SQLITE_NO_TABLE: Final = re.compile("no such (table|column)|has no column").search


@contextmanager
def translated() -> Iterator[None]:
    """Turn what a driver, the pool or the network raises into StoreError; our own mistakes pass.

    The detail names the kind of failure and never holds content of a row.
    """
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        reason = reason_of(error)
        if reason is None:
            raise
        raise StoreError(reason, _detail(reason, error)) from error


def reason_of(error: BaseException) -> str | None:
    """Return why `error` happened, or None if it is none of a database's."""
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return UNAVAILABLE
        return (reason_of(error.orig) if error.orig else None) or BROKEN
    if isinstance(error, OSError | TimeoutError | PoolTimeout):
        return UNAVAILABLE
    if isinstance(error, SQLAlchemyError):
        return None if isinstance(error, InvalidRequestError) else BROKEN
    if state := getattr(error, "sqlstate", None):
        return _by_sqlstate(str(state))
    if name := getattr(error, "sqlite_errorname", None):
        return _by_sqlite(str(name), str(error))
    # asyncpg's own complaints, such as "connection is closed"; its name is not imported here, so
    # that who uses SQLite need not load it.
    return UNAVAILABLE if type(error).__module__.startswith("asyncpg.") else None


def lost_connection(error: BaseException) -> bool:
    """Tell whether a pooled connection was dead already, so that a new one may do."""
    return isinstance(error, DBAPIError) and error.connection_invalidated


def _by_sqlstate(state: str) -> str:
    if state in _NO_TABLE:
        return SCHEMA
    return UNAVAILABLE if state.startswith(_CURABLE) else BROKEN


def _by_sqlite(name: str, message: str) -> str:
    if _SQLITE_NO_TABLE(message):
        return SCHEMA
    return UNAVAILABLE if name.removeprefix("SQLITE_").startswith(_SQLITE_CURABLE) else BROKEN


def _detail(reason: str, error: BaseException) -> str:
    """Name the failure, or the cure; the error's text only where that cannot quote a row."""
    if reason == SCHEMA:
        return ADVICE
    if isinstance(error, TimeoutError | PoolTimeout):
        return "no answer in time"
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    cause = cause.__cause__ or cause
    name = type(cause).__name__
    state = str(getattr(cause, "sqlstate", None) or "")
    if state and not state.startswith(_CURABLE):
        return f"{name} ({state})"
    quotable = state or isinstance(cause, OSError) or hasattr(cause, "sqlite_errorname")
    text = str(cause).partition("\n")[0] if quotable else ""
    return f"{name}: {text}" if text else name
