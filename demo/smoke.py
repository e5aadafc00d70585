"""The smoke test: recorded events in through both sockets, every output looked at, no browser.

A pusher of its own in a temporary folder on free ports, so it can run beside anything. Each check
is a sentence; the first that fails does not keep the others from being tried.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from demo import wire
from demo.cyrus import ALICE, BOB
from demo.daemon import Daemon, Worker
from demo.eventsource import Block, EventStream
from demo.ports import free_ports
from demo.postbox import Postbox
from demo.sources import Recorded, recording
from demo.waiting import wait_until

QUIET_SECONDS = 0.5
Say = Callable[[str], None]


class SmokeTest:
    """One run against a fresh pusher in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._postbox = Postbox()
        settings: dict[str, dict[str, object]] = {
            section: {"listen": f"127.0.0.1:{port}"}
            for section, port in zip(("streams", "api", "notifyd"), free_ports(3), strict=True)
        }
        settings["smtp"] = {"port": self._postbox.port}
        self._daemon = Daemon(folder, folder / "config.toml", settings)
        self._worker = Worker(folder, folder / "config.toml")
        self._transport = "dlist"
        self._server = Recorded(self._send)
        self._streams = ExitStack()

    def run(self, say: Say) -> bool:
        """Make every check, say a line for each, and return whether all held."""
        all_held = True
        with self._postbox, self._daemon, self._streams:
            for promise, check in self._checks():
                started = time.monotonic()
                try:
                    check()
                except (
                    AssertionError,
                    OSError,
                    ValueError,
                    KeyError,
                    RuntimeError,
                    subprocess.SubprocessError,
                ) as e:
                    all_held = False
                    say(f"FAILED  {promise}: {_one_line(e)}")
                else:
                    say(f"ok      {promise} ({time.monotonic() - started:.2f} s)")
        return all_held

    def _checks(self) -> Iterator[tuple[str, Callable[[], None]]]:
        yield "/readyz, /healthz and /metrics answer", self._api_answers
        yield "a stream without a token is refused with 401", self._token_is_needed
        yield "streams open, in both shapes, with an id in the first block", self._open
        for transport, what in (
            ("dlist", "a Cyrus request on the stream socket"),
            ("json line", "a JSON line on the stream socket"),
            ("datagram", "a Cyrus datagram"),
            ("json datagram", "a JSON datagram"),
        ):
            yield f"{what} reaches alice's page with the server's numbers", self._moves(transport)
        yield "the same reaches alice's JMAP stream as StateChange", self._jmap_heard
        yield "bob's stream heard nothing of alice", self._bob_heard_nothing
        yield "a reader that comes back gets what it missed at once", self._comes_back
        yield "a calendar alarm is in the queue, a job for each recipient", self._alarm
        yield "a Sieve notification is in the queue", self._sieve
        yield "notifyd makes the mails of both, one to each recipient", self._mails
        yield "malformed input is answered, counted, and harms nothing", self._nonsense

    # --- sending ---------------------------------------------------------------------------------

    def _send(self, fields: wire.Fields) -> None:
        match self._transport:
            case "dlist":
                answer = wire.send_stream(self._daemon.stream_socket, wire.dlist(fields))
                _expect(answer == b"OK ()\r\n", f"the answer was {answer!r}")
            case "json line":
                line = wire.json_object(fields) + b"\n"
                wire.send_stream(self._daemon.stream_socket, line)
            case "datagram":
                wire.send_datagram(self._daemon.datagram_socket, wire.datagram(fields))
            case "json datagram":
                wire.send_datagram(self._daemon.datagram_socket, wire.json_object(fields))

    # --- checks ----------------------------------------------------------------------------------

    def _api_answers(self) -> None:
        for path in ("/readyz", "/healthz"):
            status, body = self._daemon.get(path)
            _expect(status == 200 and json.loads(body)["status"], f"{path}: {status} {body}")
        status, body = self._daemon.get("/metrics")
        _expect(status == 200 and "pusher_events_total" in body, f"/metrics: {status}")

    def _token_is_needed(self) -> None:
        with EventStream(self._daemon.events_url) as stream:
            _expect(stream.status == 401, f"the status was {stream.status}")

    def _open(self) -> None:
        jmap = self._daemon.events_url.replace("/events", "/jmap/eventsource?types=*")
        self._page = self._stream(self._daemon.events_url, ALICE)
        self._jmap = self._stream(jmap, ALICE)
        self._bob = self._stream(self._daemon.events_url, BOB)
        for stream in (self._page, self._jmap, self._bob):
            block = stream.next_block()
            _expect(block.id is not None, f"the first block was {block.raw!r}")

    def _stream(self, url: str, account: str) -> EventStream:
        stream = EventStream(url, token=self._daemon.token(account))
        self._streams.enter_context(stream)
        _expect(stream.status == 200, f"the status was {stream.status}")
        return stream

    def _moves(self, transport: str) -> Callable[[], None]:
        def check() -> None:
            self._transport = transport
            for action in ("deliver", "read", "calendar", "contact"):
                self._server.do(action)
                numbers = self._server.numbers()
                block = self._page.wait_for(_shows(numbers))
                _expect(_PAGE_BLOCK.fullmatch(block.raw) is not None, f"it was {block.raw!r}")

        return check

    def _jmap_heard(self) -> None:
        numbers = self._server.numbers()
        wanted = {
            "CalendarEvent": str(numbers["calendar"]),
            "ContactCard": str(numbers["contacts"]),
        }
        wanted["Email"] = str(numbers["mail"])
        heard: dict[str, str] = {}

        def all_heard(block: Block) -> bool:
            if block.event == "state":
                _expect(block.json["@type"] == "StateChange", f"it was {block.raw!r}")
                heard.update(block.json["changed"][ALICE])
            return wanted.items() <= heard.items()

        self._jmap.wait_for(all_heard)

    def _bob_heard_nothing(self) -> None:
        blocks = self._bob.quiet_for(QUIET_SECONDS)
        _expect(not blocks, f"it heard {blocks}")

    def _comes_back(self) -> None:
        seen = self._page.last_id
        self._server.do("deliver")
        url, token = self._daemon.events_url, self._daemon.token(ALICE)
        with EventStream(url, token=token, last_event_id=seen) as stream:
            block = stream.wait_for(lambda block: block.event == "push")
            _expect(_numbers(block) == self._server.numbers(), f"it got {block.raw!r}")

    def _alarm(self) -> None:
        self._transport = "dlist"
        self._server.do("alarm")
        jobs = self._jobs("calendar_alarm", 2)
        _expect({job["account"] for job in jobs} == {ALICE}, f"the jobs are {jobs}")

    def _sieve(self) -> None:
        self._send(recording("sieve"))
        self._jobs("sieve_notify", 1)

    def _mails(self) -> None:
        self._streams.enter_context(self._worker)
        wait_until(lambda: len(self._postbox.mails()) >= 3, "three mails", 20)
        mails = self._postbox.mails()
        automatic = [str(mail.message["Auto-Submitted"]).partition(";")[0] for mail in mails]
        _expect(
            sorted(automatic) == ["auto-generated", "auto-generated", "auto-notified"],
            f"they are {automatic}",
        )
        wait_until(lambda: not self._listed("calendar_alarm"), "the alarms to be done", 5)
        wait_until(lambda: not self._listed("sieve_notify"), "the notification to be done", 5)

    def _jobs(self, kind: str, count: int) -> list[dict[str, Any]]:
        jobs = self._listed(kind)
        _expect(len(jobs) == count, f"{len(jobs)} jobs instead of {count}: {jobs}")
        return jobs

    def _listed(self, kind: str) -> list[dict[str, Any]]:
        queue = str(self._daemon.folder / "run" / "queue.db")
        command = ["-m", "notifyd", "queue", "list", "--json", "--kind", kind, "--queue", queue]
        done = subprocess.run(
            [sys.executable, *command], capture_output=True, check=True, text=True, timeout=20
        )
        return [json.loads(line) for line in done.stdout.splitlines()]

    def _nonsense(self) -> None:
        wire.send_datagram(self._daemon.datagram_socket, b"nonsense")
        answer = wire.send_stream(self._daemon.stream_socket, b"nonsense\r\n")
        _expect(answer.startswith(b"NO"), f"the answer was {answer!r}")
        wait_until(lambda: self._rejected() >= 2, "the count of rejected input", 5)
        self._moves("dlist")()

    def _rejected(self) -> float:
        page = self._daemon.get("/metrics")[1]
        return sum(
            float(n) for n in re.findall(r"^pusher_events_rejected_total\{.*\} (\S+)$", page, re.M)
        )


_PAGE_BLOCK = re.compile(
    r'event: push\nid: \d+\ndata: {"mailModSeq":\d+,"calendarModSeq":\d+,"contactsModSeq":\d+}\n\n'
)


def run(say: Say) -> int:
    """Make a run in a temporary folder; return the exit code."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mp-", dir="/tmp") as name:
        held = SmokeTest(Path(name)).run(say)
    verdict = "Everything works" if held else "Something does not work"
    say(f"{verdict} ({time.monotonic() - started:.1f} s).")
    return 0 if held else 1


def _numbers(block: Block) -> dict[str, int] | None:
    if block.event != "push":
        return None
    data = block.json
    return {name: data[f"{name}ModSeq"] for name in ("mail", "calendar", "contacts")}


def _shows(numbers: dict[str, int]) -> Callable[[Block], bool]:
    return lambda block: _numbers(block) == numbers


def _expect(condition: object, otherwise: str) -> None:
    # Not `assert`: python -O would make the smoke test blind.
    if not condition:
        raise AssertionError(otherwise)


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".replace("\n", " ")
