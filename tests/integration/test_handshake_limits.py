"""Connections that never become streams: slow, broken, too many. They end in time, others go on."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from demo.waiting import wait_until
from tests.support.hostile import (
    OK,
    Crowd,
    Producer,
    cpu_seconds,
    event_request,
    exchange,
    get,
    metric,
    parse_answer,
    read_to_end,
    wait_for_metric,
)
from tests.support.pusher_process import PusherProcess
from tests.support.streams import EventStream, open_stream

HANDSHAKE_SECONDS = 2.0


@pytest.fixture(scope="module")
def pusher() -> Iterator[PusherProcess]:
    settings = {"streams": {"handshake_seconds": HANDSHAKE_SECONDS}}
    with PusherProcess(settings) as process:
        yield process


def connect(pusher: PusherProcess) -> socket.socket:
    return socket.create_connection(("127.0.0.1", pusher.streams_port), 5)


def test_200_slow_clients_are_closed_in_time_and_good_ones_served_meanwhile(
    pusher: PusherProcess,
) -> None:
    with ExitStack() as stack:
        began = time.monotonic()
        silent, half, dripping = (
            [stack.enter_context(connect(pusher)) for _ in range(count)] for count in (66, 67, 67)
        )
        for connection in half:
            connection.sendall(b"GET /events HTTP/1.1\r\nHost: loc")
        for connection in dripping:
            connection.sendall(b"GET /events HTTP/1.1\r\n")
        left = [*silent, *half, *dripping]
        answers = dict.fromkeys(left, b"")
        served = 0
        while left:
            assert time.monotonic() - began < HANDSHAKE_SECONDS + 2, f"{len(left)} are still open"
            with open_stream(pusher, "ann") as stream:
                stream.next_block(within=1)
                served += 1
            for connection in left[:]:
                connection.settimeout(0.0005)
                try:
                    if connection in dripping:
                        connection.sendall(b"X")
                    data = connection.recv(4096)
                except TimeoutError:
                    continue
                except ConnectionError:
                    data = b""
                answers[connection] += data
                if not data:
                    left.remove(connection)
        assert served > 3
        for connection in (*silent, *half):
            assert parse_answer(answers[connection]).status == 408
        name = 'pusher_handshakes_total{kind="timed_out"}'
        assert metric(pusher, name) == 200


BAD = {
    "not http": (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", 400),
    "smtp": (b"EHLO example.org\r\n", 400),
    "no version": (b"GET /events\r\n\r\n", 400),
    "http/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "space in a name": (b"GET /events HTTP/1.1\r\nHo st: x\r\n\r\n", 400),
    "nul in a value": (b"GET /events HTTP/1.1\r\nHost: x\0y\r\n\r\n", 400),
    "two kinds of length": (
        b"GET /events HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "long header": (get("/events", {"X-Long": "y" * 17_000}), 431),
    "many headers": (get("/events", {f"X-{n}": "y" * 90 for n in range(200)}), 431),
    "long target": (get("/events?token=" + "y" * 17_000), 431),
    "wrong path": (get("/"), 404),
    "path above": (get("/events/../events"), 404),
    "other case": (get("/Events"), 404),
    "head": (get("/events", method="HEAD"), 405),
    "post": (get("/events", {"Content-Length": "0"}, "POST"), 405),
    "delete": (get("/jmap/eventsource", method="DELETE"), 405),
    "body": (get("/events", {"Content-Length": "5"}) + b"hello", 413),
    "chunked body": (get("/events", {"Transfer-Encoding": "chunked"}) + b"0\r\n\r\n", 413),
    "closeafter": (get("/jmap/eventsource?types=*&closeafter=later&ping=0"), 400),
    "ping": (get("/jmap/eventsource?types=*&closeafter=no&ping=-1"), 400),
    "ping in arabic": (get("/jmap/eventsource?ping=%D9%A3"), 400),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_request_gets_its_problem_document_and_an_end(pusher: PusherProcess, name: str) -> None:
    request, status = BAD[name]
    answer = exchange(pusher.streams_port, request)
    assert answer.status == status
    assert answer.problem["title"]
    assert answer.headers["connection"] == "close"
    assert answer.headers["cache-control"] == "no-store"
    assert int(answer.headers["content-length"]) == len(answer.body)
    if status == 405:
        assert answer.headers["allow"] == "GET, OPTIONS"


def goes_on(connection: socket.socket) -> bool:
    try:
        connection.sendall(b"x" * 1000)
    except ConnectionError:
        return False
    return True


def test_refused_client_that_goes_on_sending_is_cut(pusher: PusherProcess) -> None:
    with connect(pusher) as connection:
        connection.sendall(get("/nowhere"))
        wait_until(lambda: not goes_on(connection), "the cut", within=5)


def test_request_in_single_bytes_opens_a_stream(pusher: PusherProcess) -> None:
    request = get("/events", {"Authorization": f"Bearer {pusher.token('ann')}"})
    with connect(pusher) as connection:
        for at in range(len(request)):
            connection.sendall(request[at : at + 1])
        connection.settimeout(5)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")


def test_what_follows_the_request_is_not_read_as_another(pusher: PusherProcess) -> None:
    """A stream lasts until the connection ends: a proxy must not find a second answer in it."""
    request = get("/events", {"Authorization": f"Bearer {pusher.token('ann')}"})
    with connect(pusher) as connection:
        connection.sendall(request + get("/nowhere"))
        connection.settimeout(5)
        received = connection.recv(4096)
        with Producer(pusher.stream_socket) as producer:
            assert producer.ask(event_request("ann", 12)) == OK
        while b'"mailModSeq":12,' not in received:
            data = connection.recv(4096)
            assert data, received
            received += data
        assert received.count(b"HTTP/1.1") == 1


def test_connection_limit_refuses_with_503_and_recovers() -> None:
    with PusherProcess({"streams": {"max_connections": 20}}) as pusher:
        url, token = pusher.events_url, pusher.token("ann")
        with Crowd(pusher.streams_port) as crowd:
            for _ in range(20):
                crowd.join("ann", token)
            crowd.pump_until_open()
            answer = exchange(
                pusher.streams_port, get("/events", {"Authorization": f"Bearer {token}"})
            )
            assert answer.status == 503
            assert answer.problem["detail"]
            assert int(answer.headers["retry-after"]) > 0
        wait_for_metric(pusher, "pusher_subscribers", lambda value: value == 0)
        with EventStream(url, token=token) as stream:
            assert stream.status == 200
        refused = 'pusher_handshakes_refused_total{status="503"}'
        assert metric(pusher, refused) == 1


def test_one_account_cannot_take_all_streams() -> None:
    with (
        PusherProcess({"streams": {"max_connections_per_account": 3}}) as pusher,
        Crowd(pusher.streams_port) as crowd,
    ):
        greedy, modest = pusher.token("greedy"), pusher.token("modest")
        for _ in range(3):
            crowd.join("greedy", greedy)
        crowd.pump_until_open()
        answer = exchange(
            pusher.streams_port, get("/events", {"Authorization": f"Bearer {greedy}"})
        )
        assert answer.status == 429
        assert answer.problem["status"] == 429
        assert int(answer.headers["retry-after"]) > 0
        crowd.join("modest", modest)
        crowd.pump_until_open()


class PoorPusher(PusherProcess):
    """A pusher that may have 80 open files."""

    def _command(self) -> list[str]:
        return ["prlimit", "--nofile=80:80", *super()._command()]


def open_files(pusher: PusherProcess) -> int:
    return len(list(Path(f"/proc/{pusher.pid}/fd").iterdir()))


def test_without_descriptors_it_waits_instead_of_spinning_and_recovers() -> None:
    with PoorPusher() as pusher:
        exhausted = 'pusher_handshakes_total{kind="exhausted"}'
        with ExitStack() as stack, open_stream(pusher, "ann") as stream:
            stream.next_block()
            for _ in range(120):
                stack.enter_context(connect(pusher))
            wait_until(lambda: open_files(pusher) >= 80, "the last one")
            with Producer(pusher.stream_socket, within=20) as waiting:
                waiting.send(event_request("ann", 5))  # accepted when there is room
                began, used = time.monotonic(), cpu_seconds(pusher.pid)
                while time.monotonic() - began < 2:
                    assert stream.quiet_for(0.2) == [], "there was room after all"
                used = cpu_seconds(pusher.pid) - used
                assert used < 0.7, f"{used:.2f} s CPU in 2 s of doing nothing"
                stack.close()
                assert waiting.reply() == OK
            stream.wait_for(lambda block: '"mailModSeq":5,' in block.data)
        assert metric(pusher, exhausted) > 0
        wait_until(lambda: pusher.get("/readyz")[0] == 200, "it to be ready")
        with open_stream(pusher, "bob") as stream:
            stream.next_block()
        assert len(pusher.log.splitlines()) < 60, pusher.log[-3000:]


def test_problem_is_read_by_clients_that_send_all_before_they_read(pusher: PusherProcess) -> None:
    """Closing with unread input would reset the connection and lose the answer."""
    with connect(pusher) as connection:
        connection.sendall(get("/events", {"Content-Length": "200000"}) + b"x" * 200_000)
        answer = parse_answer(read_to_end(connection))
    assert answer.status == 413
