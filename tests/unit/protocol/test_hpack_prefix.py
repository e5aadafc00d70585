"""Header blocks of requests, read by hpack's decoder."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pusher.protocol.hpack_prefix import (
    MAX_FIELDS_BYTES,
    FieldTable,
    FixedFields,
    Request,
    fixed_fields,
)

TOPIC = (("apns-topic", "org.example.mail"), ("apns-push-type", "alert"), ("apns-priority", "10"))
ALERT = fixed_fields("api.push.apple.com", TOPIC)
PUSH = Request(
    "/3/device/00fc13ad", b"{}", ALERT, (("apns-id", "7"), ("authorization", "bearer x"))
)


def decoded(decoder: hpack.Decoder, block: bytes) -> list[tuple[str, str]]:
    return [(str(name), str(value)) for name, value in decoder.decode(block)]


def expected(request: Request) -> list[tuple[str, str]]:
    fixed = [(name.decode(), value.decode()) for name, value in request.fixed.fields]
    return [(":path", request.path), *fixed, *request.fields]


def test_what_repeats_takes_one_byte_a_field() -> None:
    table, decoder = FieldTable(), hpack.Decoder()
    blocks = [table.block(PUSH) for _ in range(3)]
    assert [decoded(decoder, block) for block in blocks] == [expected(PUSH)] * 3
    assert len(blocks[1]) == len(blocks[2]) < len(blocks[0]) - 40
    literals = sum(len(value) for _, value in PUSH.fields) + len(PUSH.path) + len("apns-id")
    assert len(blocks[2]) < literals + len(ALERT.fields) + 12


def test_credentials_and_tokens_are_never_indexed() -> None:
    fields = hpack.Decoder().decode(FieldTable().block(PUSH))
    never = {str(field[0]) for field in fields if not field.indexable}
    assert never == {":path", "apns-id", "authorization"}


def test_a_second_kind_of_push_does_not_spoil_the_first() -> None:
    table, decoder = FieldTable(), hpack.Decoder()
    other = fixed_fields("api.push.apple.com", (("apns-topic", "org.example.calendar"),))
    for fixed in (ALERT, other, ALERT, ALERT, other, other, ALERT):
        request = Request("/3/device/1", b"", fixed)
        assert decoded(decoder, table.block(request)) == expected(request)


def test_a_full_table_is_left_as_it_is() -> None:
    table, decoder = FieldTable(), hpack.Decoder()
    kinds = [fixed_fields(f"host-{n}.example", (("topic", "t" * 300),)) for n in range(30)]
    for fixed in kinds * 3:
        request = Request("/", b"", fixed)
        assert decoded(decoder, table.block(request)) == expected(request)
    assert decoder.header_table.resized is False


@pytest.mark.parametrize(
    "sizes", [(0,), (64,), (4096,), (100_000,), (0, 4096), (200, 0), (50, 300)]
)
def test_the_servers_table_size_is_kept_and_announced(sizes: tuple[int, ...]) -> None:
    table, decoder = FieldTable(), hpack.Decoder()
    for _ in range(2):
        decoded(decoder, table.block(PUSH))
    for size in sizes:
        table.resize(size)
    # As a server does: its own limit is what it said last.
    decoder.max_allowed_table_size = sizes[-1]
    for _ in range(3):
        assert decoded(decoder, table.block(PUSH)) == expected(PUSH)
        assert decoder.header_table_size <= sizes[-1]


TEXT = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=300)
FIELD = st.tuples(st.from_regex(r"[a-z0-9-]{1,140}", fullmatch=True), TEXT).filter(
    lambda field: field[0] not in ("connection", "keep-alive", "upgrade", "host")
)
FIELDS = st.lists(FIELD, max_size=6).map(tuple)


@given(st.lists(st.tuples(TEXT, FIELDS, FIELDS, st.sampled_from([None, 0, 90, 4096])), max_size=12))
def test_any_fields_come_out_as_they_went_in(
    requests: list[
        tuple[str, tuple[tuple[str, str], ...], tuple[tuple[str, str], ...], int | None]
    ],
) -> None:
    table, decoder = FieldTable(), hpack.Decoder()
    for path, shared, own, size in requests:
        if size is not None:
            table.resize(size)
            decoder.max_allowed_table_size = size
        request = Request("/" + path, b"", fixed_fields("host", shared), own)
        assert decoded(decoder, table.block(request)) == expected(request)


@pytest.mark.parametrize(
    "value",
    ["a\r\nb: c", "a\nb", "a\0b", "\x7f", " a", "a ", "ä", "\u202e", "\x85"],
)
def test_no_control_character_reaches_a_header(value: str) -> None:
    with pytest.raises(ValueError, match="printable"):
        Request("/", b"", ALERT, (("apns-collapse-id", value),))
    with pytest.raises(ValueError, match="printable"):
        fixed_fields("host", (("topic", value),))
    with pytest.raises(ValueError, match=r"path|printable"):
        Request("/3/device/" + value, b"", ALERT)
    with pytest.raises(ValueError, match="printable"):
        fixed_fields(value)


@pytest.mark.parametrize(
    "name", ["", "Upper", ":path", "a b", "a:", "ä", "connection", "host", "te\n"]
)
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        Request("/", b"", ALERT, ((name, "x"),))


def test_a_header_that_needs_more_than_a_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="bytes"):
        Request("/" + "a" * MAX_FIELDS_BYTES, b"", ALERT)
    with pytest.raises(ValueError, match="bytes"):
        Request("/", b"", ALERT, (("a", "b" * 6000), ("c", "d" * 7000)))


def test_equal_kinds_are_one() -> None:
    assert fixed_fields("api.push.apple.com", TOPIC) is ALERT
    assert isinstance(ALERT, FixedFields)


def test_a_request_does_not_show_its_token() -> None:
    assert "00fc13ad" not in repr(PUSH)
    assert "bearer" not in repr(PUSH)
