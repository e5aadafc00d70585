"""How PostgreSQL is opened: URL, secret, deadlines, and how a connection that is stuck is left.

Knows no tables and no transactions.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from shared.errors import StoreError
from shared.slow_sections import Store as StoreSection
from shared.store import failures

# PostgreSQL lets our locks go if we stop in the midst of a transaction, after this many timeouts.
_IDLE_TIMEOUTS: Final = 2


class Connection(asyncpg.Connection):
    """A connection that is given up without a word when SQLAlchemy does not trust it any more."""

    async def close(self, *, timeout: float | None = None) -> None:
        """Take leave of the server; with a timeout (so SQLAlchemy closes after a failure) do not.

        A stopped server would make the caller wait that long beyond its own deadline.
        """
        if timeout is None:
            await super().close()
        else:
            self.terminate()


def open_engine(section: StoreSection, *, patient: bool) -> AsyncEngine:
    """Return an engine that has not connected yet; `patient` lets statements take their time."""
    seconds = section.timeout_seconds
    settings = {
        "application_name": "mailbox-pusher",
        "default_transaction_isolation": "read committed",
    }
    if not patient:
        idle = round(seconds * _IDLE_TIMEOUTS * 1000)
        settings["idle_in_transaction_session_timeout"] = f"{idle}ms"

    def connect() -> Awaitable[asyncpg.Connection]:
        # asyncpg reads the URL itself, as libpq does: sslmode, host=/run/postgresql, PGPASSFILE.
        return asyncpg.connect(
            section.url,
            password=_password(section),
            timeout=seconds,
            # For what is not under a deadline of ours, such as rolling back.
            command_timeout=None if patient else seconds,
            connection_class=Connection,
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
