"""Durable enqueueing by one contender: `python -m bench.enqueue CONTENDER CALLERS BATCH SECONDS AT`

CALLERS wait at the same time, each until its BATCH of records is durable, then come with the next.
AT is a folder, for procrastinate the URL of an empty database. Prints one JSON object. A program of
its own, so that each contender has an interpreter without the traces of the others.
"""

import asyncio
import json
import logging
import os
import statistics
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import procrastinate
import trio
from huey import SqliteHuey  # type: ignore[import-untyped]
from procrastinate.types import JSONValue

from shared.errors import QueueError
from shared.events import Attendee, CalendarAlarm
from shared.jobqueue import JobQueue, NewJob, QueueWriter

_WARM_UP_SECONDS = 0.2
_ACCOUNTS = 1_000
#: More connections made it slower with 100 callers, fewer as well.
_CONNECTIONS = 10

_ALARM = CalendarAlarm(
    account="u0001@example.org",
    calendar_id="5d4b7c1e-default",
    calendar_name="Work",
    calendar_color="#FF2968FF",
    uid="4f1c1f6e-6b0e-4c1b-9a53-5a8d2d6f3b11",
    alert_id="9d1e0f1a-0000-4c1b-9a53-5a8d2d6f3b11",
    action="email",
    alarm_time="20261124T024500Z",
    recipients=("u0001@example.org",),
    summary="Planning of the next quarter",
    location="Room 4",
    timezone="Europe/Berlin",
    start="20261124T040000",
    end="20261124T050000",
    attendees=(Attendee("mailto:bob@example.org", "Bob", "ACCEPTED"),),
    organizer="mailto:ann@example.org",
)
PAYLOAD = _ALARM.to_json()


def key(number: int) -> str:
    """A key that is as long as those of real alarms, and as scattered by account."""
    account = f"u{number % _ACCOUNTS:04d}@example.org"
    readable = f"{account}:{_ALARM.calendar_id}:{_ALARM.uid}:{_ALARM.start}:{_ALARM.alert_id}"
    return f"{readable}:{_ALARM.alarm_time}:email:{number:032x}"


class Tally:
    """Counts what became durable between the warm-up and the end, and how long each batch took.

    The clock starts when it is asked first: connecting and making tables is not measured.
    """

    def __init__(self, batch: int, seconds: float) -> None:
        self._batch = batch
        self._next_number = 0
        self._waits: list[float] = []
        self._seconds = seconds
        self._begin = self._end = 0.0

    def is_going_on(self) -> bool:
        """Whether there is time for another batch."""
        now = time.perf_counter()
        if not self._end:
            self._begin = now + _WARM_UP_SECONDS
            self._end = self._begin + self._seconds
        return now < self._end

    def names(self) -> list[str]:
        """Keys for the next batch, never the same twice."""
        first = self._next_number
        self._next_number += self._batch
        return [key(number) for number in range(first, first + self._batch)]

    def note(self, began: float) -> None:
        """Count a batch that is durable now."""
        now = time.perf_counter()
        if self._begin <= now < self._end:
            self._waits.append(now - began)

    def result(self) -> dict[str, float]:
        """Records per second, and how long a caller waited for its batch."""
        waits = statistics.quantiles(self._waits, n=100) if len(self._waits) > 1 else [0.0] * 99
        return {
            "per_second": len(self._waits) * self._batch / self._seconds,
            "p50_us": waits[49] * 1e6,
            "p99_us": waits[98] * 1e6,
        }


def append(tally: Tally, _callers: int, at: str) -> None:
    """The limit: a file, one write per record, one fdatasync per batch, nobody who waits."""
    file = os.open(Path(at) / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    while tally.is_going_on():
        began = time.perf_counter()
        for name in tally.names():
            os.write(file, name.encode() + PAYLOAD)
        os.fdatasync(file)
        tally.note(began)
    os.close(file)


def ours(tally: Tally, callers: int, at: str) -> None:
    """As pusher does it: tasks of a trio loop hand over to the writer's thread."""
    queue = JobQueue.open(Path(at) / "queue.db")
    trio.run(_trio_callers, queue, tally, callers)
    queue.close()


async def _trio_callers(queue: JobQueue, tally: Tally, callers: int) -> None:
    hop = trio.lowlevel.current_trio_token().run_sync_soon
    writer = QueueWriter(queue, clock=time.time, hop=hop)
    writer.start()
    async with trio.open_nursery() as nursery:
        for _ in range(callers):
            nursery.start_soon(_trio_caller, writer, tally)
    writer.close()


async def _trio_caller(writer: QueueWriter, tally: Tally) -> None:
    while tally.is_going_on():
        began = time.perf_counter()
        await _stored(
            writer, [NewJob("calendar_alarm", name, name[:17], PAYLOAD) for name in tally.names()]
        )
        tally.note(began)


async def _stored(writer: QueueWriter, jobs: Sequence[NewJob]) -> None:
    task = trio.lowlevel.current_task()

    def done(error: QueueError | None) -> None:
        assert error is None, error
        trio.lowlevel.reschedule(task)

    writer.submit(jobs, done)
    await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)


def huey(tally: Tally, callers: int, at: str) -> None:
    """A thread per caller, as huey has no loop; it has no batches and no keys either."""
    app = SqliteHuey(filename=f"{at}/huey.db", fsync=True, results=False, timeout=60)

    @app.task()  # type: ignore[untyped-decorator]
    def send_mail(payload: bytes) -> None:
        pass

    def call() -> None:
        while tally.is_going_on():
            began = time.perf_counter()
            for _ in tally.names():
                send_mail(PAYLOAD)
            tally.note(began)

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def procrastinate_(tally: Tally, callers: int, at: str) -> None:
    """A task of an asyncio loop per caller; no keys, that is without `queueing_lock`."""
    asyncio.run(_procrastinate(tally, callers, at))


async def _procrastinate(tally: Tally, callers: int, url: str) -> None:
    logging.disable()  # it warns of being used in a main module
    connections = min(callers, _CONNECTIONS)
    connector = procrastinate.PsycopgConnector(
        conninfo=url, min_size=connections, max_size=connections
    )
    app = procrastinate.App(connector=connector)

    @app.task(name="send_mail")
    async def send_mail(payload: str) -> None:
        pass

    text = PAYLOAD.decode()
    one: dict[str, JSONValue] = {"payload": text}

    async def call(defer: Callable[[list[str]], Awaitable[object]]) -> None:
        while tally.is_going_on():
            began = time.perf_counter()
            await defer(tally.names())
            tally.note(began)

    async def defer(names: list[str]) -> object:
        if len(names) == 1:
            return await send_mail.defer_async(payload=text)
        return await send_mail.batch_defer_async(*[one] * len(names))

    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        await asyncio.gather(*(call(defer) for _ in range(callers)))


CONTENDERS: dict[str, Callable[[Tally, int, str], None]] = {
    "append": append,
    "ours": ours,
    "huey": huey,
    "procrastinate": procrastinate_,
}


def main(contender: str, callers: str, batch: str, seconds: str, at: str) -> None:
    """Measure one contender and print what it did."""
    tally = Tally(int(batch), float(seconds))
    CONTENDERS[contender](tally, int(callers), at)
    print(json.dumps(tally.result()))


if __name__ == "__main__":
    main(*sys.argv[1:])
