"""What readers are sent: two shapes, exact numbers, and no name that breaks a line."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pusher.protocol import sse
from pusher.protocol.numbers import (
    CALENDAR,
    CONTACTS,
    DELIVERY,
    MAIL,
    MAIL_FOLDERS,
    POSITIONS,
    QUOTA,
    RESYNC,
    Numbers,
)
from pusher.protocol.profile import JMAP_TYPES, PAGE, Profile, jmap_profile

EVERYTHING = jmap_profile("*", "no", "0")
EXACT = 2**53 - 1
NASTY = [
    "alice",
    "a\r\nb",
    "a\n\nevent: push",
    "a\x00b",
    'a"b',
    "a\\",
    "\u2028",
    "ü📬",
    "",
    "\ud800",
]


def numbers(event_id: int, **values: int) -> Numbers:
    table = [0] * POSITIONS
    names = {"mail": MAIL, "calendar": CALENDAR, "contacts": CONTACTS, "folders": MAIL_FOLDERS}
    for name, value in values.items():
        table[{**names, "delivery": DELIVERY, "quota": QUOTA}[name]] = value
    return Numbers(event_id, table)


def blocks(data: bytes) -> list[dict[str, str]]:
    """Read an event stream as HTML §9.2 says; every field of a block once."""
    text = data.decode("utf-8")
    assert text == "" or text.endswith("\n\n")
    assert "\r" not in text
    assert "\0" not in text
    read = []
    for block in text.split("\n\n")[:-1]:
        fields = [line.partition(":") for line in block.split("\n")]
        names = [name for name, _, _ in fields]
        assert len(set(names)) == len(names)
        assert set(names) <= {"event", "id", "data", "retry", ""}
        read.append({name: value.removeprefix(" ") for name, _, value in fields})
    return read


def data_of(data: bytes) -> Any:
    (block,) = blocks(data)
    return json.loads(block["data"])


# --- the modseq shape --------------------------------------------------------------------------


def test_the_modseq_shape_is_the_one_web_clients_have_read_since_2014() -> None:
    told = numbers(1760138, mail=1777287, calendar=1761500, contacts=1758760)
    expected = (
        b"event: push\nid: 1760138\n"
        b'data: {"mailModSeq":1777287,"calendarModSeq":1761500,"contactsModSeq":1758760}\n\n'
    )
    assert sse.push(told) == sse.change(PAGE, "alice", told, 1 << CALENDAR) == expected


@pytest.mark.parametrize("large", ["mail", "calendar", "contacts"])
@pytest.mark.parametrize("value", [EXACT, EXACT + 1, 2**63 - 1])
def test_numbers_that_javascript_cannot_hold_are_strings(large: str, value: int) -> None:
    told = numbers(value + 2, **{"mail": 1, "calendar": 1, "contacts": 1, large: value})
    (block,) = blocks(sse.push(told))
    given = json.loads(block["data"])[f"{large}ModSeq"]
    assert given == (value if value <= EXACT else str(value))
    assert block["id"] == str(value + 2)
    assert json.loads(sse.page_numbers(told.values)) == json.loads(block["data"])


@pytest.mark.parametrize(
    ("mask", "is_told"),
    [(1 << MAIL, True), (1 << CONTACTS, True), (1 << QUOTA, False), (1 << MAIL_FOLDERS, False)],
)
def test_a_page_hears_of_its_three_numbers_only(mask: int, is_told: bool) -> None:
    assert bool(sse.change(PAGE, "alice", numbers(1, mail=1), mask)) is is_told


# --- JMAP --------------------------------------------------------------------------------------


def test_a_state_change_has_the_types_that_moved() -> None:
    told = numbers(70, mail=50, folders=40, calendar=30, delivery=45)
    (block,) = blocks(sse.change(EVERYTHING, "alice", told, 1 << MAIL | 1 << MAIL_FOLDERS))
    assert (block["event"], block["id"]) == ("state", "70")
    assert json.loads(block["data"]) == {
        "@type": "StateChange",
        "changed": {"alice": {"Email": "50", "Thread": "50", "Mailbox": "40"}},
    }


def test_a_delivery_is_its_own_type() -> None:
    told = numbers(70, mail=50, delivery=45)
    changed = data_of(sse.change(EVERYTHING, "alice", told, 1 << DELIVERY))["changed"]
    assert changed == {"alice": {"EmailDelivery": "45"}}


@pytest.mark.parametrize("types", ["Email", "Mailbox,Email", "CalendarEvent", "Nothing", "Quota,*"])
def test_a_reader_hears_only_of_types_it_asked_for(types: str) -> None:
    profile = jmap_profile(types, "no", "0")
    told = numbers(9, mail=1, calendar=2, contacts=3, folders=4, delivery=5, quota=6)
    data = sse.change(profile, "alice", told, (1 << POSITIONS) - 1)
    wanted = set(JMAP_TYPES) if "*" in types else set(types.split(",")) & set(JMAP_TYPES)
    given = set(data_of(data)["changed"]["alice"]) if data else set()
    assert given == {name for name in wanted if told.values[JMAP_TYPES[name]]}


def test_a_type_without_a_number_yet_is_not_told() -> None:
    assert sse.change(EVERYTHING, "alice", numbers(1), 1 << MAIL) == b""


def test_states_are_strings_of_any_size() -> None:
    changed = data_of(sse.change(EVERYTHING, "a", numbers(1, mail=2**63 - 1), 1 << MAIL))["changed"]
    assert changed["a"]["Email"] == str(2**63 - 1)


# --- what others share -------------------------------------------------------------------------


def test_a_shared_mailbox_is_told_under_its_owners_name() -> None:
    told = numbers(7, mail=50)
    (block,) = blocks(sse.shared_change(PAGE, "bob", told, 1 << MAIL))
    assert (block["event"], block["id"]) == ("shared", "7")
    data = json.loads(block["data"])
    assert (data["account"], data["numbers"]["mailModSeq"]) == ("bob", 50)
    changed = data_of(sse.shared_change(EVERYTHING, "bob", told, 1 << MAIL))["changed"]
    assert changed == {"bob": {"Email": "50", "Thread": "50"}}
    assert sse.shared_change(PAGE, "bob", told, 1 << QUOTA) == b""


# --- resync ------------------------------------------------------------------------------------


def test_a_page_that_starts_over_is_told_where_it_is() -> None:
    first, second = blocks(sse.resync(PAGE, "alice", numbers(5, mail=3)))
    assert (first["event"], second["event"]) == ("resync", "push")
    assert first["id"] == second["id"] == "5"
    assert first["data"] == second["data"]


def test_a_jmap_reader_that_starts_over_is_told_every_state_it_asked_for() -> None:
    profile = jmap_profile("Email,Calendar", "no", "0")
    first, second = blocks(sse.resync(profile, "alice", numbers(5, mail=3, contacts=4)))
    assert (first["event"], second["event"]) == ("resync", "state")
    assert json.loads(second["data"])["changed"] == {"alice": {"Email": "3"}}
    assert first["id"] == second["id"] == "5"


@pytest.mark.parametrize("profile", [PAGE, EVERYTHING])
def test_where_nothing_is_known_no_number_is_made_up(profile: Profile) -> None:
    for known, event_id in ((None, "0"), (numbers(5), "5")):
        (block,) = blocks(sse.resync(profile, "alice", known))
        assert block == {"event": "resync", "id": event_id, "data": "{}"}


def test_numbers_replaced_are_a_resync_whatever_else_moved() -> None:
    told = numbers(5, mail=3)
    for profile in (PAGE, EVERYTHING, jmap_profile("Quota", "no", "0")):
        assert sse.change(profile, "a", told, RESYNC) == sse.resync(profile, "a", told)


# --- opening and pings -------------------------------------------------------------------------

OPENINGS: list[tuple[str, Callable[[], bytes]]] = [
    ("nothing missed", lambda: b""),
    ("a state missed", lambda: sse.change(PAGE, "a", numbers(5, mail=3), PAGE.mask)),
    ("a JMAP state missed", lambda: sse.change(EVERYTHING, "a", numbers(5, mail=3), ~RESYNC)),
    ("nothing asked for missed", lambda: sse.change(EVERYTHING, "a", numbers(5), ~RESYNC)),
    ("unknown", lambda: sse.resync(PAGE, "a", numbers(5, mail=3))),
    ("unknown, JMAP", lambda: sse.resync(EVERYTHING, "a", numbers(5, mail=3))),
]


@pytest.mark.parametrize(
    "missed", [each[1] for each in OPENINGS], ids=[each[0] for each in OPENINGS]
)
def test_the_first_block_of_a_stream_has_an_id_in_any_case(missed: Callable[[], bytes]) -> None:
    first = blocks(sse.opening(1500, 5, missed()))[0]
    assert (first["id"], first["retry"]) == ("5", "1500")


def test_an_opening_tells_nothing_twice() -> None:
    missed = sse.push(numbers(5, mail=3))
    assert sse.opening(1, 5, missed).count(b"id: ") == 1


def test_a_ping_never_sets_an_id() -> None:
    assert sse.ping(PAGE) == sse.ping(EVERYTHING) == b":\n\n"
    (block,) = blocks(sse.ping(jmap_profile("*", "no", "60")))
    assert block == {"event": "ping", "data": '{"interval":60}'}


# --- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize("profile", [PAGE, EVERYTHING])
def test_no_account_name_breaks_a_frame(name: str, profile: Profile) -> None:
    told = numbers(5, mail=3)
    for data in (
        sse.change(profile, name, told, 1 << MAIL),
        sse.shared_change(profile, name, told, 1 << MAIL),
        sse.resync(profile, name, told),
    ):
        data.decode("ascii")
        for block in blocks(data):
            assert set(block) == {"event", "id", "data"}
            document = json.loads(block["data"])
            named = [document.get("account"), *document.get("changed", ())]
            assert set(named) <= {name, None}


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=30), st.integers(0, 2**64), st.integers(0, 2**16 - 1))
def test_whatever_the_account_is_called_a_frame_reads_back(
    name: str, number: int, mask: int
) -> None:
    told = numbers(number, mail=number, calendar=number // 2)
    for profile in (PAGE, EVERYTHING):
        for block in blocks(
            sse.change(profile, name, told, mask) + sse.shared_change(profile, name, told, mask)
        ):
            assert block["id"] == str(number)
            json.loads(block["data"])
