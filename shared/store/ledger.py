"""The ledger of SMS: credit is taken before a message goes out, and given back if it did not.

    reserve ─▶ reserved ─mark_sending─▶ sending ─settle─▶ sent
                  ▲  │                   │  │ ▲
                  │  └──────refund───────┤  └─┴─mark_unknown─ unknown (then as from sending)
                  └───back_to_reserved───┘
                     refunded ─reserve─▶ reserved

- **Each job has one row**, by its key; every step is one transaction and may be repeated.
- **Before the request** to the provider the row says "sending", on disk. Whoever finds it so –
  after a crash, or because `mark_sending` says 0 – cannot know whether the SMS went out and must
  ask the provider, never just send.
- **The credit is exact:** what an account was given is its credit plus the units of its rows in any
  state but "refunded". `audit` adds them up.
- **A step may happen late:** one that timed out can still be committed by a database that was
  stopped meanwhile. So what takes "sending" back names the attempt it is about.

Knows no provider, no clock and no runtime: `now` is seconds since the epoch, from the caller. All
raise StoreError, like `Database`.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final

from sqlalchemy import Row, Update, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.errors import StoreError
from shared.store import failures
from shared.store.database import Database, insert_into
from shared.store.sends import Audit, Reservation, Send, SendState, Verdict
from shared.store.tables import accounts, sms_opt_outs, sms_sends
from shared.store.values import can_be_key, stored_key

_S: Final = sms_sends.c


_COLUMNS: Final = tuple(_S[column.name] for column in fields(Send))
_AMBIGUOUS: Final = (SendState.SENDING, SendState.UNKNOWN)
_OPEN: Final = (SendState.RESERVED, *_AMBIGUOUS)
_TRIES: Final = 3


class Ledger:
    """What SMS cost whom, in a `Database` shared by any number of workers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def reserve(
        self, job_key: str, account: str, number: str, units: int, now: float
    ) -> Reservation:
        """Take `units` (1 or more) of the account's credit for this job, or say why not.

        What the job did before decides: what may have been sent stays as it is; what was not sent
        goes on, to this number and with these units; what was refunded is taken again. A job that
        is refused keeps no credit.
        """
        if units < 1:
            raise ValueError("an SMS has at least one unit")
        if not can_be_key(account) or not can_be_key(number):
            return Reservation(Verdict.NO_ACCOUNT, None)
        wanted = Send(
            *(stored_key(job_key), account, number, units, SendState.RESERVED, 0, None, now),
            sending_at=None,
            settled_at=None,
        )
        async with self._database.writing() as connection:
            return await self._reserve(connection, wanted)

    async def _reserve(self, connection: AsyncConnection, wanted: Send) -> Reservation:
        earlier = await _claim_row(connection, wanted)
        if earlier is None:
            verdict = await _take_credit(connection, wanted)
            if verdict is not Verdict.NEW:
                await connection.rollback()
                return Reservation(verdict, None)
            return Reservation(verdict, wanted)
        if earlier.state not in (SendState.RESERVED, SendState.REFUNDED):
            return Reservation(Verdict(earlier.state), earlier)
        return await self._reserve_again(connection, earlier, wanted)

    async def _reserve_again(
        self, connection: AsyncConnection, earlier: Send, wanted: Send
    ) -> Reservation:
        """Let a job that sent nothing yet go on, with what it wants now."""
        was_reserved = earlier.state is SendState.RESERVED
        if earlier.account != wanted.account:
            await _lock_accounts(connection, earlier.account, wanted.account)
        if was_reserved:
            await _give_credit(connection, earlier.account, earlier.units)
        verdict = await _take_credit(connection, wanted)
        if verdict is not Verdict.NEW:
            row = await _changed(
                connection, earlier, state=SendState.REFUNDED, settled_at=wanted.reserved_at
            )
            return Reservation(verdict, row)
        row = await _changed(
            connection,
            earlier,
            state=SendState.RESERVED,
            account=wanted.account,
            number=wanted.number,
            units=wanted.units,
            reserved_at=wanted.reserved_at,
            settled_at=None,
        )
        return Reservation(Verdict.RESERVED if was_reserved else Verdict.NEW, row)

    async def mark_sending(self, job_key: str, now: float) -> int:
        """Say that the request to the provider comes next; return the number of this attempt.

        0: the job is not in "reserved" (any more), so it must not be sent. If this raises, nothing
        may be sent either.
        """
        change = (
            update(sms_sends)
            .where(_S.job_key == stored_key(job_key), _S.state == SendState.RESERVED)
            .values(state=SendState.SENDING, sending_at=now, attempt=_S.attempt + 1)
        )
        async with self._database.writing() as connection:
            return await connection.scalar(change.returning(_S.attempt)) or 0

    async def settle(
        self, job_key: str, provider_id: str, units_used: int | None, now: float
    ) -> bool:
        """Note that the provider has it; False if the job never reserved anything.

        The provider's count of units, if it has one yet (not None, not 0), corrects the credit,
        which does not go below 0. Taken in any state: that it was sent is never to be forgotten.
        """
        async with self._database.writing() as connection:
            row = await _locked(connection, job_key)
            if row is None or row.state is SendState.SENT:
                return row is not None
            taken = 0 if row.state is SendState.REFUNDED else row.units
            more = (units_used or row.units) - taken
            units = taken + await _correct_credit(connection, row.account, more)
            await _changed(
                connection,
                row,
                state=SendState.SENT,
                units=units,
                provider_id=provider_id,
                settled_at=now,
            )
        return True

    async def refund(self, job_key: str, now: float, *, attempt: int | None = None) -> bool:
        """Give the credit back, once, for what was not sent; True if that is so now.

        False for what was sent, what never reserved, and if another than `attempt` is under way.
        """
        async with self._database.writing() as connection:
            row = await _locked(connection, job_key)
            if row is None or row.state not in _OPEN or _other_attempt(row, attempt):
                return row is not None and row.state is SendState.REFUNDED
            await _give_credit(connection, row.account, row.units)
            await _changed(connection, row, state=SendState.REFUNDED, settled_at=now)
        return True

    async def back_to_reserved(self, job_key: str, *, attempt: int | None = None) -> bool:
        """Note that it was definitely not sent and will be tried later; True if that is so now.

        `attempt` is what `mark_sending` returned: another one is not taken back.
        """
        async with self._database.writing() as connection:
            row = await _locked(connection, job_key)
            if row is None or row.state not in _AMBIGUOUS or _other_attempt(row, attempt):
                return row is not None and row.state is SendState.RESERVED
            await _changed(connection, row, state=SendState.RESERVED, settled_at=None)
        return True

    async def mark_unknown(self, job_key: str, now: float, *, attempt: int | None = None) -> bool:
        """Note that it may have been sent and the provider cannot say; True if that is so now."""
        async with self._database.writing() as connection:
            row = await _locked(connection, job_key)
            if row is None or row.state is not SendState.SENDING or _other_attempt(row, attempt):
                return row is not None and row.state is SendState.UNKNOWN
            await _changed(connection, row, state=SendState.UNKNOWN, settled_at=now)
        return True

    async def get_send(self, job_key: str) -> Send | None:
        """Return the job's row; None if it has none."""
        query = select(*_COLUMNS).where(_S.job_key == stored_key(job_key))
        async with self._database.reading() as connection:
            row = (await connection.execute(query)).first()
        return _send(row) if row else None

    async def is_settled(self, provider_id: str, job_key: str) -> bool:
        """Tell whether what the provider calls so is known to be the SMS of another job.

        For who asks the provider what became of one: two jobs may have sent the same words.
        """
        query = select(_S.job_key).where(
            _S.provider_id == provider_id,
            _S.state == SendState.SENT,
            _S.job_key != stored_key(job_key),
        )
        async with self._database.reading() as connection:
            return await connection.scalar(query.limit(1)) is not None

    async def unfinished(self, before: float, limit: int = 1000) -> list[Send]:
        """Return rows that hold credit since before then, oldest first: their jobs may be gone."""
        query = select(*_COLUMNS).where(_S.state.in_(_OPEN), _S.reserved_at < before)
        async with self._database.reading() as connection:
            rows = await connection.execute(query.order_by(_S.reserved_at).limit(limit))
            return [_send(row) for row in rows]

    async def purge(self, before: float) -> int:
        """Forget what was sent or refunded before then; return how many rows that was.

        Not sooner than a job can come again, or it would be sent again.
        """
        done = _S.state.in_((SendState.SENT, SendState.REFUNDED))
        gone = delete(sms_sends).where(done, _S.settled_at < before)
        async with self._database.writing() as connection:
            return (await connection.execute(gone)).rowcount

    async def opt_out(self, number: str, reason: str, now: float) -> None:
        """Remember that no SMS may go to `number`; the first reason stays."""
        async with self._database.writing() as connection:
            insert = insert_into(connection, sms_opt_outs)
            values = {"number": number, "reason": reason, "since": now}
            await connection.execute(insert.values(**values).on_conflict_do_nothing())

    async def opt_in(self, number: str) -> bool:
        """Let SMS go to `number` again; False if they could already."""
        async with self._database.writing() as connection:
            gone = delete(sms_opt_outs).where(sms_opt_outs.c.number == number)
            return (await connection.execute(gone)).rowcount == 1

    async def audit(self) -> Audit:
        """Return all units there are, as they are at one moment."""
        by_state = [
            select(func.coalesce(func.sum(_S.units), 0)).where(_S.state == state).scalar_subquery()
            for state in ("reserved", "sending", "sent", "unknown")
        ]
        credit = select(func.coalesce(func.sum(accounts.c.sms_credit), 0)).scalar_subquery()
        async with self._database.reading() as connection:
            row = (await connection.execute(select(credit, *by_state))).one()
        return Audit(*map(int, row))


