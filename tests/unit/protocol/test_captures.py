"""What a real server sent, and what a right decoder gets from it."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pusher.protocol import acl, counters, imapurl, mboxevent
from pusher.protocol.envelope import decode_envelope
from pusher.protocol.framing import Item, StreamFraming
from pusher.protocol.mboxevent import CYRUS_EVENTS, RFC5423_EVENTS, MailboxEvent
from pusher.protocol.normal import normal_event
from pusher.protocol.notification import (
    Notification,
    decode_datagram,
    encode_datagram,
    encode_dlist,
)
from shared.events import NormalEvent

DATA = Path(__file__).parents[2] / "data"
DATAGRAMS = sorted((DATA / "mboxevents").glob("*.dgram"))
REQUESTS = sorted((DATA / "mboxevents").glob("*.dlist"))

datagrams = pytest.mark.parametrize("path", DATAGRAMS, ids=lambda path: path.stem)
requests = pytest.mark.parametrize("path", REQUESTS, ids=lambda path: path.stem)
captures = pytest.mark.parametrize("path", DATAGRAMS + REQUESTS, ids=lambda path: path.name)


def expected(path: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(path.with_suffix(".json").read_text("utf-8"))
    return read


def decoded(path: Path) -> Notification:
    if path.suffix == ".dgram":
        return decode_datagram(path.read_bytes())
    (item,) = StreamFraming().feed(path.read_bytes())
    assert isinstance(item, Notification)
    return item


def fields(n: Notification) -> dict[str, Any]:
    return {
        "METHOD": n.method,
        "CLASS": n.class_,
        "PRIORITY": n.priority,
        "USER": n.user,
        "MAILBOX": n.mailbox,
        "OPTIONS": list(n.options),
        "MESSAGE": n.message.decode(),
        "FILEPATH": n.filepath,
    }


def wire_form(event: MailboxEvent) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.to_builtins(event)
    return {key: value for key, value in told.items() if value is not None and key != "bad_fields"}


def test_every_event_type_of_the_server_is_among_the_captures() -> None:
    events = [expected(path)["event"] or {} for path in REQUESTS + DATAGRAMS]
    seen = {event["event"] for event in events if "event" in event}
    assert seen == {*RFC5423_EVENTS, *CYRUS_EVENTS} - {"MessagesUnscheduled"}
    assert len(REQUESTS) > 100
    assert len(DATAGRAMS) > 100


@captures
def test_capture_gives_exactly_its_fields(path: Path) -> None:
    assert hashlib.sha256(path.read_bytes()).hexdigest() == expected(path)["raw_sha256"]
    right = expected(path)["fields"]
    if path.suffix == ".dgram":
        right = {key: None if value == "" else value for key, value in right.items()}
    assert fields(decoded(path)) == right


@captures
def test_capture_gives_exactly_its_event(path: Path) -> None:
    n = decoded(path)
    if n.class_ == "EVENT":
        event = mboxevent.decode(n.message)
        assert wire_form(event) == expected(path)["event"]
        assert event.bad_fields == ()


@requests
def test_request_fed_one_byte_at_a_time_equals_whole(path: Path) -> None:
    raw = path.read_bytes()
    framing = StreamFraming()
    items: list[Item] = []
    for at in range(len(raw)):
        assert framing.idle is (at == 0)
        items += framing.feed(raw[at : at + 1])
    assert items == [decoded(path)]
    assert framing.idle
    assert framing.error is None


@requests
def test_request_is_written_again_byte_for_byte(path: Path) -> None:
    assert encode_dlist(decoded(path)) == path.read_bytes()


@datagrams
def test_datagram_is_written_again_byte_for_byte(path: Path) -> None:
    assert encode_datagram(decoded(path)) == path.read_bytes()


def test_all_requests_in_one_stream_come_out_in_order() -> None:
    stream = b"".join(path.read_bytes() for path in REQUESTS)
    framing = StreamFraming()
    items: list[Item] = []
    for at in range(0, len(stream), 777):
        items += framing.feed(stream[at : at + 777])
    assert items == [decoded(path) for path in REQUESTS]
    assert StreamFraming().feed(stream) == items


@captures
def test_every_part_of_an_event_has_a_reader_that_understands_it(path: Path) -> None:
    n = decoded(path)
    if n.class_ != "EVENT":
        return
    event = mboxevent.decode(n.message)
    assert event.counters is None or counters.parse(event.counters) is not None
    assert event.envelope is None or decode_envelope(event.envelope).date
    owner = imapurl.parse(event.uri or "").owner
    if event.mailbox_acl and owner:
        readers = acl.readers(event.mailbox_acl)
        assert owner in readers.users or event.event_type in (
            "AclChange",
            "MailboxDelete",
            "MailboxRename",
        )
    assert mboxevent.kind(event.mbtype) in ("mail", "calendar", "contacts", "dav", "sieve")


@captures
def test_normal_form_survives_its_json(path: Path) -> None:
    n = decoded(path)
    if n.class_ == "EVENT":
        normal = normal_event(mboxevent.decode(n.message))
        written = normal.to_json()
        assert NormalEvent.from_json(written) == normal
        assert b"vnd." not in written.replace(normal.event_type.encode(), b"")


SESSION = [
    json.loads(line) for line in (DATA / "session-x-dlist.jsonl").read_text("utf-8").splitlines()
]


def session_events() -> list[MailboxEvent]:
    framing = StreamFraming()
    items = framing.feed(b"".join(base64.b64decode(step["raw_b64"]) for step in SESSION))
    return [mboxevent.decode(item.message) for item in items if isinstance(item, Notification)]


def test_session_replays_in_order_of_arrival() -> None:
    assert [event.event_type for event in session_events()] == [step["event"] for step in SESSION]


def test_counters_fall_only_in_events_that_lag() -> None:
    newest: dict[str, int] = {}
    for event in session_events():
        owner = imapurl.parse(event.uri or "").owner
        told = counters.parse(event.counters or "")
        if owner and told:
            assert mboxevent.lags(event.event_type) or told.highest >= newest.get(owner, 0)
            newest[owner] = max(newest.get(owner, 0), told.highest)
    assert newest
