"""Who is to be told, and in which language: the accounts of the central database.

Knows what to do when it has no answer; not what is said.
"""

from __future__ import annotations

import asyncio
from typing import Literal

import structlog

from shared.accounts import Account
from shared.errors import StoreError
from shared.store import AccountStore

log = structlog.get_logger()


class Recipients:
    """Looks accounts up. An account the database does not know has the configured defaults.

    Raises StoreError when the database gives no answer, unless `fallback` is "default-locale":
    then it is as if it knew nobody, which is counted in `fallbacks`.
    """

    def __init__(self, accounts: AccountStore, fallback: Literal["wait", "default-locale"]) -> None:
        self.fallbacks = 0
        self._accounts = accounts
        self._fallback = fallback
        #: Names nobody has asked the database for yet, and who waits for the answer.
        self._asked: dict[str, asyncio.Future[Account | Exception | None]] = {}
        self._asking: asyncio.Task[None] | None = None

    async def account(self, name: str, *, must_be_known: bool = False) -> Account:
        """Return the account `name`; no fallback if it `must_be_known` where to send."""
        try:
            return await self._ask(name) or Account(name)
        except StoreError as error:
            if must_be_known:
                raise
            self._fall_back(error)
            return Account(name)

    async def reader(self, address: str, otherwise: Account) -> Account:
        """Return whose mail address it is, or `otherwise`: who has set the alarm."""
        if address == address_of(otherwise):
            return otherwise
        try:
            found = await self._accounts.by_address(address)
        except StoreError as error:
            self._fall_back(error)
            return otherwise
        return found or otherwise

    async def _ask(self, name: str) -> Account | None:
        """Ask the database together with all who ask while it answers the ones before."""
        if name not in self._asked:
            self._asked[name] = asyncio.get_running_loop().create_future()
        waiting = self._asked[name]
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_for_all())
        answer = await asyncio.shield(waiting)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _ask_for_all(self) -> None:
        await asyncio.sleep(0)  # whoever was started in the same turn asks as well
        while self._asked:
            asked, self._asked = self._asked, {}
            try:
                found = await self._accounts.get_many(asked)
            except Exception as error:  # theirs who asked, whatever it is
                for waiting in asked.values():
                    waiting.set_result(error)
            else:
                for name, waiting in asked.items():
                    waiting.set_result(found.get(name))
        self._asking = None

    def _fall_back(self, error: StoreError) -> None:
        if self._fallback == "wait":
            raise error
        self.fallbacks += 1
        log.warning("store_fallback", reason=error.reason)


def address_of(account: Account) -> str:
    """Return where mail for the account goes; it may be no address at all."""
    return account.address or account.account
