"""A burst of alarms is one question to the database."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import cast

import pytest

from notifyd.recipients import Recipients
from shared.accounts import Account
from shared.errors import StoreError
from shared.store import AccountStore

pytestmark = pytest.mark.asyncio

ALICE = Account("alice@example.org", address="alice@example.net", locale="de")


class Accounts:
    """A database with one account, that counts questions and may be down."""

    def __init__(self) -> None:
        self.questions = 0
        self.is_down = False
        self.account = ALICE

    async def get_many(self, names: Collection[str]) -> dict[str, Account]:
        await asyncio.sleep(0)
        found = self._answer(self.account.account in names)
        return {} if found is None else {found.account: found}

    async def by_address(self, address: str) -> Account | None:
        return self._answer(address == self.account.address)

    def _answer(self, is_known: bool) -> Account | None:
        self.questions += 1
        if self.is_down:
            raise StoreError("unavailable")
        return self.account if is_known else None


class World:
    def __init__(self) -> None:
        self.accounts = Accounts()
        store = cast(AccountStore, self.accounts)
        self.recipients = Recipients(store, "wait")


async def test_those_who_ask_at_once_are_answered_at_once() -> None:
    world = World()
    names = [f"u{number}" for number in range(50)] + ["alice@example.org"] * 2
    found = await asyncio.gather(*(world.recipients.account(name) for name in names))
    assert [account.account for account in found] == names
    assert found[-1] == found[-2] == ALICE
    assert world.accounts.questions == 1
    world.accounts.is_down = True
    answers = await asyncio.gather(
        *(world.recipients.account(f"v{number}") for number in range(5)), return_exceptions=True
    )
    assert all(isinstance(answer, StoreError) for answer in answers)


async def test_a_database_that_gives_no_answer_is_not_remembered_as_one() -> None:
    world = World()
    world.accounts.is_down = True
    with pytest.raises(StoreError):
        await world.recipients.account("alice@example.org")
    world.accounts.is_down = False
    assert await world.recipients.account("alice@example.org") == ALICE
