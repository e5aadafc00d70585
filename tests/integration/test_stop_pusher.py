"""SIGTERM: gone within 5 seconds whatever hangs, in good order, and nothing acknowledged lost."""

from __future__ import annotations

import signal
import socket
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from shared.jobqueue import QueueView
from tests.support.hostile import (
    NO,
    OK,
    TINY_BUFFER,
    Crowd,
    DatagramSender,
    Producer,
    event_datagram,
    event_request,
    log_lines,
    marks,
    metric,
    sieve_request,
)
from tests.support.pusher_process import PusherProcess
from tests.support.streams import StreamEndError, open_stream


def stored(pusher: PusherProcess) -> list[str]:
    with closing(QueueView.open_read_only(pusher.folder / "run" / "queue.db")) as queue:
        assert queue.integrity() == []
        return [mark for job in queue.jobs() for mark in marks(job.payload)]


def socket_files(pusher: PusherProcess) -> list[Path]:
    run = pusher.folder / "run"
    return [path for path in run.iterdir() if path.is_socket()]


def test_stop_with_everything_open_takes_less_than_5_seconds() -> None:
    long = "x" * 400
    with (
        PusherProcess() as pusher,
        Crowd(pusher.streams_port, TINY_BUFFER) as crowd,
        Producer(pusher.stream_socket) as producer,
        Producer(pusher.stream_socket) as half,
        socket.create_connection(("127.0.0.1", pusher.api_port)) as api,
        socket.create_connection(("127.0.0.1", pusher.streams_port)) as slow,
    ):
        names = [f"good{number}" for number in range(10)]
        for name in names:
            token = pusher.token(name)
            for _ in range(95):
                crowd.join(name, token)
        pages = list(crowd.readers)
        token = pusher.token(f"stuck-{long}")
        for _ in range(50):
            crowd.join(f"stuck-{long}", token, "/jmap/eventsource?ping=0")
        crowd.pump_until_open()
        for reader in crowd.readers[950:]:
            crowd.ignore(reader)
        number = 0
        while metric(pusher, "pusher_subscribers_behind") < 50:
            for _ in range(20):
                number += 1
                assert producer.ask(event_request(f"stuck-{long}", number)) == OK
            assert number < 2000, "the kernel takes everything in"
        for mark in range(100):
            assert producer.ask(sieve_request("ann", f"done-{mark}")) == OK
        half.send(event_request("ann", 1)[:50])
        api.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")  # and no more
        slow.sendall(b"GET /events HTTP/1.1\r\n")
        for name in names:
            assert producer.ask(event_request(name, 77)) == OK
        assert pusher.stop() == 0
        for reader in pages:
            reader.read()
        assert all(reader.is_ended for reader in pages)
        assert all(reader.has_seen(77) for reader in pages), "the last state before the end"
        assert socket_files(pusher) == []
        assert set(stored(pusher)) == {f"done-{mark}" for mark in range(100)}
        assert log_lines(pusher)[-1]["event"] == "stopped"


def test_producer_that_waits_for_a_slow_answer_gets_none_that_is_false() -> None:
    """The queue's file is locked by somebody, so nothing can be stored before the end."""
    with (
        PusherProcess({"streams": {"drain_seconds": 1}}) as pusher,
        Producer(pusher.stream_socket) as producer,
    ):
        assert producer.ask(sieve_request("ann", "before")) == OK
        with closing(sqlite3.connect(pusher.folder / "run" / "queue.db")) as database:
            database.execute("BEGIN IMMEDIATE")
            producer.send(sieve_request("ann", "waiting"))
            assert pusher.stop() == 0
            assert producer.reply(within=1) in (NO, b"")
            database.rollback()
        assert stored(pusher) == ["before"]
        assert socket_files(pusher) == []


def test_slow_requests_under_way_are_answered_truthfully() -> None:
    with PusherProcess() as pusher:
        answers: dict[str, bytes] = {}

        def ask(name: str) -> None:
            with Producer(pusher.stream_socket, within=10) as producer:
                for number in range(100_000):
                    mark = f"{name}-{number}"
                    try:
                        producer.send(sieve_request("ann", mark))
                        answers[mark] = producer.reply()
                    except BrokenPipeError:
                        return
                    if answers[mark] == b"":
                        return

        threads = [threading.Thread(target=ask, args=(f"p{n}",)) for n in range(4)]
        for thread in threads:
            thread.start()
        while len(answers) < 200:
            threads[0].join(0.001)
        assert pusher.stop() == 0
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive(), "a producer hangs"
        acknowledged = {mark for mark, answer in answers.items() if answer == OK}
        assert len(acknowledged) > 100
        assert acknowledged <= set(stored(pusher))


def test_stop_under_a_flood_of_datagrams_ends_and_keeps_the_numbers() -> None:
    with PusherProcess() as pusher:
        ended = threading.Event()
        sent = [0]

        def flood() -> None:
            with DatagramSender(pusher.datagram_socket) as sender:
                while not ended.is_set():
                    try:
                        sender.send(event_datagram("ann", sent[0] + 1))
                    except OSError:
                        return  # it is gone
                    sent[0] += 1

        threads = [threading.Thread(target=flood) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            while sent[0] < 5000:
                threads[0].join(0.001)
            assert pusher.stop() == 0
        finally:
            ended.set()
            for thread in threads:
                thread.join(10)
        assert log_lines(pusher)[-1]["event"] == "stopped", "in order, not by the last resort"
        assert socket_files(pusher) == []
        pusher.start()
        assert metric(pusher, "pusher_accounts") == 1


def test_interrupt_ends_it_like_sigterm() -> None:
    with PusherProcess() as pusher, open_stream(pusher, "ann") as stream:
        stream.next_block()
        process = pusher._running()
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)  # a second signal changes nothing
        assert process.wait(5) == 0
        with pytest.raises(StreamEndError):
            stream.next_block()
        pusher.kill()
