"""The contract of the durable queue, promise by promise, then against a model."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shared.errors import QueueError
from shared.jobqueue import (
    Bury,
    Defer,
    Doorbell,
    Finish,
    HandBack,
    Job,
    JobQueue,
    NewJob,
    QueueView,
    State,
    ring,
)
from shared.jobqueue.failures import REASONS
from shared.jobqueue.room import BALLAST_BYTES

NOW = 1_700_000_000.0
LEASE = 60.0


def new(key: str = "k", kind: str = "mail", **more: object) -> NewJob:
    values: dict[str, object] = {"account": "ann@example.com", "payload": b'{"v":1}', **more}
    return NewJob(kind=kind, key=key, **values)  # type: ignore[arg-type]


def open_queue(path: Path, **more: int) -> JobQueue:
    return JobQueue.open(path, min_free_bytes=more.pop("min_free_bytes", 0), **more)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


@pytest.fixture
def queue(path: Path) -> Iterator[JobQueue]:
    with closing(open_queue(path)) as opened:
        yield opened


def take(queue: JobQueue, limit: int = 100, now: float = NOW, worker: str = "w1") -> list[Job]:
    return queue.claim(worker, None, limit, LEASE, now)


def take_one(queue: JobQueue, now: float = NOW, worker: str = "w1") -> Job:
    (job,) = take(queue, 1, now, worker)
    return job


def refusal(error: pytest.ExceptionInfo[QueueError]) -> str:
    assert error.value.reason in REASONS
    return error.value.reason


class TestKeys:
    def test_same_key_is_one_job_while_it_waits(self, queue: JobQueue) -> None:
        assert queue.enqueue([new("a"), new("b"), new("a")], NOW) == [True, True, False]
        assert queue.enqueue([new("b")], NOW + 1) == [False]
        assert len(take(queue, now=NOW + 2)) == 2

    def test_many_jobs_keep_order_attachments_and_answers_whatever_is_known(
        self, queue: JobQueue
    ) -> None:
        queue.enqueue([new("50"), new("90")], NOW)
        queue.finish(take_one(queue).id, "w1", NOW)
        keys = [str(number % 100) for number in range(190)]
        jobs = [new(key, attachment=key.encode() if key.endswith("7") else None) for key in keys]

        answers = queue.enqueue(jobs, NOW + 1)

        assert answers == [number < 100 and number not in (50, 90) for number in range(190)]
        stored = take(queue, 200, NOW + 1)
        order = ["90", *(str(number) for number in range(100) if number not in (50, 90))]
        assert [job.key for job in stored] == order
        assert all(
            job.attachment == (job.key.encode() if job.key.endswith("7") else None)
            for job in stored
        )

    def test_many_jobs_are_few_statements_as_each_may_wait_for_a_busy_event_loop(
        self, queue: JobQueue
    ) -> None:
        statements: list[str] = []
        queue._database._connected().set_trace_callback(statements.append)
        queue.enqueue([new(str(number)) for number in range(256)], NOW)
        assert len(statements) <= 10

    def test_same_key_is_known_while_it_is_worked_on(self, queue: JobQueue) -> None:
        queue.enqueue([new()], NOW)
        take_one(queue)
        assert queue.enqueue([new()], NOW) == [False]

    def test_same_key_after_it_is_done_does_not_become_a_second_job(self, queue: JobQueue) -> None:
        queue.enqueue([new()], NOW)
        assert queue.finish(take_one(queue).id, "w1", NOW)
        assert queue.enqueue([new()], NOW + 3600) == [False]
        assert queue.counts() == {}

    def test_deleted_job_does_not_come_back_with_the_same_event(self, queue: JobQueue) -> None:
        queue.enqueue([new()], NOW)
        assert queue.delete(None, NOW) == [1]
        assert queue.enqueue([new()], NOW) == [False]

    def test_done_key_is_forgotten_after_its_period(self, queue: JobQueue) -> None:
        queue.enqueue([new()], NOW)
        queue.finish(take_one(queue).id, "w1", NOW)
        assert queue.purge(NOW + 100, keep_seconds=100) == 0
        assert queue.enqueue([new()], NOW + 100) == [False]
        assert queue.purge(NOW + 101, keep_seconds=100) == 1
        assert queue.enqueue([new()], NOW + 101) == [True]

    def test_equal_keys_of_two_kinds_are_two_jobs(self, queue: JobQueue) -> None:
        assert queue.enqueue([new("k", "mail"), new("k", "sms")], NOW) == [True, True]

    def test_remembered_keys_do_not_name_people(self, queue: JobQueue, path: Path) -> None:
        queue.enqueue([new("alarm for zebedee@example.com")], NOW)
        queue.finish(take_one(queue).id, "w1", NOW)
        with closing(sqlite3.connect(path)) as raw:
            assert "zebedee" not in "\n".join(raw.iterdump())

    def test_id_of_a_gone_job_is_never_used_again(self, queue: JobQueue) -> None:
        queue.enqueue([new("a")], NOW)
        queue.delete(None, NOW)
        queue.enqueue([new("b")], NOW)
        assert [job.id for job in queue.jobs()] == [2]


class TestClaim:
    def test_jobs_come_by_due_time_then_by_arrival(self, queue: JobQueue) -> None:
        dues = {"late": NOW - 1, "first": NOW - 5, "same": NOW - 3, "also": NOW - 3}
        kinds = ("mail", "sms")
        jobs = [
            new(key, kinds[index % 2], due_at=due) for index, (key, due) in enumerate(dues.items())
        ]
        queue.enqueue(jobs, NOW)
        assert [job.key for job in take(queue)] == ["first", "same", "also", "late"]

    def test_limit_takes_the_earliest_of_all_kinds(self, queue: JobQueue) -> None:
        queue.enqueue([new("a", "sms", due_at=NOW - 1), new("b", "mail", due_at=NOW - 2)], NOW)
        assert [job.key for job in take(queue, 1)] == ["b"]

    def test_job_is_not_claimed_before_it_is_due(self, queue: JobQueue) -> None:
        queue.enqueue([new(due_at=NOW + 10)], NOW)
        assert take(queue, now=NOW + 9.9) == []
        assert len(take(queue, now=NOW + 10)) == 1

    def test_only_wanted_kinds_are_claimed(self, queue: JobQueue) -> None:
        queue.enqueue([new("a", "mail"), new("b", "sms")], NOW)
        assert [job.kind for job in queue.claim("w1", {"sms", "other"}, 9, LEASE, NOW)] == ["sms"]
        assert queue.claim("w1", [], 9, LEASE, NOW) == []

    def test_claimed_job_is_hidden_from_others(self, queue: JobQueue) -> None:
        queue.enqueue([new()], NOW)
        job = take_one(queue)
        assert (job.state, job.worker, job.lease_until) == ("claimed", "w1", NOW + LEASE)
        assert take(queue, now=NOW + LEASE + 1, worker="w2") == []

    def test_each_claim_counts_an_attempt(self, queue: JobQueue) -> None:
        queue.enqueue([new()], NOW)
        for attempt in (1, 2, 3):
            job = take_one(queue)
            assert job.attempts == attempt
            assert queue.defer(job.id, "w1", NOW, "451 later", NOW)

    def test_two_openings_of_one_file_share_the_work(self, queue: JobQueue, path: Path) -> None:
        queue.enqueue([new(str(number)) for number in range(10)], NOW)
        with closing(open_queue(path)) as other:
            mine, theirs = take(queue, 5), take(other, 9, worker="w2")
        assert len(mine) == len(theirs) == 5
        assert {job.id for job in mine}.isdisjoint(job.id for job in theirs)


class TestLostClaims:
    def test_expired_claim_is_made_due_again(self, queue: JobQueue) -> None:
        queue.enqueue([new()], NOW)
        take(queue)
        assert queue.recover(NOW + LEASE - 0.1, 5) == (0, 0)
        assert queue.recover(NOW + LEASE, 5) == (1, 0)
        assert take_one(queue, NOW + LEASE, "w2").attempts == 2

    def test_job_that_kills_its_workers_is_buried_after_n_attempts(self, queue: JobQueue) -> None:
        queue.enqueue([new()], NOW)
        for attempt in range(3):
            take_one(queue, NOW + attempt * 100)
            queue.recover(NOW + attempt * 100 + LEASE, max_attempts=3)
        (job,) = queue.jobs("buried")
        assert (job.attempts, job.ended_at) == (3, NOW + 200 + LEASE)
        assert "3 attempts" in job.reason

    def test_worker_that_lost_its_lease_cannot_touch_the_new_claim(self, queue: JobQueue) -> None:
        queue.enqueue([new()], NOW)
        job = take_one(queue)
        queue.recover(NOW + LEASE, 5)
        take_one(queue, NOW + LEASE, "w2")
        assert not queue.finish(job.id, "w1", NOW)
        assert not queue.defer(job.id, "w1", NOW, "", NOW)
        assert not queue.bury(job.id, "w1", "", NOW)
        assert queue.renew([job.id], "w1", LEASE, NOW) == []
        assert queue.release("w1") == []
        assert queue.finish(job.id, "w2", NOW)

    def test_late_worker_may_finish_until_the_claim_is_taken_from_it(self, queue: JobQueue) -> None:
        queue.enqueue([new()], NOW)
        assert queue.finish(take_one(queue).id, "w1", NOW + LEASE + 1)

    def test_renewed_claim_is_not_recovered(self, queue: JobQueue) -> None:
        queue.enqueue([new("a"), new("b")], NOW)
        ids = [job.id for job in take(queue)]
        assert queue.renew(ids[:1], "w1", LEASE, NOW + 30) == ids[:1]
        assert queue.recover(NOW + LEASE, 5) == (1, 0)

    def test_released_job_costs_no_attempt(self, queue: JobQueue) -> None:
        queue.enqueue([new("a"), new("b")], NOW)
        first, second = take(queue)
        assert queue.release("w1", [first.id]) == [first.id]
        assert queue.release("w1") == [second.id]
        assert [job.attempts for job in take(queue)] == [1, 1]

    def test_claims_survive_the_queue_being_closed(self, queue: JobQueue, path: Path) -> None:
        queue.enqueue([new()], NOW)
        take(queue)
        queue.close()
        with closing(open_queue(path)) as again:
            assert take(again, worker="w2") == []
            assert again.recover(NOW + LEASE, 5) == (1, 0)


class TestOutcomes:
    def test_deferred_job_waits_with_its_reason(self, queue: JobQueue) -> None:
        queue.enqueue([new()], NOW)
        job = take_one(queue)
        queue.defer(job.id, "w1", NOW + 300, "451 greylisted", NOW)
        assert take(queue, now=NOW + 299) == []
        again = take_one(queue, NOW + 300)
        assert (again.reason, again.created_at) == ("451 greylisted", NOW)

    def test_deferring_into_the_past_does_not_jump_the_queue(self, queue: JobQueue) -> None:
        queue.enqueue([new("a")], NOW)
        job = take_one(queue)
        queue.enqueue([new("b")], NOW)
        queue.defer(job.id, "w1", 0.0, "", NOW + 1)
        assert [job.key for job in take(queue, now=NOW + 1)] == ["b", "a"]

    def test_buried_job_stays_for_a_human_with_the_reason(self, queue: JobQueue) -> None:
        queue.enqueue([new()], NOW)
        queue.bury(take_one(queue).id, "w1", "550 no such user", NOW + 1)
        queue.recover(NOW + 10 * LEASE, 1)
        assert take(queue, now=NOW + 1e6) == []
        (job,) = queue.jobs()
        assert (job.state, job.reason, job.ended_at) == ("buried", "550 no such user", NOW + 1)

    def test_finished_job_takes_its_attachment_with_it(self, queue: JobQueue, path: Path) -> None:
        queue.enqueue([new(attachment=b"x" * 100)], NOW)
        queue.finish(take_one(queue).id, "w1", NOW)
        with closing(sqlite3.connect(path)) as raw:
            assert raw.execute("SELECT count(*) FROM attachments").fetchone() == (0,)


class TestOperator:
    def test_held_job_is_not_claimed_until_released(self, queue: JobQueue) -> None:
        queue.enqueue([new("a"), new("b")], NOW)
        assert queue.hold([1, 77]) == [1]
        assert [job.key for job in take(queue)] == ["b"]
        assert queue.unhold([1]) == [1]
        assert [job.key for job in take(queue)] == ["a"]

    def test_job_held_while_worked_on_stays_when_it_comes_back(self, queue: JobQueue) -> None:
        queue.enqueue([new()], NOW)
        job = take_one(queue)
        assert queue.hold(None) == [job.id]
        assert [job.state for job in queue.jobs()] == ["claimed"]
        queue.defer(job.id, "w1", NOW, "", NOW)
        assert [job.state for job in queue.jobs()] == ["held"]

    def test_hold_all_of_a_kind_or_account(self, queue: JobQueue) -> None:
        queue.enqueue([new("a"), new("b", "sms"), new("c", "sms", account="bob")], NOW)
        assert queue.hold(None, kind="sms", account="bob") == [3]
        assert queue.hold(None, kind="sms") == [2]
        assert queue.counts() == {("mail", "ready"): 1, ("sms", "held"): 2}

    def test_retry_starts_a_buried_job_afresh(self, queue: JobQueue) -> None:
        queue.enqueue([new("a"), new("b")], NOW)
        job = take_one(queue)
        queue.bury(job.id, "w1", "broken", NOW)
        assert queue.retry(None, NOW + 500) == [job.id]
        again = take(queue, now=NOW + 500)[-1]
        assert (again.id, again.attempts, again.age_from) == (job.id, 1, NOW + 500)
        assert (again.created_at, again.ended_at) == (NOW, None)

    def test_flush_makes_waiting_jobs_due_but_not_held_ones(self, queue: JobQueue) -> None:
        queue.enqueue([new("a", due_at=NOW + 900), new("b", due_at=NOW + 900)], NOW)
        queue.hold([2])
        assert queue.flush(None, NOW) == [1]
        assert [job.key for job in take(queue)] == ["a"]

    def test_deleting_a_claimed_job_makes_its_worker_lose_it(self, queue: JobQueue) -> None:
        queue.enqueue([new()], NOW)
        job = take_one(queue)
        assert queue.delete([job.id], NOW) == [job.id]
        assert not queue.finish(job.id, "w1", NOW)

    def test_delete_can_be_narrowed_to_a_state(self, queue: JobQueue) -> None:
        queue.enqueue([new("a"), new("b")], NOW)
        queue.bury(take_one(queue).id, "w1", "", NOW)
        assert queue.delete(None, NOW, state="buried") == [1]
        assert queue.delete([], NOW) == []
        assert [job.id for job in queue.jobs()] == [2]


class TestView:
    def test_listing_reads_all_pages_and_can_be_continued(self, queue: JobQueue) -> None:
        queue.enqueue([new(str(number)) for number in range(450)], NOW)
        assert [job.id for job in queue.jobs()] == list(range(1, 451))
        assert [job.id for job in queue.jobs(limit=201, after=100)] == list(range(101, 302))
        assert list(queue.jobs(limit=0)) == []

    def test_listing_does_not_stop_writers(self, queue: JobQueue) -> None:
        queue.enqueue([new(str(number)) for number in range(300)], NOW)
        listing = queue.jobs()
        next(listing)
        assert queue.delete([250], NOW) == [250]
        assert len(list(listing)) == 298

    def test_listing_filters_by_state_kind_and_account(self, queue: JobQueue) -> None:
        queue.enqueue([new("a"), new("b", "sms"), new("c", account="bob")], NOW)
        queue.hold([3])
        assert [job.id for job in queue.jobs("held")] == [3]
        assert [job.id for job in queue.jobs(kind="sms")] == [2]
        assert [job.id for job in queue.jobs("ready", account="bob")] == []

    def test_listing_leaves_attachments_out_and_get_brings_them(self, queue: JobQueue) -> None:
        queue.enqueue([new(attachment=b"body")], NOW)
        (listed,) = queue.jobs()
        assert (listed.attachment, listed.attachment_bytes) == (None, 4)
        got = queue.get(1)
        assert got is not None
        assert got.attachment == b"body"
        assert [queue.get(unknown) for unknown in (2, 0, -1, 2**80)] == [None] * 4

    def test_shape_puts_each_job_into_its_age_column(self, queue: JobQueue) -> None:
        ages = (0, 4.9, 5, 59, 60, 299, 300, 1800, 7200, 86399, 86400, 1e6)
        for number, age in enumerate(ages):
            queue.enqueue([new(str(number))], NOW - age)
        queue.enqueue([new("s", "sms")], NOW + 30)  # the clock was set back since
        assert queue.shape(NOW) == {"mail": (2, 2, 2, 1, 1, 2, 2), "sms": (1, 0, 0, 0, 0, 0, 0)}

    def test_shape_leaves_buried_jobs_to_those_who_ask(self, queue: JobQueue) -> None:
        queue.enqueue([new()], NOW)
        queue.bury(take_one(queue).id, "w1", "", NOW)
        assert queue.shape(NOW) == {}
        assert queue.shape(NOW, state="buried") == {"mail": (1, 0, 0, 0, 0, 0, 0)}

    def test_next_due_is_the_next_job_or_the_end_of_a_lease(self, queue: JobQueue) -> None:
        assert queue.next_due(NOW) is None
        queue.enqueue([new("a"), new("b", "sms", due_at=NOW + 500), new("c", "x")], NOW)
        queue.hold([3])
        assert queue.next_due(NOW + 7) == NOW + 7
        take(queue)
        assert queue.next_due(NOW) == NOW + LEASE
        queue.finish(1, "w1", NOW)
        assert queue.next_due(NOW) == NOW + 500

    def test_ages_tell_how_far_behind_the_worker_is(self, queue: JobQueue) -> None:
        assert (queue.oldest_age(NOW), queue.lag_seconds(NOW)) == (None, 0.0)
        queue.enqueue([new(due_at=NOW + 10)], NOW)
        assert (queue.oldest_age(NOW + 5), queue.lag_seconds(NOW + 5)) == (5.0, 0.0)
        assert queue.lag_seconds(NOW + 30) == 20.0

    def test_repr_shows_no_content(self, queue: JobQueue) -> None:
        job = new("secret-key", payload=b'{"subject":"secret"}', attachment=b"secret")
        queue.enqueue([job], NOW)
        assert "secret" not in repr(job) + repr(take(queue))
        assert "ann@" not in repr(job) + repr(queue.get(1))


class TestAttachments:
    def test_spooled_file_is_taken_over_before_enqueue_returns(
        self, queue: JobQueue, tmp_path: Path
    ) -> None:
        spooled = tmp_path / "message"
        spooled.write_bytes(b"Subject: hi\r\n\r\n\0\xff")
        queue.enqueue([new(attachment_path=str(spooled))], NOW)
        spooled.unlink()
        job = take_one(queue)
        assert job.attachment == b"Subject: hi\r\n\r\n\0\xff"
        assert (job.attachment_truncated, job.attachment_error) == (False, "")

    @pytest.mark.parametrize(("size", "truncated"), [(0, False), (1000, False), (1001, True)])
    def test_long_file_is_cut_and_marked(self, path: Path, size: int, truncated: bool) -> None:
        spooled = path.with_name("message")
        spooled.write_bytes(b"m" * size)
        with closing(open_queue(path, max_attachment_bytes=1000)) as queue:
            queue.enqueue(
                [new("f", attachment_path=str(spooled)), new("b", attachment=b"m" * size)], NOW
            )
            for job in take(queue):
                assert job.attachment == b"m" * min(size, 1000)
                assert (job.attachment_bytes, job.attachment_truncated) == (
                    min(size, 1000),
                    truncated,
                )

    def test_unreadable_file_is_noted_and_the_job_stored_anyway(
        self, queue: JobQueue, tmp_path: Path
    ) -> None:
        os.mkfifo(tmp_path / "fifo")
        (tmp_path / "link").symlink_to("/etc/hostname")
        names = ["missing", "fifo", "link", ".", "a\0b", "x" * 300, "\udcff\ud800"]
        jobs = [new(name, attachment_path=str(tmp_path / name)) for name in names[:4]]
        jobs += [new(f"odd{i}", attachment_path=name) for i, name in enumerate(names[4:])]
        queue.enqueue(jobs, NOW)
        taken = take(queue)
        assert len(taken) == len(names)
        assert all(job.attachment is None and job.attachment_error for job in taken)
        assert taken[0].attachment_error == "No such file or directory"


class TestFile:
    def test_file_and_directories_are_made_and_private(self, tmp_path: Path) -> None:
        path = tmp_path / "var" / "lib" / "qu?eue#1%.db"
        with closing(open_queue(path)) as queue:
            queue.enqueue([new()], NOW)
            files = [path, Path(f"{path}-wal"), Path(f"{path}-shm"), Path(f"{path}.ballast")]
            assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600] * 4
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    def test_every_commit_is_synced(self, queue: JobQueue) -> None:
        modes = {
            name: queue._database.read(f"PRAGMA {name}")[0][0]
            for name in ("journal_mode", "synchronous", "wal_autocheckpoint", "journal_size_limit")
        }
        assert list(modes.values()) == ["wal", 2, 100, 1024 * 1024]

    def test_newer_schema_is_refused(self, queue: JobQueue, path: Path) -> None:
        queue.close()
        with closing(sqlite3.connect(path)) as raw:
            raw.execute("PRAGMA user_version = 99")
        for opener in (open_queue, QueueView.open_read_only):
            with pytest.raises(QueueError) as error:
                opener(path)
            assert refusal(error) == "schema"

    def test_database_of_another_program_is_refused_and_left_alone(self, path: Path) -> None:
        with closing(sqlite3.connect(path)) as raw:
            raw.execute("CREATE TABLE other (x)")
        before = path.read_bytes()
        with pytest.raises(QueueError) as error:
            open_queue(path)
        assert refusal(error) == "schema"
        assert path.read_bytes() == before

    def test_file_that_is_no_database_is_refused_and_left_alone(self, path: Path) -> None:
        path.write_bytes(b"not a database" * 1000)
        with pytest.raises(QueueError) as error:
            open_queue(path)
        assert refusal(error) == "corrupt"
        assert path.read_bytes() == b"not a database" * 1000

    def test_path_that_is_a_directory_is_an_error_with_a_reason(self, tmp_path: Path) -> None:
        with pytest.raises(QueueError) as error:
            open_queue(tmp_path)
        assert refusal(error) == "no-access"

    def test_missing_queue_is_not_made_by_looking(self, path: Path) -> None:
        with pytest.raises(QueueError) as error:
            QueueView.open_read_only(path)
        assert refusal(error) == "missing"
        path.touch()  # what a crash in the middle of making it leaves
        with pytest.raises(QueueError) as error:
            QueueView.open_read_only(path)
        assert refusal(error) == "missing"

    def test_reader_sees_the_queue_while_it_is_used_and_after(
        self, queue: JobQueue, path: Path
    ) -> None:
        with closing(QueueView.open_read_only(path)) as view:
            queue.enqueue([new()], NOW)
            assert view.counts() == {("mail", "ready"): 1}
        queue.close()
        with closing(QueueView.open_read_only(path)) as view:
            assert view.counts() == {("mail", "ready"): 1}

    def test_jobs_are_not_acknowledged_into_a_removed_file(
        self, queue: JobQueue, path: Path
    ) -> None:
        queue.enqueue([new("a")], NOW)
        path.unlink()
        assert queue.enqueue([new("b")], NOW) == [True]
        with closing(QueueView.open_read_only(path)) as view:
            assert [job.key for job in view.jobs()] == ["b"]

    def test_closed_queue_says_so(self, queue: JobQueue) -> None:
        queue.close()
        queue.close()
        with pytest.raises(QueueError) as error:
            queue.enqueue([new()], NOW)
        assert refusal(error) == "closed"

    def test_locked_queue_is_an_error_and_then_works_again(self, path: Path) -> None:
        with (
            closing(JobQueue.open(path, min_free_bytes=0, busy_timeout_seconds=0.0)) as queue,
            closing(sqlite3.connect(path, isolation_level=None)) as other,
        ):
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(QueueError) as error:
                queue.enqueue([new()], NOW)
            assert refusal(error) == "locked"
            other.execute("ROLLBACK")
            assert queue.enqueue([new()], NOW) == [True]

    def test_integrity_names_damage(self, queue: JobQueue, path: Path) -> None:
        queue.enqueue([new(str(number)) for number in range(500)], NOW)
        assert queue.integrity() == []
        queue.close()
        raw = bytearray(path.read_bytes())
        raw[4096 * 6 : 4096 * 8] = os.urandom(8192)
        path.write_bytes(raw)
        with closing(open_queue(path)) as damaged:
            try:
                found = damaged.integrity()
            except QueueError as error:
                found = [error.reason]
            assert found


def fill(queue: JobQueue, body: bytes) -> int:
    """Enqueue until the queue says it is full; return how many fitted."""
    for number in range(1000):
        try:
            queue.enqueue([new(str(number), attachment=body)], NOW)
        except QueueError as error:
            if error.reason != "queue-full":
                raise
            return number
    pytest.fail("never full")


class TestLimits:
    def test_enqueue_is_refused_below_min_free_and_nothing_is_stored(self, path: Path) -> None:
        with closing(open_queue(path, min_free_bytes=2**62)) as queue:
            for refused in (lambda: queue.enqueue([new()], NOW), queue.check_writable):
                with pytest.raises(QueueError) as error:
                    refused()
                assert refusal(error) == "disk-full"
            assert queue.counts() == {}

    def test_full_queue_refuses_but_its_jobs_can_be_finished(self, path: Path) -> None:
        body = b"x" * 50_000
        with closing(open_queue(path, max_bytes=500_000)) as queue:
            stored = fill(queue, body)
            assert 5 < stored < 10
            jobs = take(queue)
            assert len(jobs) == stored
            assert all(queue.finish(job.id, "w1", NOW) for job in jobs)
            assert queue.enqueue([new("again", attachment=body)], NOW) == [True]
            assert path.stat().st_size <= 500_000 + BALLAST_BYTES

    def test_drained_backlog_gives_its_room_back_to_the_disk(
        self, queue: JobQueue, path: Path
    ) -> None:
        queue.enqueue([new(str(n), attachment=b"x" * 100_000) for n in range(20)], NOW)
        for job in take(queue):
            queue.finish(job.id, "w1", NOW)
        queue.purge(NOW)
        queue.close()
        assert path.stat().st_size < 200_000

    @pytest.mark.parametrize(
        ("job", "reason"),
        [
            (new(payload=b"x" * (1024 * 1024 + 1)), "too-big"),
            (new(payload="text"), "bad-job"),
            (new("\ud800"), "bad-job"),
            (new(account="\ud800"), "bad-job"),
            (new(account=None), "bad-job"),
            (new(account=2**70), "bad-job"),
            (new(account=[]), "bad-job"),
            (new(due_at=float("nan")), "bad-job"),
        ],
    )
    def test_impossible_job_is_refused_with_all_it_came_with(
        self, queue: JobQueue, job: NewJob, reason: str
    ) -> None:
        with pytest.raises(QueueError) as error:
            queue.enqueue([new("good"), job], NOW)
        assert refusal(error) == reason
        assert queue.enqueue([new("good")], NOW) == [True]


class TestDoorbell:
    def test_ring_is_heard_once_however_often(self, path: Path) -> None:
        with closing(Doorbell(path)) as bell:
            assert not bell.drain()
            for _ in range(1000):
                ring(path)
            assert bell.drain()
            assert not bell.drain()

    def test_ringing_where_nobody_lives_is_no_error(self, path: Path) -> None:
        ring(path)
        path.with_name(path.name + ".bell").write_bytes(b"a file")
        ring(path)

    def test_newest_bell_takes_over_and_an_older_one_leaves_it_hanging(self, path: Path) -> None:
        with closing(Doorbell(path)) as old, closing(Doorbell(path)) as bell:
            old.close()
            ring(path)
            assert bell.drain()
        assert list(path.parent.iterdir()) == []

    def test_long_path_has_a_bell_too(self, tmp_path: Path) -> None:
        deep = tmp_path / ("d" * 120)
        deep.mkdir()
        with closing(Doorbell(deep / "queue.db")) as bell:
            ring(deep / "queue.db")
            assert bell.drain()


# --- the contract against a model -----------------------------------------------------------------

KEYS = st.sampled_from(["a", "b", "c", "d", "e"])
KINDS = st.sampled_from(["mail", "sms"])
WORKERS = st.sampled_from(["w1", "w2"])
IDS = st.integers(1, 12)
STEPS = st.sampled_from([0.0, 1.0, 7.0, 30.0])
MAX_ATTEMPTS = 3


@dataclass
class Expected:
    """One job as the contract says it must be."""

    id: int
    kind: str
    key: str
    due_at: float
    state: State = "ready"
    held: bool = False
    attempts: int = 0
    worker: str | None = None
    lease_until: float = 0.0

    @property
    def shown(self) -> State:
        return "held" if self.held and self.state == "ready" else self.state

    def back(self, due_at: float) -> None:
        self.state, self.due_at, self.worker = "ready", due_at, None

    def give_up(self) -> None:
        self.state, self.held, self.worker = "buried", False, None


class QueueMachine(RuleBasedStateMachine):
    """Random lives of a few jobs; JobQueue must agree with a dict at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = TemporaryDirectory()
        self.path = Path(self.directory.name) / "queue.db"
        self.queue = open_queue(self.path)
        self.now = NOW
        self.model: dict[int, Expected] = {}
        self.done: dict[tuple[str, str], float] = {}
        self.last_id = 0

    def teardown(self) -> None:
        assert self.queue.integrity() == []
        self.queue.close()
        self.directory.cleanup()

    def mine(self, job_id: int, worker: str) -> Expected | None:
        job = self.model.get(job_id)
        return job if job and job.state == "claimed" and job.worker == worker else None

    def forget(self, job: Expected) -> None:
        del self.model[job.id]
        self.done[job.kind, job.key] = self.now

    @rule(step=STEPS)
    def time_passes(self, step: float) -> None:
        self.now += step

    @rule(wanted=st.lists(st.tuples(KINDS, KEYS, STEPS), max_size=4))
    def enqueue(self, wanted: list[tuple[str, str, float]]) -> None:
        expected = []
        for kind, key, delay in wanted:
            known = {(job.kind, job.key) for job in self.model.values()} | set(self.done)
            expected.append((kind, key) not in known)
            if expected[-1]:
                self.last_id += 1
                due_at = self.now + delay
                self.model[self.last_id] = Expected(self.last_id, kind, key, due_at)
        jobs = [new(key, kind, due_at=self.now + delay) for kind, key, delay in wanted]
        assert self.queue.enqueue(jobs, self.now) == expected

    @rule(worker=WORKERS, kind=st.none() | KINDS, limit=st.integers(1, 3))
    def claim(self, worker: str, kind: str | None, limit: int) -> None:
        due = [
            job
            for job in self.model.values()
            if job.shown == "ready" and job.due_at <= self.now and kind in (None, job.kind)
        ]
        due.sort(key=lambda job: (job.due_at, job.id))
        for job in due[:limit]:
            job.state, job.worker, job.lease_until = "claimed", worker, self.now + 20
            job.attempts += 1
        kinds = None if kind is None else [kind]
        claimed = self.queue.claim(worker, kinds, limit, 20, self.now)
        assert [job.id for job in claimed] == [job.id for job in due[:limit]]

    @rule(job_id=IDS, worker=WORKERS)
    def finish(self, job_id: int, worker: str) -> None:
        job = self.mine(job_id, worker)
        if job:
            self.forget(job)
        assert self.queue.finish(job_id, worker, self.now) == bool(job)

    @rule(job_id=IDS, worker=WORKERS, delay=STEPS)
    def defer(self, job_id: int, worker: str, delay: float) -> None:
        job = self.mine(job_id, worker)
        if job:
            job.back(self.now + delay)
        assert self.queue.defer(job_id, worker, self.now + delay, "later", self.now) == bool(job)

    @rule(job_id=IDS, worker=WORKERS)
    def bury(self, job_id: int, worker: str) -> None:
        job = self.mine(job_id, worker)
        if job:
            job.give_up()
        assert self.queue.bury(job_id, worker, "no", self.now) == bool(job)

    @rule(worker=WORKERS)
    def release(self, worker: str) -> None:
        mine = [job for job in self.model.values() if self.mine(job.id, worker)]
        for job in mine:
            job.back(job.due_at)
            job.attempts -= 1
        assert sorted(self.queue.release(worker)) == [job.id for job in mine]

    @rule(worker=WORKERS)
    def renew(self, worker: str) -> None:
        mine = [job for job in self.model.values() if self.mine(job.id, worker)]
        for job in mine:
            job.lease_until = self.now + 20
        everything = list(range(1, self.last_id + 1))
        assert sorted(self.queue.renew(everything, worker, 20, self.now)) == [j.id for j in mine]

    @rule()
    def recover(self) -> None:
        lost = [
            job
            for job in self.model.values()
            if job.state == "claimed" and job.lease_until <= self.now
        ]
        dead = [job for job in lost if job.attempts >= MAX_ATTEMPTS]
        for job in lost:
            if job in dead:
                job.give_up()
            else:
                job.back(self.now)
        found = self.queue.recover(self.now, MAX_ATTEMPTS)
        assert found == (len(lost) - len(dead), len(dead))

    @rule(job_id=IDS)
    def hold(self, job_id: int) -> None:
        job = self.model.get(job_id)
        changes = job is not None and not job.held and job.state != "buried"
        if job and changes:
            job.held = True
        assert self.queue.hold([job_id]) == ([job_id] if changes else [])

    @rule(kind=st.none() | KINDS)
    def unhold(self, kind: str | None) -> None:
        held = [job for job in self.model.values() if job.held and kind in (None, job.kind)]
        for job in held:
            job.held = False
        assert sorted(self.queue.unhold(None, kind=kind)) == [job.id for job in held]

    @rule()
    def retry(self) -> None:
        buried = [job for job in self.model.values() if job.state == "buried"]
        for job in buried:
            job.back(self.now)
            job.attempts = 0
        assert sorted(self.queue.retry(None, self.now)) == [job.id for job in buried]

    @rule(job_id=IDS)
    def delete(self, job_id: int) -> None:
        job = self.model.get(job_id)
        if job:
            self.forget(job)
        assert self.queue.delete([job_id], self.now) == ([job_id] if job else [])

    @rule()
    def purge(self) -> None:
        old = [key for key, at in self.done.items() if at < self.now - 30]
        for key in old:
            del self.done[key]
        assert self.queue.purge(self.now, 30) == len(old)

    @precondition(lambda self: self.model)
    @rule()
    def reopen(self) -> None:
        self.queue.close()
        self.queue = open_queue(self.path)

    @invariant()
    def what_is_stored_is_what_should_be(self) -> None:
        stored = [(j.id, j.kind, j.key, j.state, j.attempts, j.worker) for j in self.queue.jobs()]
        assert stored == [
            (j.id, j.kind, j.key, j.shown, j.attempts, j.worker) for j in self.model.values()
        ]
        ready = [j.due_at for j in self.model.values() if j.shown == "ready"]
        leases = [j.lease_until for j in self.model.values() if j.state == "claimed"]
        moments = ready + leases
        assert self.queue.next_due(self.now) == (max(self.now, min(moments)) if moments else None)


TestAgainstModel = QueueMachine.TestCase
TestAgainstModel.settings = settings(
    max_examples=120,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def test_what_became_of_many_jobs_is_one_commit_and_says_which_were_lost(queue: JobQueue) -> None:
    for number in range(5):
        queue.enqueue([new(f"key{number}")], now=10)
    jobs = queue.claim("me", None, 5, 60, now=10)
    taken = queue.claim("other", None, 4, 60, now=10)
    assert taken == []
    ids = [job.id for job in jobs]
    lost = queue.settle(
        [
            Finish(ids[0]),
            Defer(ids[1], 99, "busy"),
            Bury(ids[2], "no"),
            HandBack(ids[4], "down"),
            Finish(5555),
        ],
        "me",
        20,
    )
    assert lost == [5555]
    assert queue.settle([Finish(ids[3])], "other", 20) == [ids[3]]
    states = {job.id: (job.state, job.due_at, job.reason, job.attempts) for job in queue.jobs()}
    assert states == {
        ids[1]: ("ready", 99, "busy", 1),
        ids[2]: ("buried", 10, "no", 1),
        ids[3]: ("claimed", 10, "", 1),
        ids[4]: ("ready", 20, "down", 0),
    }
