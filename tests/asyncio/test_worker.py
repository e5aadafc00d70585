"""Each job is done once, by whoever has it; what is down waits without harm and holds up nobody."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from notifyd.worker import PROBE_SECONDS, Lane, Worker
from shared.errors import DecodeError, QueueError
from shared.jobqueue import Job, JobQueue, NewJob, ring
from shared.outcome import Delivered, Gone, Outcome, Rejected, Retry, Unavailable
from shared.retry import RetryPolicy

pytestmark = pytest.mark.asyncio

NOW = 1_800_000_000.0
PATIENCE = 20.0
Handler = Callable[[Job], Awaitable[Outcome]]


class Service:
    """Handles the jobs of one kind as told, and remembers their keys."""

    def __init__(self, *answers: Outcome | Exception) -> None:
        self.seen: list[str] = []
        self.answers = list(answers)
        self.most_at_once = 0
        self.at_once = 0
        self.gate: asyncio.Event | None = None

    async def __call__(self, job: Job) -> Outcome:
        self.seen.append(job.key)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.gate is not None:
                await self.gate.wait()
            await asyncio.sleep(0)
        finally:
            self.at_once -= 1
        answer = self.answers.pop(0) if self.answers else Delivered("ok")
        if isinstance(answer, Exception):
            raise answer
        return answer


class World:
    """A queue and a worker whose clocks stand still."""

    def __init__(self, folder: Path, **services: Service) -> None:
        self.wall, self.clock = NOW, 1000.0
        self.queue = JobQueue.open(folder / "queue.db", min_free_bytes=0)
        self.worker = self.another(services, "w1")

    def another(self, services: dict[str, Service], name: str, concurrency: int = 4) -> Worker:
        retry = RetryPolicy(first_seconds=10, most_seconds=100, max_age_seconds=1000)
        return Worker(
            self.queue,
            {kind: Lane(service, concurrency, retry) for kind, service in services.items()},
            name,
            lease_seconds=60,
            max_attempts=3,
            jitter=lambda: 1.0,
            wall=lambda: self.wall,
            clock=lambda: self.clock,
        )

    def put(self, *keys: str, kind: str = "mail") -> None:
        self.queue.enqueue([NewJob(kind, key, "alice", b'{"v":1}') for key in keys], self.wall)
        self.worker.wake()

    def jobs(self) -> dict[str, tuple[str, str]]:
        return {job.key: (job.state, job.reason) for job in self.queue.jobs()}

    async def until(self, condition: Callable[[], bool], *, wake: bool = True) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                if wake:
                    self.worker.wake()
                await asyncio.sleep(0.002)

    async def probe(self, service: Service) -> None:
        """Let the time pass after which a lane that is down tries again, and see it try."""
        tried = len(service.seen)
        self.clock += PROBE_SECONDS
        self.wall += PROBE_SECONDS
        await self.until(lambda: len(service.seen) > tried)
        await self.until(lambda: not self.worker.lanes["mail"].busy)


@contextlib.asynccontextmanager
async def running(folder: Path, **services: Service) -> AsyncIterator[World]:
    world = World(folder, **services)
    task = asyncio.create_task(world.worker.run())
    try:
        yield world
    finally:
        await world.worker.stop(0)
        await task
        world.queue.close()


async def test_each_job_is_handled_once_and_forgotten(tmp_path: Path) -> None:
    service = Service()
    async with running(tmp_path, mail=service) as world:
        keys = [f"k{number}" for number in range(50)]
        world.put(*keys)
        await world.until(lambda: not world.jobs())
        world.put(*keys)  # they are known
        assert not world.jobs()
    assert sorted(service.seen) == sorted(keys)
    assert world.worker.results["mail", "done"] == 50
    assert service.most_at_once == 4


async def test_the_doorbell_wakes_it(tmp_path: Path) -> None:
    service = Service()
    async with running(tmp_path, mail=service) as world:
        world.queue.enqueue([NewJob("mail", "k", "alice", b"{}")], world.wall)
        ring(world.queue.path)
        await world.until(lambda: not world.jobs(), wake=False)


@pytest.mark.parametrize(
    ("answer", "state", "reason"),
    [
        (Retry("busy"), "ready", "busy"),
        (Retry("later", 5000), "buried", "given up: later"),
        (Rejected("no such user"), "buried", "no such user"),
        (Gone("opted out"), "buried", "opted out"),
        (DecodeError("bad-payload"), "buried", "bad-payload"),
        (RuntimeError("a bug"), "ready", "internal error: RuntimeError"),
        (Unavailable("smtp: refused"), "ready", "smtp: refused"),
        (QueueError("disk-full"), "ready", "queue: disk-full"),
    ],
)
async def test_what_the_handler_says_decides(
    tmp_path: Path, answer: Outcome | Exception, state: str, reason: str
) -> None:
    async with running(tmp_path, mail=Service(answer)) as world:
        world.put("k")
        await world.until(lambda: world.jobs().get("k") == (state, reason))


async def test_a_deferred_job_comes_again_when_it_is_due(tmp_path: Path) -> None:
    service = Service(Retry("busy"), Retry("busy"))
    async with running(tmp_path, mail=service) as world:
        world.put("k")
        await world.until(lambda: world.jobs()["k"] == ("ready", "busy"))
        assert next(world.queue.jobs()).due_at == NOW + 10
        world.wall += 10
        await world.until(lambda: len(service.seen) == 2)
        await world.until(lambda: next(world.queue.jobs()).due_at == NOW + 30)
        world.wall += 20
        await world.until(lambda: not world.jobs())


async def test_what_is_too_old_is_not_sent_any_more(tmp_path: Path) -> None:
    service = Service()
    async with running(tmp_path, mail=service) as world:
        world.queue.enqueue([NewJob("mail", "k", "alice", b"{}")], NOW - 1001)
        await world.until(lambda: world.jobs()["k"] == ("buried", "too old to be sent"))
    assert service.seen == []


async def test_a_service_that_is_down_costs_no_attempt_and_all_goes_on_when_it_is_back(
    tmp_path: Path,
) -> None:
    down = Unavailable("smtp: refused")
    service, other = Service(*[down] * 6), Service()
    async with running(tmp_path, mail=service, sms=other) as world:
        world.put(*(f"k{number}" for number in range(20)))
        await world.until(lambda: bool(world.worker.not_ready()))
        await world.until(lambda: not world.worker.lanes["mail"].busy)
        assert world.worker.not_ready() == ["mail: smtp: refused"]
        world.put("s", kind="sms")
        await world.until(lambda: other.seen == ["s"])
        tried = len(service.seen)
        assert tried <= 4
        while world.worker.not_ready():
            await world.probe(service)
        await world.until(lambda: not world.jobs())
    assert len(service.seen) == 20 + 6
    assert service.seen[4] != service.seen[5]  # not always the same one is tried


async def test_stopping_lets_what_is_sent_end_and_hands_back_what_does_not(
    tmp_path: Path,
) -> None:
    service = Service()
    service.gate = asyncio.Event()
    async with running(tmp_path, mail=service) as world:
        world.put(*(f"k{number}" for number in range(8)))
        await world.until(lambda: len(service.seen) == 4)
        stopping = asyncio.create_task(world.worker.stop(PATIENCE))
        await asyncio.sleep(0)
        service.gate.set()
        await stopping
    assert len(service.seen) == 4

    service.gate = asyncio.Event()
    async with running(tmp_path, mail=service) as world:
        await world.until(lambda: len(service.seen) == 8)
        await world.worker.stop(0)
    queue = JobQueue.open(tmp_path / "queue.db")
    assert [(job.state, job.attempts) for job in queue.jobs()] == [("ready", 0)] * 4
    queue.close()


async def test_jobs_of_a_dead_worker_are_taken_over(tmp_path: Path) -> None:
    service = Service()
    world = World(tmp_path, mail=service)
    world.put("k")
    assert world.queue.claim("dead", None, 1, 60, NOW)
    world.wall += 61
    task = asyncio.create_task(world.worker.run())
    await world.until(lambda: not world.jobs())
    await world.worker.stop(0)
    await task
    world.queue.close()


async def test_a_queue_that_cannot_be_written_is_said_and_nothing_is_done_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service()
    broken = True

    async with running(tmp_path, mail=service) as world:
        settle = world.queue.settle

        def failing(*arguments: object) -> list[int]:
            if broken:
                raise QueueError("disk-full")
            return settle(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(world.queue, "settle", failing)
        world.put("k")
        await world.until(lambda: world.worker.not_ready() == ["queue: disk-full"])
        world.wall += 61  # the lease would be over, but it is renewed
        broken = False
        await world.until(lambda: not world.jobs())
    assert service.seen == ["k"]


async def test_two_workers_never_do_the_same_job(tmp_path: Path) -> None:
    service = Service()
    async with running(tmp_path, mail=service) as world:
        second = world.another({"mail": service}, "w2")
        task = asyncio.create_task(second.run())
        world.put(*(f"k{number}" for number in range(200)))
        await world.until(lambda: not world.jobs())
        await second.stop(0)
        await task
    assert len(service.seen) == len(set(service.seen)) == 200


async def test_a_stop_while_others_are_written_down_forgets_nothing_that_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was done meanwhile would be handed back, and done again by the next one."""
    first, second = Service(), Service()
    second.gate = asyncio.Event()
    writing, may_go_on = threading.Event(), threading.Event()
    async with running(tmp_path, mail=first, sms=second) as world:
        settle = world.queue.settle

        def slow_settle(*arguments: Any) -> list[int]:
            writing.set()
            assert may_go_on.wait(PATIENCE)
            return settle(*arguments)

        monkeypatch.setattr(world.queue, "settle", slow_settle)
        world.put("one")
        world.put("two", kind="sms")
        await world.until(lambda: bool(first.seen and second.seen) and writing.is_set())
        stopping = asyncio.create_task(world.worker.stop(PATIENCE))
        second.gate.set()
        await stopping
        await asyncio.sleep(0.05)  # any moment will do, but this one comes before the other's end
        may_go_on.set()
    with closing(JobQueue.open(tmp_path / "queue.db", min_free_bytes=0)) as queue:
        assert not list(queue.jobs())


async def test_a_stop_while_jobs_are_claimed_begins_none_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would be cut off at once, some of them after the server has taken the mail."""
    service = Service()
    claimed, may_go_on = threading.Event(), threading.Event()
    async with running(tmp_path, mail=service) as world:
        claim = world.queue.claim

        def slow_claim(*arguments: Any) -> list[Job]:
            jobs = claim(*arguments)
            if jobs:
                claimed.set()
                assert may_go_on.wait(PATIENCE)
            return jobs

        monkeypatch.setattr(world.queue, "claim", slow_claim)
        world.put("k")
        await world.until(claimed.is_set)
        await world.worker.stop(PATIENCE)
        may_go_on.set()
    assert not service.seen
    with closing(JobQueue.open(tmp_path / "queue.db", min_free_bytes=0)) as queue:
        assert [(job.state, job.attempts) for job in queue.jobs()] == [("ready", 0)]
