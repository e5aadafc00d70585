"""Between events and streams: each told once a round, and at once what it missed when it opens."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import Any, cast

import pytest

from pusher.handshake import StreamRequest
from pusher.protocol.mboxevent import decode_change
from pusher.protocol.numbers import MAIL, PAGE_NUMBERS, RESYNC, Numbers
from pusher.protocol.profile import PAGE, Profile, jmap_profile
from pusher.publisher import Publisher, publish_one_by_one
from pusher.state.modseq import ModseqTable
from pusher.state.routing import route
from shared.errors import ProtocolError

JMAP = jmap_profile("*", "no", "0")
NOBODY = cast(socket.socket, None)


class Pages:
    def __init__(self) -> None:
        self.accounts: dict[str, int] = {}
        self.openings: list[bytes] = []
        self.told: list[tuple[str, int, int, str | None]] = []

    def streams_of(self, account: str) -> int:
        return self.accounts.get(account, 0)

    def open(self, connection: socket.socket, request: StreamRequest, opening: bytes) -> None:
        self.accounts[request.account] = self.streams_of(request.account) + 1
        self.openings.append(opening)

    def publish_moved(self, moved: Mapping[str, int], table: ModseqTable) -> None:
        publish_one_by_one(self, moved, table)

    def publish(self, account: str, numbers: Numbers, mask: int, owner: str | None = None) -> None:
        self.told.append((account, numbers.values[MAIL], mask, owner))


class World:
    def __init__(self) -> None:
        self.outlet, self.table, self.now, self.random = Pages(), ModseqTable(), 1.8e9, 0.5
        self.publisher = Publisher(
            self.table,
            self.outlet,
            retry_seconds=2,
            most_per_account=3,
            wall=lambda: self.now,
            jitter=lambda: self.random,
        )

    def event(self, what: str, mail: int, *, path: str = "user/alice", **more: Any) -> int:
        told = {"event": what, "uri": f"imap://mail/{path}", **more}
        if mail:
            told["vnd.fastmail.counters"] = f"9 {mail} {mail} 0 0 0 0 0 0 0 0 0 1000"
        event = decode_change(json.dumps(told).encode())
        return self.publisher.change(route(event), event)

    def open(
        self, last_event_id: str | None = None, profile: Profile = PAGE, account: str = "alice"
    ) -> str:
        request = StreamRequest(account, profile, 4e9, last_event_id, b"")
        self.publisher.open(NOBODY, request)
        return self.outlet.openings[-1].decode()

    @property
    def id(self) -> int:
        numbers = self.table.numbers("alice")
        assert numbers is not None
        return numbers.id


@pytest.fixture
def world() -> World:
    return World()


# --- changes -----------------------------------------------------------------------------------


def test_a_round_of_changes_is_told_once_with_the_newest_numbers(world: World) -> None:
    world.open()
    for mail in range(1, 50):
        world.event("MailboxModseq", mail)
        world.event("MessageNew", mail - 1, modseq=mail)
    assert world.outlet.told == []
    world.publisher.flush()
    world.publisher.flush()
    ((account, mail, mask, owner),) = world.outlet.told
    assert (account, mail, owner) == ("alice", 49, None)
    assert mask >> MAIL & 1


def test_nobody_connected_is_nobody_told(world: World) -> None:
    world.event("MailboxModseq", 7)
    world.publisher.flush()
    assert world.outlet.told == []
    assert world.table.numbers("alice") is not None


ACL = {"vnd.cmu.mailboxACL": "alice\tlrswipkxtecda\tbob\tlr\tcarol\tlr\t"}


def test_everybody_who_may_see_a_mailbox_hears_of_it(world: World) -> None:
    for account in ("alice", "bob", "dave"):
        world.open(account=account)
    world.event("MailboxModseq", 7, **ACL)
    world.publisher.flush()
    assert {(account, mail, owner) for account, mail, _, owner in world.outlet.told} == {
        ("alice", 7, None),
        ("bob", 7, "alice"),
    }


def test_an_event_overtaken_by_a_later_one_still_concerns_its_readers(world: World) -> None:
    world.open(account="bob")
    world.event("MailboxModseq", 8)  # of a mailbox that is alice's alone
    assert world.event("MailboxModseq", 7, **ACL) == 0
    world.publisher.flush()
    assert [(account, owner) for account, _, _, owner in world.outlet.told] == [("bob", "alice")]


def test_a_mailbox_of_nobody_is_told_without_numbers(world: World) -> None:
    world.open(account="bob")
    world.event("FlagsSet", 0, path="shared/x", **ACL)
    world.publisher.flush()
    ((account, mail, mask, owner),) = world.outlet.told
    assert (account, mail, owner) == ("bob", 0, "")
    assert mask & PAGE_NUMBERS == PAGE_NUMBERS


def test_a_new_life_of_an_account_reaches_its_readers_as_one(world: World) -> None:
    world.open()
    world.event("MailboxModseq", 500)
    world.publisher.flush()
    world.event("MailboxCreate", 1)
    event = decode_change(
        b'{"event":"MailboxCreate","uri":"imap://mail/user/alice",'
        b'"vnd.fastmail.counters":"9 1 1 0 0 0 1 0 0 0 0 0 2000"}'
    )
    world.publisher.change(route(event), event)
    world.publisher.flush()
    assert world.outlet.told[-1][2] & RESYNC


@pytest.mark.parametrize("counters", ["", "x", "1 2 3", "9 " * 13, "-1 " * 13, "1,2", "9" * 5000])
def test_counters_that_make_no_sense_still_mean_that_something_changed(
    world: World, counters: str
) -> None:
    for what in ("MailboxModseq", "FlagsSet"):
        world.open(account="alice")
        assert world.event(what, 0, **{"vnd.fastmail.counters": counters})
    world.publisher.flush()
    assert world.outlet.told


# --- opening -----------------------------------------------------------------------------------


def test_a_page_that_was_just_loaded_has_missed_nothing(world: World) -> None:
    assert world.open() == "retry: 2000\nid: 0\n\n"
    world.event("MailboxModseq", 7)
    assert world.open() == f"retry: 2000\nid: {world.id}\n\n"


def test_a_page_that_comes_back_in_time_has_missed_nothing(world: World) -> None:
    world.event("MailboxModseq", 7)
    assert world.open(str(world.id)) == f"retry: 2000\nid: {world.id}\n\n"
    assert (world.publisher.replayed, world.publisher.resyncs) == (0, 0)


@pytest.mark.parametrize(("profile", "event"), [(PAGE, "push"), (JMAP, "state")])
def test_a_page_that_comes_back_late_is_told_the_state_at_once(
    world: World, profile: Profile, event: str
) -> None:
    world.event("MailboxModseq", 7)
    before = world.id
    world.event("MailboxModseq", 8)
    told = world.open(str(before), profile)
    assert told.startswith(f"retry: 2000\nevent: {event}\nid: {world.id}\n")
    assert (world.publisher.replayed, world.publisher.resyncs) == (1, 0)


@pytest.mark.parametrize("profile", [PAGE, JMAP])
@pytest.mark.parametrize("last_event_id", ["1", "x", "99999999999999999999"])
def test_a_page_with_an_id_that_says_nothing_is_told_to_start_over(
    world: World, profile: Profile, last_event_id: str
) -> None:
    assert world.open(last_event_id, profile).startswith("retry: 2000\nevent: resync\nid: 0\n")
    world.event("MailboxModseq", 7)
    told = world.open(last_event_id, profile)
    assert told.startswith(f"retry: 2000\nevent: resync\nid: {world.id}\n")
    assert "7" in told.partition("data: ")[2]
    assert world.publisher.resyncs == 2


def test_a_page_is_not_told_again_what_its_opening_told(world: World) -> None:
    world.event("MailboxModseq", 7)
    world.open()
    world.publisher.flush()
    assert world.outlet.told == []


def test_one_account_has_so_many_streams_and_no_more(world: World) -> None:
    for _ in range(3):
        world.open()
    with pytest.raises(ProtocolError) as refused:
        world.open()
    assert refused.value.status == 429
    world.open(account="bob")


@pytest.mark.parametrize(("random", "milliseconds"), [(0.0, 1000), (0.5, 2000), (0.999, 2998)])
def test_readers_come_back_spread_over_time(world: World, random: float, milliseconds: int) -> None:
    world.random = random
    assert world.open().startswith(f"retry: {milliseconds}\n")
