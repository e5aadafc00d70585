"""What is down loses nothing, holds up nothing else, is named in /readyz, and heals by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.support.black_hole import BlackHole
from tests.support.lone_notifyd import Scene, lone_notifyd
from tests.support.postgres import PostgresServer
from tests.support.slow_path import Settings, alarm_job, buried, sieve_mail_job, sms_job
from tests.support.sms_far_end import FarEnd as SmsFarEnd
from tests.support.smtp_far_end import CUT, STALL

pytestmark = pytest.mark.real

Fault = Callable[[Scene], AbstractContextManager[None]]

MAILS = [f"{kind}{number}" for kind in ("alarm", "sieve") for number in range(6)]
TEXTS = [f"sms{number}" for number in range(4)]
CREDIT = 1000


@pytest.fixture(scope="module")
def shared_scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("faults")
    with lone_notifyd(f"sqlite:///{folder}/state.db", folder, credit=CREDIT) as scene:
        yield scene


@pytest.fixture
def scene(shared_scene: Scene) -> Iterator[Scene]:
    """A notifyd with nothing to do, and far ends that have seen nothing."""
    scene = shared_scene
    for seen in (scene.mails.contents, scene.mails.fragments, scene.sms.ledger, scene.sms.requests):
        seen.clear()
    yield scene
    scene.mails.always.clear()
    scene.mails.answers.clear()
    assert scene.audit().total == CREDIT


def put_mails(scene: Scene, prefix: str) -> list[str]:
    """Put mails of both kinds; return their marks."""
    marks = [f"{prefix}-{mark}" for mark in MAILS]
    scene.put(*(alarm_job(mark) if "alarm" in mark else sieve_mail_job(mark) for mark in marks))
    return marks


def put_texts(scene: Scene, prefix: str) -> list[str]:
    """Put SMS; return their marks."""
    marks = [f"{prefix}-{mark}" for mark in TEXTS]
    scene.put(*(sms_job(mark) for mark in marks))
    return marks


# --- SMTP -----------------------------------------------------------------------------------------


@contextmanager
def refusing(scene: Scene) -> Iterator[None]:
    scene.background.run(scene.mails.stop)
    yield
    scene.background.run(scene.mails.start)


def answering(step: str, answer: str) -> Fault:
    @contextmanager
    def fault(scene: Scene) -> Iterator[None]:
        scene.mails.always[step] = answer
        scene.background.run(scene.mails.cut_all)  # those that are kept know nothing of it
        yield
        scene.mails.always.clear()

    return fault


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (refusing, "no connection"),
        (answering("GREETING", STALL), "no connection within 1 s"),
        (answering("GREETING", "421 4.3.2 shutting down"), "server refuses us: 421"),
        (answering("MAIL", "421 4.3.2 shutting down"), "421 at MAIL"),
        (answering("GREETING", CUT), "no connection"),
    ],
    ids=["refuses", "stalls", "421-at-once", "421-later", "cuts"],
)
def test_a_server_that_takes_no_mail_is_named_and_waited_for_while_sms_go_on(
    scene: Scene,
    fault: Fault,
    said: str,
    request: pytest.FixtureRequest,
) -> None:
    prefix = request.node.callspec.id
    with fault(scene):
        mails = put_mails(scene, prefix)
        scene.wait_until_said(f"calendar_alarm: {said}")
        scene.wait_until_said(f"sieve_notify: {said}")
        texts = put_texts(scene, prefix)
        scene.wait_for(lambda: sorted(scene.sms_marks) == texts, "SMS to go on")
        assert scene.mail_marks == []
    scene.wait_until_done()
    scene.wait_until_ready(2)
    assert sorted(scene.mail_marks) == mails, "each once"


@pytest.mark.parametrize(
    ("step", "answer", "reason"),
    [
        ("MAIL", "451 4.7.1 try later", "451 at MAIL"),
        ("RCPT", "450 4.2.0 greylisted", "450 at RCPT"),
        ("END", "451 4.3.0 try later", "451 at DATA"),
        ("CONTENT", CUT, "fate unknown: connection lost at DATA"),
        ("END", STALL, "fate unknown: no answer in time at DATA"),
    ],
    ids=["451", "450", "451-at-end", "cut-in-data", "stalls-at-end"],
)
def test_a_mail_that_is_not_taken_now_is_tried_again_while_sms_go_on(
    scene: Scene, step: str, answer: str, reason: str, request: pytest.FixtureRequest
) -> None:
    prefix = request.node.callspec.id
    scene.mails.always[step] = answer
    mails = put_mails(scene, prefix)
    scene.wait_for(lambda: f'"reason": "{reason}' in scene.notifyd.log, "it to be deferred")
    texts = put_texts(scene, prefix)
    scene.wait_for(lambda: sorted(scene.sms_marks) == texts, "SMS to go on")
    assert scene.mail_marks == []
    scene.mails.always.clear()
    scene.wait_until_done()
    assert sorted(scene.mail_marks) == mails
    scene.wait_until_ready()


def test_a_mail_that_is_refused_for_good_is_buried_with_the_reason_and_alone(
    scene: Scene,
) -> None:
    before = len(buried(scene.queue))
    scene.mails.answers["RCPT"] = ["550 5.1.1 no such user"]
    mails = put_mails(scene, "550")
    scene.wait_until_done()
    assert buried(scene.queue)[before:] == ["550 at RCPT: 5.1.1 no such user"]
    assert len(scene.mail_marks) == len(mails) - 1
    assert not scene.not_ready()


# --- the provider of SMS --------------------------------------------------------------------------


def test_429_is_obeyed(scene: Scene) -> None:
    scene.sms.script.extend(["429 retry-after=2"])
    began = time.monotonic()
    scene.put(sms_job("429"))
    scene.wait_until_done()
    assert scene.sms_marks == ["429"]
    assert 2 <= time.monotonic() - began < 2 + 5


def test_5xx_may_have_sent_it_so_it_is_asked_for_while_mails_go_on(scene: Scene) -> None:
    scene.sms.script.append("500")
    scene.put(sms_job("500"))
    scene.wait_for(lambda: scene.sms.requests, "the request")
    mails = put_mails(scene, "500")
    scene.wait_for(lambda: sorted(scene.mail_marks) == mails, "mails to go on")

    def sent() -> bool:
        scene.time_passes()
        return scene.sms_marks == ["500"]

    scene.wait_for(sent, "it to be sent", 20)
    methods = [request.method for request in scene.sms.requests]
    assert methods[0] == methods[-1] == "POST"
    assert methods.count("POST") == 2
    assert methods.count("GET") >= 2
    scene.wait_until_done()


def test_refused_credentials_are_named_and_waited_for_while_mails_go_on(scene: Scene) -> None:
    scene.sms.script.extend(["20003 status=401"] * 1000)
    texts = put_texts(scene, "401")[:1]
    scene.wait_until_said("sieve_sms: Twilio 20003")
    mails = put_mails(scene, "401")
    scene.wait_for(lambda: sorted(scene.mail_marks) == mails, "mails to go on")
    scene.sms.script.clear()
    scene.wait_until_done()
    scene.wait_until_ready()
    assert set(texts) <= set(scene.sms_marks)
    assert len(scene.sms_marks) == len(set(scene.sms_marks)) == len(TEXTS)


def test_a_provider_in_a_black_hole_is_named_and_waited_for(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    with BlackHole() as hole:
        base_url = f"http://127.0.0.1:{hole.port}"
        there: Settings = {"sms": {"base_url": base_url, "timeout_seconds": 1}}
        with lone_notifyd(url, tmp_path, more=there) as scene:
            texts = put_texts(scene, "hole")
            scene.wait_until_said("sieve_sms: cannot be reached")
            mails = put_mails(scene, "hole")
            scene.wait_for(lambda: sorted(scene.mail_marks) == mails, "mails to go on")
            hole.__exit__(None, None, None)
            back = scene.background.enter(SmsFarEnd(port=hole.port))
            scene.wait_until_done()
            scene.wait_until_ready()
            assert len(back.ledger) == len(texts)


# --- the database ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


def test_a_database_that_is_killed_is_named_and_waited_for(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    with lone_notifyd(postgres.new_database(), tmp_path) as scene:
        first = put_mails(scene, "before")
        scene.wait_until_done()
        postgres.kill()
        mails, texts = put_mails(scene, "while"), put_texts(scene, "while")
        scene.wait_until_said("store: unavailable")
        scene.wait_until_said("calendar_alarm: store")
        scene.wait_until_said("sieve_sms: store")
        assert sorted(scene.mail_marks) == first
        postgres.start()
        scene.wait_until_done()
        scene.wait_until_ready()
        assert sorted(scene.mail_marks) == sorted(first + mails)
        assert sorted(scene.sms_marks) == texts
        assert scene.audit().total == 1000


def test_with_the_fallback_mails_go_out_in_the_default_language_meanwhile(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    fallback: Settings = {"store": {"fallback": "default-locale"}}
    with lone_notifyd(postgres.new_database(), tmp_path, more=fallback) as scene:
        postgres.kill()
        try:
            texts, mails = put_texts(scene, "fallback"), put_mails(scene, "fallback")
            scene.wait_for(lambda: sorted(scene.mail_marks) == mails, "mails to go on", 20)
            assert scene.sms_marks == [], "no SMS without the ledger"
        finally:
            postgres.start()
        scene.wait_until_done()
        assert sorted(scene.sms_marks) == texts


def test_a_database_that_stands_still_in_transactions_loses_and_doubles_nothing(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    with lone_notifyd(postgres.new_database(), tmp_path) as scene:
        marks: list[str] = []
        mails: list[str] = []
        for turn in range(2):
            marks += (new := [f"sms-{turn}-{number}" for number in range(60)])
            scene.put(*map(sms_job, new))
            mails += put_mails(scene, f"stop{turn}")
            done = len(scene.sms.ledger)
            scene.wait_for(lambda done=done: len(scene.sms.ledger) > done + 5, "SMS")  # type: ignore[misc]
            postgres.pause()
            scene.wait_until_said("store: unavailable")
            postgres.resume()
            scene.wait_until_ready()
        began = time.monotonic()
        scene.wait_for(lambda: sorted(scene.mail_marks) == sorted(mails), "all mails", 5)

        def all_sent() -> bool:
            # What had written "sending" just then and was not sent waits for the look-ups.
            if time.monotonic() - began > 5:
                scene.time_passes()
            return len(set(scene.sms_marks)) == len(marks)

        scene.wait_for(all_sent, "all SMS", 30)
        scene.wait_until_done()
        assert sorted(scene.sms_marks) == sorted(marks), "each once"
        audit = scene.audit()
        assert (audit.total, audit.sent) == (1000, len(marks))
