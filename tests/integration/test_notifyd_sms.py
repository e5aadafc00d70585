"""SMS through the whole of notifyd: no more than the credit allows, and each once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.lone_notifyd import Scene, lone_notifyd
from tests.support.slow_path import Settings, buried, sms_job

pytestmark = pytest.mark.real

#: A request that is not answered is to hang until we kill.
PATIENT: Settings = {"notifyd": {"sms_concurrency": 20}, "sms": {"timeout_seconds": 60}}


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    url = f"sqlite:///{tmp_path}/state.db"
    with lone_notifyd(url, tmp_path, credit=10, more=PATIENT) as scene:
        yield scene


def methods(scene: Scene) -> list[str]:
    return [request.method for request in scene.sms.requests]


def test_of_50_jobs_10_have_credit_and_40_are_buried_with_one_warning(scene: Scene) -> None:
    scene.put(*(sms_job(f"m{number}") for number in range(50)))
    scene.wait_until_done(30)

    assert Counter(buried(scene.queue)) == {"out of SMS credit": 40}
    assert len(scene.sms.ledger) == len(set(scene.sms_marks)) == 10
    assert (scene.audit().credit, scene.audit().sent) == (0, 10)
    (warning,) = scene.mails.contents
    assert b"To: ann@example.org" in warning
    assert b"SMS" in warning

    scene.put(sms_job("later"))  # the same day: no second warning
    scene.wait_until_done(30)
    assert len(buried(scene.queue)) == 41
    assert len(scene.mails.contents) == 1


def test_taken_by_the_provider_and_then_killed_it_is_looked_up_and_not_sent_again(
    scene: Scene,
) -> None:
    scene.sms.script.append("taken-then-black-hole")
    scene.put(sms_job("a"))
    scene.wait_for(scene.sms.hanging.is_set, "the SMS to be taken")
    scene.notifyd.kill()
    scene.notifyd.start()
    scene.wait_until_done(15)

    assert scene.sms_marks == ["a"]
    assert methods(scene) == ["POST", "GET"]
    assert (scene.audit().total, scene.audit().sent) == (10, 1)


def test_never_taken_and_then_killed_it_is_sent_after_two_vain_look_ups(scene: Scene) -> None:
    scene.sms.script.append("black-hole")
    scene.put(sms_job("a"))
    scene.wait_for(scene.sms.hanging.is_set, "the request to be written")
    scene.notifyd.kill()
    scene.notifyd.start()

    def after(seconds: float, condition: bool) -> bool:
        scene.time_passes(seconds)
        return condition

    scene.wait_for(lambda: scene.audit().unknown == 1, "a vain look-up to be noted", 15)
    assert scene.sms_marks == []
    # A flush by hand comes too early: nothing is sent before the minute is over.
    scene.wait_for(lambda: after(0, methods(scene).count("GET") >= 2), "another look-up")
    assert methods(scene).count("POST") == 1
    scene.wait_for(lambda: after(60, scene.sms_marks == ["a"]), "it to be sent")
    scene.wait_until_done()

    assert methods(scene).count("POST") == 2
    assert (scene.audit().total, scene.audit().sent) == (10, 1)
