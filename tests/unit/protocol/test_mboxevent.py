"""The event's JSON under plain names, and what survives when some of it is wrong."""

from __future__ import annotations

import json
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pusher.protocol import counters, imapurl
from pusher.protocol.acl import readers
from pusher.protocol.counters import Counters
from pusher.protocol.envelope import decode_envelope
from pusher.protocol.mboxevent import (
    CYRUS_EVENTS,
    REASONS,
    RFC5423_EVENTS,
    MailboxEvent,
    decode,
    kind,
    lags,
)
from shared.errors import DecodeError

# Published in 2014; user and folder were blanked by the publisher.
SAMPLE = rb"""{"event":"MessageNew","messages":1068,"modseq":1777287,"pid":2087223,
"serverFQDN":"sloti30t01","service":"lmtp","uidnext":40818,
"uri":"imap://;UIDVALIDITY=1335827579/;UID=40817",
"vnd.cmu.envelope":"(\"Wed, 03 Dec 2014 08:49:40 +1100\" \"Re: Blog day 3: Push it real good\" ((\"Robert Norris\" NIL \"robn\" \"\")) ((\"Robert Norris\" NIL \"robn\" \"\")) ((\"Robert Norris\" NIL \"robn\" \"\")) ((NIL NIL \"staff\" \"\")) NIL NIL \"<>\" \"<>\")",
"vnd.cmu.mailboxACL":"\tlrswipkxtecdn\tadmin\tlrswipkxtecdan\tanyone\tp\t","vnd.cmu.mbtype":"",
"vnd.cmu.unseenMessages":90,"vnd.fastmail.cid":"b9384d25e93fc71c","vnd.fastmail.convExists":413,
"vnd.fastmail.convUnseen":82,
"vnd.fastmail.counters":"0 1777287 1777287 1761500 1758760 1416223082",
"vnd.fastmail.sessionId":"sloti30t01-2087223-1417556981-1"}"""  # noqa: E501

RFC5423_SECTION_4 = """
MessageAppend MessageExpire MessageExpunge MessageNew QuotaExceed QuotaWithin QuotaChange
MessageRead MessageTrash FlagsSet FlagsClear Login Logout MailboxCreate MailboxDelete
MailboxRename MailboxSubscribe MailboxUnSubscribe
"""

RFC5423_SECTION_5 = """
admin bodyStructure clientIP clientPort diskQuota diskUsed flagNames mailboxID maxMessages
messageContent messages messageSize modseq oldMailboxID pid process serverDomain serverFQDN
serverPort service tags timestamp uidnext uidset uri user
"""


def test_the_published_sample_is_read_whole() -> None:
    event = decode(SAMPLE)
    assert event == MailboxEvent(
        event_type="MessageNew",
        messages=1068,
        modseq=1777287,
        pid=2087223,
        server_fqdn="sloti30t01",
        service="lmtp",
        uidnext=40818,
        uri="imap://;UIDVALIDITY=1335827579/;UID=40817",
        envelope=event.envelope,
        mailbox_acl="\tlrswipkxtecdn\tadmin\tlrswipkxtecdan\tanyone\tp\t",
        mbtype="",
        unseen_messages=90,
        cid="b9384d25e93fc71c",
        conv_exists=413,
        conv_unseen=82,
        counters="0 1777287 1777287 1761500 1758760 1416223082",
        session_id="sloti30t01-2087223-1417556981-1",
    )


def test_every_text_in_the_published_sample_has_a_reader() -> None:
    event = decode(SAMPLE)
    envelope = decode_envelope(event.envelope or "")
    assert [sender.display for sender in envelope.from_] == ["Robert Norris"]
    assert envelope.subject == "Re: Blog day 3: Push it real good"
    assert imapurl.parse(event.uri or "") == ("", None, "", 1335827579, 40817)
    assert readers(event.mailbox_acl or "").users == {"admin"}
    assert kind(event.mbtype) == "mail"
    assert counters.parse(event.counters or "") == Counters(
        1777287, 1777287, 1761500, 1758760, 0, 0, 0, 0, 0, 0, 0, 1416223082
    )


def test_all_events_of_rfc5423_are_known() -> None:
    assert set(RFC5423_EVENTS) == set(RFC5423_SECTION_4.split())
    assert len(RFC5423_EVENTS) == 18
    assert not set(RFC5423_EVENTS) & set(CYRUS_EVENTS)


def test_all_parameters_of_rfc5423_have_a_field() -> None:
    wire_names = {field.encode_name for field in msgspec.structs.fields(MailboxEvent)}
    assert set(RFC5423_SECTION_5.split()) <= wire_names


def test_unknown_events_and_keys_pass() -> None:
    event = decode(b'{"event":"vnd.example.Sneeze","vnd.example.x":[1,{}],"modseq":5}')
    assert (event.event_type, event.modseq, event.bad_fields) == ("vnd.example.Sneeze", 5, ())


def test_rights_taken_away_differ_from_rights_never_named() -> None:
    assert decode(b'{"event":"AclChange","aclRights":""}').acl_rights == ""
    assert decode(b'{"event":"AclChange"}').acl_rights is None


