"""A full disk under the queue: what is sent is still settled, and all goes on with more room."""

from __future__ import annotations

import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from shared.jobqueue import QueueView
from shared.jobqueue.room import free_bytes
from tests.support.lone_notifyd import lone_notifyd
from tests.support.slow_path import Settings, sieve_mail_job

pytestmark = pytest.mark.real


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=12M", "tmpfs", str(place)]
    subprocess.run(command, check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def fill(hog: Path) -> None:
    """Take what is left, to the last block."""
    with hog.open("ab", buffering=0) as file, suppress(OSError):
        while file.write(b"x" * 4096):
            pass


def long_reader(queue: Path) -> sqlite3.Connection:
    """Somebody whose look at the queue does not end: its log can only grow meanwhile."""
    reader = sqlite3.connect(f"file:{queue}?mode=ro", uri=True, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM jobs").fetchall()
    return reader


def leases_are_over(queue: Path) -> bool:
    with closing(QueueView.open_read_only(queue)) as view:
        leases = [job.lease_until or 0.0 for job in view.jobs("claimed")]
    return bool(leases) and max(leases) < time.time()


def test_on_a_full_disk_what_is_sent_is_settled_and_all_goes_on_when_there_is_room(
    disk: Path, tmp_path: Path
) -> None:
    queue: Settings = {"queue": {"path": str(disk / "queue.db"), "min_free_bytes": 2 << 20}}
    with lone_notifyd(f"sqlite:///{tmp_path}/state.db", tmp_path, more=queue) as scene:
        scene.background.run(scene.mails.stop)
        mails = [f"full{number}" for number in range(100)]
        scene.put(*map(sieve_mail_job, mails))
        scene.wait_until_said("sieve_notify: no connection")
        fill(disk / "hog")
        assert free_bytes(disk) == 0
        scene.background.run(scene.mails.start)
        scene.wait_for(lambda: len(scene.mail_marks) == len(mails), "all mails", 20)
        scene.wait_until_done()
        assert not (disk / "queue.db.ballast").exists(), "the last reserve was for this"
        assert sorted(scene.mail_marks) == sorted(mails), "each once"

        (disk / "hog").unlink()
        scene.put(sieve_mail_job("after"))
        scene.wait_for(lambda: "after" in scene.mail_marks, "the next mail")
        scene.wait_until_ready()
        scene.wait_for((disk / "queue.db.ballast").exists, "a new reserve", 10)


def test_without_even_the_last_reserve_it_is_named_and_nothing_is_sent_twice(
    disk: Path, tmp_path: Path
) -> None:
    queue: Settings = {"queue": {"path": str(disk / "queue.db"), "min_free_bytes": 2 << 20}}
    with lone_notifyd(f"sqlite:///{tmp_path}/state.db", tmp_path, more=queue) as scene:
        scene.background.run(scene.mails.stop)
        mails = [f"full{number}" for number in range(400)]
        scene.put(*map(sieve_mail_job, mails))
        scene.wait_until_said("sieve_notify: no connection")
        fill(disk / "hog")
        scene.background.run(scene.mails.start)
        reader = long_reader(scene.queue)

        def is_said() -> bool:
            fill(disk / "hog")  # somebody takes each block that is given up
            return "queue: disk-full" in scene.not_ready()

        scene.wait_for(is_said, "'queue: disk-full'", 20)
        scene.wait_for(lambda: leases_are_over(scene.queue), "the leases to end")
        reader.close()
        (disk / "hog").unlink()
        scene.wait_until_ready()
        scene.wait_until_done(20)
        assert sorted(scene.mail_marks) == sorted(mails), "each once"
