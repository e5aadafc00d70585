"""What it takes to watch notifyd from outside: marked jobs, its settings, its store's ledger.

A mark is in what comes out at the end: in the recipient of a mail, in the words of an SMS.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from contextlib import closing
from email.message import EmailMessage
from pathlib import Path
from typing import Final, TypeVar

from sqlalchemy import update

from pusher.protocol.notification import Notification, encode_dlist
from shared.accounts import Account
from shared.events import CalendarAlarm, SieveNotify
from shared.jobqueue import JobQueue, NewJob, QueueView, ring
from shared.slow_sections import Store as StoreSection
from shared.store import Audit, Store
from shared.store.migrate import migrate
from shared.store.tables import sms_sends
from tests.support.sms_far_end import ACCOUNT, TOKEN, FarEnd

T = TypeVar("T")

OWNER: Final = "ann@example.org"
SENDER: Final = "+15105550199"
Settings = dict[str, dict[str, object]]


def sms_settings(far: FarEnd, folder: Path, **more: object) -> Settings:
    """`[sms]` for Twilio at `far`; the token goes into a file in `folder`."""
    token = folder / "token"
    token.write_text(TOKEN)
    return {
        "sms": {
            "provider": "twilio",
            "base_url": far.url,
            "account_sid": ACCOUNT,
            "auth_token_file": str(token),
            "sender": SENDER,
            **more,
        }
    }


# --- what mail servers ask for, and the jobs made of it -------------------------------------------


def address(mark: str) -> str:
    """The address a mail with this mark goes to."""
    return f"{mark}@example.net"


def number(mark: str) -> str:
    """The number an SMS with this mark goes to: one of ten."""
    return f"+1510555010{sum(mark.encode()) % 10}"


def sieve_mail_request(mark: str, spooled: Path | None = None) -> bytes:
    """A script's mailto:, as Cyrus sends it."""
    return _sieve_request("mailto", (address(mark),), f"new mail\n{mark}", spooled)


def sms_request(mark: str) -> bytes:
    """A script's sms:, as Cyrus sends it."""
    return _sieve_request(f"sms:{number(mark)}", (), f"mark={mark};", None)


def _sieve_request(
    method: str, options: tuple[str, ...], message: str, spooled: Path | None
) -> bytes:
    path = str(spooled) if spooled is not None else None
    return encode_dlist(
        Notification(method, "SIEVE", "normal", OWNER, None, options, message.encode(), path)
    )


def alarm_job(mark: str, account: str = OWNER) -> NewJob:
    """A calendar alarm to the mark's address."""
    alarm = CalendarAlarm(
        account=account,
        uid=mark,
        action="email",
        alarm_time="20261124T024500Z",
        recipients=(address(mark),),
        summary="Stand-up",
        timezone="UTC",
        start="20261124T030000Z",
        end="20261124T033000Z",
    )
    return NewJob("calendar_alarm", mark, account, alarm.to_json())


def sieve_mail_job(mark: str, account: str = OWNER) -> NewJob:
    """A Sieve notification to the mark's address."""
    asked = SieveNotify(
        account=account, method="mailto", recipients=(address(mark),), message=f"new\n{mark}"
    )
    return NewJob("sieve_notify", mark, account, asked.to_json())


def sms_job(mark: str, account: str = OWNER) -> NewJob:
    """A Sieve notification by SMS, of one segment."""
    asked = SieveNotify(
        account=account, method="sms", recipients=(number(mark),), message=f"mark={mark};"
    )
    return NewJob("sieve_sms", mark, account, asked.to_json())


def put(path: Path, jobs: Iterable[NewJob], now: float) -> None:
    """Put jobs into the queue as pusher does, and ring."""
    with closing(JobQueue.open(path, min_free_bytes=0)) as queue:
        queue.enqueue(list(jobs), now)
    ring(path)


# --- what came of them ----------------------------------------------------------------------------


def marks_of_mails(mails: Iterable[EmailMessage]) -> list[str]:
    """The marks of mails in a Maildir, with repeats."""
    return [str(mail["X-Original-To"]).partition("@")[0] for mail in mails]


def marks_of_sms(far: FarEnd) -> list[str]:
    """The marks of what the provider has taken, with repeats."""
    return [mark for sms in list(far.ledger) for mark in re.findall(r"mark=([\w-]+);", sms.body)]


def counts(path: Path) -> dict[tuple[str, str], int]:
    """How many jobs are in the queue, by kind and state."""
    with closing(QueueView.open_read_only(path)) as view:
        return {(kind, state): number for (kind, state), number in view.counts().items()}


def buried(path: Path) -> list[str]:
    """Why jobs were buried."""
    with closing(QueueView.open_read_only(path)) as view:
        return [job.reason for job in view.jobs("buried")]


# --- the store ------------------------------------------------------------------------------------


def prepare_store(url: str, credit: int) -> None:
    """Make the tables, and the one account with so much credit."""
    asyncio.run(migrate(StoreSection(url=url), deadline=asyncio.timeout))
    with_store(url, lambda store: store.accounts.put(Account(OWNER, sms_credit=credit)))


def audit(url: str) -> Audit:
    """All units of SMS credit there are."""
    return with_store(url, lambda store: store.ledger.audit())


def with_store(url: str, work: Callable[[Store], Awaitable[T]]) -> T:
    """What `work` returns on the opened store."""

    async def opened() -> T:
        async with Store(StoreSection(url=url), deadline=asyncio.timeout) as store:
            return await work(store)

    return asyncio.run(opened())


def let_grace_pass(url: str, path: Path, now: float, seconds: float = 60.0) -> None:
    """Let the time pass in which a provider's list may lack what it took, and all other waits.

    For far ends that list at once what they took. Instead of our clock going on, what was noted
    goes back.
    """

    async def earlier(store: Store) -> None:

        async with store.database.writing() as connection:
            change = update(sms_sends).where(sms_sends.c.state == "unknown")
            await connection.execute(change.values(settled_at=sms_sends.c.settled_at - seconds))

    with_store(url, earlier)
    with closing(JobQueue.open(path, min_free_bytes=0)) as queue:
        queue.flush(None, now)
    ring(path)
