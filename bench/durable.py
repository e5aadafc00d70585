"""`queue`: durable enqueues/s, against the disk's limit and against two other job queues."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial

from bench.report import Figure, Target, ratio_at_least
from bench.rounds import Options, Results, Sample, taking_turns
from tests.support.postgres import PostgresServer

_BATCH = 100
#: A file system that is one on a disk also where /tmp is none.
_ON_DISK = "/var/tmp"

#: Peer: what our ratio to it must be.
Targets = dict[str, Target | None]


def one(options: Options) -> Iterator[Figure]:
    """One caller: a commit for each job, nothing to share. The bound is the disk's for all."""
    yield from _callers(
        options, 1, {"append": ratio_at_least(0.25), "procrastinate": None, "huey": None}
    )


def ten(options: Options) -> Iterator[Figure]:
    """Ten callers."""
    yield from _callers(
        options,
        10,
        {
            "append": ratio_at_least(0.25),
            "append_10": None,
            "procrastinate": None,
            "huey": None,
        },
    )


def hundred(options: Options) -> Iterator[Figure]:
    """A hundred callers: what a server does that wakes up to a full house."""
    yield from _callers(
        options,
        100,
        {
            "append": ratio_at_least(0.4),
            "append_100": None,
            "procrastinate": ratio_at_least(5),
            "huey": ratio_at_least(5),
        },
    )


def batch(options: Options) -> Iterator[Figure]:
    """One caller with a hundred jobs at a time; huey has no such call."""
    targets: Targets = {"append": ratio_at_least(0.4), "append_100": None, "procrastinate": None}
    yield from _shown(_compete("queue.batch", options, 1, _BATCH, list(targets)), targets)


def _callers(options: Options, callers: int, targets: Targets) -> Iterator[Figure]:
    name = {1: "one", 10: "ten", 100: "hundred"}[callers]
    yield from _shown(_compete(f"queue.{name}", options, callers, 1, list(targets)), targets)


def _shown(results: Results, targets: Targets) -> Iterator[Figure]:
    for peer, target in targets.items():
        yield results.figure("per_second", "jobs/s", peer, target)
    yield results.figure("p50_us", "us", "procrastinate")
    yield results.figure("p99_us", "us", "procrastinate")


def _compete(bench: str, options: Options, callers: int, batch: int, peers: list[str]) -> Results:
    """Let ours and the peers take turns; `append_N` syncs once for N records."""
    seconds = options.seconds(1.8)
    with PostgresServer(durable=True) as postgres:

        def measure(contender: str) -> Sample:
            name, _, at_once = contender.partition("_")
            if name == "procrastinate":
                return _enqueue(name, callers, batch, seconds, postgres.new_database())
            with tempfile.TemporaryDirectory(prefix="mpb-", dir=_ON_DISK) as folder:
                jobs = int(at_once or 1) if name == "append" else batch
                return _enqueue(name, callers, jobs, seconds, folder)

        contenders = {name: partial(measure, name) for name in (*peers, "ours")}
        return taking_turns(bench, options.rounds, contenders)


def _enqueue(contender: str, callers: int, batch: int, seconds: float, at: str) -> Sample:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bench.enqueue", contender),
            *(str(callers), str(batch), str(seconds), at),
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=120,
    )
    answer: Sample = json.loads(done.stdout)
    return answer


SCENARIOS: dict[str, Callable[[Options], Iterator[Figure]]] = {
    "one": one,
    "ten": ten,
    "hundred": hundred,
    "batch": batch,
}
