"""Readers that do not read: nobody else notices, and they are cut in time.

Receive buffers are made small and blocks long, so that few events fill what the kernel takes in.
"""

from __future__ import annotations

import socket
import time

from tests.support.hostile import (
    OK,
    TINY_BUFFER,
    Crowd,
    Producer,
    Reader,
    all_have,
    event_request,
    metric,
    resident_bytes,
    wait_for_metric,
)
from tests.support.pusher_process import PusherProcess

READERS, STUCK, ACCOUNTS = 1000, 200, 20
STALLED_SECONDS = 2.0
#: Makes each JMAP block several hundred bytes long.
LONG = "x" * 400


def account(number: int) -> str:
    return f"user{number}-{LONG}"


def fill(pusher: PusherProcess, name: str, numbers: range) -> None:
    """Tell the readers of `name` each of `numbers`, each in a block of its own."""
    with Producer(pusher.stream_socket) as producer:
        for number in numbers:
            assert producer.ask(event_request(name, number)) == OK


def cut(pusher: PusherProcess) -> float:
    return metric(pusher, 'pusher_streams_total{kind="cut_stalled"}')


def test_stuck_readers_are_cut_and_all_others_get_every_final_state() -> None:
    with (
        PusherProcess({"streams": {"stalled_seconds": STALLED_SECONDS}}) as pusher,
        Crowd(pusher.streams_port, TINY_BUFFER) as crowd,
    ):
        tokens = [pusher.token(account(number)) for number in range(ACCOUNTS)]
        for number in range(READERS):
            of = number % ACCOUNTS
            crowd.join(account(of), tokens[of], "/jmap/eventsource?ping=0")
        crowd.pump_until_open()
        # Every fifth is stuck, so each account has ten of them.
        stuck = [reader for at, reader in enumerate(crowd.readers) if at // ACCOUNTS % 5 == 0]
        good = [reader for reader in crowd.readers if reader not in stuck]
        assert len(stuck) == STUCK
        for reader in stuck:
            crowd.ignore(reader)
        before = resident_bytes(pusher.pid)
        with Producer(pusher.stream_socket) as producer:
            number = 0
            while metric(pusher, "pusher_subscribers_behind") < STUCK and cut(pusher) < STUCK:
                for _ in range(10):
                    number += 1
                    for at in range(ACCOUNTS):
                        assert producer.ask(event_request(account(at), number)) == OK
                    crowd.read_some()
                assert number < 1000, "the kernel takes everything in"
            grown = resident_bytes(pusher.pid) - before
            assert grown < STUCK * 64 << 10, f"{grown >> 20} MB for {STUCK} stuck readers"
            behind_since = time.monotonic()
            for at in range(ACCOUNTS):
                assert producer.ask(event_request(account(at), 7777)) == OK
        crowd.pump(all_have(good, 7777), "the final state")
        crowd.pump(lambda: cut(pusher) >= STUCK, "the cuts", within=STALLED_SECONDS + 3)
        assert time.monotonic() - behind_since < STALLED_SECONDS + 3
        assert cut(pusher) == STUCK
        assert metric(pusher, "pusher_subscribers") == READERS - STUCK
        assert not any(reader.is_ended for reader in good)
        for reader in stuck:
            crowd.listen(reader)
        crowd.pump(lambda: all(reader.is_ended for reader in stuck), "the ends of stuck streams")
        assert not any(reader.has_seen(7777) for reader in stuck)


def stuck_reader(pusher: PusherProcess, crowd: Crowd) -> tuple[Reader, int]:
    """Return an open reader that is behind, and the last number it was told of."""
    reader = crowd.join(account(0), pusher.token(account(0)), "/jmap/eventsource?ping=0")
    crowd.pump_until_open()
    crowd.ignore(reader)
    number = 0
    while metric(pusher, "pusher_subscribers_behind") < 1:
        fill(pusher, account(0), range(number + 1, number + 21))
        number += 20
        assert number < 2000, "the kernel takes everything in"
    return reader, number


def test_reader_that_resumes_in_time_ends_with_the_final_state() -> None:
    with (
        PusherProcess({"streams": {"stalled_seconds": 20}}) as pusher,
        Crowd(pusher.streams_port, TINY_BUFFER) as crowd,
    ):
        reader, number = stuck_reader(pusher, crowd)
        fill(pusher, account(0), range(number + 1, number + 301))
        crowd.listen(reader)
        crowd.pump(lambda: reader.has_seen(number + 300), "the final state", within=5)
        assert metric(pusher, "pusher_subscribers_behind") == 0
        assert cut(pusher) == 0
        # It was skipped ahead, and is told of the next change as if nothing had been.
        fill(pusher, account(0), range(5000, 5001))
        crowd.pump(lambda: reader.has_seen(5000), "the next state", within=5)


def test_reader_of_a_byte_now_and_then_is_cut_like_one_that_reads_nothing() -> None:
    with (
        PusherProcess({"streams": {"stalled_seconds": STALLED_SECONDS}}) as pusher,
        Crowd(pusher.streams_port, TINY_BUFFER) as crowd,
    ):
        reader, number = stuck_reader(pusher, crowd)
        reader.socket.setblocking(True)
        deadline = time.monotonic() + STALLED_SECONDS + 4
        while cut(pusher) < 1:
            assert time.monotonic() < deadline, "it is still open"
            assert reader.socket.recv(1)
            fill(pusher, account(0), range(number + 1, number + 11))
            number += 10
            time.sleep(0.2)  # this is how it reads
        assert metric(pusher, "pusher_subscribers") == 0


def test_readers_that_vanish_are_noticed_without_a_write() -> None:
    with PusherProcess() as pusher, Crowd(pusher.streams_port) as crowd:
        for number in range(100):
            crowd.join(f"user{number}", pusher.token(f"user{number}"))
        crowd.pump_until_open()
        for reader in crowd.readers[:50]:
            crowd.ignore(reader)
            reader.socket.close()
        for reader in crowd.readers[50:75]:
            crowd.ignore(reader)
            reader.socket.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
            )  # a reset instead of a farewell
            reader.socket.close()
        wait_for_metric(pusher, "pusher_subscribers", lambda value: value == 25, within=3)
