"""The central database: accounts, and the ledger of their SMS. SQLite or PostgreSQL.

    store = Store(config.store, deadline=asyncio.timeout)
    account = await store.accounts.get("alice@example.org")
    ...
    await store.close()

- **Nothing waits for ever:** each call ends after `store.timeout_seconds`, with an answer or with
  StoreError("unavailable"). It connects anew by itself when the database is back.
- **A write that raised may have happened.** Repeating it is harmless, `add_credit` excepted.
- **Needs asyncio's event loop** (the drivers do), but does not import it: pusher calls it in a
  thread of its own.

The tables are made by `shared.store.migrate`.
"""

from __future__ import annotations

from types import TracebackType

from shared.slow_sections import Store as StoreSection
from shared.store.accounts import AccountStore, Changes, Imported
from shared.store.database import Database, Deadline, Schema
from shared.store.ledger import Ledger
from shared.store.sends import Audit, Reservation, Send, SendState, Verdict

__all__ = [
    "AccountStore",
    "Audit",
    "Changes",
    "Database",
    "Deadline",
    "Imported",
    "Ledger",
    "Reservation",
    "Schema",
    "Send",
    "SendState",
    "Store",
    "Verdict",
]


class Store:
    """`async with Store(section, deadline=asyncio.timeout) as store:`; connects when first used."""

    def __init__(self, section: StoreSection, *, deadline: Deadline) -> None:
        self.database = Database(section, deadline=deadline)
        self.accounts = AccountStore(self.database)
        self.ledger = Ledger(self.database)

    async def check(self) -> None:
        """Return if the database answers and has our tables; StoreError otherwise."""
        await self.database.check()

    async def close(self) -> None:
        """Close all connections; idempotent."""
        await self.database.close()

    async def __aenter__(self) -> Store:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
