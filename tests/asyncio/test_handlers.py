"""What each kind of job comes to: who is told, in which language, and what is refused or waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest
import pytest_asyncio

from notifyd.compose.mail import Mail
from notifyd.handlers import (
    CALENDAR_ALARM,
    CREDIT_WARNING,
    KINDS,
    SIEVE_NOTIFY,
    SIEVE_SMS,
    Services,
    handlers,
)
from notifyd.phrasebook import read_voice
from notifyd.recipients import Recipients
from notifyd.sms import Sent, SmsOutcome
from notifyd.texting import OUT_OF_CREDIT, Texter
from shared.accounts import Account
from shared.errors import DecodeError, QueueError
from shared.events import CalendarAlarm, SieveNotify
from shared.jobqueue import Job, NewJob
from shared.outcome import Delivered, Outcome, Rejected, Retry, Unavailable
from shared.slow_sections import Mail as MailSection
from shared.slow_sections import Sms
from shared.slow_sections import Store as StoreSection
from shared.store import Store
from shared.store.migrate import migrate
from tests.support.played_sms import no_answer

pytestmark = pytest.mark.asyncio

NOW = datetime(2026, 11, 24, 23, 59, tzinfo=UTC).timestamp()
GUEST = "guest@example.com"
PHONE = "+15105550177"
ALICE = Account(
    "alice@example.org",
    address="alice.home@example.net",
    locale="de",
    timezone="Europe/Berlin",
    sms_number="+15105550101",
    sms_credit=2,
)
BOB = Account("bob@example.org", locale="fr")
#: Its name is no address, and it has none.
NAMELESS = Account("nameless")
MAIL = b"From: Eve <eve@example.com>\r\nSubject: Rechnung\r\n\r\nbitte zahlen\r\n"

ALARM = CalendarAlarm(
    account=ALICE.account,
    uid="u",
    action="email",
    alarm_time="20261124T024500Z",
    summary="Stand-up",
    timezone="UTC",
    start="20261124T030000Z",
    end="20261124T033000Z",
)
MAILTO = SieveNotify(
    account=ALICE.account, method="mailto", recipients=(GUEST,), message="new mail"
)
TEXT = SieveNotify(account=ALICE.account, method="sms", recipients=(PHONE,), message="new mail")


@dataclass
class Mails:
    """A mailer that answers as told and remembers all."""

    sent: list[Mail] = field(default_factory=list)
    answer: Outcome = field(default_factory=lambda: Delivered("queued"))

    async def send(self, mail: Mail) -> Outcome:
        self.sent.append(mail)
        return self.answer

    async def close(self) -> None:
        """Nothing is open."""


@dataclass
class Texts:
    """A provider that takes all and remembers it."""

    sent: list[tuple[str, str]] = field(default_factory=list)
    can_look_up: bool = True

    async def send(self, to: str, text: str, key: str) -> SmsOutcome:
        self.sent.append((to, text))
        return Sent(f"SM{len(self.sent)}", 1)

    async def lookup(
        self, to: str, text: str, since: datetime
    ) -> Sequence[Sent] | Retry | Unavailable:
        return ()

    async def close(self) -> None:
        """Nothing is open."""


@dataclass
class World:
    """Handlers on a real store in SQLite; mails, SMS and new jobs are only remembered."""

    services: Services
    mails: Mails
    texts: Texts
    store: Store
    enqueued: list[NewJob]

    async def handle(
        self,
        kind: str,
        payload: CalendarAlarm | SieveNotify | bytes,
        *,
        account: str = ALICE.account,
        key: str = "key",
        attachment: bytes | None = None,
    ) -> Outcome:
        data = payload if isinstance(payload, bytes) else payload.to_json()
        return await handlers(self.services)[kind](job(kind, data, account, key, attachment))

    def break_store(self, fallback: Literal["wait", "default-locale"]) -> None:
        """Let the database give no answer from now on."""
        self.store.database._deadline = no_answer
        self.services.recipients = Recipients(self.store.accounts, fallback)


def job(kind: str, payload: bytes, account: str, key: str, attachment: bytes | None) -> Job:
    return Job(
        id=1,
        kind=kind,
        key=key,
        account=account,
        payload=payload,
        state="claimed",
        attempts=1,
        created_at=NOW,
        age_from=NOW,
        due_at=NOW,
        reason="",
        worker="w",
        lease_until=NOW + 60,
        ended_at=None,
        attachment_bytes=None if attachment is None else len(attachment),
        attachment_truncated=False,
        attachment_error="",
        attachment=attachment,
    )


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    section = StoreSection(url=f"sqlite:///{tmp_path}/state.db")
    await migrate(section, deadline=asyncio.timeout)
    mails, texts, enqueued = Mails(), Texts(), list[NewJob]()

    async def enqueue(new: NewJob) -> None:
        enqueued.append(new)

    async with Store(section, deadline=asyncio.timeout) as store:
        for account in (ALICE, BOB, NAMELESS):
            await store.accounts.put(account)
        services = Services(
            recipients=Recipients(store.accounts, "wait"),
            voice=read_voice(MailSection(sender="notifications@example.org")),
            mailer=mails,
            texter=Texter(texts, store.ledger, lambda: NOW),
            sms=Sms(),
            enqueue=enqueue,
            wall=lambda: NOW,
        )
        yield World(services, mails, texts, store, enqueued)


async def test_every_kind_has_a_handler(world: World) -> None:
    assert set(handlers(world.services)) == set(KINDS)


# --- calendar alarms ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipients", "account", "to", "language"),
    [
        ((), ALICE.account, ALICE.address, "de"),
        ((ALICE.account,), ALICE.account, ALICE.address, "de"),
        ((ALICE.address,), ALICE.account, ALICE.address, "de"),
        ((BOB.account,), ALICE.account, BOB.account, "fr"),
        ((GUEST,), ALICE.account, GUEST, "de"),
        ((ALICE.address,), BOB.account, ALICE.address, "de"),
        ((), "unknown@example.org", "unknown@example.org", "en"),
    ],
    ids=["himself", "by-name", "by-address", "another", "guest", "invited", "unknown-account"],
)
async def test_an_alarm_goes_to_its_recipient_in_his_language(
    world: World, recipients: tuple[str, ...], account: str, to: str, language: str
) -> None:
    alarm = CalendarAlarm(
        account=account, uid="u", recipients=recipients, timezone="UTC", start=ALARM.start
    )
    assert await world.handle(CALENDAR_ALARM, alarm, account=account) == Delivered("queued")
    (mail,) = world.mails.sent
    assert mail.recipient == to
    assert mail.message["Content-Language"] == language


async def test_an_alarm_without_an_account_is_the_one_of_its_job(world: World) -> None:
    payload = CalendarAlarm(account="", uid="u", timezone="UTC", start=ALARM.start).to_json()
    await world.handle(CALENDAR_ALARM, payload)
    assert world.mails.sent[0].recipient == ALICE.address


async def test_the_same_job_is_the_same_mail(world: World) -> None:
    for key in ("one", "one", "two"):
        await world.handle(CALENDAR_ALARM, ALARM, key=key)
    first, again, other = (mail.message["Message-ID"] for mail in world.mails.sent)
    assert first == again != other


@pytest.mark.parametrize(
    "answer", [Delivered("x"), Retry("450"), Rejected("550"), Unavailable("refused")]
)
@pytest.mark.parametrize(
    ("kind", "payload"),
    [(CALENDAR_ALARM, ALARM), (SIEVE_NOTIFY, MAILTO), (CREDIT_WARNING, b'{"v":1}')],
)
async def test_what_the_mail_server_answers_is_what_the_job_comes_to(
    world: World, answer: Outcome, kind: str, payload: CalendarAlarm | SieveNotify | bytes
) -> None:
    world.mails.answer = answer
    assert await world.handle(kind, payload) == answer


# --- jobs that make no sense ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "payload", "reason"),
    [
        (CALENDAR_ALARM, b"nonsense", "bad-payload"),
        (CALENDAR_ALARM, b'{"version":2,"account":"a"}', "unknown-version"),
        (CALENDAR_ALARM, CalendarAlarm(account="nameless", start=ALARM.start), "bad-recipient"),
        (CALENDAR_ALARM, CalendarAlarm(account=ALICE.account, start="?"), "unknown-start"),
        (SIEVE_NOTIFY, b"[]", "bad-payload"),
        (SIEVE_NOTIFY, SieveNotify(method="mailto", message="x"), "no-recipient"),
        (SIEVE_NOTIFY, SieveNotify(method="mailto", recipients=("a b",)), "bad-recipient"),
        (SIEVE_NOTIFY, SieveNotify(method="xmpp", recipients=(GUEST,)), "unknown-method"),
        (SIEVE_SMS, b"{", "bad-payload"),
        (SIEVE_SMS, SieveNotify(method="sms", recipients=("123",), message="x"), "bad-number"),
        (SIEVE_SMS, SieveNotify(method="sms", recipients=(PHONE,)), "nothing-to-say"),
    ],
)
async def test_a_job_that_makes_no_sense_says_why_and_sends_nothing(
    world: World, kind: str, payload: CalendarAlarm | SieveNotify | bytes, reason: str
) -> None:
    with pytest.raises(DecodeError) as raised:
        await world.handle(kind, payload)
    assert raised.value.reason == reason
    assert not world.mails.sent
    assert not world.texts.sent


async def test_a_notification_about_a_notification_is_a_loop(world: World) -> None:
    await world.handle(SIEVE_NOTIFY, MAILTO, attachment=MAIL)
    first = world.mails.sent[0].message.as_bytes()
    with pytest.raises(DecodeError, match="loop"):
        await world.handle(SIEVE_NOTIFY, MAILTO, attachment=first)


# --- SMS ------------------------------------------------------------------------------------------


async def test_a_script_that_names_no_number_means_the_owners(world: World) -> None:
    asked = SieveNotify(account=ALICE.account, method="sms", message="new mail")
    assert await world.handle(SIEVE_SMS, asked) == Delivered("SM1")
    assert world.texts.sent == [(ALICE.sms_number, "new mail")]


async def test_without_a_number_anywhere_there_is_no_recipient(world: World) -> None:
    asked = SieveNotify(account=BOB.account, method="sms", message="new mail")
    with pytest.raises(DecodeError, match="no-recipient"):
        await world.handle(SIEVE_SMS, asked)


async def test_without_a_provider_an_sms_is_refused_and_costs_nothing(world: World) -> None:
    world.services.texter = None
    assert await world.handle(SIEVE_SMS, TEXT) == Rejected("no SMS provider is configured")
    assert (await world.store.ledger.audit()).credit == ALICE.sms_credit


async def test_out_of_credit_the_account_is_warned_once_a_day(world: World) -> None:
    await world.store.accounts.set(ALICE.account, sms_credit=0)
    for key in ("one", "two"):
        assert await world.handle(SIEVE_SMS, TEXT, key=key) == Rejected(OUT_OF_CREDIT)
    world.services.wall = lambda: NOW + 120  # the next day
    await world.handle(SIEVE_SMS, TEXT, key="three")

    first, again, tomorrow = world.enqueued
    assert (first.kind, first.account) == (CREDIT_WARNING, ALICE.account)
    assert first.key == again.key != tomorrow.key  # equal keys are one job for the queue
    assert not world.texts.sent

    await world.handle(CREDIT_WARNING, first.payload, account=first.account, key=first.key)
    (mail,) = world.mails.sent
    assert mail.recipient == ALICE.address
    assert mail.message["Content-Language"] == "de"


async def test_a_warning_that_cannot_be_queued_is_not_forgotten(world: World) -> None:
    async def refuse(_: NewJob) -> None:
        raise QueueError("disk-full")

    await world.store.accounts.set(ALICE.account, sms_credit=0)
    world.services.enqueue = refuse
    with pytest.raises(QueueError):  # the worker hands the job back, and it comes again
        await world.handle(SIEVE_SMS, TEXT)


async def test_an_account_that_is_not_known_sends_no_sms(world: World) -> None:
    stranger = SieveNotify(account="nobody", method="sms", recipients=(PHONE,), message="x")
    assert await world.handle(SIEVE_SMS, stranger) == Rejected("no such account")
    assert not world.enqueued


# --- a database that gives no answer --------------------------------------------------------------

ALL: list[tuple[str, CalendarAlarm | SieveNotify | bytes]] = [
    (CALENDAR_ALARM, ALARM),
    (SIEVE_NOTIFY, MAILTO),
    (SIEVE_SMS, TEXT),
    (CREDIT_WARNING, b'{"v":1}'),
]


@pytest.mark.parametrize(("kind", "payload"), ALL)
async def test_jobs_wait_for_the_database(
    world: World, kind: str, payload: CalendarAlarm | SieveNotify | bytes
) -> None:
    world.break_store("wait")
    outcome = await world.handle(kind, payload)
    assert isinstance(outcome, Unavailable)
    assert outcome.reason.startswith("store: unavailable")
    assert not world.mails.sent
    assert not world.texts.sent


async def test_with_the_fallback_mails_go_in_the_default_language_and_sms_wait(
    world: World,
) -> None:
    world.break_store("default-locale")
    results = {kind: await world.handle(kind, payload) for kind, payload in ALL}
    assert isinstance(results.pop(SIEVE_SMS), Unavailable)
    assert set(results.values()) == {Delivered("queued")}
    languages = [mail.message["Content-Language"] for mail in world.mails.sent]
    assert "de" not in languages
    assert [mail.recipient for mail in world.mails.sent] == [ALICE.account, GUEST, ALICE.account]
    assert world.services.recipients.fallbacks >= 3


@pytest.mark.parametrize(
    ("kind", "payload", "account"),
    [
        (SIEVE_SMS, SieveNotify(account=ALICE.account, method="sms", message="x"), ALICE.account),
        (CALENDAR_ALARM, CalendarAlarm(account="carol", start=ALARM.start), "carol"),
        (CREDIT_WARNING, b'{"v":1}', "carol"),
    ],
    ids=["own-number", "alarm-to-a-name", "warning-to-a-name"],
)
async def test_the_fallback_buries_nothing_for_want_of_an_address_only_the_database_has(
    world: World, kind: str, payload: CalendarAlarm | SieveNotify | bytes, account: str
) -> None:
    world.break_store("default-locale")
    assert isinstance(await world.handle(kind, payload, account=account), Unavailable)
