"""Who is to be told, and in which language: the accounts of the central database.

Knows what to do when it has no answer; not what is said.
"""

from __future__ import annotations

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

    async def account(self, name: str) -> Account:
        """Return the account `name`."""
        try:
            return await self._accounts.get(name) or Account(name)
        except StoreError as error:
            self._fall_back(error)
            return Account(name)

    async def reader(self, address: str, otherwise: Account) -> Account:
        """Return whose mail address it is, or `otherwise`: who has set the alarm."""
        if address == address_of(otherwise):
            return otherwise
        try:
            return await self._accounts.by_address(address) or otherwise
        except StoreError as error:
            self._fall_back(error)
            return otherwise

    def _fall_back(self, error: StoreError) -> None:
        if self._fallback == "wait":
            raise error
        self.fallbacks += 1
        log.warning("store_fallback", reason=error.reason)


def address_of(account: Account) -> str:
    """Return where mail for the account goes; it may be no address at all."""
    return account.address or account.account
