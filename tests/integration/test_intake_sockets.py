"""The event sockets: who may use them, and who gets which answer, in which order."""

from __future__ import annotations

import grp
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from demo.waiting import wait_until
from shared.jobqueue import JobQueue
from tests.support.hostile import (
    NO,
    OK,
    DatagramSender,
    Producer,
    alarm_json,
    event_datagram,
    event_request,
    metric,
    modseq_event,
    sieve_request,
    wait_for_metric,
)
from tests.support.pusher_process import PusherProcess, short_folder
from tests.support.streams import open_stream

REJECTED = 'pusher_events_rejected_total{reason="%s"}'


@pytest.fixture(scope="module")
def pusher() -> Iterator[PusherProcess]:
    settings = {"intake": {"mode": "0666", "idle_seconds": 1, "max_bytes": 65_536}}
    with PusherProcess(settings) as process:
        yield process


# --- files ---------------------------------------------------------------------------------------


def a_group() -> str:
    """Return a group other than our own if we may give files to it."""
    groups = [entry.gr_gid for entry in grp.getgrall()] if os.geteuid() == 0 else os.getgroups()
    others = [number for number in groups if number != os.getegid()]
    return grp.getgrgid(others[0] if others else os.getegid()).gr_name


@pytest.mark.parametrize("mode", ["0660", "0600", "0666"])
def test_socket_files_have_the_mode_and_group_of_the_configuration(mode: str) -> None:
    group = a_group()
    with PusherProcess({"intake": {"mode": mode, "group": group}}) as pusher:
        for path in (pusher.stream_socket, pusher.datagram_socket):
            found = path.stat()
            assert stat.S_IMODE(found.st_mode) == int(mode, 8)
            assert grp.getgrgid(found.st_gid).gr_name == group
        assert stat.S_IMODE((pusher.folder / pusher.tail_socket).stat().st_mode) == 0o600


def serve_once(folder: Path) -> subprocess.CompletedProcess[str]:
    """Start a pusher in `folder` that must refuse to run."""
    config = folder / "config.toml"
    config.write_text('[streams]\nlisten = "127.0.0.1:0"\n[api]\nlisten = "127.0.0.1:0"\n')
    command = [sys.executable, "-m", "pusher", "serve", "--config", str(config)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=20)


@pytest.fixture
def folder() -> Iterator[Path]:
    made = short_folder()
    (made / "run").mkdir()
    yield made
    subprocess.run(["rm", "-r", str(made)], check=True)