@pytest.mark.parametrize("key", ["modseq", "skipped"])
def test_a_number_beyond_everything_does_not_lose_the_event(key: str) -> None:
    for number in ("9" * 5000, "1e999"):
        event = decode(f'{{"event":"X","{key}":{number},"pid":"","user":"a"}}'.encode())
        assert event.user == "a"


@pytest.mark.parametrize(
    "bad",
    [
        '"7"',
        "1.5",
        "1e3",
        "-2",
        "9223372036854775808",
        "1" + "0" * 400,
        "9" * 5000,
        "1e999",
        "-1e999",
        "[]",
        "{}",
        "true",
    ],
)
def test_a_wrong_number_loses_its_field_only(bad: str) -> None:
    event = decode(f'{{"event":"X","modseq":{bad},"uidnext":8,"user":"a"}}'.encode())
    assert (event.modseq, event.uidnext, event.user) == (None, 8, "a")
    assert event.bad_fields == ("modseq",)


@pytest.mark.parametrize("good", ["-1", "0", "9223372036854775807"])
def test_numbers_at_the_edge_are_kept(good: str) -> None:
    assert decode(f'{{"event":"X","maxMessages":{good}}}'.encode()).max_messages == int(good)


def test_several_wrong_values_lose_their_fields_only() -> None:
    event = decode(
        b'{"event":"X","uri":[],"vnd.cmu.midset":"x","vnd.fastmail.jmapStates":{"Email":1},'
        b'"vnd.fastmail.counters":7,"service":null,"pid":1,"bad_fields":["forged"]}'
    )
    assert event == MailboxEvent(event_type="X", pid=1, bad_fields=event.bad_fields)
    assert set(event.bad_fields) == {
        "uri", "vnd.cmu.midset", "vnd.fastmail.jmapStates", "vnd.fastmail.counters",
    }  # fmt: skip


def test_bytes_that_are_not_utf8_lose_nothing_else() -> None:
    event = decode(b'{"event":"X","user":"b\xfcb","modseq":3,"other\xff":1}')
    assert (event.user, event.modseq, event.bad_fields) == ("b\ufffdb", 3, ())


def test_half_a_surrogate_pair_loses_nothing_else() -> None:
    event = decode(rb'{"event":"X","user":"a\ud83d","modseq":3}')
    assert (event.user, event.modseq) == ("a?", 3)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "not-json"),
        (b"{", "not-json"),
        (b"event", "not-json"),
        (b'{"event":"X"}{}', "not-json"),
        (b'{"event":"X","modseq":NaN}', "not-json"),
        (b"\x00\xff\xfe", "not-json"),
        (b"[]", "not-an-object"),
        (b"null", "not-an-object"),
        (b'"event"', "not-an-object"),
        (b"{}", "no-event-type"),
        (b'{"event":null}', "no-event-type"),
        (b'{"event":""}', "no-event-type"),
        (b'{"event":7}', "no-event-type"),
        (b'{"event":"X","a":' + b"[" * 200_000, "too-deep"),
        (b'{"event":"X","a":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "too-deep"),
        (b'{"event":"X","vnd.fastmail.jmapEmail":' + b'{"a":' * 200_000, "too-deep"),
        (b"[" * 200_000, "too-deep"),
    ],
    ids=lambda value: str(value[:30]),
)
def test_nonsense_is_refused_with_its_reason(message: bytes, reason: str) -> None:
    with pytest.raises(DecodeError) as refused:
        decode(message)
    assert refused.value.reason == reason
    assert reason in REASONS


@pytest.mark.parametrize(
    ("mbtype", "right"),
    [
        (None, "mail"), ("", "mail"), ("e", "mail"), ("ed", "mail"), ("c", "calendar"),
        ("a", "contacts"), ("b", "dav"), ("f", "sieve"), ("s", "submission"), ("p", "push"),
        ("n", "news"), ("j", "jmapnotification"), ("cmr", "calendar"), ("x", "other"),
    ],
)  # fmt: skip
def test_kind_is_the_first_letter(mbtype: str | None, right: str) -> None:
    assert kind(mbtype) == right


def test_counters_lag_in_all_events_but_three() -> None:
    known = {*RFC5423_EVENTS, *CYRUS_EVENTS}
    assert {name for name in known if not lags(name)} == {
        "MailboxModseq", "AclChange", "MailboxCreate",
    }  # fmt: skip


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
wire_names = st.sampled_from([field.encode_name for field in msgspec.structs.fields(MailboxEvent)])


@given(st.dictionaries(wire_names | st.text(), json_values))
def test_no_value_of_any_field_loses_the_event(values: dict[str, object]) -> None:
    event = decode(json.dumps({**values, "event": "X"}).encode())
    assert event.event_type == "X"
    assert set(event.bad_fields) <= set(values)


@given(st.binary() | st.binary().map(lambda raw: b'{"event":"X","user":"' + raw + b'"}'))
def test_random_bytes_raise_nothing_but_decode_error(message: bytes) -> None:
    with suppress(DecodeError):
        decode(message)
