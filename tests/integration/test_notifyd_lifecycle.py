"""Stopping, reloading, and each program without the other."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from demo.waiting import wait_until
from shared.jobqueue import QueueView
from tests.support.background import Background
from tests.support.hostile import OK, Producer, event_request
from tests.support.lone_notifyd import Scene, lone_notifyd
from tests.support.notifyd_process import NotifydProcess, notifyd_settings
from tests.support.pusher_process import PusherProcess
from tests.support.slow_path import (
    Settings,
    alarm_job,
    counts,
    sieve_mail_job,
    sieve_mail_request,
    sms_job,
)
from tests.support.smtp_far_end import STALL, FarEnd
from tests.support.streams import open_stream

pytestmark = pytest.mark.real

CREDIT = 1000


@pytest.fixture(scope="module")
def shared_scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("lifecycle")
    more: Settings = {
        "smtp": {"timeout_seconds": 30},
        "store": {"timeout_seconds": 10},
        "mail": {"sender": "old@example.org"},
    }
    with lone_notifyd(f"sqlite:///{folder}/state.db", folder, credit=CREDIT, more=more) as scene:
        yield scene


@pytest.fixture
def scene(shared_scene: Scene) -> Scene:
    """A notifyd with nothing to do, and far ends that have seen nothing."""
    shared_scene.mails.contents.clear()
    shared_scene.sms.ledger.clear()
    return shared_scene


def test_sigterm_under_load_ends_what_is_sent_and_hands_back_the_rest(scene: Scene) -> None:
    mails = [f"mail{number}" for number in range(800)]
    texts = [f"sms{number}" for number in range(300)]
    half = len(mails) // 2
    jobs = [*map(sieve_mail_job, mails[:half]), *map(alarm_job, mails[half:])]
    scene.put(*jobs, *map(sms_job, texts))
    scene.wait_for(lambda: len(scene.mail_marks) > 20 and len(scene.sms_marks) > 5, "a beginning")
    assert scene.notifyd.stop() == 0

    with closing(QueueView.open_read_only(scene.queue)) as view:
        left = {job.key: job for job in view.jobs()}
    assert left, "it was to be stopped at work"
    assert {(job.state, job.attempts, job.reason) for job in left.values()} == {("ready", 0, "")}
    assert set(left) == {*mails, *texts} - {*scene.mail_marks, *scene.sms_marks}
    audit = scene.audit()
    assert (audit.sent, audit.sending, audit.unknown) == (len(scene.sms_marks), 0, 0)

    scene.notifyd.start()
    scene.wait_until_done(40)
    assert sorted(scene.mail_marks) == sorted(mails), "each once"
    assert sorted(scene.sms_marks) == sorted(texts), "each once"
    assert scene.audit().total == CREDIT


def test_sigterm_gives_up_on_a_server_that_stalls_and_hands_its_mail_back(tmp_path: Path) -> None:
    more: Settings = {"smtp": {"timeout_seconds": 60}, "notifyd": {"drain_seconds": 0.5}}
    with lone_notifyd(f"sqlite:///{tmp_path}/state.db", tmp_path, more=more) as scene:
        scene.mails.always["RCPT"] = STALL
        scene.sms.script.append("taken-then-black-hole")
        scene.put(sieve_mail_job("stalled"), sms_job("text"))
        scene.background.run(lambda: scene.mails.until("RCPT"))
        scene.wait_for(scene.sms.hanging.is_set, "the SMS to be taken")
        assert scene.notifyd.stop() == 0
        assert counts(scene.queue) == {
            ("sieve_notify", "ready"): 1, ("sieve_sms", "ready"): 1
        }  # fmt: skip
        scene.mails.always.clear()
        scene.notifyd.start()
        scene.wait_until_done()
        assert scene.mail_marks == ["stalled"]
        assert scene.sms_marks == ["text"], "it was looked up"


def test_sighup_takes_over_a_new_sender_and_bad_settings_change_nothing(scene: Scene) -> None:
    path = scene.notifyd.config_path
    written = path.read_text()

    def sender_of(mark: str) -> bytes:
        scene.mails.contents.clear()
        scene.put(alarm_job(mark))
        scene.wait_for(lambda: scene.mail_marks == [mark], "the mail")
        lines = scene.mails.contents[0].split(b"\r\n")
        return next(line for line in lines if line.startswith(b"From:"))

    def reload(says: str) -> None:
        before = scene.notifyd.log.count(says)
        os.kill(scene.notifyd.pid, signal.SIGHUP)
        scene.wait_for(lambda: scene.notifyd.log.count(says) > before, says)

    assert b"old@example.org" in sender_of("before")
    path.write_text(written.replace("old@example.org", "new@example.org"))
    reload('"reloaded"')
    assert b"new@example.org" in sender_of("after")
    path.write_text(written.replace("old@example.org", "no address"))
    reload('"reload_failed"')
    assert b"new@example.org" in sender_of("still")


# --- each alone (FM-43) ---------------------------------------------------------------------------


def test_notifyd_works_without_a_pusher(scene: Scene) -> None:
    scene.put(sieve_mail_job("mail"), alarm_job("alarm"), sms_job("text"))
    scene.wait_until_done()
    assert sorted(scene.mail_marks) == ["alarm", "mail"]
    assert scene.sms_marks == ["text"]


def test_pusher_works_without_a_notifyd_and_keeps_its_jobs_for_one() -> None:
    with Background() as background:
        mails = background.enter(FarEnd())
        settings: Settings = {**notifyd_settings(), "smtp": {"port": mails.port}}
        with PusherProcess(settings) as pusher:
            with open_stream(pusher, "ann") as stream:
                stream.next_block()
                with Producer(pusher.stream_socket) as producer:
                    assert producer.ask(event_request("ann", 7)) == OK
                    assert producer.ask(sieve_mail_request("kept")) == OK
                stream.wait_for(lambda block: '"mailModSeq":7,' in block.data)
            assert counts(pusher.folder / "run" / "queue.db") == {("sieve_notify", "ready"): 1}
            with NotifydProcess.beside(pusher):
                wait_until(lambda: len(mails.contents) == 1, "the mail that was kept")


def test_both_may_start_at_once_in_an_empty_folder() -> None:
    """Each makes what it needs, the queue above all, if the other has not."""
    with Background() as background:
        mails = background.enter(FarEnd())
        settings: Settings = {**notifyd_settings(), "smtp": {"port": mails.port}}
        pusher = PusherProcess(settings)
        notifyd = NotifydProcess.beside(pusher)
        try:
            with ThreadPoolExecutor(2) as threads:
                for started in (threads.submit(notifyd.start), threads.submit(pusher.start)):
                    started.result(60)
            with Producer(pusher.stream_socket) as producer:
                assert producer.ask(sieve_mail_request("first")) == OK
            wait_until(lambda: len(mails.contents) == 1, "the mail")
        finally:
            notifyd.close()
            pusher.__exit__(None, None, None)
