"""What the store promises, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import asyncio
import random
import stat
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from shared.accounts import Account
from shared.errors import StoreError
from shared.slow_sections import Store as StoreSection
from shared.store import Send, SendState, Store, Verdict
from shared.store.ledger import Ledger
from shared.store.migrate import migrate
from tests.support.postgres import PostgresServer

pytestmark = [pytest.mark.asyncio, pytest.mark.real]

ALICE = "alice@example.org"
NUMBER = "+491701234567"
NOW = 1_700_000_000.0
#: Names and texts that a database could take for something else.
ODD = ("O'Brien", "a%b_c", "ünï ✓ 🙂", "x" * 590, "a\nb", "\\", '"; DROP TABLE accounts; --', " ")
#: What PostgreSQL cannot hold, nor index.
IMPOSSIBLE = ("a\x00b", "\ud800", "x" * 5000)


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def section(request: pytest.FixtureRequest, tmp_path: Path) -> StoreSection:
    if request.param == "sqlite":
        return StoreSection(url=f"sqlite:///{tmp_path}/new/state.db")
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.section()


@pytest_asyncio.fixture
async def store(section: StoreSection) -> AsyncIterator[Store]:
    await migrate(section, deadline=asyncio.timeout)
    async with Store(section, deadline=asyncio.timeout) as opened:
        yield opened


@pytest_asyncio.fixture
async def ledger(store: Store) -> Ledger:
    """A ledger in which Alice has 10 units and may be written to."""
    await store.accounts.put(Account(ALICE, sms_number=NUMBER, sms_credit=10))
    return store.ledger


async def reserve(ledger: Ledger, job: str = "job", units: int = 1) -> Verdict:
    return (await ledger.reserve(job, ALICE, NUMBER, units, NOW)).verdict


async def row(ledger: Ledger, job: str = "job") -> Send:
    send = await ledger.get_send(job)
    assert send is not None
    return send


async def credit(store: Store) -> int:
    account = await store.accounts.get(ALICE)
    assert account is not None
    return account.sms_credit


# ---- accounts


async def test_account_comes_back_as_it_was_put(store: Store) -> None:
    account = Account(ALICE, "a@x.org", "pt-BR", "Europe/Berlin", "24", NUMBER, 7)
    assert await store.accounts.get(ALICE) is None
    await store.accounts.put(account)
    assert await store.accounts.get(ALICE) == account
    bare = Account(ALICE)
    await store.accounts.put(bare)
    assert await store.accounts.get(ALICE) == bare


@pytest.mark.parametrize("name", ODD)
async def test_odd_names_are_names_like_any_other(store: Store, name: str) -> None:
    account = Account(name, address=f"{name}@x", locale=name)
    assert await store.accounts.add(account)
    assert await store.accounts.get(name) == account
    assert await store.accounts.by_address(f"{name}@X") == account
    assert await store.accounts.list(name) == [account]
    assert await store.accounts.delete(name)


@pytest.mark.parametrize("name", IMPOSSIBLE)
async def test_names_no_account_can_have_are_unknown_and_no_breakage(
    store: Store, name: str
) -> None:
    assert await store.accounts.get(name) is None
    assert await store.accounts.by_address(name) is None
    assert await store.accounts.set(name, locale="de") is None
    assert await store.accounts.add_credit(name, 1) is None
    assert await store.accounts.list(name) == []
    assert not await store.accounts.delete(name)
    refused = await store.ledger.reserve(name, name, NUMBER, 1, NOW)
    assert (refused.verdict, refused.send) == (Verdict.NO_ACCOUNT, None)


async def test_adding_an_account_twice_leaves_the_first(store: Store) -> None:
    assert await store.accounts.add(Account(ALICE, locale="de"))
    assert not await store.accounts.add(Account(ALICE, locale="fr"))
    assert await store.accounts.get(ALICE) == Account(ALICE, locale="de")


async def test_setting_changes_only_what_is_given(store: Store) -> None:
    assert await store.accounts.set(ALICE, locale="de") is None
    await store.accounts.put(Account(ALICE, "a@x.org", "en", clock="12", sms_credit=3))
    changed = await store.accounts.set(ALICE, locale="de", clock=None)
    assert changed == Account(ALICE, "a@x.org", "de", clock=None, sms_credit=3)
    assert await store.accounts.get(ALICE) == changed


async def test_address_finds_its_account_whatever_the_case_of_the_domain(store: Store) -> None:
    await store.accounts.put(Account("Bob@Example.ORG"))
    await store.accounts.put(Account("zoe", address="Zoe@example.org"))
    for address, account in (
        ("Bob@example.org", "Bob@Example.ORG"),
        ("Bob@EXAMPLE.org", "Bob@Example.ORG"),
        ("bob@example.org", None),
        ("Zoe@eXample.org", "zoe"),
        ("zoe", None),
        ("", None),
    ):
        found = await store.accounts.by_address(address)
        assert (found.account if found else None) == account


async def test_address_follows_changes_and_of_several_accounts_the_first_by_name_is_meant(
    store: Store,
) -> None:
    await store.accounts.put(Account("b", address="shared@x"))
    await store.accounts.put(Account("a@x"))
    await store.accounts.set("a@x", address="shared@x")
    found = await store.accounts.by_address("shared@X")
    assert found is not None
    assert found.account == "a@x"
    assert await store.accounts.by_address("a@x") is None
    await store.accounts.set("a@x", address="")
    assert await store.accounts.by_address("a@x") is not None


async def test_list_is_in_bytewise_order_page_by_page(store: Store) -> None:
    names = ["B", "a", "a1", "aB", "a_", "ab", "b", "Ä", "ä", "🙂"]
    assert names == sorted(names)
    await store.accounts.import_many({name: {} for name in reversed(names)})
    pages, after = [], ""
    while page := await store.accounts.list(limit=3, after=after):
        pages += [account.account for account in page]
        after = page[-1].account
    assert pages == names
    assert [account.account for account in await store.accounts.list("a_")] == ["a_"]
    assert [each.account for each in await store.accounts.list("a", after="a1")] == names[3:6]


async def test_import_adds_and_changes_only_what_is_given(store: Store) -> None:
    await store.accounts.put(Account("a", "a@x", "en", sms_credit=5))
    done = await store.accounts.import_many({"a": {"locale": "de"}, "b@y": {"sms_credit": 2}})
    assert done == (1, 1)
    assert await store.accounts.get("a") == Account("a", "a@x", "de", sms_credit=5)
    assert await store.accounts.by_address("b@Y") == Account("b@y", sms_credit=2)
    assert await store.accounts.by_address("a@x") is not None
    assert await store.accounts.import_many({"a": {}, "b@y": {"address": "z@z"}}) == (0, 2)
    assert await store.accounts.by_address("b@y") is None


async def test_import_is_all_or_nothing(store: Store) -> None:
    with pytest.raises(StoreError, match="broken"):
        await store.accounts.import_many({"a": {}, **{f"z{n}": {"sms_credit": -n} for n in (0, 1)}})
    assert await store.accounts.list() == []


async def test_large_import_is_one_transaction_and_quick(store: Store) -> None:
    rows = 5_000
    names = [f"user{number}@example.org" for number in range(rows)]
    assert await store.accounts.import_many({name: {"locale": "de"} for name in names}) == (rows, 0)
    assert await store.accounts.import_many({name: {"locale": "fr"} for name in names}) == (0, rows)


async def test_credit_is_added_and_taken_down_to_nothing(store: Store) -> None:
    await store.accounts.put(Account(ALICE, sms_credit=3))
    for units, expected in ((4, 7), (-2, 5), (-9, 0)):
        account = await store.accounts.add_credit(ALICE, units)
        assert account is not None
        assert account.sms_credit == expected


async def test_breakage_names_no_content(store: Store) -> None:
    with pytest.raises(StoreError) as raised:
        await store.accounts.put(Account("secret-name", "secret@address", sms_credit=-1))
    assert raised.value.reason == "broken"
    error: BaseException | None = raised.value
    while error is not None:
        if isinstance(error, StoreError):
            assert "secret" not in str(error)
        error = error.__cause__


# ---- the ledger, step by step


async def test_reserving_takes_credit_once_however_often_it_is_repeated(
    store: Store, ledger: Ledger
) -> None:
    assert await reserve(ledger, units=3) is Verdict.NEW
    assert await reserve(ledger, units=3) is Verdict.RESERVED
    assert await credit(store) == 7
    assert await row(ledger) == Send(
        *("job", ALICE, NUMBER, 3, SendState.RESERVED, 0, None, NOW), None, None
    )


async def test_one_sms_from_reservation_to_receipt(store: Store, ledger: Ledger) -> None:
    await reserve(ledger, units=2)
    assert await ledger.mark_sending("job", NOW + 1) == 1
    assert await reserve(ledger, units=2) is Verdict.SENDING
    assert await ledger.settle("job", "SM1", 2, NOW + 2)
    assert await ledger.settle("job", "SM2", 5, NOW + 3), "a repeat changes nothing"
    assert await reserve(ledger, units=2) is Verdict.SENT
    send = await row(ledger)
    assert (send.state, send.units, send.provider_id) == (SendState.SENT, 2, "SM1")
    assert (send.sending_at, send.settled_at) == (NOW + 1, NOW + 2)
    assert await credit(store) == 8


async def test_only_one_of_two_workers_may_send(ledger: Ledger) -> None:
    await reserve(ledger)
    attempts = await asyncio.gather(*(ledger.mark_sending("job", NOW) for _ in range(5)))
    assert sorted(attempts) == [0, 0, 0, 0, 1]


async def test_nothing_is_sent_without_a_reservation(ledger: Ledger) -> None:
    assert await ledger.mark_sending("nothing", NOW) == 0
    assert not await ledger.settle("nothing", "SM1", 1, NOW)
    assert not await ledger.refund("nothing", NOW)
    assert not await ledger.back_to_reserved("nothing")
    assert not await ledger.mark_unknown("nothing", NOW)
    assert await ledger.get_send("nothing") is None


@pytest.mark.parametrize(
    ("counted", "charged", "left"),
    [(None, 2, 8), (0, 2, 8), (1, 1, 9), (2, 2, 8), (5, 5, 5), (11, 10, 0)],
)
async def test_providers_count_corrects_the_credit_but_never_below_zero(
    store: Store, ledger: Ledger, counted: int | None, charged: int, left: int
) -> None:
    await reserve(ledger, units=2)
    await ledger.mark_sending("job", NOW)
    assert await ledger.settle("job", "SM1", counted, NOW)
    assert (await row(ledger)).units == charged
    assert await credit(store) == left


@pytest.mark.parametrize("steps", [(), ("sending",), ("sending", "unknown")])
async def test_refund_gives_credit_back_exactly_once(
    store: Store, ledger: Ledger, steps: tuple[str, ...]
) -> None:
    await reserve(ledger, units=4)
    if "sending" in steps:
        await ledger.mark_sending("job", NOW)
    if "unknown" in steps:
        assert await ledger.mark_unknown("job", NOW)
    assert await asyncio.gather(*(ledger.refund("job", NOW) for _ in range(4))) == [True] * 4
    assert await credit(store) == 10
    assert (await row(ledger)).state is SendState.REFUNDED
    assert await ledger.mark_sending("job", NOW) == 0


async def test_what_was_sent_is_not_refunded(store: Store, ledger: Ledger) -> None:
    await reserve(ledger)
    await ledger.mark_sending("job", NOW)
    await ledger.settle("job", "SM1", 1, NOW)
    assert not await ledger.refund("job", NOW)
    assert not await ledger.back_to_reserved("job")
    assert not await ledger.mark_unknown("job", NOW)
    assert await credit(store) == 9


async def test_refunded_job_may_be_tried_again_by_an_operator(store: Store, ledger: Ledger) -> None:
    await reserve(ledger, units=4)
    await ledger.mark_sending("job", NOW)
    await ledger.refund("job", NOW)
    assert await reserve(ledger, units=3) is Verdict.NEW
    assert await credit(store) == 7
    assert await ledger.mark_sending("job", NOW) == 2
    send = await row(ledger)
    assert (send.state, send.units, send.settled_at) == (SendState.SENDING, 3, None)


async def test_definitely_not_sent_goes_out_later_with_the_same_credit(
    store: Store, ledger: Ledger
) -> None:
    await reserve(ledger, units=4)
    for step in (1, 2, 3):
        assert await ledger.mark_sending("job", NOW) == step
        assert await ledger.back_to_reserved("job")
        assert await ledger.back_to_reserved("job"), "a repeat changes nothing"
        assert await reserve(ledger, units=4) is Verdict.RESERVED
    assert await credit(store) == 6


async def test_ambiguous_stays_known_as_such_until_somebody_knows(
    store: Store, ledger: Ledger
) -> None:
    await reserve(ledger)
    await ledger.mark_sending("job", NOW)
    assert await ledger.mark_unknown("job", NOW + 1)
    assert await ledger.mark_unknown("job", NOW + 2), "a repeat changes nothing"
    assert (await row(ledger)).settled_at == NOW + 1
    assert await reserve(ledger) is Verdict.UNKNOWN
    assert await ledger.mark_sending("job", NOW) == 0
    assert await ledger.settle("job", "SM1", 1, NOW)
    assert await credit(store) == 9


async def test_receipt_that_comes_after_a_refund_is_believed_and_charged(
    store: Store, ledger: Ledger
) -> None:
    """Or the next try of the job would send the SMS a second time."""
    await reserve(ledger, units=2)
    await ledger.mark_sending("job", NOW)
    await ledger.refund("job", NOW)
    assert await ledger.settle("job", "SM1", None, NOW)
    assert await reserve(ledger, units=2) is Verdict.SENT
    assert await credit(store) == 8


async def test_job_that_changed_its_mind_before_sending_pays_for_what_it_sends(
    store: Store, ledger: Ledger
) -> None:
    await store.accounts.put(Account("bob", sms_credit=1))
    await reserve(ledger, units=4)
    again = await ledger.reserve("job", "bob", "+15550100", 1, NOW + 5)
    assert again.verdict is Verdict.RESERVED
    assert again.may_send
    assert again.send is not None
    assert (again.send.account, again.send.number, again.send.units) == ("bob", "+15550100", 1)
    assert await credit(store) == 10


async def test_out_of_credit_takes_nothing_and_leaves_no_trace(
    store: Store, ledger: Ledger
) -> None:
    refused = await ledger.reserve("job", ALICE, NUMBER, 11, NOW)
    assert (refused.verdict, refused.send, refused.may_send) == (Verdict.OUT_OF_CREDIT, None, False)
    assert await ledger.get_send("job") is None
    assert (await ledger.reserve("job", "nobody", NUMBER, 1, NOW)).verdict is Verdict.NO_ACCOUNT
    assert await credit(store) == 10


async def test_opted_out_number_gets_nothing_and_gives_its_credit_back(
    store: Store, ledger: Ledger
) -> None:
    await reserve(ledger, units=3)
    await ledger.opt_out(NUMBER, "21610", NOW)
    await ledger.opt_out(NUMBER, "again", NOW)
    refused = await ledger.reserve("job", ALICE, NUMBER, 3, NOW)
    assert refused.verdict is Verdict.OPTED_OUT
    assert refused.send is not None
    assert refused.send.state is SendState.REFUNDED
    assert await reserve(ledger, "another") is Verdict.OPTED_OUT
    assert await credit(store) == 10
    assert await ledger.opt_in(NUMBER)
    assert not await ledger.opt_in(NUMBER)
    assert await reserve(ledger, "another") is Verdict.NEW


@pytest.mark.parametrize("key", [*ODD, *IMPOSSIBLE])
async def test_job_keys_may_hold_anything(ledger: Ledger, key: str) -> None:
    assert await reserve(ledger, key) is Verdict.NEW
    assert await reserve(ledger, key) is Verdict.RESERVED
    assert await reserve(ledger, f"{key}!") is Verdict.NEW
    assert await ledger.mark_sending(key, NOW) == 1
    assert await ledger.settle(key, "SM1", 1, NOW)
    assert (await row(ledger, key)).state is SendState.SENT


async def test_receipt_of_another_job_is_known_as_such(ledger: Ledger) -> None:
    for job in ("one", "two"):
        await reserve(ledger, job)
        await ledger.mark_sending(job, NOW)
    assert not await ledger.is_settled("SM1", "two")
    await ledger.settle("one", "SM1", 1, NOW)
    assert await ledger.is_settled("SM1", "two")
    assert not await ledger.is_settled("SM1", "one")
    assert not await ledger.is_settled("SM2", "two")


async def test_purge_forgets_only_what_is_done_and_old(ledger: Ledger) -> None:
    for job in ("old", "new", "refunded", "unknown", "reserved"):
        await reserve(ledger, job)
    for job, at in (("old", NOW), ("new", NOW + 10)):
        await ledger.settle(job, "SM1", 1, at)
    await ledger.refund("refunded", NOW)
    await ledger.mark_sending("unknown", NOW)
    await ledger.mark_unknown("unknown", NOW)
    assert await ledger.purge(NOW + 5) == 2
    assert await ledger.get_send("old") is None
    unfinished = await ledger.unfinished(NOW + 1)
    assert sorted(send.job_key for send in unfinished) == ["reserved", "unknown"]
    assert await ledger.unfinished(NOW) == []


async def test_deleted_account_stays_known_to_the_ledger(store: Store, ledger: Ledger) -> None:
    await reserve(ledger, "sent")
    await ledger.settle("sent", "SM1", 4, NOW)
    await reserve(ledger, "open", 2)
    await ledger.mark_sending("open", NOW)
    assert await store.accounts.delete(ALICE)
    assert await ledger.refund("open", NOW)
    assert await reserve(ledger, "sent") is Verdict.SENT
    assert await reserve(ledger, "open") is Verdict.NO_ACCOUNT


# ---- the ledger, many at once


async def test_fifty_jobs_and_ten_credits_give_exactly_ten_sms(
    store: Store, section: StoreSection, ledger: Ledger
) -> None:
    async with Store(section, deadline=asyncio.timeout) as other:
        verdicts = await asyncio.gather(
            *(reserve((store, other)[job % 2].ledger, f"job-{job}") for job in range(50))
        )
    assert Counter(verdicts) == {Verdict.NEW: 10, Verdict.OUT_OF_CREDIT: 40}
    audit = await ledger.audit()
    assert (audit.credit, audit.reserved, audit.total) == (0, 10, 10)


async def test_one_job_at_fifty_workers_takes_its_credit_once(
    store: Store, section: StoreSection, ledger: Ledger
) -> None:
    async with Store(section, deadline=asyncio.timeout) as other:
        verdicts = await asyncio.gather(
            *(reserve((store, other)[n % 2].ledger, units=2) for n in range(50))
        )
    assert Counter(verdicts) == {Verdict.NEW: 1, Verdict.RESERVED: 49}
    assert await credit(store) == 8


@pytest.mark.parametrize("seed", range(6))
async def test_random_steps_of_many_workers_never_lose_a_unit_or_send_twice(
    store: Store, section: StoreSection, seed: int
) -> None:
    """The provider is a counter; a worker sends only after `mark_sending`, as the rule is."""
    chance = random.Random(seed)
    names, jobs = ("a", "b", "c"), [f"job-{number}" for number in range(12)]
    for name in names:
        await store.accounts.put(Account(name, sms_credit=15))
    posted: Counter[str] = Counter()

    async def worker(ledger: Ledger) -> None:
        for _ in range(25):
            job = chance.choice(jobs)
            units = chance.randint(1, 3)
            reservation = await ledger.reserve(job, chance.choice(names), NUMBER, units, NOW)
            if chance.random() < 0.1:
                continue  # killed before sending
            if reservation.may_send:
                await send(ledger, job, await ledger.mark_sending(job, NOW))
            elif reservation.verdict in (Verdict.SENDING, Verdict.UNKNOWN):
                await ask_provider(ledger, job, reservation.send)

    async def send(ledger: Ledger, job: str, attempt: int) -> None:
        if not attempt:
            return
        match chance.choice(["sent", "sent", "lost", "refused", "later", "died"]):
            case "sent":
                posted[job] += 1
                await ledger.settle(job, "SM", chance.choice([None, 1, 2, 5]), NOW)
            case "lost":
                posted[job] += chance.randint(0, 1)
                await ledger.mark_unknown(job, NOW, attempt=attempt)
            case "refused":
                await ledger.refund(job, NOW, attempt=attempt)
            case "later":
                await ledger.back_to_reserved(job, attempt=attempt)
            case "died":
                posted[job] += chance.randint(0, 1)

    async def ask_provider(ledger: Ledger, job: str, seen: Send | None) -> None:
        assert seen is not None
        if posted[job]:
            await ledger.settle(job, "SM", None, NOW)
        elif chance.random() < 0.5:
            # Under way at another worker or lost: only an attempt that is known to be over is
            # taken back. Here it is the one seen, and nobody posts after that.
            await ledger.mark_unknown(job, NOW, attempt=seen.attempt)

    async with Store(section, deadline=asyncio.timeout) as other:
        ledgers = (store.ledger, other.ledger)
        workers = asyncio.gather(*(worker(ledgers[number % 2]) for number in range(8)))
        while not workers.done():
            assert (await store.ledger.audit()).total == 45
            await asyncio.sleep(0)
        await workers
    assert (await store.ledger.audit()).total == 45
    assert max(posted.values()) == 1
    for job in jobs:
        found = await store.ledger.get_send(job)
        assert found is None or posted[job] == 0 or found.state not in ("reserved", "refunded")


async def test_jobs_that_change_accounts_crosswise_do_not_lock_each_other_out(
    store: Store, ledger: Ledger
) -> None:
    accounts = (ALICE, "bob")
    await store.accounts.put(Account("bob", sms_credit=10))
    for turn in range(20):
        await asyncio.gather(
            *(
                ledger.reserve(f"job-{job}", accounts[(job + turn) % 2], NUMBER, 1, NOW)
                for job in range(4)
            )
        )
    audit = await ledger.audit()
    assert (audit.total, audit.reserved) == (20, 4)


async def test_workers_cancelled_at_any_moment_leave_whole_steps_and_a_working_store(
    store: Store, ledger: Ledger
) -> None:
    """SIGTERM cancels what does not end in time; a killed process is the same to the database."""
    for turns in range(40):
        job = f"job-{turns}"
        task = asyncio.create_task(reserve(ledger, job))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert (await ledger.audit()).total == 10
        await ledger.refund(job, NOW)
    assert await credit(store) == 10
    assert await reserve(ledger, units=10) is Verdict.NEW


# ---- the embedded file


async def test_embedded_store_is_for_our_eyes_only_and_survives_power_loss(tmp_path: Path) -> None:
    path = tmp_path / "made for us" / "50% #1?.db"
    section = StoreSection(url=f"sqlite:///{path}")
    await migrate(section, deadline=asyncio.timeout)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    async with Store(section, deadline=asyncio.timeout) as store:
        async with store.database.writing() as connection:
            for pragma, value in (("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1)):
                result = await connection.exec_driver_sql(f"PRAGMA {pragma}")
                assert result.scalar() == value
        assert {each.name for each in path.parent.iterdir()} >= {path.name, f"{path.name}-wal"}
        assert {stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()} == {0o600}


async def test_looking_into_a_missing_embedded_store_makes_none(tmp_path: Path) -> None:
    section = StoreSection(url=f"sqlite:///{tmp_path}/state.db")
    async with Store(section, deadline=asyncio.timeout) as store:
        with pytest.raises(StoreError, match="notifyd migrate") as raised:
            await store.accounts.get(ALICE)
    assert raised.value.reason == "schema"
    assert not (tmp_path / "state.db").exists()


async def test_embedded_store_locked_by_another_program_is_unavailable_in_time(
    tmp_path: Path,
) -> None:
    section = StoreSection(url=f"sqlite:///{tmp_path}/state.db", timeout_seconds=0.3)
    await migrate(section, deadline=asyncio.timeout)
    async with (
        Store(section, deadline=asyncio.timeout) as store,
        Store(section, deadline=asyncio.timeout) as other,
    ):
        async with other.database.writing(seconds=30):
            assert await store.accounts.get(ALICE) is None, "readers do not wait for writers"
            with pytest.raises(StoreError, match="locked") as raised:
                await store.accounts.put(Account(ALICE))
            assert raised.value.reason == "unavailable"
        await store.accounts.put(Account(ALICE))


async def test_file_that_is_no_database_is_broken_and_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_text("something else entirely, longer than a header " * 100)
    section = StoreSection(url=f"sqlite:///{tmp_path}/state.db")
    async with Store(section, deadline=asyncio.timeout) as store:
        with pytest.raises(StoreError) as raised:
            await store.check()
    assert raised.value.reason == "broken"


async def test_many_accounts_are_found_with_one_question(store: Store) -> None:
    accounts = [Account(f"u{number}@example.org", locale="de") for number in range(40)]
    for account in accounts:
        await store.accounts.put(account)
    wanted = [account.account for account in accounts[5:]] + ["nobody", *IMPOSSIBLE]
    found = await store.accounts.get_many(wanted)
    assert found == {account.account: account for account in accounts[5:]}
    assert await store.accounts.get_many([]) == {}
