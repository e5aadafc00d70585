"""kill -9 at random moments: whatever was acknowledged is done or still stored, and intact.

Run as a script this file is the children: a producer that prints each acknowledged key, and a
consumer whose only effect is to print each key it has done.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import closing
from itertools import count
from pathlib import Path

from shared.errors import QueueError
from shared.jobqueue import JobQueue, NewJob, QueueWriter

ROOT = Path(__file__).parents[2]
TURNS = 20
CLAIM_BATCH = 10
LEASE_SECONDS = 1.0
ATTEMPTS = 1000


def produce(path: Path) -> None:
    """Enqueue for ever with up to 40 unanswered submissions; print keys once durable."""
    queue = JobQueue.open(path, min_free_bytes=0)
    writer = QueueWriter(queue, clock=time.time)
    writer.start()
    for number in count():
        while writer.state.backlog > 40:
            time.sleep(0.0005)
        key = f"{os.getpid()}-{number}"

        def done(error: QueueError | None, key: str = key) -> None:
            os.write(1, f"{key}\n".encode() if error is None else b"")

        body = b"m" * random.choice([0, 10, 10_000])
        writer.submit([NewJob("mail", key, "ann", b'{"v":1}', body)], done)


def consume(path: Path) -> None:
    """Work for ever: the effect is a printed key, then the job is finished."""
    queue = JobQueue.open(path, min_free_bytes=0)
    worker = f"w{os.getpid()}"
    while True:
        queue.recover(time.time(), ATTEMPTS)
        for job in queue.claim(worker, None, CLAIM_BATCH, LEASE_SECONDS, time.time()):
            os.write(1, f"{job.key}\n".encode())
            queue.finish(job.id, worker, time.time())
        queue.purge(time.time())
        time.sleep(0.001)


def start(role: str, path: Path, output: Path) -> subprocess.Popen[bytes]:
    with output.open("ab") as stdout:
        return subprocess.Popen(
            [sys.executable, __file__, role, str(path)],
            stdout=stdout,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )


def lines(output: Path) -> list[str]:
    """Return the whole lines written; a kill may have cut the last one."""
    return output.read_text().split("\n")[:-1]


def drain(path: Path) -> list[str]:
    """Do all that is left, as a worker after the last crash would; return the keys."""
    later = time.time() + 1000
    left = []
    with closing(JobQueue.open(path, min_free_bytes=0)) as queue:
        queue.recover(later, ATTEMPTS)
        while jobs := queue.claim("last", None, 500, 60, later):
            left += [job.key for job in jobs]
            assert all(queue.finish(job.id, "last", later) for job in jobs)
        assert queue.counts() == {}
        assert queue.integrity() == []
    return left


def test_killed_at_random_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    outputs = {role: tmp_path / role for role in ("produce", "consume")}
    running = {role: start(role, path, output) for role, output in outputs.items()}
    kills = dict.fromkeys(outputs, 0)
    chance = random.Random(20_261_121)
    try:
        for turn in range(TURNS):
            # A moment to be killed in, not a wait for something: any length is right.
            time.sleep(chance.uniform(0.1, 0.35))
            # Alone in turn, and now and then both at once, like a machine that stops.
            victims = list(outputs) if turn % 4 == 3 else [list(outputs)[turn % 2]]
            for role in victims:
                running[role].send_signal(signal.SIGKILL)
            for role in victims:
                assert running[role].wait(10) == -signal.SIGKILL
                kills[role] += 1
                running[role] = start(role, path, outputs[role])
    finally:
        for process in running.values():
            process.kill()
            process.wait(10)
    acknowledged, effects = lines(outputs["produce"]), lines(outputs["consume"])
    left = drain(path)
    assert sum(kills.values()) >= 20
    assert len(acknowledged) > 200
    assert len(effects) > 200
    assert set(acknowledged) <= set(effects) | set(left)
    assert len(set(acknowledged)) == len(acknowledged)
    repeated = len(effects) + len(left) - len(set(effects) | set(left))
    # Killed between effect and finish: one job. Or stopped for longer than its lease: a batch.
    assert repeated <= (kills["consume"] + 1) * CLAIM_BATCH
    print(f"{len(acknowledged)} acknowledged, {repeated} effects repeated, kills {kills}")


if __name__ == "__main__":
    {"produce": produce, "consume": consume}[sys.argv[1]](Path(sys.argv[2]))
