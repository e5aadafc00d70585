"""What a reader may ask for, and what it gets for asking otherwise."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pusher.protocol.numbers import POSITIONS
from pusher.protocol.profile import (
    JMAP_TYPES,
    PAGE,
    PING_SECONDS,
    Profile,
    Shape,
    interned,
    jmap_profile,
)
from pusher.protocol.shardwire import Open, decode_order, encode
from shared.errors import ProtocolError


@pytest.mark.parametrize(
    ("asked", "given"),
    [("0", 0), ("1", 30), ("30", 30), ("31", 31), ("300", 300), ("301", 300), ("9" * 400, 300)],
)
def test_pings_are_kept_within_what_the_standard_asks_of_a_server(asked: str, given: int) -> None:
    assert jmap_profile("*", "no", asked).ping_seconds == given


def test_the_standards_bounds_are_met() -> None:
    low, high = PING_SECONDS
    assert low <= 30
    assert high >= 300


@pytest.mark.parametrize("ping", ["", "-1", "1.5", "x", "\u0663\u0660", "1e3", " 30", "\u00b2"])
def test_a_ping_that_is_no_number_is_refused(ping: str) -> None:
    with pytest.raises(ProtocolError) as refused:
        jmap_profile("*", "no", ping)
    assert refused.value.status == 400


@pytest.mark.parametrize("closeafter", ["", "yes", "State", "state ", "no,state"])
def test_a_closeafter_the_standard_does_not_know_is_refused(closeafter: str) -> None:
    with pytest.raises(ProtocolError) as refused:
        jmap_profile("*", closeafter, "0")
    assert refused.value.status == 400


@pytest.mark.parametrize(("closeafter", "closes"), [("state", True), ("no", False)])
def test_closeafter_is_read(closeafter: str, closes: bool) -> None:
    assert jmap_profile("*", closeafter, "0").closes_after_state is closes


@pytest.mark.parametrize(
    ("asked", "types"),
    [
        ("*", set(JMAP_TYPES)),
        ("Email", {"Email"}),
        ("Email,Email,Calendar", {"Email", "Calendar"}),
        ("email", set()),
        ("Email, Calendar", {"Email"}),
        ("", set()),
        ("VacationResponse,Identity", set()),
        ("Email,\r\n\r\nEvil", {"Email"}),
    ],
)
def test_types_without_a_number_never_change_and_are_dropped(asked: str, types: set[str]) -> None:
    profile = jmap_profile(asked, "no", "0")
    assert set(profile.types) == types
    assert profile.mask == sum({1 << JMAP_TYPES[name] for name in types})


def test_every_type_has_a_number_there_is() -> None:
    assert set(JMAP_TYPES.values()) <= set(range(POSITIONS))


def test_equal_wishes_share_one_object() -> None:
    assert jmap_profile("Email,Calendar", "no", "40") is jmap_profile("Calendar,Email", "no", "40")
    copy = Profile(*jmap_profile("Email,Calendar", "no", "40"))
    assert interned(copy) is jmap_profile("Email,Calendar", "no", "40")


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=40), st.sampled_from(["no", "state"]), st.integers(0, 10**6))
def test_wishes_are_the_same_in_another_process(types: str, closeafter: str, ping: int) -> None:
    for profile in (PAGE, jmap_profile(types, closeafter, str(ping))):
        order = Open(
            "alice",
            profile.shape.value,
            profile.types,
            profile.mask,
            profile.closes_after_state,
            profile.ping_seconds,
            1.5,
            b"head",
        )
        read = decode_order(encode(order))
        assert isinstance(read, Open)
        assert read == order
        assert read.profile() == profile
        assert isinstance(read.profile().shape, Shape)
