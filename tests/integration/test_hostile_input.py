"""Nothing that arrives on the event sockets stops, slows or fills pusher, or gets through raw."""

from __future__ import annotations

import errno
import gc
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from urllib.parse import quote

import pytest
import structlog

from pusher.dispatch import Dispatcher
from pusher.hub import Hub, HubSettings
from pusher.metrics import REASONS
from pusher.protocol.framing import Rejected, StreamFraming
from pusher.protocol.mboxevent import decode
from pusher.protocol.notification import Notification, decode_datagram
from pusher.publisher import Publisher
from pusher.state.modseq import ModseqTable
from pusher.tap import Tap
from shared.errors import DecodeError, QueueError
from shared.jobqueue import NewJob
from tests.support.hostile import (
    NO,
    OK,
    DatagramSender,
    Mutator,
    Producer,
    alarm_json,
    captures,
    event_datagram,
    event_request,
    log_lines,
    metric,
    metrics,
    resident_bytes,
)
from tests.support.pusher_process import PusherProcess
from tests.support.streams import open_stream

#: Per transport.
INPUTS = 125_000
LONGEST_CALL_SECONDS = 0.1
SEED = 20_261_121


class FakeQueue:
    """Takes jobs and forgets them; every seventh is refused."""

    def __init__(self) -> None:
        self.submitted = 0

    def submit(self, jobs: Sequence[NewJob], done: object) -> None:
        self.submitted += 1
        assert jobs
        assert all(json.loads(job.payload) for job in jobs)
        assert callable(done)
        done(QueueError("queue-full") if self.submitted % 7 == 0 else None)


class Stopwatch:
    """The CPU time of the longest call; other programs on the machine do not count."""

    def __init__(self) -> None:
        self.longest = 0.0
        self.culprit = b""
        self._began = 0.0

    def start(self) -> None:
        self._began = time.thread_time()

    def stop(self, culprit: bytes) -> None:
        took = time.thread_time() - self._began
        if took > self.longest:
            self.longest, self.culprit = took, culprit


