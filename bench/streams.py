"""`streams`: open EventSource streams, events in, deliveries out; against nchan and a C limit.

Every function measures one scenario and yields its figures; SCENARIOS names them.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import proc
from bench.client import Load, load, readers, shuffled, write_paths
from bench.report import (
    Figure,
    compare,
    ratio_at_least,
    ratio_at_most,
    value_at_least,
    value_at_most,
)
from bench.rounds import Options, Sample, in_turn, note
from bench.servers import Server, limit, nchan, ours

_MICRO = 1e6
_STREAMS = 10_000
_OUTSTANDING = 300
_LAG = "pusher_loop_lag_max_seconds"


def memory(options: Options) -> Iterator[Figure]:
    """Process memory of an idle stream: the slope from 5 000 to 19 000 streams."""
    results = in_turn(
        "streams.memory",
        min(2, options.rounds),
        [limit(), nchan(), ours(options.command)],
        _idle_memory,
    )
    yield results.figure("rss_per_stream", "B", "limit", value_at_most(300))
    yield results.figure("rss_per_stream", "B", "nchan", ratio_at_most(0.05))
    yield results.figure("setup_cpu_per_stream", "us", "nchan")


def _idle_memory(server: Server) -> Sample:
    # Account by account: the slope must hold the accounts' share as well.
    paths = write_paths(server, "paths", readers(19_000))
    with load(server) as (client,):
        before = proc.cpu(server.pid)
        some = _opened(client, server, paths, 5_000)
        low = proc.rss(server.pid)
        more = _opened(client, server, paths, 14_000)
        high = proc.rss(server.pid)
        spent = proc.cpu(server.pid) - before
    return {
        "rss_per_stream": (high - low) / more,
        "setup_cpu_per_stream": spent.total * _MICRO / (some + more),
        "streams": some + more,
    }


def stalled(options: Options) -> Iterator[Figure]:
    """Memory a reader costs that has stopped reading, in the kernel and in the process."""
    results = in_turn(
        "streams.stalled",
        min(2, options.rounds),
        [nchan(), ours(options.command)],
        _stalled_memory,
    )
    yield results.figure("kernel_per_stalled", "B", "nchan", value_at_most(32 * 1024))
    yield results.figure("rss_per_stalled", "B", "nchan", value_at_most(4 * 1024))


def _stalled_memory(server: Server) -> Sample:
    stuck = 1_000
    healthy = write_paths(server, "paths", range(100))
    paths = write_paths(server, "stuck", [number % 100 for number in range(stuck)])
    with load(server) as (client,):
        _opened(client, server, healthy, 100)
        client.ask("rate", 1, 2_000)
        held = int(client.ask("stuck", paths, stuck)["opened"])
        proc.settled(server.pid)
        process, kernel = proc.rss(server.pid), proc.socket_memory()
        answer = client.ask("rate", 6, 4_000)
        process, kernel = proc.rss(server.pid) - process, proc.socket_memory() - kernel
    held -= int(answer["closed"])  # what has been cut is no longer stalled
    if held <= 0:
        note("no stalled reader was left to measure")
        return {}
    return {
        "kernel_per_stalled": max(0, kernel) / held,
        "rss_per_stalled": max(0, process) / held,
        "cut": answer["closed"],
        "lost": answer["lost"],
    }


def fan(options: Options) -> Iterator[Figure]:
    """Flat out, 300 deliveries under way, 10 000 streams, 1 to 5 per account."""
    results = in_turn(
        "streams.fan",
        options.rounds,
        [limit(), nchan(), ours(options.command)],
        lambda server: _publishing(
            server, shuffled(readers(_STREAMS)), "fan", options.seconds(5), _OUTSTANDING
        ),
    )
    yield results.figure("cpu_per_delivery", "us", "nchan", ratio_at_most(0.65))
    yield results.figure("cpu_per_delivery", "us", "limit", ratio_at_most(1.3))
    yield results.figure("user_per_delivery", "us", "nchan", ratio_at_most(0.5))
    yield results.figure("per_second", "deliveries/s", "nchan", ratio_at_least(1.5))
    yield results.figure("per_second", "deliveries/s", "limit")
    yield results.figure("p50_us", "us", "nchan")
    yield results.figure("p99_us", "us", "nchan")
    yield results.worst("coalesced", "deliveries")
    yield results.worst("lost", "deliveries", value_at_most(0))


def mod(options: Options) -> Iterator[Figure]:
    """A moderate, fixed 2 000 events/s to the same 10 000 streams."""
    results = in_turn(
        "streams.mod",
        options.rounds,
        [limit(), nchan(), ours(options.command)],
        lambda server: _publishing(
            server, shuffled(readers(_STREAMS)), "rate", options.seconds(6), 2_000
        ),
    )
    yield results.figure("cpu_per_event", "us", "nchan", ratio_at_most(1.1))
    yield results.figure("cpu_per_event", "us", "limit")
    yield results.figure("p50_us", "us", "nchan", ratio_at_most(1.0))
    yield results.figure("p50_us", "us", "limit")
    yield results.figure("p99_us", "us", "nchan")
    yield results.worst("lost", "deliveries", value_at_most(0))


def one(options: Options) -> Iterator[Figure]:
    """One account with 10 000 readers, 2 events/s."""
    results = in_turn(
        "streams.one",
        options.rounds,
        [limit(), nchan(), ours(options.command)],
        lambda server: _publishing(server, [0] * _STREAMS, "rate", options.seconds(5), 2),
    )
    yield results.figure("cpu_per_event", "us", "nchan", ratio_at_most(0.9))
    yield results.figure("cpu_per_event", "us", "limit")
    yield results.figure("p50_us", "us", "nchan")
    yield results.figure("p99_us", "us", "nchan")
    yield results.worst("lost", "deliveries", value_at_most(0))


def churn(options: Options) -> Iterator[Figure]:
    """Handshakes: connect, request with a token never seen before, 200, reset; 64 at a time."""
    results = in_turn(
        "streams.churn",
        options.rounds,
        [limit(), nchan(), ours(options.command)],
        lambda server: _handshakes(server, options.count(30_000)),
    )
    yield results.figure("cpu_per_connection", "us", "nchan", ratio_at_most(3.0))
    yield results.figure("cpu_per_connection", "us", "limit")
    yield results.figure("per_second", "connections/s", "nchan")
    yield results.figure("p99_us", "us", "nchan")
    yield results.worst("failed", "connections", value_at_most(0))


def _handshakes(server: Server, count: int) -> Sample:
    warm = 2_000
    paths = write_paths(server, "paths", range(warm + count))
    with load(server) as (client,):
        client.ask("churn", paths, warm, 64)
        proc.settled(server.pid)
        before = proc.cpu(server.pid)
        answer = client.ask("churn", paths, count, 64)
        proc.settled(server.pid)  # the ends of the connections are work too
        spent = proc.cpu(server.pid) - before
    return {
        "cpu_per_connection": spent.total * _MICRO / answer["connections"],
        **_picked(answer, "per_second", "p50_us", "p99_us", "failed"),
    }


def gc(options: Options) -> Iterator[Figure]:
    """A full garbage collection with 100 000 streams in the hub's tables."""
    streams = 100_000
    samples = [_collection(streams) for _ in range(min(3, options.rounds))]
    note(f"streams.gc: {samples}")
    times = [sample.get("worst_ms") for sample in samples]
    sizes = [sample.get("bytes_per_stream") for sample in samples]
    yield compare("streams.gc", "full_collection", "ms", times, target=value_at_most(10))
    yield compare("streams.gc", "tables_per_stream", "B", sizes)


