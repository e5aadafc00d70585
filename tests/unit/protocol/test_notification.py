"""Datagrams and JSON objects as notifications, and back."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pusher.protocol.framing import StreamFraming
from pusher.protocol.notification import (
    REASONS,
    Notification,
    decode_datagram,
    encode_datagram,
    encode_dlist,
)
from shared.errors import DecodeError

EVENT = Notification("pusher", "EVENT", None, None, None, (), b'{"event":"X"}', None)


def datagram(*fields: bytes) -> bytes:
    return b"\0".join(fields) + b"\0"


def test_options_and_file_path_are_found_by_their_count() -> None:
    raw = datagram(b"mailto", b"SIEVE", b"low", b"bob", b"INBOX", b"2", b"a", b"", b"text", b"/s/1")
    right = Notification("mailto", "SIEVE", "low", "bob", "INBOX", ("a", ""), b"text", "/s/1")
    assert decode_datagram(raw) == right


def test_event_without_method_is_an_event() -> None:
    raw = datagram(b"", b"EVENT", b"", b"", b"", b"0", b"{}")
    assert decode_datagram(raw).method is None
    assert decode_datagram(raw).class_ == "EVENT"


def test_invalid_utf8_in_a_field_does_not_lose_the_notification() -> None:
    raw = datagram(b"\xff", b"SIEVE", b"", b"b\xfcb", b"", b"0", b"\xff")
    n = decode_datagram(raw)
    assert (n.method, n.user, n.message) == ("\ufffd", "b\ufffdb", b"\xff")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "empty"),
        (b"pusher", "not-terminated"),
        (datagram(b"pusher", b"EVENT", b"", b"", b"", b"0", b"{}")[:-1], "not-terminated"),
        (datagram(b"pusher", b"EVENT"), "too-few-fields"),
        (datagram(b"pusher", b"SIEVE", b"", b"", b"", b"2", b"a", b"b"), "too-few-fields"),
        (datagram(b"p", b"SIEVE", b"", b"", b"", b"0", b"m", b"/f", b"x"), "too-many-fields"),
        (datagram(b"p", b"SIEVE", b"", b"", b"", b"-1", b"m"), "bad-option-count"),
        (datagram(b"p", b"SIEVE", b"", b"", b"", b"", b"m"), "bad-option-count"),
        (datagram(b"p", b"SIEVE", b"", b"", b"", b"9" * 5000, b"m"), "bad-option-count"),
        (datagram(b"p", b"", b"", b"", b"", b"0", b"m"), "no-class"),
        (b"{", "not-json"),
        (b'{"event"', "not-json"),
        (b"{}", "no-event-or-class"),
        (b'{"class":""}', "no-event-or-class"),
        (b'{"class":1}', "bad-field"),
        (b'{"class":"SIEVE"}', "no-message"),
        (b'{"class":"SIEVE","message":[]}', "bad-field"),
        (b'{"class":"SIEVE","message":"","options":"a"}', "bad-field"),
        (b'{"class":"SIEVE","message":"","options":[1]}', "bad-field"),
        (b'{"a":' + b"[" * 100_000, "too-deep"),
    ],
)
def test_nonsense_is_refused_with_its_reason(raw: bytes, reason: str) -> None:
    with pytest.raises(DecodeError) as refused:
        decode_datagram(raw)
    assert refused.value.reason == reason
    assert reason in REASONS


def test_json_object_with_event_is_a_mailbox_event_byte_for_byte() -> None:
    raw = b'{"class":"SIEVE", "event":"MessageNew"}'
    assert decode_datagram(raw + b"\n") == Notification(
        None, "EVENT", None, None, None, (), raw, None
    )


@pytest.mark.parametrize("upper", [False, True])
def test_json_object_with_class_carries_the_fields(upper: bool) -> None:
    raw = (
        '{"method":"m","class":"SIEVE","priority":"low","user":"ü","mailbox":null,'
        '"options":["a"],"message":"text","filepath":"/f"}'
    )
    if upper:
        raw = re.sub('"([a-z]+)":', lambda key: key[0].upper(), raw)
    right = Notification("m", "SIEVE", "low", "ü", None, ("a",), b"text", "/f")
    assert decode_datagram(raw.encode()) == right


def test_json_message_that_is_an_object_is_json_again() -> None:
    n = decode_datagram(b'{"class":"IMIP","message":{"a": [1, null]}}')
    assert n.message == b'{"a":[1,null]}'


def test_invalid_utf8_in_json_does_not_lose_the_notification() -> None:
    assert decode_datagram(b'{"event":"X","user":"\xff"}').message == b'{"event":"X","user":"\xff"}'
    assert decode_datagram(b'{"class":"C","message":"\xff"}').message == "\ufffd".encode()


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
given_texts = st.none() | texts.filter(bool)
notifications = st.builds(
    Notification,
    given_texts.filter(lambda text: text is None or not text.startswith("{")),
    texts.filter(bool),
    given_texts,
    given_texts,
    given_texts,
    st.lists(texts, max_size=4).map(tuple),
    st.binary().map(lambda raw: raw.replace(b"\0", b"")),
    given_texts,
)


@given(notifications)
def test_datagram_says_what_was_written(n: Notification) -> None:
    assert decode_datagram(encode_datagram(n)) == n


@given(notifications)
def test_dlist_says_what_was_written_whole_and_byte_by_byte(n: Notification) -> None:
    raw = encode_dlist(n)
    assert StreamFraming().feed(raw) == [n]
    framing = StreamFraming()
    items = [item for at in range(len(raw)) for item in framing.feed(raw[at : at + 1])]
    assert items == [n]


def test_nul_cannot_be_smuggled_into_a_datagram() -> None:
    with pytest.raises(ValueError, match="NUL"):
        encode_datagram(Notification("a\0b", "EVENT", None, None, None, (), b"", None))


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, b"NIL"),
        ("", b'""'),
        ("NIL", b'"NIL"'),
        ("NILS", b"NILS"),
        ("sms:+1,+2;x=[y]", b"sms:+1,+2;x=[y]"),
        ("a}b]", b"a}b]"),
        ("\x1f", b"\x1f"),
        ("a b{(\t", b'"a b{(\t"'),
        ("100%", b"{4+}\r\n100%"),
        ('"', b'{1+}\r\n"'),
        ("ü", b"{2+}\r\n\xc3\xbc"),
        ("a\n", b"{2+}\r\na\n"),
        ("\x7f", b'"\x7f"'),
        ("*", b'"*"'),
        ("a" * 1023, b"a" * 1023),
        ("a" * 1024, b"{1024+}\r\n" + b"a" * 1024),
    ],
)
def test_dlist_form_of_a_value_is_the_one_cyrus_picks(value: str | None, written: bytes) -> None:
    n = Notification(value, "C", None, None, None, (), b"m", None)
    assert encode_dlist(n).startswith(b"NOTIFY %(METHOD " + written + b" CLASS C ")


@given(st.binary() | st.binary().map(lambda raw: b"{" + raw))
def test_random_bytes_raise_nothing_but_decode_error(raw: bytes) -> None:
    with suppress(DecodeError):
        decode_datagram(raw)