class Bench:
    """What stands behind the sockets, without sockets: dispatcher, numbers, hub, fake queue."""

    def __init__(self) -> None:
        self.queue = FakeQueue()
        self.tap = Tap()
        self.hub = Hub(HubSettings())
        self.publisher = Publisher(
            ModseqTable(max_accounts=1000), self.hub, retry_seconds=2, most_per_account=10
        )
        self.dispatcher = Dispatcher(self.publisher, self.queue, self.tap)
        self.watch = Stopwatch()
        self.answered = 0

    def hand_over(self, notification: Notification) -> None:
        """Do what intake does with a notification, and decode it for the watchers as well."""
        self.watch.start()
        if self.dispatcher.is_slow(notification):
            before = self.answered
            self.dispatcher.keep(notification, self._done)
            assert self.answered == before + 1, "a producer would wait for ever"
        else:
            self.dispatcher.take(notification)
        self.watch.stop(notification.message)
        if notification.class_ == "EVENT":
            self.watch.start()
            with suppress(DecodeError):
                decode(notification.message)
            self.watch.stop(notification.message)

    def _done(self, _error: QueueError | None) -> None:
        self.answered += 1

    def check(self) -> None:
        rejected = self.dispatcher.rejected
        assert set(rejected) <= set(REASONS)
        assert len(rejected) > 3, "the mutations are too tame"
        assert sum(self.dispatcher.results.values()) > INPUTS / 50
        longest, culprit = self.watch.longest, self.watch.culprit
        assert longest < LONGEST_CALL_SECONDS, f"{longest:.3f} s for {culprit[:200]!r}…"


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A Bench; what it logs is of no interest here."""
    gc.collect()
    gc.freeze()  # else collections of the test runner's own objects are counted as ours
    with structlog.testing.capture_logs():
        made = Bench()
        yield made
        made.hub.reactor.close()
    gc.unfreeze()


def grown_in_second_half(at: list[int]) -> int:
    """Return by how much memory grew over the second half of the measurements."""
    return at[-1] - at[len(at) // 2]


def test_mutated_datagrams_are_taken_or_rejected_and_nothing_else(bench: Bench) -> None:
    mutator = Mutator(captures("dgram"), captures("dlist"), SEED)
    memory = []
    for number in range(INPUTS):
        if number % (INPUTS // 20) == 0:
            memory.append(resident_bytes(os.getpid()))
        data = mutator.next()
        bench.watch.start()
        try:
            notification = decode_datagram(data)
        except DecodeError as error:
            bench.watch.stop(data)
            bench.dispatcher.reject(error.reason)
            continue
        bench.watch.stop(data)
        bench.hand_over(notification)
        if number % 32 == 0:
            bench.publisher.flush()
    bench.check()
    assert grown_in_second_half(memory) < 32 << 20


#: As much as intake reads at once.
READ_BYTES = 65_536


def whole(data: bytes) -> list[bytes]:
    return [data[at : at + READ_BYTES] for at in range(0, len(data), READ_BYTES)]


def fed(pieces: Sequence[bytes], bench: Bench) -> tuple[list[Notification | Rejected], str]:
    """Return what one connection made of `pieces`, and why it broke ("" if it did not)."""
    framing = StreamFraming()
    items: list[Notification | Rejected] = []
    for piece in pieces:
        bench.watch.start()
        items += framing.feed(piece)
        bench.watch.stop(piece)
    if framing.error is not None:
        return items, framing.error.reason
    return items + framing.finish(), ""


def test_mutated_requests_are_taken_or_rejected_however_they_are_cut(bench: Bench) -> None:
    mutator = Mutator(captures("dlist"), captures("dgram"), SEED)
    memory = []
    for number in range(INPUTS):
        if number % (INPUTS // 20) == 0:
            memory.append(resident_bytes(os.getpid()))
        data = mutator.next()
        items, broken = fed(whole(data), bench)
        if number % 8 == 0:
            assert fed(mutator.chunks(data), bench) == (items, broken)
        if number % 1000 == 0 and len(data) < 20_000:
            single = [data[at : at + 1] for at in range(len(data))]
            assert fed(single, bench) == (items, broken)
        if broken:
            bench.dispatcher.reject(broken)
        for item in items:
            if isinstance(item, Rejected):
                bench.dispatcher.reject(item.reason)
            else:
                bench.hand_over(item)
        if number % 32 == 0:
            bench.publisher.flush()
    bench.check()
    assert grown_in_second_half(memory) < 32 << 20


# --- through the real sockets --------------------------------------------------------------------


def hostile_producer(pusher: PusherProcess, seed: int, connections: int, errors: list[str]) -> None:
    """Send broken requests; note every answer that is not OK, NO or a closed connection."""
    mutator = Mutator(captures("dlist"), captures("dgram"), seed)
    for number in range(connections):
        data = mutator.next()
        with Producer(pusher.stream_socket, within=20) as producer:
            try:
                if number % 50 == 0 and len(data) < 5000:
                    for at in range(len(data)):
                        producer.send(data[at : at + 1])
                else:
                    producer.send(data)
                producer.end()
            except BrokenPipeError:
                pass  # given up on in the middle
            except TimeoutError:
                errors.append(f"nobody read {data[:200]!r}")
                continue
            try:
                while reply := producer.reply():
                    if reply not in (OK, NO):
                        errors.append(f"{reply!r} for {data[:200]!r}")
            except TimeoutError:
                errors.append(f"no answer to {data[:200]!r}")


def hostile_datagrams(pusher: PusherProcess, seed: int, count: int) -> None:
    mutator = Mutator(captures("dgram"), captures("dlist"), seed)
    with DatagramSender(pusher.datagram_socket) as sender:
        for _ in range(count):
            data = mutator.next()
            try:
                sender.send(data)
            except OSError as error:
                if error.errno != errno.EMSGSIZE:
                    raise


def rejected(pusher: PusherProcess) -> dict[str, int]:
    found = metrics(pusher)
    return {
        match[1]: int(value)
        for name, value in found.items()
        if (match := re.fullmatch(r'pusher_events_rejected_total\{reason="([a-z-]+)"\}', name))
    }


def test_daemon_outlives_hostile_producers_and_serves_the_next_event_at_once() -> None:
    with PusherProcess({"queue": {"max_bytes": "256 MiB"}}) as pusher:
        errors: list[str] = []

        def attack(seed: int) -> None:
            with ThreadPoolExecutor(4) as pool:
                attacks = [
                    pool.submit(hostile_producer, pusher, seed + n, 1000, errors) for n in range(3)
                ]
                attacks.append(pool.submit(hostile_datagrams, pusher, seed, 3000))
            for done in attacks:
                done.result()

        with open_stream(pusher, "witness") as stream:
            stream.next_block()
            attack(1)
            before = resident_bytes(pusher.pid)
            attack(101)
            assert errors == []
            assert resident_bytes(pusher.pid) - before < 48 << 20
            with Producer(pusher.stream_socket) as producer:
                assert producer.ask(event_request("witness", 77)) == OK
            stream.wait_for(lambda block: '"mailModSeq":77,' in block.data, within=2)
        found = rejected(pusher)
        assert set(found) == set(REASONS), "every reason is shown from the start"
        assert len([reason for reason, count in found.items() if count]) > 8
        assert sum(found.values()) > 3000
        assert metric(pusher, "pusher_intake_connections") == 0
        assert pusher.get("/readyz")[0] == 200
        lines = log_lines(pusher)
        kinds = [line["reason"] for line in lines if line["event"] == "event_rejected"]
        assert len(kinds) <= 3 * len(set(kinds)), "one line per kind and minute"


POISON = "\r\n\r\nevent: push\ndata: owned\0\u2028\u202e\x1b[2J\x85\n\n"
PRINTABLE = re.compile(r"[\n\x20-\x7e]*")


@pytest.mark.parametrize("path", ["/events", "/jmap/eventsource?types=*&closeafter=no&ping=0"])
def test_controls_in_fields_reach_neither_frames_nor_log(path: str) -> None:
    account = 'ann\u202e"<b>data:'  # what an account's name may hold at worst
    uri = f"imap://mail.example.org/user/{quote(account)};UIDVALIDITY=1700000000"
    poisoned = {
        "uri": uri,
        "user": POISON,
        "service": POISON,
        "vnd.cmu.mailboxACL": f"{POISON}\tlr\t{account}\tlrs\t",
        "mailboxID": POISON,
    }
    nobody = {"uri": f"imap://{POISON}/user/{quote(POISON)};UIDVALIDITY={POISON}"}
    alarm = json.loads(alarm_json(account, "poison"))
    alarm |= dict.fromkeys(("summary", "location", "calendarName", "organizer"), POISON)
    odd_class = {"class": POISON, "message": POISON}
    with PusherProcess({"log": {"personal_data": True, "level": "debug"}}) as pusher:
        with open_stream(pusher, account, path) as stream, Producer(pusher.stream_socket) as to:
            stream.next_block()
            assert to.ask(event_request("x", 1, **poisoned)) == OK
            assert to.ask(event_request("x", 2, **poisoned | {"event": POISON})) == OK
            assert to.ask(event_request("x", 3, **poisoned | nobody)) == OK
            for line in (alarm, odd_class):
                assert to.ask(json.dumps(line).encode() + b"\n") == OK
            assert to.ask(b'{"class":7,"message":"\xff"}\n') == NO
            assert to.ask(event_request("x", 4, **poisoned)) == OK
            stream.wait_for(lambda block: ":4," in block.data or '"4"' in block.data)
        assert {block.event for block in stream.blocks} <= {"", "push", "state", "shared"}
        raw = "".join(block.raw for block in stream.blocks)
        assert PRINTABLE.fullmatch(raw), raw
        assert "\ndata: owned" not in raw
        pusher.stop()
        assert PRINTABLE.fullmatch(pusher.log), pusher.log
        assert {line["event"] for line in log_lines(pusher)} >= {"event_rejected", "stopped"}


def test_endless_names_do_not_fill_the_memory() -> None:
    """A producer that invents owners and access lists costs what is bounded, not what it sends."""
    long = "y" * 20_000
    ways: list[Callable[[str], bytes]] = [
        lambda n: event_request(f"{n}{long}", 5),
        lambda n: event_request("ann", 5, **{"vnd.cmu.mailboxACL": f"{n}{long}\tlrs\t"}),
        lambda n: event_request("ann", 5, event="AclChange", aclSubject=f"{n}{long}"),
        lambda n: event_request("ann", 5, event=f"{n}{long}"),
        lambda n: event_request("ann", 5, event="Login", uri=None, user=f"{n}{long}"),
        lambda n: event_request("ann", 5, **{"vnd.cmu.mbtype": f"{n}{long}"}),
    ]
    with PusherProcess() as pusher, Producer(pusher.stream_socket, within=20) as producer:

        def send(first: int, count: int) -> None:
            for number in range(first, first + count, 48):
                batch = range(number, number + 48)
                for n in batch:
                    producer.send(ways[n % len(ways)](str(n)))
                assert [producer.reply() for _ in batch] == [OK] * len(batch)

        send(0, 1200)
        before = resident_bytes(pusher.pid)
        send(1200, 9600)
        grown = resident_bytes(pusher.pid) - before
        assert grown < 48 << 20, f"{grown >> 20} MB for 9 600 events of 20 kB"


def test_oversized_datagram_is_counted_and_the_next_is_taken() -> None:
    settings = {"intake": {"max_bytes": 8192}}
    with PusherProcess(settings) as pusher, DatagramSender(pusher.datagram_socket) as sender:
        with open_stream(pusher, "ann") as stream:
            stream.next_block()
            sender.send(b"x" * 8193)
            sender.send(b"")
            sender.send(event_datagram("ann", 3))
            stream.wait_for(lambda block: '"mailModSeq":3,' in block.data)
        found = rejected(pusher)
        assert found["oversized"] == 1
        assert found["empty"] == 1
        assert sum(found.values()) == 2
