"""How long a full garbage collection takes with many streams in the hub's tables, without sockets.

Run as a program (`python -m bench.collect STREAMS`) it measures in an interpreter of its own.
"""

import gc
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

from bench import proc


def fill_hub_tables(hub_module: Any, streams: int) -> object:
    """Put `streams` open streams into the tables of a hub, as after as many handshakes.

    Descriptors are invented (no socket exists), three per account. Returns what keeps the tables
    alive.
    """
    raise NotImplementedError("pusher.hub has no tables to fill yet")


def measured(streams: int) -> dict[str, float]:
    """Measure in a fresh interpreter; nothing if the hub cannot be filled."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.collect", str(streams)],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        return {}
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def _measure(streams: int) -> dict[str, float]:
    hub_module = importlib.import_module("pusher.hub")
    gc.collect()
    pid = os.getpid()
    empty = proc.rss(pid)
    tables = fill_hub_tables(hub_module, streams)
    full = proc.rss(pid)
    times = []
    for _ in range(7):
        start = time.perf_counter()
        gc.collect()
        times.append((time.perf_counter() - start) * 1_000)
    del tables
    return {
        "collection_ms": statistics.median(times),
        "worst_ms": max(times),
        "bytes_per_stream": (full - empty) / streams,
    }


if __name__ == "__main__":
    print(json.dumps(_measure(int(sys.argv[1]))))
