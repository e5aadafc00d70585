"""One epoll descriptor for everything that must be quick, awaited as one readable by trio.

Listeners, event sockets, half-read handshakes and all streams are in it; a task per connection
would cost more memory and time than the work itself. Callbacks are synchronous and must not block.
Knows readiness and time; not what any descriptor is for.
"""

from __future__ import annotations

import contextlib
import gc
import select
import time
from collections.abc import Callable

import structlog
import trio

from shared.log import Limited

log = structlog.get_logger()

EPOLLIN = select.EPOLLIN
EPOLLOUT = select.EPOLLOUT
#: What is watched of a reader that has nothing to say: only its going away.
EPOLLGONE = select.EPOLLRDHUP

_BATCH = 512
#: Other tasks (timers, the API) get a turn at least this often while events keep coming.
_TURN_SECONDS = 0.01
#: After a busy round, wait this long for more before the dearer wait through trio.
_LINGER_SECONDS = 0.002

Callback = Callable[[int, int], None]


def settle_garbage_collector() -> None:
    """Call once all parts are built: what is there stays, and events leave no cycles behind."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)  # every 700 allocations it would look in vain


class Reactor:
    """Calls back for ready descriptors; gives the other trio tasks their turn in between.

    Callbacks get (descriptor, events). Those added with `last=True` (they accept) run at the end of
    a round, so that a descriptor closed in it cannot get a new connection while events of the old
    one are still to come. `after_round` callbacks run once after every round that had work.

    A callback that fails is a bug of ours; it costs the one connection it was for (`close` is
    called) and a line in the log, never the others.
    """

    def __init__(self, default: Callback, close_default: Callable[[int], None]) -> None:
        self.epoll = select.epoll()
        self._callbacks: dict[int, Callback] = {}
        self._closers: dict[int, Callable[[int], None]] = {}
        self._last: set[int] = set()
        self._default = default
        self._close_default = close_default
        self._limited = Limited()
        self.failures = 0
        self.after_round: list[Callable[[], None]] = []
        self.longest_round_seconds = 0.0
        self.rounds = 0

    def add(
        self,
        descriptor: int,
        events: int,
        callback: Callback,
        *,
        last: bool = False,
        close: Callable[[int], None] | None = None,
    ) -> None:
        """Call `callback` when `descriptor` is ready for `events`; `close` it if that fails."""
        self._callbacks[descriptor] = callback
        self._closers[descriptor] = close or _leave_open
        if last:
            self._last.add(descriptor)
        self.epoll.register(descriptor, events)

    def remove(self, descriptor: int) -> None:
        """Stop watching `descriptor`; call it before closing."""
        if self._callbacks.pop(descriptor, None) is not None:
            del self._closers[descriptor]
            self._last.discard(descriptor)
            self.epoll.unregister(descriptor)

    def close(self) -> None:
        """Close the epoll descriptor."""
        self.epoll.close()

    async def run(self) -> None:
        """Serve until cancelled."""
        poll, descriptor, clock = self.epoll.poll, self.epoll.fileno(), time.perf_counter
        was_busy, turn_ends = False, 0.0
        while True:
            ready = poll(_LINGER_SECONDS if was_busy else 0, _BATCH)
            if not ready:
                was_busy = False
                await trio.lowlevel.wait_readable(descriptor)
                turn_ends = clock() + _TURN_SECONDS
                continue
            was_busy = True
            if self._round(ready) >= turn_ends:
                await trio.lowlevel.checkpoint()
                turn_ends = clock() + _TURN_SECONDS

    def _round(self, ready: list[tuple[int, int]]) -> float:
        """Call back for all that is ready; return the time it is then."""
        started = time.perf_counter()
        callbacks, default, last = self._callbacks, self._default, self._last
        accepting: list[tuple[int, int]] = []
        for descriptor, events in ready:
            if descriptor in last:
                accepting.append((descriptor, events))
                continue
            try:
                callbacks.get(descriptor, default)(descriptor, events)
            except Exception:  # the fence: see the class
                self._failed(descriptor)
        for descriptor, events in accepting:
            try:
                callbacks.get(descriptor, default)(descriptor, events)
            except Exception:
                self._failed(descriptor)
        for callback in self.after_round:
            try:
                callback()
            except Exception:
                self._failed(None)
        ended = time.perf_counter()
        self.rounds += 1
        if ended - started > self.longest_round_seconds:
            self.longest_round_seconds = ended - started
        return ended

    def _failed(self, descriptor: int | None) -> None:
        self.failures += 1
        held_back = self._limited.allows("failed")
        if held_back is not None:
            log.exception("internal_error", held_back=held_back)
        if descriptor is not None:
            with contextlib.suppress(Exception):
                self._closers.get(descriptor, self._close_default)(descriptor)


def _leave_open(_descriptor: int) -> None:
    """What listening sockets get: the next event has its chance."""
