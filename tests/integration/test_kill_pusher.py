"""kill -9 of pusher at random moments under load: nothing it said OK to is lost."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

from demo.waiting import wait_until
from shared.jobqueue import QueueView
from tests.support.hostile import (
    OK,
    Producer,
    alarm_json,
    alarm_request,
    event_request,
    marks,
    sieve_request,
)
from tests.support.pusher_process import PusherProcess
from tests.support.streams import open_stream

KILLS = 60
PRODUCERS = 4
SEED = 20_261_121


class Client(threading.Thread):
    """A mail server's process: asks in small batches, fast and slow ones mixed, for ever.

    `acknowledged` has the mark of every slow request that was answered OK; `refused` what was not.
    """

    def __init__(self, pusher: PusherProcess, name: str, spool: Path) -> None:
        super().__init__(name=name, daemon=True)
        self.acknowledged: list[str] = []
        self.refused: list[bytes] = []
        self.fast = 0
        self._path = pusher.stream_socket
        self._random = random.Random(f"{SEED}-{name}")
        self._spool = spool
        self._ended = threading.Event()
        self._count = 0

    def end(self) -> None:
        self._ended.set()
        self.join(20)
        assert not self.is_alive(), "the producer hangs"

    def run(self) -> None:
        while not self._ended.is_set():
            try:
                with Producer(self._path, within=15) as producer:
                    while not self._ended.is_set():
                        self._ask(producer)
            except (ConnectionError, FileNotFoundError):
                self._ended.wait(0.005)  # it has been killed; nobody listens yet

    def _ask(self, producer: Producer) -> None:
        batch = [self._request() for _ in range(self._random.randint(1, 8))]
        producer.send(b"".join(request for request, _ in batch))
        for _, mark in batch:
            reply = producer.reply()
            if not reply.endswith(b"\n"):
                raise ConnectionResetError
            if reply != OK:
                self.refused.append(reply)
            elif mark:
                self.acknowledged.append(mark)
            else:
                self.fast += 1

    def _request(self) -> tuple[bytes, str]:
        self._count += 1
        mark = f"{self.name}-{self._count}"
        ways: list[Callable[[], tuple[bytes, str]]] = [
            lambda: (event_request("ann", self._count), ""),
            lambda: (event_request("bob", self._count), ""),
            lambda: (sieve_request("ann", mark), mark),
            lambda: (sieve_request("ann", mark, self._spool), mark),
            lambda: (alarm_request("ann", mark), mark),
            lambda: (alarm_json("ann", mark) + b"\n", mark),
        ]
        return self._random.choice(ways)()


def stored_marks(path: Path) -> list[str]:
    with closing(QueueView.open_read_only(path)) as queue:
        assert queue.integrity() == []
        return [mark for job in queue.jobs() for mark in marks(job.payload)]


def test_killed_60_times_under_load_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    spooled = tmp_path / "stage"
    spooled.write_bytes(b"Subject: x\r\n\r\n" + b"y" * 2000)
    chance = random.Random(SEED)
    with PusherProcess() as pusher:
        clients = [Client(pusher, f"p{number}", spooled) for number in range(PRODUCERS)]
        for client in clients:
            client.start()

        def acknowledged() -> int:
            return sum(len(client.acknowledged) for client in clients)

        def has(wanted: int) -> bool:
            return acknowledged() >= wanted

        try:
            for _ in range(KILLS):
                more = acknowledged() + chance.choice((1, 5, 20, 60))
                wait_until(partial(has, more), "acknowledgements")
                # A moment to be killed in, not a wait for something: any length is right.
                time.sleep(chance.uniform(0, 0.02))
                pusher.kill()
                pusher.start()
            pusher.kill()
        finally:
            for client in clients:
                client.end()
        stored = stored_marks(pusher.folder / "run" / "queue.db")
        pusher.start()
        assert pusher.stop() == 0
    assert [reply for client in clients for reply in client.refused] == []
    promised = [mark for client in clients for mark in client.acknowledged]
    assert len(promised) > KILLS
    assert sum(client.fast for client in clients) > KILLS
    assert set(promised) <= set(stored), f"lost: {sorted(set(promised) - set(stored))[:9]}"
    assert len(stored) == len(set(stored)), "one request, one job"
    print(f"{len(promised)} acknowledged, {len(stored)} stored")


def test_readers_that_return_after_a_kill_hear_resync_or_the_state() -> None:
    with PusherProcess({"state": {"snapshot_seconds": 0.1}}) as pusher:

        def tell(account: str, number: int) -> None:
            with Producer(pusher.stream_socket) as producer:
                assert producer.ask(event_request(account, number)) == OK

        accounts = [f"user{number}" for number in range(20)]
        known: dict[str, str] = {}
        for number, account in enumerate(accounts):
            with open_stream(pusher, account) as stream:
                stream.next_block()
                tell(account, 10 + number)
                known[account] = stream.wait_for(lambda block: bool(block.data)).id or ""
        pusher.kill()
        pusher.start()
        for account in accounts[:10]:  # only these have moved meanwhile
            tell(account, 100)
        for number, account in enumerate(accounts):
            with open_stream(pusher, account, last_event_id=known[account]) as stream:
                first = stream.next_block()
                assert first.event in ("resync", "push"), first.raw
                if number < 10 and '"mailModSeq":100,' not in first.data:
                    assert '"mailModSeq":100,' in stream.next_block().data