async def _claim_row(connection: AsyncConnection, wanted: Send) -> Send | None:
    """Make the job's row, or return the one there is; ours alone until the transaction ends.

    First of all, so that of two workers with the same job one waits here for the other.
    """
    values = {column.name: getattr(wanted, column.name) for column in _COLUMNS}
    insert = insert_into(connection, sms_sends).values(**values).on_conflict_do_nothing()
    for _ in range(_TRIES):
        if (await connection.execute(insert)).rowcount == 1:
            return None
        if earlier := await _locked(connection, wanted.job_key):
            return earlier
        # It was purged, or undone, between the two.
    raise StoreError(failures.UNAVAILABLE, "a row that comes and goes")


async def _locked(connection: AsyncConnection, job_key: str) -> Send | None:
    """Return the job's row, and let nobody else change it until the transaction ends."""
    query = select(*_COLUMNS).where(_S.job_key == stored_key(job_key)).with_for_update()
    row = (await connection.execute(query)).first()
    return _send(row) if row else None


async def _take_credit(connection: AsyncConnection, wanted: Send) -> Verdict:
    """Take the units if the number may be written to and the credit is there; NEW says so."""
    stopped = select(sms_opt_outs.c.number).where(sms_opt_outs.c.number == wanted.number)
    if await connection.scalar(stopped) is not None:
        return Verdict.OPTED_OUT
    # One statement looks and takes, or two workers could both see the last unit.
    taken = _credit(wanted.account, -wanted.units).where(accounts.c.sms_credit >= wanted.units)
    if (await connection.execute(taken)).rowcount == 1:
        return Verdict.NEW
    known = select(accounts.c.account).where(accounts.c.account == wanted.account)
    there = await connection.scalar(known) is not None
    return Verdict.OUT_OF_CREDIT if there else Verdict.NO_ACCOUNT


