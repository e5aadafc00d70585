"""Streams in several processes: the same promises, also while one of them dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.waiting import wait_until
from tests.support.hostile import (
    OK,
    TINY_BUFFER,
    Crowd,
    Producer,
    Reader,
    all_have,
    event_request,
    exchange,
    get,
    log_lines,
    metric,
    wait_for_metric,
)
from tests.support.pusher_process import PusherProcess
from tests.support.streams import StreamEndError, open_stream

PROCESSES = 3
ACCOUNTS = [f"user{number}" for number in range(30)]


@pytest.fixture
def pusher() -> Iterator[PusherProcess]:
    settings = {"streams": {"processes": PROCESSES, "max_connections_per_account": 10}}
    with PusherProcess(settings) as process:
        yield process


def children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def open_sockets(pid: int) -> int:
    links = [path.readlink() for path in Path(f"/proc/{pid}/fd").iterdir()]
    return sum(1 for link in links if str(link).startswith("socket:"))


def tell(pusher: PusherProcess, account: str, number: int) -> None:
    with Producer(pusher.stream_socket) as producer:
        assert producer.ask(event_request(account, number)) == OK


def join_all(pusher: PusherProcess, crowd: Crowd, each: int) -> None:
    for account in ACCOUNTS:
        token = pusher.token(account)
        for _ in range(each):
            crowd.join(account, token)
    crowd.pump_until_open()


def test_every_reader_in_every_process_gets_the_final_state(pusher: PusherProcess) -> None:
    assert len(children(pusher.pid)) == PROCESSES
    with Crowd(pusher.streams_port) as crowd, Producer(pusher.stream_socket) as producer:
        join_all(pusher, crowd, each=5)
        assert metric(pusher, "pusher_subscribers") == 5 * len(ACCOUNTS)
        held = [open_sockets(pid) for pid in children(pusher.pid)]
        assert sum(held) > 5 * len(ACCOUNTS)
        assert min(held) > 10, "each holds its share"
        for number in range(1, 101):
            for account in ACCOUNTS:
                assert producer.ask(event_request(account, number)) == OK
            crowd.read_some()
        crowd.pump(all_have(crowd.readers, 100), "the final state", within=5)
        # Nobody hears of anybody else.
        assert producer.ask(event_request("user7", 777)) == OK
        own = [reader for reader in crowd.readers if reader.account == "user7"]
        crowd.pump(all_have(own, 777), "user7 to hear it", within=2)
        crowd.read_some(0.1)
        others = [reader for reader in crowd.readers if reader.account != "user7"]
        assert not any(b":777," in reader.received for reader in others)
    wait_for_metric(pusher, "pusher_subscribers", lambda value: value == 0)


def test_process_that_is_killed_comes_back_and_its_readers_miss_nothing(
    pusher: PusherProcess,
) -> None:
    with Crowd(pusher.streams_port) as crowd:
        join_all(pusher, crowd, each=2)
        for account in ACCOUNTS:
            tell(pusher, account, 5)
        crowd.pump(all_have(crowd.readers, 5), "the first state")
        victim, *others = children(pusher.pid)
        os.kill(victim, signal.SIGKILL)
        crowd.pump(lambda: any(reader.is_ended for reader in crowd.readers), "the cut")
        for account in ACCOUNTS:
            tell(pusher, account, 6)
        crowd.pump(
            lambda: all(reader.is_ended or reader.has_seen(6) for reader in crowd.readers),
            "the others to hear what came meanwhile",
            within=5,
        )
        lost = [reader for reader in crowd.readers if reader.is_ended]
        assert 0 < len(lost) < len(crowd.readers), "one process of three"
        wait_until(lambda: len(children(pusher.pid)) == PROCESSES, "the process to come back")
        assert set(others) < set(children(pusher.pid))
        again: list[Reader] = []
        for reader in lost:
            last = reader.received.rpartition(b"\nid: ")[2].partition(b"\n")[0].decode()
            token = pusher.token(reader.account)
            again.append(crowd.join(reader.account, token, headers=f"Last-Event-ID: {last}\r\n"))
        crowd.pump(all_have(again, 6), "those who came back to get the state", within=5)
        assert not any(b"resync" in reader.received for reader in again), (
            "the numbers are elsewhere"
        )
        for account in ACCOUNTS:
            tell(pusher, account, 7)
        alive = [reader for reader in crowd.readers if not reader.is_ended]
        crowd.pump(all_have(alive, 7), "the next state", within=5)
        assert len(alive) == 2 * len(ACCOUNTS)
    assert pusher.get("/readyz")[0] == 200


def test_limits_hold_for_all_processes_together(pusher: PusherProcess) -> None:
    with Crowd(pusher.streams_port) as crowd:
        token = pusher.token("greedy")
        for _ in range(10):
            crowd.join("greedy", token)
        crowd.pump_until_open()
        request = get("/events", {"Authorization": f"Bearer {token}"})
        assert exchange(pusher.streams_port, request).status == 429
    wait_for_metric(pusher, "pusher_subscribers", lambda value: value == 0)
    with open_stream(pusher, "greedy") as stream:
        stream.next_block()


def test_closeafter_state_and_missed_states_work_in_other_processes(pusher: PusherProcess) -> None:
    path = "/jmap/eventsource?types=Email&closeafter=state&ping=0"
    with open_stream(pusher, "ann", path) as stream:
        stream.next_block()
        tell(pusher, "ann", 5)
        assert stream.next_block().json["changed"] == {"ann": {"Email": "5"}}
        with pytest.raises(StreamEndError):
            stream.next_block()
    tell(pusher, "ann", 6)
    with open_stream(pusher, "ann", path, last_event_id=stream.last_id) as stream:
        assert stream.next_block().json["changed"] == {"ann": {"Email": "6"}}
        with pytest.raises(StreamEndError):
            stream.next_block()


def test_stuck_reader_is_cut_in_its_process() -> None:
    account = "stuck-" + "x" * 400
    settings = {"streams": {"processes": PROCESSES, "stalled_seconds": 2}}
    with (
        PusherProcess(settings) as pusher,
        Crowd(pusher.streams_port, TINY_BUFFER) as crowd,
        Producer(pusher.stream_socket) as producer,
    ):
        reader = crowd.join(account, pusher.token(account), "/jmap/eventsource?ping=0")
        crowd.pump_until_open()
        crowd.ignore(reader)
        number = [0]

        def is_cut() -> bool:
            for _ in range(50):
                number[0] += 1
                assert producer.ask(event_request(account, number[0])) == OK
            return metric(pusher, 'pusher_streams_total{kind="cut_stalled"}') == 1

        wait_until(is_cut, "the cut", 8)


def test_stop_ends_all_processes_in_time(pusher: PusherProcess) -> None:
    with Crowd(pusher.streams_port) as crowd:
        join_all(pusher, crowd, each=5)
        pids = children(pusher.pid)
        for account in ACCOUNTS:
            tell(pusher, account, 9)
        assert pusher.stop() == 0
        crowd.pump(lambda: all(reader.is_ended for reader in crowd.readers), "the ends", within=2)
        assert all(reader.has_seen(9) for reader in crowd.readers), "the last state before it"
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert log_lines(pusher)[-1]["event"] == "stopped"


def test_no_process_outlives_a_killed_daemon(pusher: PusherProcess) -> None:
    with open_stream(pusher, "ann") as stream:
        stream.next_block()
        pids = children(pusher.pid)
        pusher.kill()
        wait_until(
            lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "its processes to end"
        )
        with pytest.raises(ConnectionError):
            stream.next_block()
    pusher.start()
    with open_stream(pusher, "ann") as stream:
        stream.next_block()