def _collection(streams: int) -> Sample:
    """Measure in an interpreter of its own; an empty sample if that fails."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.collect", str(streams)],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        return {}
    sample: Sample = json.loads(done.stdout)
    return sample


def many(options: Options) -> Iterator[Figure]:
    """19 000 streams in one process, 100 000 over six; one event for each of 1 000 accounts."""
    for bench, streams, processes in (
        ("streams.19k", 19_000, 1),
        ("streams.100k", 100_000, 6),
    ):
        results = in_turn(
            bench,
            1,
            [ours(options.command, processes)],
            _everyone_served(streams, clients=processes),
        )
        yield results.figure("streams", "streams", target=value_at_least(streams))
        yield results.figure("published", "events", target=value_at_least(1_000))
        yield results.worst("lost", "deliveries", value_at_most(0))
        yield results.figure("rss_per_stream_all", "B")
        yield results.figure("all_after_s", "s")


def _everyone_served(streams: int, clients: int) -> Callable[[Server], Sample]:
    """Clients share the streams, each with accounts and descriptors of its own."""
    shares = [streams // clients + (number < streams % clients) for number in range(clients)]
    events = [1_000 // clients + (number < 1_000 % clients) for number in range(clients)]

    def measure(server: Server) -> Sample:
        empty = proc.rss(server.pid)
        files = [
            write_paths(server, f"paths{number}", shuffled(readers(share, number * 100_000)))
            for number, share in enumerate(shares)
        ]
        with load(server, clients) as all_clients:
            held = 0.0
            for client, file, share in zip(all_clients, files, shares, strict=True):
                held += client.ask("open", file, share)["opened"]
            proc.settled(server.pid)
            full = proc.rss(server.pid)
            for client, count in zip(all_clients, events, strict=True):
                client.begin("burst", count)
            answers = [client.answer() for client in all_clients]
        return {
            "streams": held,
            "published": sum(answer["published"] for answer in answers),
            "deliveries": sum(answer["deliveries"] for answer in answers),
            "lost": sum(answer["lost"] for answer in answers),
            "rss_per_stream_all": (full - empty) / max(1.0, held),
            "all_after_s": max(answer["all_after_s"] for answer in answers),
        }

    return measure


def lag(options: Options) -> Iterator[Figure]:
    """The longest stall of the event loop with 10 000 streams and 5 000 events/s."""
    results = in_turn(
        "streams.lag",
        min(2, options.rounds),
        [ours(options.command)],
        lambda server: _stall(server, options.seconds(8)),
    )
    yield results.worst("loop_lag_max_ms", "ms", value_at_most(50))
    yield results.worst("lag_at_start_ms", "ms")
    yield results.worst("max_us", "us")
    yield results.figure("p99_us", "us")
    yield results.worst("behind", "events")
    yield results.worst("lost", "deliveries", value_at_most(0))


def _stall(server: Server, seconds: float) -> Sample:
    """The gauge is the longest of the last minute or two: start-up and opening are in it too."""
    before = server.gauge(_LAG)
    sample = _publishing(server, shuffled(readers(_STREAMS)), "rate", seconds, 5_000)
    after = server.gauge(_LAG)
    if before is not None and after is not None:
        sample["lag_at_start_ms"] = before * 1_000
        sample["loop_lag_max_ms"] = after * 1_000
    return sample


def slow(options: Options) -> Iterator[Figure]:
    """What 800 readers notice of 200 others that have stopped reading."""
    results = in_turn(
        "streams.slow",
        options.rounds,
        [ours(options.command)],
        lambda server: _beside_stuck(server, options.seconds(6)),
    )
    for metric, target in (("p50_us", None), ("p99_us", ratio_at_most(2.0))):
        yield compare(
            "streams.slow",
            f"others_{metric}",
            "us",
            results.column("ours", f"stuck_{metric}"),
            "none stuck",
            results.column("ours", f"free_{metric}"),
            target,
        )
    yield results.worst("lost", "deliveries", value_at_most(0))


def _beside_stuck(server: Server, seconds: float) -> Sample:
    # Few accounts, so that each stuck stream is sent more than its buffers take.
    healthy = write_paths(server, "paths", [number % 20 for number in range(800)])
    stuck = write_paths(server, "stuck", [number % 20 for number in range(200)])
    sample: Sample = {"lost": 0.0}
    with load(server) as (client,):
        _opened(client, server, healthy, 800)
        for state in ("free", "stuck"):
            if state == "stuck":
                client.ask("stuck", stuck, 200)
            client.ask("rate", 3, 1_000)  # fills the buffers of the stuck
            answer = client.ask("rate", seconds, 500)
            sample[f"{state}_p50_us"] = answer["p50_us"]
            sample[f"{state}_p99_us"] = answer["p99_us"]
            sample["lost"] += answer["lost"]
            sample["cut"] = answer["closed"]
    return sample


def _publishing(
    server: Server, accounts: list[int], command: str, seconds: float, amount: int
) -> Sample:
    """Open one stream per account number, warm up, publish, and say what it cost the server."""
    paths = write_paths(server, "paths", accounts)
    with load(server) as (client,):
        if _opened(client, server, paths, len(accounts)) < len(accounts):
            return {}  # cheaper, but not what is to be measured
        # The first event of an account costs everybody more; what counts is the day after.
        client.ask("burst", len(set(accounts)))
        client.ask(command, 1, amount)
        proc.settled(server.pid)
        before = proc.cpu(server.pid)
        answer = client.ask(command, seconds, amount)
        time.sleep(0.05)  # what follows the last write belongs to it
        spent = proc.cpu(server.pid) - before
    deliveries, events = answer["deliveries"], answer["published"]
    if answer["foreign"] or answer["failed_posts"]:
        note(f"{server.name}: unexpected: {answer}")
    return {
        "cpu_per_delivery": spent.total * _MICRO / deliveries,
        "user_per_delivery": spent.user * _MICRO / deliveries,
        "cpu_per_event": spent.total * _MICRO / events,
        "client_load": answer["client_cpu"] / answer["seconds"],
        **_picked(
            answer, "per_second", "p50_us", "p99_us", "max_us", "coalesced", "lost", "behind"
        ),
    }


def _opened(client: Load, server: Server, paths: Path, count: int) -> int:
    """Open streams and wait until the server rests; returns how many there are."""
    answer = client.ask("open", paths, count)
    if answer["refused"]:
        note(f"{server.name} refused {answer['refused']:.0f} of {count} streams")
    proc.settled(server.pid)
    return int(answer["opened"])


def _picked(answer: dict[str, float], *names: str) -> Sample:
    return {name: answer[name] for name in names}


SCENARIOS: dict[str, Callable[[Options], Iterator[Figure]]] = {
    "memory": memory,
    "stalled": stalled,
    "fan": fan,
    "mod": mod,
    "one": one,
    "churn": churn,
    "gc": gc,
    "many": many,
    "lag": lag,
    "slow": slow,
}
