"""The short way of the commonest event does exactly what the long one does, or nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pusher.protocol.mboxevent import decode_change
from pusher.publisher import Publisher
from pusher.state.modseq import ModseqTable
from pusher.state.routing import route
from tests.unit.state.test_publisher import Pages

NOW = 1_800_000_000.0
UID = 1_795_224_916


class World:
    """Takes events the long way only, or the short one where it can."""

    def __init__(self, *, short: bool, max_accounts: int = 1_000_000) -> None:
        self.short = short
        self.short_ones = 0
        self.table = ModseqTable(max_accounts, recent=2)
        self.outlet = Pages()
        self.outlet.accounts["alice"] = 1
        self.publisher = Publisher(
            self.table, self.outlet, retry_seconds=2, most_per_account=9, wall=lambda: NOW
        )

    def take(self, told: dict[str, Any]) -> None:
        message = json.dumps(told).encode()
        is_modseq = told["event"] == "MailboxModseq"
        if self.short and is_modseq and self.publisher.shortcut.take(message):
            self.short_ones += 1
            return
        event = decode_change(message)
        self.publisher.change(route(event), event)


def modseq(highest: int, mail: int, rest: str = "", **more: Any) -> dict[str, Any]:
    counters = f"9 {highest} {mail} " + (rest or f"3 2 0 1 1 1 0 0 0 {UID}")
    uri = "imap://mail.example.org/user/alice;UIDVALIDITY=1"
    return {
        "event": "MailboxModseq",
        "uri": uri,
        "vnd.cmu.mailboxACL": "alice\tlrs\t",
        "vnd.fastmail.counters": counters,
        **more,
    }


def test_the_second_of_its_like_goes_the_short_way() -> None:
    world = World(short=True)
    world.take(modseq(10, 10))
    assert world.short_ones == 0
    world.publisher.flush()
    world.take(modseq(11, 11))
    world.take(modseq(11, 11))
    world.take(modseq(12, 11))
    assert world.short_ones == 3
    shortcut = world.publisher.shortcut
    assert (shortcut.told, shortcut.noted, shortcut.known) == (2, 0, 1)
    world.publisher.flush()
    numbers = world.table.numbers("alice")
    assert numbers is not None
    assert numbers.values[:3] == [12, 11, 3]


@pytest.mark.parametrize(
    "told",
    [
        modseq(9, 9),
        modseq(11, 11, f"4 2 0 1 1 1 0 0 0 {UID}"),
        modseq(11, 11, f"3 2 0 1 1 1 0 0 0 {UID + 1}"),
        modseq(11, 2**63),
        modseq(2**63, 11),
        modseq(11, 11, **{"vnd.cmu.mailboxACL": "alice\tlrs\tbob\tlr\t"}),
        modseq(11, 11, **{"vnd.cmu.mbtype": "c"}),
        modseq(11, 11, **{"vnd.fastmail.counters": "9 11"}),
        modseq(11, 11, **{"vnd.fastmail.counters": "9 x y z"}),
        modseq(11, 11, **{"vnd.fastmail.counters": f"9 {'1' * 5000} 11 3"}),
        {"event": "MailboxModseq", "uri": modseq(1, 1)["uri"]},
        {"event": "MailboxModseq"},
    ],
)
def test_what_differs_in_anything_else_goes_the_long_way(told: dict[str, Any]) -> None:
    world = World(short=True)
    world.take(modseq(10, 10))
    assert not world.publisher.shortcut.take(json.dumps(told).encode())
    assert not world.publisher.shortcut.take(b"{")
    numbers = world.table.numbers("alice")
    assert numbers is not None
    assert numbers.values[:2] == [10, 10]


def test_a_row_packed_away_is_not_written_to_any_more() -> None:
    world = World(short=True)
    world.take(modseq(10, 10))
    for name in ("bob", "carol", "dave", "erin", "frank"):
        world.take(modseq(5, 5, uri=f"imap://mail.example.org/user/{name};UIDVALIDITY=1"))
        world.publisher.flush()
    world.take(modseq(11, 11))
    numbers = world.table.numbers("alice")
    assert numbers is not None
    assert numbers.values[:2] == [11, 11]
    assert world.short_ones == 0


counters = st.tuples(
    st.integers(1, 9), st.integers(1, 9), st.sampled_from([3, 4]), st.sampled_from([UID, UID + 5])
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("modseq"), st.sampled_from(["alice", "bob"]), counters),
        st.tuples(st.just("flags"), st.sampled_from(["alice", "bob"]), counters),
        st.tuples(st.just("shared"), st.sampled_from(["alice", "bob"]), counters),
        st.tuples(st.just("flush"), st.just("alice"), counters),
        st.tuples(st.just("others"), st.just("alice"), counters),
    ),
    max_size=40,
)


@given(steps)
def test_both_ways_lead_to_the_same_numbers_and_the_same_told_readers(
    wanted: list[tuple[str, str, tuple[int, int, int, int]]],
) -> None:
    worlds = [World(short=True), World(short=False)]
    for what, account, (highest, mail, calendar, uidvalidity) in wanted:
        rest = f"{calendar} 2 0 1 1 1 0 0 0 {uidvalidity}"
        uri = f"imap://mail.example.org/user/{account};UIDVALIDITY=1"
        told = modseq(highest, mail, rest, uri=uri)
        for world in worlds:
            if what == "flush":
                world.publisher.flush()
            elif what == "others":
                for number in range(4):
                    other = f"imap://mail.example.org/user/other{number};UIDVALIDITY=1"
                    world.take({**told, "uri": other})
                world.publisher.flush()
            elif what == "flags":
                world.take({**told, "event": "FlagsSet", "modseq": highest})
            elif what == "shared":
                world.take({**told, "vnd.cmu.mailboxACL": "alice\tlrs\tbob\tlr\t"})
            else:
                world.take(told)
    short, long = worlds
    for world in worlds:
        world.publisher.flush()
    assert sorted(short.table.records()) == sorted(long.table.records())
    assert short.outlet.told == long.outlet.told
    assert short.table.unsaved == long.table.unsaved