def test_live_socket_of_another_program_is_not_taken_over(folder: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as other:
        other.bind(str(folder / "run" / "intake.sock"))
        other.listen(1)
        ended = serve_once(folder)
        assert ended.returncode == 78
        assert "intake.sock" in ended.stderr
        assert "another program listens" in ended.stderr
        assert "Traceback" not in ended.stderr
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as client:
            client.connect(str(folder / "run" / "intake.sock"))  # it still has its socket


@pytest.mark.parametrize("name", ["intake.sock", "intake.dgram"])
def test_file_in_the_way_is_left_alone(folder: Path, name: str) -> None:
    path = folder / "run" / name
    path.write_text("precious")
    ended = serve_once(folder)
    assert ended.returncode == 78
    assert "not a socket" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert path.read_text() == "precious"


def test_stale_socket_files_are_replaced_after_a_crash(pusher: PusherProcess) -> None:
    pusher.kill()
    assert pusher.stream_socket.exists()
    pusher.start()
    with Producer(pusher.stream_socket) as producer:
        assert producer.ask(event_request("ann", 1)) == OK
    with DatagramSender(pusher.datagram_socket) as sender:
        sender.send(event_datagram("ann", 2))


# --- answers -------------------------------------------------------------------------------------


def test_pipelined_requests_of_all_kinds_are_answered_in_order(pusher: PusherProcess) -> None:
    bad_line = b'{"neither":"nor"}\n'
    requests = [
        (event_request("ann", 10), OK),
        (sieve_request("ann", "order-1"), OK),
        (modseq_event("ann", 11) + b"\n", OK),
        (bad_line, NO),
        (alarm_json("ann", "order-2") + b"\r\n", OK),
        (b"not json\n".replace(b"not", b"{not"), NO),
        (event_request("ann", 12), OK),
        (sieve_request("", "order-3"), NO),
        (b"\r\n\n" + modseq_event("ann", 13) + b"\n", OK),
    ] * 20
    with Producer(pusher.stream_socket) as producer:
        producer.send(b"".join(request for request, _ in requests))
        assert [producer.reply() for _ in requests] == [reply for _, reply in requests]
        producer.end()
        assert producer.reply() == b""


def test_answers_still_come_when_the_producer_has_ended_its_side(pusher: PusherProcess) -> None:
    with Producer(pusher.stream_socket) as producer:
        producer.send(sieve_request("ann", "ended-1") + alarm_json("ann", "ended-2"))  # no LF
        producer.end()
        assert [producer.reply() for _ in range(3)] == [OK, OK, b""]


def test_request_in_single_bytes_is_answered_once(pusher: PusherProcess) -> None:
    request = sieve_request("ann", "bytes")
    with Producer(pusher.stream_socket) as producer:
        for at in range(len(request)):
            producer.send(request[at : at + 1])
        assert producer.reply() == OK
        producer.end()
        assert producer.reply() == b""


def test_half_a_request_is_given_up_with_no(pusher: PusherProcess) -> None:
    before = metric(pusher, 'pusher_intake_total{kind="cut-half-request"}')
    whole = event_request("ann", 20)
    with Producer(pusher.stream_socket) as producer, Producer(pusher.stream_socket) as idle:
        assert idle.ask(event_request("ann", 21)) == OK
        producer.send(whole + whole[: len(whole) // 2])
        assert producer.reply() == OK
        assert producer.reply(within=1 + 2) == NO
        assert producer.reply() == b""
        # Between requests a producer may be silent for as long as it likes.
        assert idle.ask(event_request("ann", 22)) == OK
    assert metric(pusher, 'pusher_intake_total{kind="cut-half-request"}') == before + 1


def test_producer_that_leaves_in_the_middle_hurts_nobody(pusher: PusherProcess) -> None:
    before = metric(pusher, REJECTED % "truncated")
    for request in (event_request("ann", 30), sieve_request("ann", "left")):
        for cut in (1, 8, 20, len(request) - 1):
            with Producer(pusher.stream_socket) as producer:
                producer.send(request[:cut])
    name = REJECTED % "truncated"
    wait_for_metric(pusher, name, lambda value: value == before + 8)
    with Producer(pusher.stream_socket) as producer:
        producer.send(sieve_request("ann", "left-before-the-answer"))
    wait_for_metric(pusher, "pusher_intake_connections", lambda value: value == 0)


def test_oversized_request_is_refused_and_the_connection_ends(pusher: PusherProcess) -> None:
    before = metric(pusher, REJECTED % "oversized")
    large = {"padding": "x" * 70_000}
    for request in (
        event_request("ann", 40, **large),
        modseq_event("ann", 40, **large) + b"\n",
        b"NOTIFY %(MESSAGE {65000+}\r\n" + b"x" * 66_000,
    ):
        with Producer(pusher.stream_socket) as producer:
            with suppress(BrokenPipeError, ConnectionResetError):  # it did not wait for the end
                producer.send(request)
            assert producer.reply() in (NO, b"")
            assert producer.reply() == b""
    assert metric(pusher, REJECTED % "oversized") >= before + 2
    with Producer(pusher.stream_socket) as producer:
        assert producer.ask(event_request("ann", 41)) == OK


def test_producer_that_never_reads_its_answers_blocks_nobody(pusher: PusherProcess) -> None:
    request = event_request("ann", 50) * 20
    cut = 'pusher_intake_total{kind="cut-replies-unread"}'
    with Producer(pusher.stream_socket) as deaf, Producer(pusher.stream_socket) as other:
        try:
            for number in range(50_000):
                deaf.send(request)
                if number % 100 == 0:
                    assert other.ask(event_request("bob", number + 1)) == OK
        except (BrokenPipeError, ConnectionResetError):
            pass
        else:
            raise AssertionError("a million answers lie unread")
        assert other.ask(event_request("bob", 60_000)) == OK
    assert metric(pusher, cut) == 1


# --- a queue that cannot store -------------------------------------------------------------------


def test_full_queue_refuses_slow_requests_only_says_so_and_recovers() -> None:
    with PusherProcess({"queue": {"max_bytes": "256 KiB"}}) as pusher:
        spool = pusher.folder / "stage"
        spool.write_bytes(b"x" * 50_000)
        with (
            Producer(pusher.stream_socket) as producer,
            open_stream(pusher, "ann") as stream,
        ):
            replies = [
                producer.ask(sieve_request("ann", f"full-{number}", spool)) for number in range(20)
            ]
            accepted = replies.count(OK)
            assert 0 < accepted < 20
            assert replies == [OK] * accepted + [NO] * (20 - accepted)
            assert producer.ask(event_request("ann", 70)) == OK
            stream.wait_for(lambda block: '"mailModSeq":70,' in block.data)
            status, body = pusher.get("/readyz")
            assert status == 503
            assert json.loads(body)["reasons"] == ["queue: queue-full"]
            assert pusher.get("/healthz")[0] == 200
            assert metric(pusher, "pusher_queue_refused_total") == 20 - accepted
            assert metric(pusher, "pusher_queue_ok") == 0
            drain(pusher.folder / "run" / "queue.db")
            wait_until(lambda: pusher.get("/readyz")[0] == 200, "it to be ready", 8)
            assert producer.ask(sieve_request("ann", "after", spool)) == OK


def drain(path: Path) -> None:
    with closing(JobQueue.open(path, min_free_bytes=0)) as queue:
        while jobs := queue.claim("test", None, 100, 60, 2e9):
            assert all(queue.finish(job.id, "test", 2e9) for job in jobs)


def test_datagrams_of_both_forms_are_taken(pusher: PusherProcess) -> None:
    with open_stream(pusher, "dan") as stream, DatagramSender(pusher.datagram_socket) as sender:
        sender.send(event_datagram("dan", 5))
        stream.wait_for(lambda block: '"mailModSeq":5,' in block.data)
        sender.send(modseq_event("dan", 6))
        stream.wait_for(lambda block: '"mailModSeq":6,' in block.data)
