"""kill -9 of notifyd, pusher or both at random moments under load: all that was promised happens.

Before them producers as a mail server has them, behind them a real Postfix, a provider of SMS with
a ledger of its own, and the store on either database.
"""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from email.message import EmailMessage
from pathlib import Path

import pytest

from demo.waiting import wait_until
from tests.support.background import Background
from tests.support.hostile import OK, Producer, alarm_json
from tests.support.notifyd_process import NotifydProcess, notifyd_settings
from tests.support.postfix import PostfixServer
from tests.support.postgres import PostgresServer
from tests.support.pusher_process import PusherProcess
from tests.support.slow_path import (
    OWNER,
    Settings,
    address,
    audit,
    buried,
    counts,
    let_grace_pass,
    marks_of_mails,
    marks_of_sms,
    prepare_store,
    sieve_mail_request,
    sms_request,
    sms_settings,
)
from tests.support.sms_far_end import FarEnd

pytestmark = pytest.mark.real

PRODUCERS = 2
SEED = 20_261_121
CREDIT = 100_000


class Client(threading.Thread):
    """A mail server's process: asks for mails and SMS in small batches, for ever.

    `acknowledged` has the mark of every request that was answered OK; `refused` what was not.
    """

    def __init__(self, pusher: PusherProcess, name: str, spool: Path) -> None:
        super().__init__(name=name, daemon=True)
        self.acknowledged: list[str] = []
        self.refused: list[bytes] = []
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
                        # Not more than the machine can send: it is to be killed at work.
                        self._ended.wait(self._random.uniform(0, 0.2))
            except (ConnectionError, FileNotFoundError):
                self._ended.wait(0.005)  # it has been killed; nobody listens yet

    def _ask(self, producer: Producer) -> None:
        batch = [self._request() for _ in range(self._random.randint(1, 6))]
        producer.send(b"".join(request for request, _ in batch))
        for _, mark in batch:
            reply = producer.reply()
            if not reply.endswith(b"\n"):
                raise ConnectionResetError
            if reply == OK:
                self.acknowledged.append(mark)
            else:
                self.refused.append(reply)

    def _request(self) -> tuple[bytes, str]:
        self._count += 1
        mark = f"{self.name}-{self._count}"
        ways: dict[str, Callable[[str], bytes]] = {
            "alarm": lambda mark: alarm_json(OWNER, mark, [address(mark)]) + b"\n",
            "mail": sieve_mail_request,
            "mail-of": lambda mark: sieve_mail_request(mark, self._spool),
            "sms": sms_request,
        }
        kind = self._random.choice(list(ways))
        mark = f"{kind}-{mark}"
        return ways[kind](mark), mark


class Scene:
    """All programs and far ends, and who kills them."""

    def __init__(
        self, pusher: PusherProcess, notifyd: NotifydProcess, postfix: PostfixServer, far: FarEnd
    ) -> None:
        self.pusher = pusher
        self.notifyd = notifyd
        self.postfix = postfix
        self.far = far
        self.kills = {"pusher": 0, "notifyd": 0, "both": 0}
        self._chance = random.Random(SEED)
        self._threads = ThreadPoolExecutor(1)

    @property
    def queue(self) -> Path:
        return self.pusher.folder / "run" / "queue.db"

    def effects(self) -> int:
        return len(self.postfix._delivered()) + len(self.far.ledger)

    def kill_many(self, wanted: int) -> None:
        while sum(self.kills.values()) < wanted:
            more = self.effects() + self._chance.choice((1, 5, 20))
            wait_until(lambda more=more: self.effects() >= more, "effects", 30)  # type: ignore[misc]
            # A moment to be killed in, not a wait for something: any length is right.
            time.sleep(self._chance.uniform(0, 0.05))
            self._kill_both() if self._chance.random() < 0.5 else self._kill_notifyd()
            restarted = self._threads.submit(self.notifyd.start)
            self._kill_pusher_until(restarted)

    def _kill_notifyd(self) -> None:
        self.notifyd.kill()
        self.kills["notifyd"] += 1

    def _kill_both(self) -> None:
        self.pusher.kill()
        self.notifyd.kill()
        self.kills["both"] += 1
        self.pusher.start()

    def _kill_pusher_until(self, restarted: Future[None]) -> None:
        """Notifyd takes its time to start: what comes in meanwhile is to be safe, too."""
        for _ in range(3):
            time.sleep(self._chance.uniform(0, 0.4))
            self.pusher.kill()
            self.kills["pusher"] += 1
            self.pusher.start()
        restarted.result(30)

    def finish(self, url: str) -> None:
        """Let all that is left be done."""

        def done() -> bool:
            let_grace_pass(url, self.queue, time.time())
            left = counts(self.queue)
            return not [state for _, state in left if state != "buried"]

        wait_until(done, "the queue to be empty", 60)
        wait_until(self.postfix.is_idle, "Postfix to deliver", 30)


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/state.db"
        return
    with PostgresServer() as server:
        yield server.new_database()


@pytest.mark.parametrize(("url", "kills"), [("postgresql", 52), ("sqlite", 8)], indirect=["url"])
def test_killed_under_load_everything_promised_happens_once(
    url: str, kills: int, tmp_path: Path
) -> None:
    spooled = tmp_path / "stage"
    spooled.write_bytes(b"From: x@example.org\r\nSubject: x\r\n\r\n" + b"y" * 2000)
    prepare_store(url, CREDIT)
    with Background() as background, PostfixServer() as postfix:
        far = background.enter(FarEnd())
        settings: Settings = {
            "notifyd": {**notifyd_settings()["notifyd"], "lease_seconds": 5},
            **sms_settings(far, tmp_path),
            "smtp": {"port": postfix.port},
            "store": {"url": url},
        }
        with PusherProcess(settings) as pusher, NotifydProcess.beside(pusher) as notifyd:
            scene = Scene(pusher, notifyd, postfix, far)
            clients = [Client(pusher, f"p{number}", spooled) for number in range(PRODUCERS)]
            for client in clients:
                client.start()
            try:
                scene.kill_many(kills)
            finally:
                for client in clients:
                    client.end()
            scene.finish(url)
            assert notifyd.stop() == 0
            assert buried(scene.queue) == []
        mails = postfix.mails()
    assert [reply for client in clients for reply in client.refused] == []
    promised = {mark for client in clients for mark in client.acknowledged}

    mailed, texted = marks_of_mails(mails), marks_of_sms(far)
    missing = promised - set(mailed) - set(texted)
    assert not missing, f"lost: {sorted(missing)[:9]}"
    assert len(texted) == len(set(texted)) == len(far.ledger), "an SMS came twice"
    check_message_ids(mails)
    repeated = len(mailed) - len(set(mailed))
    assert repeated <= sum(scene.kills.values())
    assert len(promised) > kills
    result = audit(url)
    assert result.total == CREDIT
    assert result.sent == len(far.ledger)
    assert result.reserved == result.sending == result.unknown == 0
    print(f"{len(promised)} promised, {len(texted)} SMS, {repeated} mails twice, {scene.kills}")


def check_message_ids(mails: list[EmailMessage]) -> None:
    """One job, one Message-ID, so that a repeat can be told; and no two jobs have the same."""
    by_mark: defaultdict[str, set[str]] = defaultdict(set)
    for mark, mail in zip(marks_of_mails(mails), mails, strict=True):
        by_mark[mark].add(str(mail["Message-ID"]))
    assert all(len(ids) == 1 for ids in by_mark.values())
    assert len(set().union(*by_mark.values())) == len(by_mark)
