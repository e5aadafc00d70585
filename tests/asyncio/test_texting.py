"""One SMS per job, whatever answers come and wherever the program dies; the credit stays exact."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest
import pytest_asyncio

from notifyd.sms import SmsOutcome
from notifyd.texting import GRACE_SECONDS, OUT_OF_CREDIT, tend
from shared.accounts import Account
from shared.errors import StoreError
from shared.outcome import Delivered, Gone, Outcome, Rejected, Retry, Unavailable
from shared.slow_sections import Store as StoreSection
from shared.store import SendState, Store
from shared.store.migrate import migrate
from tests.support.played_sms import (
    ALICE,
    CREDIT,
    KEY,
    NUMBER,
    SMS,
    Crashes,
    Provider,
    World,
    no_answer,
)

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    section = StoreSection(url=f"sqlite:///{tmp_path}/state.db")
    await migrate(section, deadline=asyncio.timeout)
    async with Store(section, deadline=asyncio.timeout) as store:
        await store.accounts.put(Account(ALICE, sms_number=NUMBER, sms_credit=CREDIT))
        yield World(store)


def unproven_repeats(trace: list[str], definite: int = 0) -> int:
    """How many POSTs came without two vain look-ups since the one before.

    `definite` of them were answered that nothing was sent.
    """
    posts = [index for index, what in enumerate(trace) if what == "post"]
    between = [trace[one:other] for one, other in pairwise(posts)]
    return max(0, sum(part.count("vain") < 2 for part in between) - definite)


# --- what each verdict of the ledger comes to ----------------------------------------------------


async def test_an_sms_is_sent_once_and_costs_what_the_provider_counts(world: World) -> None:
    assert await world.send() == Delivered("SM0")
    assert await world.send() == Delivered("SM0"), "done already"
    assert world.provider.trace == ["post"]
    await world.check_credit()


async def test_without_credit_nothing_is_sent(world: World) -> None:
    await world.store.accounts.set(ALICE, sms_credit=SMS.segments - 1)
    assert await world.send() == Rejected(OUT_OF_CREDIT)
    assert world.provider.trace == []
    assert (await world.ledger.audit()).total == SMS.segments - 1


async def test_an_account_that_is_not_known_sends_nothing(world: World) -> None:
    assert await world.texter().send(KEY, "nobody", SMS) == Rejected("no such account")
    assert world.provider.trace == []


async def test_a_number_that_opted_out_is_never_asked_again(world: World) -> None:
    world.provider.script = [Gone("opted out")]
    assert await world.send() == Gone("opted out")
    assert isinstance(await world.send("other"), Gone)
    assert world.provider.trace == ["post"]
    await world.check_credit()


@pytest.mark.parametrize("answer", [Retry("HTTP 429", 7.0), Unavailable("cannot be reached")])
async def test_what_was_certainly_not_sent_keeps_its_credit_and_is_sent_later(
    world: World, answer: Retry | Unavailable
) -> None:
    world.provider.script = [answer]
    assert await world.send() == answer
    assert await world.state() is SendState.RESERVED
    assert await world.send() == Delivered("SM0")
    assert world.provider.trace == ["post", "post"]
    await world.check_credit()


async def test_what_is_refused_for_good_is_refunded(world: World) -> None:
    world.provider.script = [Rejected("number takes no SMS")]
    assert await world.send() == Rejected("number takes no SMS")
    assert await world.state() is SendState.REFUNDED
    await world.check_credit()


async def test_a_store_that_fails_before_the_request_sends_nothing(world: World) -> None:
    world.store.database._deadline = no_answer
    with pytest.raises(StoreError):
        await world.send()
    assert world.provider.trace == []


# --- fate unknown --------------------------------------------------------------------------------


async def test_an_sms_whose_answer_got_lost_is_looked_up_and_not_sent_again(world: World) -> None:
    world.provider.script = ["taken"]
    first = await world.send()
    assert isinstance(first, Retry)
    assert first.after is not None
    assert "fate unknown" in first.reason
    world.pass_time(first.after)
    assert await world.send() == Delivered("SM0")
    assert world.provider.trace == ["post", "found"]
    await world.check_credit()


async def test_it_is_sent_again_only_when_the_provider_has_twice_not_known_it(
    world: World,
) -> None:
    world.provider.script = ["not taken"]
    await world.send()
    world.pass_time(GRACE_SECONDS / 2)
    assert await world.send() == Retry(
        "fate unknown: the provider does not know it yet", GRACE_SECONDS
    )
    assert await world.state() is SendState.UNKNOWN
    world.pass_time(GRACE_SECONDS - 10)
    early = await world.send()  # an operator's flush
    assert early == Retry("fate unknown: the provider does not know it yet", 10.0)
    world.pass_time(10)
    assert await world.send() == Retry("the provider never got it", 0.0)
    assert world.provider.trace == ["post", "vain", "vain", "vain"]
    assert await world.send() == Delivered("SM0")
    await world.check_credit()


async def test_what_the_provider_lists_late_is_found_by_the_second_look(world: World) -> None:
    world.provider.script = ["not taken"]
    await world.send()
    world.pass_time(GRACE_SECONDS / 2)
    await world.send()
    world.provider.taken.append(KEY)
    world.pass_time(GRACE_SECONDS)
    assert await world.send() == Delivered("SM0")
    assert world.provider.trace == ["post", "vain", "found"]
    await world.check_credit()


async def test_what_gets_lost_twice_is_given_up_and_refunded(world: World) -> None:
    world.provider.script = ["not taken", "not taken"]
    assert await world.work() == Rejected("the provider lost it twice")
    assert world.provider.trace == ["post", "vain", "vain", "post", "vain", "vain"]
    await world.check_credit()


@pytest.mark.parametrize("answer", [Retry("HTTP 429", 7.0), Unavailable("HTTP 503")])
async def test_a_look_up_that_fails_says_nothing(world: World, answer: Retry | Unavailable) -> None:
    world.provider.script = ["taken"]
    world.provider.lookup_fails = [answer, answer]
    await world.send()
    assert await world.send() == answer
    assert await world.send() == answer
    assert await world.state() is SendState.SENDING
    assert await world.send() == Delivered("SM0")
    await world.check_credit()


async def test_a_provider_that_cannot_be_asked_is_never_sent_it_again(world: World) -> None:
    world.provider.can_look_up = False
    world.provider.script = ["not taken"]
    await world.send()
    for _ in range(3):
        outcome = await world.send()
        assert outcome == Rejected("fate unknown, and the provider cannot be asked")
        world.pass_time(GRACE_SECONDS * 2)
    assert world.provider.trace == ["post"]
    audit = await world.ledger.audit()
    assert (audit.total, audit.unknown) == (CREDIT, SMS.segments)


# --- the same words for several jobs -------------------------------------------------------------


async def test_the_sms_of_another_job_with_the_same_words_is_not_taken_for_ours(
    world: World,
) -> None:
    assert await world.send("other") == Delivered("SM0")
    world.provider.script = ["not taken"]
    assert await world.work() == Delivered("SM1")
    assert world.provider.taken == ["other", KEY]
    await world.check_credit()


async def test_two_unclear_jobs_do_not_both_claim_the_one_sms_there_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = world.ledger.is_settled

    async def slowly(provider_id: str, job_key: str) -> bool:
        answer = await asked(provider_id, job_key)
        await asyncio.sleep(0.1)  # time enough for the other to ask before this one claims it
        return answer

    monkeypatch.setattr(world.ledger, "is_settled", slowly)
    world.provider.script = ["taken", "not taken"]
    await world.send("one")
    await world.send("two")
    world.pass_time(GRACE_SECONDS / 2)
    texter = world.texter()
    outcomes = await asyncio.gather(*(texter.send(key, ALICE, SMS) for key in ("one", "two")))
    assert [type(outcome) for outcome in outcomes] == [Delivered, Retry]
    world.pass_time(GRACE_SECONDS)
    assert await world.work("two") == Delivered("SM1")
    assert len(world.provider.taken) == 2
    await world.check_credit()


async def test_an_unclear_job_does_not_claim_the_sms_that_another_is_just_sending(
    world: World,
) -> None:
    world.provider.script = ["not taken"]
    await world.send("unclear")
    world.pass_time(GRACE_SECONDS / 2)
    world.provider.gate = asyncio.Event()
    texter = world.texter()
    sending = asyncio.create_task(texter.send("other", ALICE, SMS))
    async with asyncio.timeout(10):
        await world.provider.posted.wait()
    looking = asyncio.create_task(texter.send("unclear", ALICE, SMS))
    # It may look as soon as it can; were nothing to hold it, this is more than long enough.
    await asyncio.wait([looking], timeout=0.2)
    world.provider.gate.set()
    assert await sending == Delivered("SM0")
    assert isinstance(await looking, Retry)
    assert await world.work("unclear") == Delivered("SM1")
    await world.check_credit()


# --- crashes -------------------------------------------------------------------------------------

STEPS = (
    *("reserve", "mark_sending", "post", "settle", "refund", "back_to_reserved"),
    *("mark_unknown", "opt_out", "is_settled", "lookup"),
)
PLACES = [f"{step} {when}" for step in STEPS for when in ("before", "after")]

#: Dead before anything was written: with a request that gets lost that is two lost ones.
BEFORE_THE_REQUEST = ("mark_sending after", "post before")
#: What the provider does, what the job comes to, how many SMS there are then.
SCRIPTS: dict[str, tuple[list[str | SmsOutcome], type[Outcome], int]] = {
    "taken": (["ok"], Delivered, 1),
    "busy first": ([Retry("HTTP 429", 1.0)], Delivered, 1),
    "down first": ([Unavailable("refused")], Delivered, 1),
    "answer lost": (["taken"], Delivered, 1),
    "request lost": (["not taken"], Delivered, 1),
    "refused": ([Rejected("bad number")] * 9, Rejected, 0),
    "opted out": ([Gone("opted out")] * 9, Gone, 0),
}


@pytest.mark.parametrize("script", SCRIPTS)
async def test_a_crash_at_any_step_neither_loses_nor_doubles_it(world: World, script: str) -> None:
    answers, end, messages = SCRIPTS[script]
    crashed = 0
    for number, place in enumerate(PLACES):
        world.provider = Provider(list(answers), clock=world.now)
        world.crashes = Crashes(place)
        await world.store.accounts.set(ALICE, sms_credit=CREDIT)
        await world.ledger.opt_in(NUMBER)
        key = f"{KEY}{number}"
        outcome = await world.work(key)
        crashed += world.crashes.count
        if script == "request lost" and place in BEFORE_THE_REQUEST:
            assert outcome == Rejected("the provider lost it twice")
        else:
            assert isinstance(outcome, end), place
            assert len(world.provider.taken) == messages, place
        definite = sum(isinstance(each, Retry | Unavailable | Rejected) for each in answers)
        assert not unproven_repeats(world.provider.trace, definite), place
        await world.check_credit()
        await world.ledger.purge(world.now + 1)
    assert crashed >= 6, "the places are not where they were"


@pytest.mark.parametrize("seed", range(40))
async def test_many_crashes_neither_lose_nor_double_it(world: World, seed: int) -> None:
    chance = random.Random(seed)
    world.crashes = Crashes(chance=chance)
    world.provider.script = [chance.choice(["ok", "taken", "ok", "not taken"]) for _ in range(2)]
    outcome = await world.work()
    # Killed twice just before it could write to the provider is what "lost twice" looks like.
    assert len(world.provider.taken) == isinstance(outcome, Delivered)
    assert not unproven_repeats(world.provider.trace)
    await world.check_credit()


async def test_credit_of_an_sms_that_was_given_up_before_it_went_out_comes_back(
    world: World,
) -> None:
    now = 1_800_000_000.0
    await world.ledger.reserve("given-up", ALICE, NUMBER, 1, now)
    await world.ledger.reserve("perhaps-sent", ALICE, NUMBER, 1, now)
    await world.ledger.mark_sending("perhaps-sent", now)
    await tend(world.ledger, 3600, now + 3599)
    assert (await world.ledger.audit()).reserved == 1
    await tend(world.ledger, 3600, now + 3601)
    audit = await world.ledger.audit()
    assert (audit.credit, audit.reserved, audit.sending) == (CREDIT - 1, 0, 1)
