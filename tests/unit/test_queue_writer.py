"""QueueWriter: what it promises to an event loop that must not wait, in a thread of its own."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shared.errors import QueueError
from shared.jobqueue import Doorbell, JobQueue, NewJob, QueueWriter

NOW = 1_700_000_000.0
PATIENCE_SECONDS = 10.0


def new(key: str, *, account: str = "ann", attachment: bytes | None = None) -> NewJob:
    return NewJob("mail", key, account, b'{"v":1}', attachment)


@dataclass
class Answers:
    """Collects what `done` was told, by name; `wait` returns it."""

    told: dict[str, str] = field(default_factory=dict)
    threads: set[str] = field(default_factory=set)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def done(self, name: str) -> Callable[[QueueError | None], None]:
        def tell(error: QueueError | None) -> None:
            with self.changed:
                self.told[name] = error.reason if error else "stored"
                self.threads.add(threading.current_thread().name)
                self.changed.notify()

        return tell

    def wait(self, *names: str) -> list[str]:
        with self.changed:
            assert self.changed.wait_for(
                lambda: all(name in self.told for name in names), PATIENCE_SECONDS
            )
            return [self.told[name] for name in names]


class GatedQueue(JobQueue):
    """A real queue whose next enqueue waits for `gate`; `batches` records what came at once."""

    gate: threading.Event
    entered: threading.Event
    batches: list[list[str]]
    failing_with: Exception | None = None

    def enqueue(self, jobs: Sequence[NewJob], now: float) -> list[bool]:
        self.batches.append([job.key for job in jobs])
        self.entered.set()
        assert self.gate.wait(PATIENCE_SECONDS)
        if self.failing_with is not None:
            raise self.failing_with
        return super().enqueue(jobs, now)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


@pytest.fixture
def queue(path: Path) -> Iterator[GatedQueue]:
    opened = GatedQueue.open(path, min_free_bytes=0, busy_timeout_seconds=0.0)
    opened.gate, opened.entered, opened.batches = threading.Event(), threading.Event(), []
    opened.gate.set()
    with closing(opened):
        yield opened


@pytest.fixture
def answers() -> Answers:
    return Answers()


def started(queue: JobQueue, **more: float) -> QueueWriter:
    writer = QueueWriter(queue, clock=lambda: NOW, **more)  # type: ignore[arg-type]
    writer.start()
    return writer


def keys(queue: JobQueue) -> list[str]:
    return [job.key for job in queue.jobs()]


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_done_is_told_in_the_writer_thread_after_the_commit(
    queue: GatedQueue, answers: Answers
) -> None:
    with closing(started(queue)) as writer:
        writer.submit([new("a"), new("b")], answers.done("first"))
        assert answers.wait("first") == ["stored"]
        assert keys(queue) == ["a", "b"]
        assert answers.threads == {"queue-writer"}
        assert next(queue.jobs()).created_at == NOW


def test_one_hop_into_the_loop_tells_all_that_a_commit_stored(
    queue: GatedQueue, answers: Answers
) -> None:
    hops: list[Callable[[], None]] = []
    queue.gate.clear()
    with closing(QueueWriter(queue, clock=lambda: NOW, hop=hops.append)) as writer:
        for key in "abc":
            writer.submit([new(key)], answers.done(key))
        writer.start()
        queue.gate.set()
    assert answers.told == {}
    assert len(hops) == 1
    hops[0]()
    assert answers.told == dict.fromkeys("abc", "stored")
    assert answers.threads == {threading.current_thread().name}


def test_known_key_is_acknowledged_like_a_new_one(queue: GatedQueue, answers: Answers) -> None:
    with closing(started(queue)) as writer:
        writer.submit([new("a")], answers.done("first"))
        writer.submit([new("a")], answers.done("again"))
        assert answers.wait("first", "again") == ["stored", "stored"]
        assert (writer.state.stored, writer.state.repeated) == (1, 1)


def test_what_comes_during_a_commit_shares_the_next_one(
    queue: GatedQueue, answers: Answers
) -> None:
    queue.gate.clear()
    with closing(started(queue, max_batch=3)) as writer:
        writer.submit([new("a")], answers.done("a"))
        assert queue.entered.wait(PATIENCE_SECONDS)
        for key in "bcde":
            writer.submit([new(key)], answers.done(key))
        assert writer.state.backlog == 5
        queue.gate.set()
        answers.wait(*"abcde")
        assert queue.batches == [["a"], ["b", "c", "d"], ["e"]]
        assert writer.state.backlog == 0


def test_large_attachments_do_not_pile_up_in_one_transaction(
    queue: GatedQueue, answers: Answers
) -> None:
    queue.gate.clear()
    with closing(started(queue)) as writer:
        writer.submit([new("a")], answers.done("a"))
        assert queue.entered.wait(PATIENCE_SECONDS)
        for key in "bcd":
            writer.submit([new(key, attachment=b"x" * 5_000_000)], answers.done(key))
        queue.gate.set()
        answers.wait(*"abcd")
        assert queue.batches == [["a"], ["b"], ["c"], ["d"]]


def test_submission_larger_than_a_batch_is_still_one_transaction(
    queue: GatedQueue, answers: Answers
) -> None:
    with closing(started(queue, max_batch=2)) as writer:
        writer.submit([new(key) for key in "abcde"], answers.done("all"))
        assert answers.wait("all") == ["stored"]
        assert queue.batches == [list("abcde")]


def test_overload_is_refused_at_once_and_what_waits_is_kept(
    queue: GatedQueue, answers: Answers
) -> None:
    queue.gate.clear()
    with closing(started(queue, max_backlog=3)) as writer:
        writer.submit([new("a"), new("b")], answers.done("kept"))
        writer.submit([new("c"), new("d")], answers.done("refused"))
        assert answers.told == {"refused": "overloaded"}
        assert threading.current_thread().name in answers.threads
        writer.submit([new("e")], answers.done("fits"))
        queue.gate.set()
        assert answers.wait("kept", "fits") == ["stored", "stored"]
        assert keys(queue) == ["a", "b", "e"]
        assert writer.state.refused == 2


def test_backlog_is_bounded_in_bytes_too(queue: GatedQueue, answers: Answers) -> None:
    queue.gate.clear()
    with closing(started(queue)) as writer:
        for name in ("a", "b", "c"):
            writer.submit([new(name, attachment=b"x" * 30_000_000)], answers.done(name))
            assert queue.entered.wait(PATIENCE_SECONDS)
        writer.submit([new("d", attachment=b"x" * 30_000_000)], answers.done("d"))
        assert answers.told == {"d": "overloaded"}
        queue.gate.set()
        assert answers.wait("a", "b", "c") == ["stored"] * 3


def test_one_bad_job_does_not_take_others_with_it(queue: GatedQueue, answers: Answers) -> None:
    queue.gate.clear()
    with closing(started(queue)) as writer:
        writer.submit([new("a")], answers.done("a"))
        assert queue.entered.wait(PATIENCE_SECONDS)
        writer.submit([new("b")], answers.done("b"))
        writer.submit([new("good"), new("bad", account="\ud800")], answers.done("bad"))
        writer.submit([new("c")], answers.done("c"))
        queue.gate.set()
        assert answers.wait("a", "b", "bad", "c") == ["stored", "stored", "bad-job", "stored"]
        assert keys(queue) == ["a", "b", "c"]
        assert writer.state.last_error == ""


def test_unexpected_exception_fails_its_batch_not_the_thread(
    queue: GatedQueue, answers: Answers
) -> None:
    with closing(started(queue)) as writer:
        queue.failing_with = RuntimeError("a bug")
        writer.submit([new("a")], answers.done("a"))
        assert answers.wait("a") == ["broken"]
        queue.failing_with = None
        writer.submit([new("a")], answers.done("b"))
        assert answers.wait("b") == ["stored"]


def test_locked_queue_fails_the_batch_and_recovers_by_itself(
    queue: GatedQueue, answers: Answers, path: Path
) -> None:
    with (
        closing(started(queue, probe_seconds=0.02)) as writer,
        closing(sqlite3.connect(path, isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        writer.submit([new("a")], answers.done("a"))
        assert answers.wait("a") == ["locked"]
        state = writer.state
        assert (state.last_reason, state.last_error_at, state.refused) == ("locked", NOW, 1)
        other.execute("ROLLBACK")
        until(lambda: writer.state.last_reason == "")
        writer.submit([new("a")], answers.done("again"))
        assert answers.wait("again") == ["stored"]


def test_full_disk_shows_in_the_state_before_a_job_meets_it(path: Path) -> None:
    with (
        closing(JobQueue.open(path, min_free_bytes=2**62)) as queue,
        closing(started(queue, probe_seconds=0.02)) as writer,
    ):
        until(lambda: writer.state.last_reason == "disk-full")
        assert "must stay" in writer.state.last_error


def test_close_stores_what_was_submitted_and_refuses_the_rest(
    queue: GatedQueue, answers: Answers
) -> None:
    writer = started(queue, max_batch=1)
    names = [str(number) for number in range(50)]
    for name in names:
        writer.submit([new(name)], answers.done(name))
    writer.close()
    writer.close()
    assert answers.wait(*names) == ["stored"] * 50
    assert keys(queue) == names
    writer.submit([new("late")], answers.done("late"))
    assert answers.told["late"] == "closed"
    assert not writer.state.running


def test_writer_that_never_ran_refuses_instead_of_forgetting(
    queue: GatedQueue, answers: Answers
) -> None:
    writer = QueueWriter(queue, clock=lambda: NOW)
    writer.submit([new("a")], answers.done("a"))
    assert not writer.state.running
    writer.close()
    assert answers.told == {"a": "closed"}
    assert writer.state.backlog == 0


def test_raising_callback_does_not_stop_the_others(queue: GatedQueue, answers: Answers) -> None:
    def raising(_: QueueError | None) -> None:
        raise RuntimeError("the loop is gone")

    with closing(started(queue)) as writer:
        writer.submit([new("a")], raising)
        writer.submit([new("b")], answers.done("b"))
        assert answers.wait("b") == ["stored"]


def test_doorbell_rings_after_the_commit_of_something_new(
    queue: GatedQueue, answers: Answers, path: Path
) -> None:
    with closing(Doorbell(path)) as bell, closing(started(queue)) as writer:
        writer.submit([new("a")], answers.done("a"))
        answers.wait("a")
        until(bell.drain)
        assert keys(queue) == ["a"]


def test_many_threads_lose_nothing(queue: GatedQueue, answers: Answers) -> None:
    with closing(started(queue)) as writer:

        def submit(name: str) -> None:
            for number in range(100):
                writer.submit([new(f"{name}{number}")], answers.done(f"{name}{number}"))

        threads = [threading.Thread(target=submit, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        names = [f"{name}{number}" for name in "abcd" for number in range(100)]
        assert set(answers.wait(*names)) == {"stored"}
        assert sorted(keys(queue)) == sorted(names)
        assert len(queue.batches) < len(names)
