"""Sieve requests on their way into the queue."""

from __future__ import annotations

from collections.abc import Sequence
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


def keep(method: str, *options: str) -> tuple[list[NewJob], QueueError | None]:
    queue, publisher = (
        Queue(),
        SimpleNamespace(outlet=SimpleNamespace(accounts={}), shortcut=SimpleNamespace(take=None)),
    )
    dispatcher = Dispatcher(cast(Any, publisher), queue, Tap())
    request = Notification(method, "SIEVE", "high", "ann", None, options, b"hi\n\n", "/spool/1")
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
