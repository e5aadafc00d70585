"""Requests found in a stream, however it is cut, and what happens to broken ones."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pusher.protocol.framing import Item, Rejected, StreamFraming
from pusher.protocol.notification import REASONS, Notification, encode_dlist

EVENT = Notification("pusher", "EVENT", None, None, None, (), b'{"event":"X"}', None)
LINE = Notification(None, "EVENT", None, None, None, (), b'{"event":"X"}', None)
REQUEST = encode_dlist(EVENT)
JSON_LINE = b'{"event":"X"}\n'


def byte_by_byte(framing: StreamFraming, raw: bytes) -> list[Item]:
    return [item for at in range(len(raw)) for item in framing.feed(raw[at : at + 1])]


def both_ways(raw: bytes, max_bytes: int = 1_048_576) -> tuple[list[Item], str | None]:
    """What `raw` gives whole; fails if it gives anything else byte by byte."""
    whole, slow = StreamFraming(max_bytes), StreamFraming(max_bytes)
    items = whole.feed(raw)
    assert byte_by_byte(slow, raw) == items
    reason = whole.error.reason if whole.error else None
    assert (slow.error.reason if slow.error else None) == reason
    assert slow.idle is whole.idle
    return items, reason


def test_requests_of_both_forms_share_a_connection() -> None:
    raw = b"\r\n " + REQUEST + JSON_LINE + b"\n" + REQUEST * 2 + b" " + JSON_LINE
    assert both_ways(raw) == ([EVENT, LINE, EVENT, EVENT, LINE], None)


@pytest.mark.parametrize("cut", range(1, len(REQUEST)))
def test_half_a_request_is_not_idle_and_goes_on(cut: int) -> None:
    framing = StreamFraming()
    assert framing.feed(REQUEST[:cut]) == []
    assert not framing.idle
    assert framing.feed(REQUEST[cut:] + REQUEST) == [EVENT, EVENT]
    assert framing.idle


def test_a_request_is_complete_only_with_its_line_end() -> None:
    framing = StreamFraming()
    assert framing.feed(REQUEST[:-2]) == []
    assert framing.feed(b"\r") == []
    assert framing.feed(b"\n") == [EVENT]


@pytest.mark.parametrize(
    "raw",
    [
        b"NOTIFY %(MESSAGE {2}\r\nhi CLASS C)\r\n",
        b"NOTIFY %(MESSAGE {2+}\nhi CLASS C)\n",
        b'NOTIFY %(MESSAGE "h\\i" CLASS C)\r\n',
        b"NOTIFY %( CLASS  C\tMESSAGE hi )\r\n",
        b'NOTIFY %(CLASS "C" MESSAGE hi EXTRA (a (b) %(c d)) OTHER %())\r\n',
        b"NOTIFY %(CLASS C MESSAGE bye MESSAGE hi)\r\n",
        b"NOTIFY %(CLASS C MESSAGE hi OPTIONS NIL METHOD NIL)\r\n",
    ],
)
def test_liberal_forms_are_read_as_the_strict_one(raw: bytes) -> None:
    right = Notification(None, "C", None, None, None, (), b"hi", None)
    assert both_ways(raw) == ([right], None)


def test_quoted_escapes_and_text_that_looks_like_syntax() -> None:
    raw = rb'NOTIFY %(METHOD "a\"b\\" CLASS C OPTIONS (")" "%{x" "NIL" NIL2) MESSAGE "{1}")' + b"\n"
    right = Notification('a"b\\', "C", None, None, None, (")", "%{x", "NIL", "NIL2"), b"{1}", None)
    assert both_ways(raw) == ([right], None)


def test_a_literal_may_hold_a_whole_second_request() -> None:
    n = Notification("m", "SIEVE", "low", "u", None, ("o",), REQUEST * 2 + b")\r\n", "/f")
    assert both_ways(encode_dlist(n) + REQUEST) == ([n, EVENT], None)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"NOTIFY %(MESSAGE x)\r\n", "no-class"),
        (b"NOTIFY %(CLASS NIL MESSAGE x)\r\n", "no-class"),
        (b"NOTIFY %(CLASS EVENT)\r\n", "no-message"),
        (b"NOTIFY %(CLASS EVENT MESSAGE NIL)\r\n", "no-message"),
        (b"NOTIFY %(CLASS EVENT MESSAGE (x))\r\n", "bad-field"),
        (b"NOTIFY %(CLASS EVENT MESSAGE x USER ())\r\n", "bad-field"),
        (b"NOTIFY %(CLASS EVENT MESSAGE)\r\n", "bad-syntax"),
        (b"NOTIFY %()\r\n", "no-class"),
        (b"{broken\n", "not-json"),
        (b"{}\n", "no-event-or-class"),
        (b'{"event":"X"} trailing\n', "not-json"),
    ],
)
def test_a_framed_request_without_sense_leaves_the_next_one_alone(raw: bytes, reason: str) -> None:
    items, error = both_ways(REQUEST + raw + REQUEST + raw + JSON_LINE)
    assert items == [EVENT, Rejected(reason), EVENT, Rejected(reason), LINE]
    assert error is None
    assert reason in REASONS


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"GET / HTTP/1.1\r\n", "unknown-request"),
        (b"NOTIFX", "unknown-request"),
        (b"NOTIFY (CLASS", "unknown-request"),
        (b"\0", "unknown-request"),
        (b"\x16\x03\x01", "unknown-request"),
        (b"NOTIFY %(CLASS EVENT MESSAGE x) x", "bad-syntax"),
        (b"NOTIFY %(CLASS \x00", "bad-syntax"),
        (b"NOTIFY %(CLASS \xc3\xbc", "bad-syntax"),
        (b"NOTIFY %(CLASS\r\n", "bad-syntax"),
        (b'NOTIFY %(CLASS "a\r\n', "bad-syntax"),
        (b"NOTIFY %(CLASS {x}", "bad-syntax"),
        (b"NOTIFY %(CLASS {99999999999", "bad-syntax"),
        (b"NOTIFY %(CLASS %x", "bad-syntax"),
        (b"NOTIFY %(CLASS " + b"(" * 100, "bad-syntax"),
        (b"NOTIFY %(CLASS %{4+}\r\n/etc", "file-literal"),
        (b"NOTIFY %(CLASS {1048577+}\r\n", "oversized"),
        (b"NOTIFY %(CLASS {9999999999}\r\n", "oversized"),
    ],
)
def test_broken_framing_keeps_what_came_before_and_ends_the_rest(raw: bytes, reason: str) -> None:
    assert both_ways(REQUEST + JSON_LINE + raw) == ([EVENT, LINE], reason)
    framing = StreamFraming()
    framing.feed(raw)
    assert framing.feed(REQUEST) == []
    assert framing.finish() == []
    assert reason in REASONS


@pytest.mark.parametrize(
    "raw",
    [
        b'{"event":"' + b"x" * 1000 + b'"}\n',
        b'{"event":"' + b"x" * 1000,
        encode_dlist(Notification("m", "EVENT", None, None, None, (), b"x" * 1000, None)),
        b"NOTIFY %(CLASS " + b"x" * 1000,
        b'NOTIFY %(CLASS "' + b"x" * 1000,
        b"NOTIFY %(" + b" " * 1000,
        b"NOTIFY %(" + b"() " * 400,
    ],
)
def test_oversized_requests_end_the_connection(raw: bytes) -> None:
    assert both_ways(REQUEST + raw, max_bytes=500) == ([EVENT], "oversized")


def test_a_request_of_exactly_the_limit_passes() -> None:
    assert both_ways(REQUEST * 3, max_bytes=len(REQUEST)) == ([EVENT] * 3, None)
    assert both_ways(REQUEST, max_bytes=len(REQUEST) - 1)[1] == "oversized"


def test_the_limit_is_per_request_not_per_connection() -> None:
    framing = StreamFraming(max_bytes=200)
    assert len(framing.feed(REQUEST * 1000)) == 1000
    assert len(framing.feed(JSON_LINE * 1000)) == 1000


def test_the_end_of_the_connection_completes_a_line() -> None:
    framing = StreamFraming()
    framing.feed(JSON_LINE + JSON_LINE[:-1])
    assert framing.finish() == [LINE]
    assert framing.finish() == []


@pytest.mark.parametrize("raw", [REQUEST[:-3], b"N", b'{"event":'])
def test_a_cut_off_request_is_no_event(raw: bytes) -> None:
    framing = StreamFraming()
    framing.feed(raw)
    assert framing.finish() == [Rejected("truncated")]


@pytest.mark.parametrize(
    "raw",
    [
        encode_dlist(Notification("m", "EVENT", None, None, None, (), b"x" * 50_000, None)),
        b'NOTIFY %(METHOD "' + b'ab\\"' * 12_500 + b'" CLASS C MESSAGE x)\r\n',
        b"NOTIFY %(METHOD " + b"a" * 50_000 + b" CLASS C MESSAGE x)\r\n",
        b"NOTIFY %(" + b" " * 50_000 + b"CLASS C MESSAGE x)\r\n",
        b"NOTIFY %(OPTIONS (" + b"ab " * 17_000 + b") CLASS C MESSAGE x)\r\n",
        b'{"event":"' + b"x" * 50_000 + b'"}\n',
    ],
    ids=["literal", "escapes", "atom", "spaces", "options", "line"],
)
def test_50_kilobytes_one_by_one_take_linear_time(raw: bytes) -> None:
    started = time.process_time()
    items = byte_by_byte(StreamFraming(), raw)
    assert [type(item) for item in items] == [Notification]
    # 30 to 80 ms here; anything quadratic needs seconds.
    assert time.process_time() - started < 1


def test_many_small_requests_in_one_piece_take_linear_time() -> None:
    started = time.process_time()
    assert len(StreamFraming().feed(b"{}\r\n\r\n" * 100_000)) == 100_000
    assert time.process_time() - started < 3


pieces = st.sampled_from(
    [REQUEST, JSON_LINE, b"{}\n", b"\r\n", b"NOTIFY %(", b"CLASS ", b"EVENT ", b"MESSAGE ", b"x ",
     b"{3+}\r\nabc ", b'"q" ', b"(", b")\r\n", b")", b"NIL ", b"{", b"\\", b'"', b"%(", b"\r"]
)  # fmt: skip


@settings(max_examples=300)
@given(st.lists(pieces | st.binary(max_size=5), max_size=20).map(b"".join))
def test_the_same_bytes_give_the_same_however_they_are_cut(raw: bytes) -> None:
    items, reason = both_ways(raw)
    assert reason is None or reason in REASONS
    assert all(isinstance(item, Notification) or item.reason in REASONS for item in items)
