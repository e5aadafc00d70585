"""Sieve requests on their way into the queue."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from pusher.dispatch import Dispatcher
from pusher.intake import Done
from pusher.protocol.notification import Notification
from pusher.tap import Tap
from shared.errors import QueueError
from shared.events import SieveNotify
from shared.jobqueue import NewJob


class Queue:
    def __init__(self) -> None:
        self.jobs: list[NewJob] = []

    def submit(self, jobs: Sequence[NewJob], done: Done) -> None:
        self.jobs += jobs
        done(None)


def keep(
    method: str, *options: str, filepath: str = "/spool/1"
) -> tuple[list[NewJob], QueueError | None]:
    queue, publisher = (
        Queue(),
        SimpleNamespace(outlet=SimpleNamespace(accounts={}), shortcut=SimpleNamespace(take=None)),
    )
    dispatcher = Dispatcher(cast(Any, publisher), queue, Tap())
    request = Notification(method, "SIEVE", "high", "ann", None, options, b"hi\n\n", filepath)
    answers: list[QueueError | None] = []
    dispatcher.keep(request, answers.append)
    (answer,) = answers
    return queue.jobs, answer


def test_one_request_to_several_becomes_one_job_each_with_the_message() -> None:
    jobs, answer = keep("mailto", "a@x,b@x")
    assert answer is None
    assert [SieveNotify.from_json(job.payload).recipients for job in jobs] == [("a@x",), ("b@x",)]
    assert {(job.kind, job.account, job.attachment_path) for job in jobs} == {
        ("sieve_notify", "ann", "/spool/1")
    }
    assert len({job.key for job in jobs}) == 2


def test_sms_wait_in_a_queue_of_their_own() -> None:
    jobs, _ = keep("sms:+15105550101,+15105550102?body=x")
    assert [job.kind for job in jobs] == ["sieve_sms", "sieve_sms"]


def test_a_request_to_a_crowd_is_refused_as_a_whole() -> None:
    jobs, answer = keep("mailto", ",".join(f"{number}@x" for number in range(33)))
    assert jobs == []
    assert isinstance(answer, QueueError)


def test_two_deliveries_under_one_name_in_the_spool_are_not_taken_for_one(tmp_path: Path) -> None:
    spooled = tmp_path / "5585-1795225315-0"
    spooled.write_text("Subject: one\n\n")
    first, again = (keep("mailto", "a@x", filepath=str(spooled))[0] for _ in range(2))
    spooled.unlink()
    # Cyrus uses the name again for the next message of the same second.
    spooled.write_text("Subject: two\n\n")
    os.utime(spooled, ns=(1, 1))
    (second,) = keep("mailto", "a@x", filepath=str(spooled))[0]
    assert first[0].key == again[0].key != second.key


def test_requests_whose_message_is_gone_are_never_taken_for_one() -> None:
    queue = Queue()
    publisher = SimpleNamespace(
        outlet=SimpleNamespace(accounts={}), shortcut=SimpleNamespace(take=None)
    )
    dispatcher = Dispatcher(cast(Any, publisher), queue, Tap(), wall=lambda: 1.0)
    for _ in range(2):
        request = Notification("mailto", "SIEVE", None, "ann", None, ("a@x",), b"hi", "/gone/1")
        dispatcher.keep(request, lambda _error: None)
    assert len({job.key for job in queue.jobs}) == 2
