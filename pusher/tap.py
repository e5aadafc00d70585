"""What became of each event, for whoever listens: `pusher tail`, plug-ins, later the trace.

A happening is made only while somebody listens. Listeners get it in the loop and must not block;
one that is slow loses happenings, and is told how many.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import trio

from pusher.protocol.mboxevent import MailboxEvent
from pusher.protocol.notification import Notification


class Happening(NamedTuple):
    """One notification and what became of it.

    `outcome` is one of "told" (streams heard of it), "noted" (numbers moved, nobody was connected),
    "known" (readers knew as much), "rests" (moves nothing), "kept" (in the queue), "refused" (the
    queue could not), "rejected" (made no sense), "ignored" (a class nobody handles).
    """

    at: float
    outcome: str
    detail: str = ""
    event: MailboxEvent | None = None
    notification: Notification | None = None
    account: str | None = None
    streams: int = 0
    moved: tuple[str, ...] = ()
    numbers: dict[str, int] | None = None


Listener = Callable[[Happening], None]


class Tap:
    """The listeners; false while there are none."""

    def __init__(self) -> None:
        #: The same living list all the time, for who looks at it often.
        self.listeners: list[Listener] = []

    def __bool__(self) -> bool:
        return bool(self.listeners)

    def tell(self, happening: Happening) -> None:
        """Pass a happening to every listener."""
        for listener in self.listeners:
            listener(happening)

    def add(self, listener: Listener) -> None:
        """Add a listener."""
        self.listeners.append(listener)

    def remove(self, listener: Listener) -> None:
        """Remove a listener."""
        self.listeners.remove(listener)

    def channel(self, size: int) -> Subscription:
        """Return happenings as a bounded channel for a task; close it when done."""
        return Subscription(self, size)


class Subscription:
    """A listener with a bounded memory: iterate `happenings`; `missed` counts what did not fit."""

    def __init__(self, tap: Tap, size: int) -> None:
        self._send, self.happenings = trio.open_memory_channel[Happening](size)
        self.missed = 0
        self._tap = tap
        tap.add(self._put)

    def _put(self, happening: Happening) -> None:
        try:
            self._send.send_nowait(happening)
        except (trio.WouldBlock, trio.BrokenResourceError):
            self.missed += 1

    def close(self) -> None:
        """Stop listening."""
        self._tap.remove(self._put)
        self._send.close()
        self.happenings.close()
