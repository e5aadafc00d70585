"""A disk that really is full: refuse new jobs, go on finishing old ones, recover unasked."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from shared.errors import QueueError
from shared.jobqueue import JobQueue, NewJob, QueueWriter
from shared.jobqueue.room import free_bytes

NOW = 1_700_000_000.0
DISK_BYTES = 12 * 1024 * 1024
MIN_FREE_BYTES = 3 * 1024 * 1024
BODY = b"m" * 20_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own; needs the right to mount, which root in CI has."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    if mounted.returncode != 0:
        pytest.fail(f"cannot mount a tmpfs here: {mounted.stderr.strip()}")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def job(number: int) -> NewJob:
    return NewJob("mail", f"key{number}", "ann", b'{"v":1}', BODY)


def fill_queue(queue: JobQueue) -> int:
    """Enqueue until refused; return how many were acknowledged."""
    for number in range(10_000):
        try:
            queue.enqueue([job(number)], NOW)
        except QueueError as error:
            if error.reason != "disk-full":
                raise
            return number
    pytest.fail("never full")


def fill_disk(disk: Path) -> Path:
    """Let somebody else take what is left, to the last block."""
    hog = disk / "hog"
    with hog.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    assert free_bytes(disk) == 0
    return hog


def finish_all(queue: JobQueue) -> int:
    finished = 0
    while jobs := queue.claim("w", None, 10, 60, NOW):
        assert all(queue.finish(job.id, "w", NOW) for job in jobs)
        finished += len(jobs)
    return finished


def open_queue(disk: Path) -> JobQueue:
    return JobQueue.open(disk / "queue.db", min_free_bytes=MIN_FREE_BYTES)


def test_enqueue_is_refused_while_there_is_room_to_finish(disk: Path) -> None:
    with closing(open_queue(disk)) as queue:
        stored = fill_queue(queue)
        assert stored > 100
        assert free_bytes(disk) > MIN_FREE_BYTES - 1024 * 1024
        assert finish_all(queue) == stored
        assert queue.integrity() == []


def test_queue_drains_on_a_disk_without_a_free_block_and_recovers(disk: Path) -> None:
    ballast = disk / "queue.db.ballast"
    with closing(open_queue(disk)) as queue:
        stored = fill_queue(queue)
        assert ballast.exists()
        hog = fill_disk(disk)
        with pytest.raises(QueueError, match="disk-full"):
            queue.enqueue([job(20_000)], NOW)
        assert ballast.exists(), "new jobs must not use up the last reserve"

        assert finish_all(queue) == stored
        assert not ballast.exists()
        queue.purge(NOW)

        hog.unlink()
        assert queue.enqueue([job(20_000)], NOW) == [True]
        assert ballast.stat().st_blocks * 512 >= 1024 * 1024
        assert queue.integrity() == []


def test_jobs_acknowledged_before_the_disk_filled_survive_a_restart(disk: Path) -> None:
    with closing(open_queue(disk)) as queue:
        stored = fill_queue(queue)
        fill_disk(disk)
    with closing(open_queue(disk)) as queue:
        assert finish_all(queue) == stored
        assert queue.integrity() == []


def test_without_min_free_a_failed_commit_is_refused_and_leaves_nothing(disk: Path) -> None:
    with closing(JobQueue.open(disk / "queue.db", min_free_bytes=0)) as queue:
        stored = fill_queue(queue)
        fill_disk(disk)
        with pytest.raises(QueueError, match="disk-full"):
            queue.enqueue([job(20_000)], NOW)
        assert sum(queue.counts().values()) == stored
        assert finish_all(queue) == stored
        assert queue.integrity() == []


def test_writer_refuses_and_recovers_without_being_asked(disk: Path) -> None:
    answers: list[str] = []
    told = threading.Semaphore(0)

    def done(error: QueueError | None) -> None:
        answers.append(error.reason if error else "stored")
        told.release()

    def submit_and_wait(writer: QueueWriter, number: int) -> str:
        writer.submit([job(number)], done)
        assert told.acquire(timeout=10)
        return answers[-1]

    with (
        closing(open_queue(disk)) as queue,
        closing(QueueWriter(queue, clock=lambda: NOW)) as writer,
    ):
        writer.start()
        hog = fill_disk(disk)
        assert submit_and_wait(writer, 1) == "disk-full"
        assert writer.state.last_reason == "disk-full"
        hog.unlink()
        assert submit_and_wait(writer, 1) == "stored"
        assert writer.state.last_reason == ""
        assert [stored.key for stored in queue.jobs()] == ["key1"]
