"""What a reader is told, at once and after it was away: never an old state, never silence."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator

import pytest

from tests.support.hostile import (
    OK,
    Crowd,
    DatagramSender,
    Producer,
    SystemdPusher,
    all_have,
    event_datagram,
    event_request,
    exchange,
    get,
    metric,
    sieve_request,
)
from tests.support.pusher_process import PusherProcess
from tests.support.streams import Block, EventStream, StreamEndError, open_stream

RETRY_SECONDS = 2.0


@pytest.fixture(scope="module")
def pusher() -> Iterator[PusherProcess]:
    settings = {"streams": {"ping_seconds": 1, "retry_seconds": RETRY_SECONDS}}
    with PusherProcess(settings) as process:
        yield process


def tell(pusher: PusherProcess, account: str, number: int, **fields: object) -> None:
    with Producer(pusher.stream_socket) as producer:
        assert producer.ask(event_request(account, number, **fields)) == OK


def state(block: Block) -> int:
    """Return the mail modseq of a block of the modseq shape; -1 if it has none."""
    return int(block.json["mailModSeq"]) if block.data and "mailModSeq" in block.json else -1


def known_id(pusher: PusherProcess, account: str, number: int) -> str:
    """Bring `account` to `number` and return the id its readers then have."""
    with open_stream(pusher, account) as stream:
        stream.next_block()
        tell(pusher, account, number)
        return stream.wait_for(lambda block: state(block) == number).id or ""


# --- the beginning of a stream -------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/events", "/jmap/eventsource?types=*&closeafter=no&ping=0"])
def test_first_block_comes_at_once_and_carries_an_id(pusher: PusherProcess, path: str) -> None:
    for account, number in (("new-one", None), ("known-one", 5)):
        if number is not None:
            tell(pusher, account, number)
        with open_stream(pusher, account, path) as stream:
            first = stream.next_block(within=1)
            assert first.id is not None
            assert first.id.isdecimal()
            assert first.retry is not None


def test_retry_differs_between_connections_within_bounds(pusher: PusherProcess) -> None:
    retries = set()
    for _ in range(20):
        with open_stream(pusher, "ann") as stream:
            retries.add(stream.next_block().retry)
    assert len(retries) > 10, "all would come back at once"
    assert all(500 * RETRY_SECONDS <= (r or 0) <= 1500 * RETRY_SECONDS for r in retries)


def test_silence_is_never_longer_than_ping_seconds(pusher: PusherProcess) -> None:
    with open_stream(pusher, "ann") as stream:
        last = time.monotonic()
        for _ in range(4):
            stream.wait_for(lambda block: block.is_comment, within=5)
            now = time.monotonic()
            assert now - last < 1 + 0.5, "the promise, and a busy machine"
            last = now
        assert stream.last_id == stream.blocks[0].id, "a ping sets no id"


def test_changed_state_is_told_in_the_shape_of_fastmail(pusher: PusherProcess) -> None:
    with open_stream(pusher, "shape") as stream:
        stream.next_block()
        tell(pusher, "shape", 8)
        block = stream.next_block()
        expected = (
            f"event: push\nid: {block.id}\n"
            'data: {"mailModSeq":8,"calendarModSeq":8,"contactsModSeq":8}\n\n'
        )
        assert block.raw == expected


def test_numbers_that_javascript_cannot_hold_are_strings(pusher: PusherProcess) -> None:
    with open_stream(pusher, "huge") as stream:
        stream.next_block()
        tell(pusher, "huge", 2**53 - 1)
        assert stream.next_block().json["mailModSeq"] == 2**53 - 1
        tell(pusher, "huge", 2**53)
        block = stream.next_block()
        assert block.json["mailModSeq"] == str(2**53)
        assert not re.search(r":\s*\d{17,}", block.data)


def test_every_stream_of_the_account_hears_it_and_nobody_else(pusher: PusherProcess) -> None:
    with Crowd(pusher.streams_port) as crowd:
        own = [crowd.join("five", pusher.token("five")) for _ in range(5)]
        other = crowd.join("fivefold", pusher.token("fivefold"))
        crowd.pump_until_open()
        tell(pusher, "five", 44)
        crowd.pump(all_have(own, 44), "all five to hear it", within=2)
        tell(pusher, "fivefold", 45)
        crowd.pump(all_have([other], 45), "the other to hear its own", within=2)
        assert b":44," not in other.received
        assert not any(b":45," in reader.received for reader in own)


# --- JMAP ----------------------------------------------------------------------------------------


def jmap(pusher: PusherProcess, account: str, query: str, last: str | None = None) -> EventStream:
    return open_stream(pusher, account, f"/jmap/eventsource?{query}", last_event_id=last)


def test_jmap_tells_only_the_wanted_types(pusher: PusherProcess) -> None:
    with jmap(pusher, "types", "types=Email,NoSuchType&closeafter=no&ping=0") as stream:
        stream.next_block()
        tell(pusher, "types", 3)
        block = stream.next_block()
        assert block.event == "state"
        assert block.json == {"@type": "StateChange", "changed": {"types": {"Email": "3"}}}
    with jmap(pusher, "types", "types=*&closeafter=no&ping=0") as stream:
        stream.next_block()
        tell(pusher, "types", 4)
        changed = stream.next_block().json["changed"]["types"]
        assert set(changed.values()) == {"4"}
        assert {"Email", "Mailbox", "CalendarEvent", "ContactCard", "Quota"} <= changed.keys()


def test_jmap_closeafter_state_ends_after_one_state(pusher: PusherProcess) -> None:
    with jmap(pusher, "closing", "types=*&closeafter=state&ping=0") as stream:
        opening = stream.next_block()
        assert opening.event == ""
        tell(pusher, "closing", 3)
        assert stream.next_block().event == "state"
        with pytest.raises(StreamEndError):
            stream.next_block()
        last = stream.last_id
    tell(pusher, "closing", 4)
    # What was missed is a state too.
    with jmap(pusher, "closing", "types=*&closeafter=state&ping=0", last) as stream:
        assert stream.next_block().event == "state"
        with pytest.raises(StreamEndError):
            stream.wait_for(lambda _: False, within=3)


def test_jmap_refuses_what_the_standard_does_not_know(pusher: PusherProcess) -> None:
    headers = {"Authorization": f"Bearer {pusher.token('ann')}"}
    for query in (
        "closeafter=later",
        "types=*&closeafter=STATE",
        "ping=soon",
        "ping=1.5",
        "ping=-3",
    ):
        answer = exchange(pusher.streams_port, get(f"/jmap/eventsource?{query}", headers))
        assert answer.status == 400
        assert answer.problem["detail"]
    with jmap(pusher, "ann", "types=*&closeafter=no&ping=99999999999999999999") as stream:
        assert stream.status == 200


def test_event_that_names_no_mailbox_is_told_to_him_who_acted(pusher: PusherProcess) -> None:
    """timsieved's events: the same uri and type for everybody, only `user` differs."""
    query = "types=SieveScript&closeafter=no&ping=0"
    with jmap(pusher, "script-ann", query) as ann, jmap(pusher, "script-bob", query) as bob:
        ann.next_block()
        bob.next_block()
        for account, stream in (("script-ann", ann), ("script-bob", bob)):
            fields = {"uri": "imap://m;UIDVALIDITY=1", "user": account, "vnd.cmu.mbtype": "f"}
            tell(pusher, "x", 5, **fields)
            block = stream.next_block(within=2)
            assert block.json["changed"].keys() == {account}
        assert ann.quiet_for(0.2) == []


