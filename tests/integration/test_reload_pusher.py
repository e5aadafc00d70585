"""SIGHUP and SIGUSR1: what changes while running, what a bad file does, what the log may hold."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from demo.waiting import wait_until
from tests.support.hostile import (
    OK,
    Producer,
    event_request,
    exchange,
    get,
    log_lines,
    sieve_request,
)
from tests.support.pusher_process import PusherProcess
from tests.support.streams import EventStream, open_stream

ALLOWED = "https://mail.example.org"


class Reloadable(PusherProcess):
    """A pusher whose configuration file can be written anew while it runs."""

    def rewrite(self, changes: Mapping[str, Mapping[str, object]]) -> None:
        lines = [
            f'[intake]\nmode = "0666"\n[api]\nlisten = "127.0.0.1:{self.api_port}"',
            f'[streams]\nlisten = "127.0.0.1:{self.streams_port}"',
        ]
        streams = changes.get("streams", {})
        lines += [f"{key} = {json.dumps(value)}" for key, value in streams.items()]
        for name, values in changes.items():
            if name != "streams":
                lines.append(f"[{name}]")
                lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
        self.config_path.write_text("\n".join(lines) + "\n")

    def reload(self, event: str = "reloaded") -> dict[str, object]:
        """Send SIGHUP and return the line of the log that says what came of it."""
        return self.signalled(signal.SIGHUP, event)

    def signalled(self, number: signal.Signals, event: str) -> dict[str, object]:
        def lines() -> list[dict[str, object]]:
            return [line for line in log_lines(self) if line["event"] == event]

        before = len(lines())
        self._running().send_signal(number)
        wait_until(lambda: len(lines()) > before, f"the line {event} in the log")
        return lines()[-1]


@pytest.fixture
def pusher(tmp_path: Path) -> Iterator[Reloadable]:
    (tmp_path / "first.key").write_text("1" * 40)
    (tmp_path / "second.key").write_text("2" * 40)
    settings = {"auth": {"key_file": str(tmp_path / "first.key")}}
    with Reloadable(settings) as process:
        yield process


def test_reload_takes_over_origins_pings_and_keys_without_ending_streams(
    pusher: Reloadable, tmp_path: Path
) -> None:
    old = pusher.token("ann")
    foreign = get("/events", {"Origin": ALLOWED, "Authorization": f"Bearer {old}"})
    assert exchange(pusher.streams_port, foreign).status == 403
    with open_stream(pusher, "ann") as stream:
        stream.next_block()
        pusher.rewrite(
            {
                "streams": {"allowed_origins": [ALLOWED], "ping_seconds": 0.5},
                "auth": {"key_file": str(tmp_path / "second.key")},
            }
        )
        assert pusher.reload()["needs_restart"] == []
        began = time.monotonic()
        stream.wait_for(lambda block: block.is_comment, within=3)
        assert time.monotonic() - began < 2
        answer = exchange(pusher.streams_port, foreign)
        assert answer.status == 401, "the origin is allowed, the old key is not"
        # Who is in already stays.
        with Producer(pusher.stream_socket) as producer:
            assert producer.ask(event_request("ann", 9)) == OK
        stream.wait_for(lambda block: '"mailModSeq":9,' in block.data)


def test_reload_says_what_needs_a_restart(pusher: Reloadable, tmp_path: Path) -> None:
    key = {"key_file": str(tmp_path / "first.key")}
    pusher.rewrite({"auth": key, "queue": {"max_bytes": "64 MiB"}})
    assert pusher.reload()["needs_restart"] == ["queue.max_bytes"]


@pytest.mark.parametrize(
    "text",
    [
        "[streams\n",
        "[streams]\nping_seconds = 'often'\n",
        "[nonsense]\n",
        "[auth]\nkey_file = '/nonexistent/key'\n",
        "",
    ],
)
def test_bad_file_keeps_what_was_and_says_why(pusher: Reloadable, text: str) -> None:
    before = pusher.config_path.read_text()
    if text:
        pusher.config_path.write_text(text)
    else:
        pusher.config_path.unlink()
    line = pusher.reload("reload_failed")
    assert line["level"] == "error"
    assert line["problems"]
    with open_stream(pusher, "ann") as stream, Producer(pusher.stream_socket) as producer:
        stream.next_block()
        assert producer.ask(event_request("ann", 3)) == OK
        stream.wait_for(lambda block: '"mailModSeq":3,' in block.data)
    pusher.config_path.write_text(before)
    pusher.reload()


def test_key_that_is_too_short_is_not_taken_over(pusher: Reloadable, tmp_path: Path) -> None:
    (tmp_path / "first.key").write_text("short")
    with EventStream(pusher.events_url, token="x") as stream:
        assert stream.status == 401
    assert "too short" in str(pusher.reload("reload_failed")["problems"])
    (tmp_path / "first.key").write_text("1" * 40)
    with open_stream(pusher, "ann") as stream:
        stream.next_block()


def test_dump_tells_what_is_going_on(pusher: Reloadable) -> None:
    with open_stream(pusher, "ann") as stream, Producer(pusher.stream_socket) as producer:
        stream.next_block()
        for number in range(1, 6):
            assert producer.ask(event_request("ann", number)) == OK
        assert producer.ask(b"{broken}\n") != OK
        line = pusher.signalled(signal.SIGUSR1, "state")
    assert line["streams"]["open"] == 1  # type: ignore[index]
    assert line["producers"] == 1
    assert line["accounts"] == 1
    assert line["rejected"] == {"not-json": 1}
    assert line["not_ready"] == []


def test_log_is_json_lines_without_names_or_secrets(pusher: Reloadable) -> None:
    account, token = "secret.person@example.org", pusher.token("secret.person@example.org")
    with (
        EventStream(f"{pusher.events_url}?token={token}") as stream,
        Producer(pusher.stream_socket) as producer,
    ):
        stream.next_block()
        assert producer.ask(event_request(account, 5)) == OK
        assert producer.ask(sieve_request(account, "confidential")) == OK
        stream.wait_for(lambda block: '"mailModSeq":5,' in block.data)
        producer.send(b'{"event":7,"user":"secret.person@example.org"}\n')
        producer.reply()
        pusher.signalled(signal.SIGUSR1, "state")
    exchange(pusher.streams_port, get(f"/events?token=x{token}"))
    pusher.get("/nothing?token=" + token)
    pusher.stop()
    for line in log_lines(pusher):
        assert {"event", "level", "timestamp"} <= line.keys()
    assert "secret.person" not in pusher.log
    assert "confidential" not in pusher.log
    assert token[:40] not in pusher.log
    page = re.escape("1" * 40)
    assert not re.search(page, pusher.log), "the key"
