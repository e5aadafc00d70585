"""One HTTP/2 connection on a trio stream: reads, writes once a round, notices when it is dead.

Moves bytes between the stream and `protocol/http2`; not: which requests go out, or when to connect.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio

from pusher.protocol.http2 import Http2Client
from pusher.protocol.http2_frames import Http2Error

_READ_BYTES: Final = 65_536
_GOODBYE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """Seconds of silence: how many until we ask for a sign of life, how many until we leave."""

    #: Without open requests.
    idle_ping_seconds: float = 60
    #: With requests that wait for answers.
    busy_ping_seconds: float = 5
    pong_seconds: float = 10
    #: Closed after so long without requests.
    idle_seconds: float = 3600


class Connection:
    """Runs until the server leaves, breaks the protocol or is silent, or nobody needs it.

    `refill` is called before each write, to send what is waiting; `changed` when the connection
    has become ready or takes no more requests.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        engine: Http2Client,
        settings: ConnectionSettings,
        refill: Callable[[Connection], None],
        changed: Callable[[Connection], None],
    ) -> None:
        self.engine = engine
        #: Why it ended; "idle", "drained", "closed", "broken", "ping-timeout" or an error's reason.
        self.reason = "cancelled"
        self._stream = stream
        self._settings = settings
        self._refill = refill
        self._changed = changed
        #: The server's SETTINGS are here, or it has ended.
        self.started = trio.Event()
        #: It is about to write.
        self.is_awake = True
        #: It is writing, perhaps to somebody who does not read.
        self.is_writing = False
        self._writer = trio.lowlevel.ParkingLot()
        self._listener = trio.lowlevel.ParkingLot()
        self._heard_at = self._used_at = self._busy_from = trio.current_time()
        self._nap = trio.CancelScope()
        self._scope = trio.CancelScope()

    def wake(self) -> None:
        """Have what is waiting written soon, together with what comes until then."""
        if not self.is_awake:
            self.is_awake = True
            self._writer.unpark()

    def is_used(self, *, is_first: bool) -> None:
        """Take note that requests were sent, the first ones after a pause."""
        self._used_at = trio.current_time()
        if is_first:
            self._busy_from = self._used_at
            due = self._used_at + self._settings.busy_ping_seconds
            self._nap.deadline = min(self._nap.deadline, due)

    def end(self, reason: str) -> None:
        """End it now; what is open is settled with `reason`."""
        if not self._scope.cancel_called:
            self.reason = reason
        self._scope.cancel()

    def end_if_drained(self) -> None:
        """End it if it takes no more requests and has no open ones."""
        if self.engine.is_closing and not self.engine.open_streams:
            self.end("drained")

    async def run(self) -> None:
        """Carry bytes until it ends; everything that was open is settled then."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._read)
                    nursery.start_soon(self._write)
                    nursery.start_soon(self._watch)
        finally:
            self.started.set()
            self.engine.close(self.reason)
            with trio.move_on_after(_GOODBYE_SECONDS, shield=True):
                await self._leave()
            await trio.aclose_forcefully(self._stream)

    async def _leave(self) -> None:
        if self.is_writing:
            return
        try:
            await self._stream.send_all(self.engine.take())
            await self._stream.aclose()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the other side has gone first, or is not there any more

    async def _read(self) -> None:
        engine = self.engine
        while True:
            try:
                data = await self._stream.receive_some(_READ_BYTES)
                if not data:
                    return self.end("closed")
                was_ready = engine.is_ready
                engine.feed(bytes(data))
            except trio.BrokenResourceError:
                return self.end("broken")
            except Http2Error as error:
                return self.end(error.reason)
            self._heard_at = trio.current_time()
            self._listener.unpark_all()
            if engine.is_ready and (engine.is_closing or not was_ready):
                self.started.set()
                self._changed(self)
                self.end_if_drained()
            self.wake()

    async def _write(self) -> None:
        while True:
            if not self.is_awake:
                await self._writer.park()
            # Those that the same read woke go first: what they send leaves in one write.
            await trio.lowlevel.checkpoint()
            self.is_awake = False
            self._refill(self)
            data = self.engine.take()
            if not data:
                continue
            self.is_writing = True  # if it ends here, nobody knows how much of it was sent
            try:
                await self._stream.send_all(data)
            except trio.BrokenResourceError:
                return self.end("broken")
            self.is_writing = False

    async def _watch(self) -> None:
        settings = self._settings
        while True:
            is_busy = self.engine.open_streams > 0
            heard_at = max(self._heard_at, self._busy_from) if is_busy else self._heard_at
            silence = settings.busy_ping_seconds if is_busy else settings.idle_ping_seconds
            idle_at = float("inf") if is_busy else self._used_at + settings.idle_seconds
            now = trio.current_time()
            if now >= idle_at:
                return self.end("idle")
            if now >= heard_at + silence:
                if not await self._is_there():
                    return self.end("ping-timeout")
                continue
            with trio.CancelScope(deadline=min(idle_at, heard_at + silence)) as self._nap:
                await trio.sleep_forever()

    async def _is_there(self) -> bool:
        """Ask for a sign of life; anything the server says will do."""
        self.engine.ping(os.urandom(8))
        self.wake()
        with trio.move_on_after(self._settings.pong_seconds) as scope:
            await self._listener.park()
        return not scope.cancelled_caught