async def _lock_accounts(connection: AsyncConnection, *names: str) -> None:
    """Keep two accounts to ourselves, in the order of names: others may want the same two."""
    query = select(accounts.c.account).where(accounts.c.account.in_(names))
    await connection.execute(query.order_by(accounts.c.account).with_for_update())


async def _give_credit(connection: AsyncConnection, account: str, units: int) -> None:
    """Give units back; those of an account that was deleted are lost with it."""
    await connection.execute(_credit(account, units))


async def _correct_credit(connection: AsyncConnection, account: str, more: int) -> int:
    """Take `more` units, as far as there are, or give back -`more`; return how many were taken."""
    query = select(accounts.c.sms_credit).where(accounts.c.account == account).with_for_update()
    credit = await connection.scalar(query)
    if credit is None:
        return 0
    taken = min(more, int(credit))
    await connection.execute(_credit(account, -taken))
    return taken


def _credit(account: str, units: int) -> Update:
    change = update(accounts).where(accounts.c.account == account)
    return change.values(sms_credit=accounts.c.sms_credit + units)


async def _changed(connection: AsyncConnection, row: Send, **values: object) -> Send:
    change = update(sms_sends).where(_S.job_key == row.job_key).values(**values)
    return _send((await connection.execute(change.returning(*_COLUMNS))).one())


def _other_attempt(row: Send, attempt: int | None) -> bool:
    return attempt is not None and row.attempt != attempt


def _send(row: Row[Any]) -> Send:
    values = row._mapping  # noqa: SLF001  public, underscored to make room for column names
    return Send(**{**values, "state": SendState(values["state"])})
