"""A full garbage collection with many streams in the hub's tables, without a single socket.

`python -m bench.collect STREAMS` prints one JSON object. A program of its own, so that nothing but
the pusher's modules and tables is there to be looked through.
"""

import gc
import json
import os
import select
import statistics
import sys
import time
from typing import cast

from bench import proc
from pusher.hub import Hub, HubSettings
from pusher.protocol.numbers import Numbers
from pusher.protocol.profile import PAGE

_PER_ACCOUNT = 3
_FIRST_DESCRIPTOR = 16


class _Unwatched:
    """An epoll that takes any descriptor, open or not."""

    def register(self, descriptor: int, events: int) -> None:
        pass


class _UnconnectedHub(Hub):
    """A hub whose writes all succeed: its descriptors are invented."""

    def __init__(self) -> None:
        super().__init__(HubSettings())
        self._epoll = cast(select.epoll, _Unwatched())

    def _write(
        self,
        descriptor: int,
        block: bytes,
        account: str = "",
        about: str = "",
        numbers: Numbers | None = None,
        mask: int = 0,
    ) -> bool:
        return True


def fill_hub_tables(streams: int) -> Hub:
    """Return a hub that holds `streams` streams, three per account, as after their handshakes."""
    hub = _UnconnectedHub()
    expires = time.time() + 3600
    for number in range(streams):
        # A string of its own each, as each comes from a token of its own.
        account = f"u{number // _PER_ACCOUNT:06d}"
        hub.attach(_FIRST_DESCRIPTOR + number, account, PAGE, expires, b"")
    return hub


def measure(streams: int) -> dict[str, float]:
    """Fill the tables and time full collections, as the first of them and when all is known."""
    gc.collect()
    gc.freeze()  # as the server does when it has started: its modules are not looked through again
    empty = proc.rss(os.getpid())
    start = time.perf_counter()
    hub = fill_hub_tables(streams)
    filled = time.perf_counter() - start
    full = proc.rss(os.getpid())
    times = [_collection_ms() for _ in range(7)]
    assert len(hub) == streams
    return {
        "collection_ms": statistics.median(times),
        "worst_ms": max(times),
        "bytes_per_stream": (full - empty) / streams,
        "fill_us_per_stream": filled * 1e6 / streams,
    }


def _collection_ms() -> float:
    start = time.thread_time()  # not the clock: other programs' turns are not the collector's
    gc.collect()
    return (time.thread_time() - start) * 1_000


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
