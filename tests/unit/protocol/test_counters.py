"""Three generations of one text of numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pusher.protocol.counters import Counters, parse

LARGEST = 2**63 - 1


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("9 1 2 3 4 5 6 7 8 9 10 11 12", Counters(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)),
        ("9 1 2 3 4 5 6 7 8 9 10 11 12 13 14", Counters(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)),
        ("3 1 2 3 4 5 6 7 8 9 12", Counters(1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 12)),
        (
            "0 1777287 1777287 1761500 1758760 1416223082",
            Counters(1777287, 1777287, 1761500, 1758760, 0, 0, 0, 0, 0, 0, 0, 1416223082),
        ),
        (f"0 {LARGEST} 0 0 0 1", Counters(LARGEST, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1)),
    ],
)
def test_every_generation_is_read(text: str, right: Counters) -> None:
    assert parse(text) == right


@pytest.mark.parametrize(
    "text",
    ["", "9", "9 1 2 3 4", "9 1 2 3 4 5 6", "9 1 2 3 4 5 6 7 8 9", "9 1 2 3 4 5 6 7 8 9 10 11",
     "9 -1 2 3 4 5", "9 +1 2 3 4 5", "9 1.0 2 3 4 5", "9 1e3 2 3 4 5", "9 x 2 3 4 5",
     "9 1_0 2 3 4 5", "9 ١ 2 3 4 5", "9  2 3 4 5", " 9 1 2 3 4 5", "9 1 2 3 4 5 ", "9,1,2,3,4,5",
     f"9 {LARGEST + 1} 2 3 4 5", "9 " + "9" * 5000 + " 2 3 4 5", "[9 1 2 3 4 5]", "9 null 2 3 4 5",
     "9 true 2 3 4 5", '9 "1" 2 3 4 5', "9 1 2 3 4 5]", "[" * 5000, "\ud800"],
)  # fmt: skip
def test_anything_else_is_unknown(text: str) -> None:
    assert parse(text) is None


@given(st.lists(st.integers(0, LARGEST), min_size=13, max_size=20))
def test_todays_numbers_are_read_by_position(numbers: list[int]) -> None:
    assert parse(" ".join(map(str, numbers))) == tuple(numbers[1:13])


@given(st.text() | st.text("0123456789 -.e[]"))
def test_parse_never_raises(text: str) -> None:
    assert parse(text) is None or isinstance(parse(text), Counters)
