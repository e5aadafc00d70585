"""`intake`: events/s and CPU per event over both transports, against a bare Python loop."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import build, proc, servers
from bench.report import Figure, ratio_at_most, value_at_least, value_at_most
from bench.rounds import Options, Results, Sample, in_turn
from bench.servers import Recipe, Server

#: Events/s a real Cyrus on two cores was seen to emit at most.
_CYRUS = 650


def dlist(options: Options) -> Iterator[Figure]:
    """One connection per event, the answer awaited, 16 at a time: as many Cyrus processes do."""
    results = in_turn(
        "intake.dlist",
        options.rounds,
        [_bare("stream", "bare"), servers.ours(options.command)],
        lambda server: _events(server, "stream", options.seconds(5)),
    )
    yield results.figure("cpu_per_event", "us", "bare", ratio_at_most(2.5))
    yield from _shown(results)


def datagram(options: Options) -> Iterator[Figure]:
    """One datagram per event, the sender waiting while the queue is full.

    The limit is the accept loop here, too: taking a datagram and forgetting it is a single system
    call, which says nothing about what an event costs at least; that ratio is shown beside it.
    """

    def one(server: Server) -> Sample:
        transport = "stream" if server.name == "accept" else "datagram"
        return _events(server, transport, options.seconds(5))

    results = in_turn(
        "intake.datagram",
        options.rounds,
        [
            _bare("stream", "accept"),
            _bare("datagram", "bare"),
            servers.ours(options.command),
        ],
        one,
    )
    yield results.figure("cpu_per_event", "us", "accept", ratio_at_most(2.5))
    yield results.figure("cpu_per_event", "us", "bare")
    yield from _shown(results)


def _shown(results: Results) -> Iterator[Figure]:
    yield results.figure("per_second", "events/s", "bare", value_at_least(10 * _CYRUS))
    yield results.figure("cpu_per_event_2000", "us", "bare")
    yield results.figure("p99_us", "us", "bare")
    yield results.worst("failed", "events", value_at_most(0))


def _events(server: Server, transport: str, seconds: float) -> Sample:
    _produce(server, transport, 0.5, 0)
    proc.settled(server.pid)
    full, full_cpu = _costed(server, transport, seconds, 0)
    calm, calm_cpu = _costed(server, transport, seconds, 2_000)
    return {
        "cpu_per_event": full_cpu * 1e6 / full["events"],
        "busy": full_cpu / full["seconds"],
        "per_second": full["per_second"],
        "p99_us": full["p99_us"],
        "cpu_per_event_2000": calm_cpu * 1e6 / calm["events"],
        "failed": full["failed"] + calm["failed"],
    }


def _costed(
    server: Server, transport: str, seconds: float, rate: int
) -> tuple[dict[str, float], float]:
    before = proc.cpu(server.pid)
    answer = _produce(server, transport, seconds, rate)
    time.sleep(0.05)  # what follows the last event belongs to it
    return answer, (proc.cpu(server.pid) - before).total


def _produce(server: Server, transport: str, seconds: float, rate: int) -> dict[str, float]:
    path = server.stream if transport == "stream" else server.datagram
    done = subprocess.run(
        [str(build.program("produce")), transport, str(path), str(seconds), str(rate)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def _bare(transport: str, name: str) -> Recipe:
    def start(directory: Path) -> Server:
        path = directory / "b"
        process = servers.spawn(
            [sys.executable, "-m", "bench.bare_intake", transport, str(path)], directory
        )
        servers.wait(process, directory, path.exists)
        return Server(
            name=name,
            process=process,
            directory=directory,
            port=0,
            publish=f"dgram:{path}",
            path=servers.account_name,
            stream=path,
            datagram=path,
        )

    return Recipe(name, start)


SCENARIOS: dict[str, Callable[[Options], Iterator[Figure]]] = {
    "dlist": dlist,
    "datagram": datagram,
}
