"""The store when its database dies, stops or refuses: jobs wait, credit stays exact, it heals."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Iterator

import pytest
import pytest_asyncio
from sqlalchemy import event

from shared.accounts import Account
from shared.errors import StoreError
from shared.slow_sections import Store as StoreSection
from shared.store import SendState, Store, Verdict
from shared.store.migrate import migrate
from shared.store.tables import accounts
from tests.support.postgres import PostgresServer

pytestmark = [pytest.mark.asyncio, pytest.mark.real]

TIMEOUT_SECONDS = 1.0
#: What a machine that is busy with something else may add.
GRACE_SECONDS = 1.0
RECOVERY_SECONDS = 5.0
ALICE = "alice@example.org"
NUMBER = "+491701234567"


@pytest.fixture(scope="module", params=["socket", "tcp"])
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    with PostgresServer(tcp=request.param == "tcp") as server:
        yield server


@pytest.fixture
def postgres(server: PostgresServer) -> Iterator[PostgresServer]:
    """A server that runs, and that the test may kill and stop."""
    yield server
    if server.running:
        server.resume()
    else:
        server.start()


@pytest.fixture
def section(postgres: PostgresServer) -> StoreSection:
    return postgres.section(timeout_seconds=TIMEOUT_SECONDS, connections=3)


@pytest_asyncio.fixture
async def store(section: StoreSection, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Store]:
    """A store in which Alice has 10 units. Libraries must not log what the store says itself."""
    await migrate(section, deadline=asyncio.timeout)
    async with Store(section, deadline=asyncio.timeout) as opened:
        await opened.accounts.put(Account(ALICE, sms_credit=10))
        yield opened
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def unavailable(store: Store) -> float:
    """Prove that the store does not answer, and return how long it took to say so."""
    begun = time.monotonic()
    with pytest.raises(StoreError) as raised:
        await store.accounts.get(ALICE)
    assert raised.value.reason == "unavailable"
    return time.monotonic() - begun


async def available_again(store: Store) -> float:
    """Return how long it took until the store answered again."""
    begun = time.monotonic()
    while not await done(store.check()):
        assert time.monotonic() - begun < RECOVERY_SECONDS
    return time.monotonic() - begun


async def done(call: Awaitable[object]) -> bool:
    """Tell whether `call` came through or the store was unavailable."""
    try:
        await call
    except StoreError as error:
        if error.reason == "unavailable":
            await asyncio.sleep(0.02)  # a refused connection is refused at once
            return False
        raise
    return True


async def reserve(store: Store, job: str, units: int = 1) -> Verdict:
    return (await store.ledger.reserve(job, ALICE, NUMBER, units, 1.0)).verdict


async def test_killed_between_two_calls_a_restarted_database_just_works(
    store: Store, postgres: PostgresServer
) -> None:
    assert await reserve(store, "before") is Verdict.NEW
    postgres.kill()
    postgres.start()
    assert await reserve(store, "before") is Verdict.RESERVED
    assert (await store.ledger.audit()).total == 10


async def test_killed_database_is_unavailable_at_once_and_heals_by_itself(
    store: Store, postgres: PostgresServer
) -> None:
    await asyncio.gather(*(store.accounts.get(ALICE) for _ in range(3)))
    postgres.kill()
    for _ in range(4):
        assert await unavailable(store) < TIMEOUT_SECONDS
    postgres.start()
    assert await available_again(store) < RECOVERY_SECONDS


async def test_killed_mid_transaction_nothing_of_it_is_kept(
    store: Store, postgres: PostgresServer
) -> None:
    async def spend_and_die() -> None:
        async with store.database.writing() as connection:
            await connection.execute(accounts.update().values(sms_credit=0))
            postgres.kill()
            await connection.execute(accounts.update().values(sms_credit=1))

    assert not await done(spend_and_die())
    postgres.start()
    await available_again(store)
    account = await store.accounts.get(ALICE)
    assert account is not None
    assert account.sms_credit == 10


async def test_stopped_database_is_unavailable_within_the_timeout_and_good_after_it(
    store: Store, postgres: PostgresServer
) -> None:
    await asyncio.gather(*(reserve(store, f"job-{number}") for number in range(4)))
    postgres.pause()
    # More callers than connections: those that wait for one have the same deadline.
    waits = await asyncio.gather(*(unavailable(store) for _ in range(10)))
    assert max(waits) < TIMEOUT_SECONDS + GRACE_SECONDS
    assert await unavailable(store) < TIMEOUT_SECONDS + GRACE_SECONDS  # needs a new connection
    postgres.resume()
    assert await available_again(store) < RECOVERY_SECONDS
    audit = await store.ledger.audit()
    assert (audit.total, audit.reserved) == (10, 4)


async def test_stopped_while_workers_reserve_no_unit_is_lost_or_taken_twice(
    store: Store, postgres: PostgresServer
) -> None:
    async def worker(number: int) -> None:
        for job in range(number * 5, number * 5 + 5):
            while not await done(reserve(store, f"job-{job}")):
                pass

    workers = asyncio.gather(*(worker(number) for number in range(4)))
    for _ in range(3):
        await asyncio.sleep(0.05)
        postgres.pause()
        await asyncio.sleep(TIMEOUT_SECONDS * 1.2)
        postgres.resume()
    await workers
    audit = await store.ledger.audit()
    assert (audit.total, audit.reserved, audit.credit) == (10, 10, 0)


async def test_reservation_that_timed_out_but_was_committed_is_found_on_retry(
    store: Store, postgres: PostgresServer
) -> None:
    def stop_before_commit(_connection: object) -> None:
        postgres.pause()

    engine = store.database._engine.sync_engine
    event.listen(engine, "commit", stop_before_commit)
    with pytest.raises(StoreError) as raised:
        await reserve(store, "job")
    event.remove(engine, "commit", stop_before_commit)
    assert raised.value.reason == "unavailable"
    postgres.resume()
    await available_again(store)
    async with asyncio.timeout(RECOVERY_SECONDS):
        # The backend that was stopped reads the COMMIT when it gets to it.
        while (send := await store.ledger.get_send("job")) is None:
            pass
    assert send.state is SendState.RESERVED
    assert await reserve(store, "job") is Verdict.RESERVED
    audit = await store.ledger.audit()
    assert (audit.total, audit.reserved) == (10, 1)


async def test_taking_back_that_comes_late_does_not_touch_the_next_attempt(
    store: Store, postgres: PostgresServer
) -> None:
    """Or a row would say "reserved" while its SMS goes out, and a crash would send it again."""
    ledger = store.ledger
    await reserve(store, "job")
    first = await ledger.mark_sending("job", 2.0)
    assert await ledger.back_to_reserved("job", attempt=first)
    assert await ledger.mark_sending("job", 3.0) == first + 1
    assert not await ledger.back_to_reserved("job", attempt=first)
    assert not await ledger.refund("job", 4.0, attempt=first)
    assert not await ledger.mark_unknown("job", 4.0, attempt=first)
    send = await ledger.get_send("job")
    assert send is not None
    assert send.state is SendState.SENDING


async def test_cancelled_worker_leaves_no_lock_and_no_connection_behind(
    store: Store, postgres: PostgresServer
) -> None:
    started = asyncio.Event()

    async def hold() -> None:
        async with store.database.writing() as connection:
            await connection.execute(accounts.update().values(sms_credit=0))
            started.set()
            await asyncio.Event().wait()

    for _ in range(4):  # more than there are connections
        started.clear()
        task = asyncio.create_task(hold())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await reserve(store, "job", units=10) is Verdict.NEW


async def test_row_locked_by_another_is_waited_for_no_longer_than_the_timeout(
    store: Store, section: StoreSection
) -> None:
    async with (
        Store(section, deadline=asyncio.timeout) as other,
        other.database.writing(seconds=30) as connection,
    ):
        await connection.execute(accounts.update().values(sms_credit=10))
        begun = time.monotonic()
        assert not await done(reserve(store, "job"))
        assert time.monotonic() - begun < TIMEOUT_SECONDS + GRACE_SECONDS
    assert await reserve(store, "job") is Verdict.NEW


@pytest.mark.parametrize(
    ("url", "detail"),
    [
        ("postgresql://postgres@127.0.0.1:1/test", "ConnectionRefusedError"),
        ("postgresql://postgres@/test?host=/nowhere", "FileNotFoundError"),
    ],
)
async def test_database_that_cannot_be_reached_is_unavailable_with_the_reason(
    url: str, detail: str
) -> None:
    async with Store(StoreSection(url=url), deadline=asyncio.timeout) as store:
        with pytest.raises(StoreError, match=detail) as raised:
            await store.check()
    assert raised.value.reason == "unavailable"


async def test_missing_database_wrong_user_and_missing_tables_are_told_apart(
    postgres: PostgresServer,
) -> None:
    for url, reason, detail in (
        (postgres.url("nosuch"), "unavailable", "nosuch"),
        (postgres.url().replace("postgres@", "nobody@"), "unavailable", "nobody"),
        (postgres.new_database(), "schema", "notifyd migrate"),
    ):
        async with Store(StoreSection(url=url), deadline=asyncio.timeout) as store:
            with pytest.raises(StoreError, match=detail) as raised:
                await store.check()
            assert raised.value.reason == reason