# --- coming back ---------------------------------------------------------------------------------


def test_reader_that_missed_something_gets_the_state_at_once(pusher: PusherProcess) -> None:
    before = known_id(pusher, "away", 10)
    tell(pusher, "away", 20)
    with open_stream(pusher, "away", last_event_id=before) as stream:
        first = stream.next_block(within=1)
        assert first.event == "push"
        assert state(first) == 20
        assert first.id != before


def test_reader_that_missed_nothing_gets_only_its_id(pusher: PusherProcess) -> None:
    before = known_id(pusher, "back", 10)
    with open_stream(pusher, "back", last_event_id=before) as stream:
        first = stream.next_block(within=1)
        assert (first.event, first.data, first.id) == ("", "", before)
        assert stream.quiet_for(0.2) == []


@pytest.mark.parametrize(
    "last", ["garbage", "-1", "1e3", "9" * 30, "9" * 10_000, "\xe9", "0x10", "1 2", "NaN"]
)
def test_id_that_is_not_ours_gets_resync_never_silence(pusher: PusherProcess, last: str) -> None:
    account = f"odd-{last[:40]!a}"
    current = known_id(pusher, account, 10)
    with Crowd(pusher.streams_port) as crowd:
        headers = f"Last-Event-ID: {last}\r\n"
        reader = crowd.join(account, pusher.token(account), headers=headers)
        crowd.pump(lambda: reader.has_seen(10), "the state", within=2)
        assert b"event: resync\n" in reader.received
        assert f"\nid: {current}\n".encode() in reader.received


def test_id_newer_than_ours_gets_resync(pusher: PusherProcess) -> None:
    newest = int(known_id(pusher, "newer", 10))
    with open_stream(pusher, "newer", last_event_id=str(newest + 1)) as stream:
        assert stream.next_block(within=1).event == "resync"
        assert state(stream.next_block()) == 10


def test_account_that_is_not_known_any_more_gets_resync(pusher: PusherProcess) -> None:
    with open_stream(pusher, "nobody-knows", last_event_id="12") as stream:
        assert stream.next_block(within=1).event == "resync"


def test_query_can_carry_the_last_id_for_clients_that_cannot_set_headers(
    pusher: PusherProcess,
) -> None:
    before = known_id(pusher, "query", 10)
    tell(pusher, "query", 11)
    with open_stream(pusher, "query", f"/events?lastEventId={before}") as stream:
        assert state(stream.next_block(within=1)) == 11


def test_account_set_up_anew_tells_its_open_readers_to_start_over(pusher: PusherProcess) -> None:
    with open_stream(pusher, "reborn") as stream:
        stream.next_block()
        tell(pusher, "reborn", 1000)
        stream.wait_for(lambda block: state(block) == 1000)
        again = "9 " + " ".join(["5"] * 11) + " 1800000000"
        tell(pusher, "reborn", 5, **{"vnd.fastmail.counters": again})
        block = stream.next_block()
        assert block.event == "resync"
        assert int(block.id or 0) > 11_000, "ids go on rising"
        assert state(stream.next_block()) == 5


# --- over a restart ------------------------------------------------------------------------------


def test_restart_without_systemd_is_owned_up_to() -> None:
    """Events may have been missed while nobody listened: equal ids prove nothing then."""
    with PusherProcess() as pusher:
        before = known_id(pusher, "ann", 10)
        pusher.restart()
        with open_stream(pusher, "ann", last_event_id=before) as stream:
            assert stream.next_block(within=1).event == "resync"
            assert state(stream.next_block()) == 10, "what is known is told all the same"


def test_restart_with_sockets_that_outlive_it_has_no_gap() -> None:
    with SystemdPusher() as pusher:
        same, away = known_id(pusher, "same", 10), known_id(pusher, "away", 10)
        pusher.stop()
        with (
            DatagramSender(pusher.datagram_socket) as sender,
            Producer(pusher.stream_socket) as producer,
            Crowd(pusher.streams_port) as crowd,
        ):
            # Nobody is there, nobody is refused.
            sender.send(event_datagram("away", 30))
            producer.send(event_request("same", 9) + sieve_request("ann", "meanwhile"))
            back = f"Last-Event-ID: {same}\r\n"
            readers = [crowd.join("same", pusher.token("same"), headers=back) for _ in range(100)]
            pusher.start()
            assert [producer.reply(), producer.reply()] == [OK, OK]
            crowd.pump_until_open()
            crowd.read_some(0.2)
            for reader in readers:
                assert b"resync" not in reader.received
                assert f"\nid: {same}\n".encode() in reader.received
            with open_stream(pusher, "away", last_event_id=away) as stream:
                block = stream.wait_for(lambda block: state(block) == 30)
                assert "resync" not in {told.event for told in (block, *stream.blocks)}
        assert metric(pusher, "pusher_resyncs_total") == 0
        pusher.kill()
        pusher.start()
        with open_stream(pusher, "same", last_event_id=same) as stream:
            assert stream.next_block().event in ("resync", "push"), "after a crash it cannot know"


def test_sockets_passed_by_systemd_stay_after_the_end() -> None:
    with SystemdPusher() as pusher:
        pusher.stop()
        assert pusher.stream_socket.is_socket()
        assert pusher.datagram_socket.is_socket()
        pusher.start()
        assert "socket_unused" not in json.dumps(pusher.log)
