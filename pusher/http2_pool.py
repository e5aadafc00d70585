"""The connections of one origin: opened when they are needed, replaced before they are empty.

Not: which requests there are, and what becomes of them; that is the owner's (`origins`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog
import trio

from pusher.dialing import ConnectError, Dial
from pusher.http2_connection import Connection, ConnectionSettings
from pusher.protocol.http2 import Http2Client
from shared.retry import RetryPolicy

log = structlog.get_logger()

#: How long to wait before the next attempt to connect.
BACKOFF: Final = RetryPolicy(first_seconds=0.5, most_seconds=60, max_age_seconds=float("inf"))


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """How connections are made and used; times in seconds."""

    #: At once, closing ones not counted; more than one opens when the first is full.
    connections: int = 1
    #: Requests at once on one connection, if the server allows that many.
    streams: int = 1000
    #: Until the server's SETTINGS are there.
    connect_seconds: float = 10
    backoff: RetryPolicy = BACKOFF
    #: The size of the header table we allow the server; 0 makes answers cheap to read.
    table_bytes: int = 0
    connection: ConnectionSettings = field(default_factory=ConnectionSettings)


class Owner(Protocol):
    """Who has the requests."""

    #: How many were answered.
    answers: int

    @property
    def queued(self) -> int:
        """How many wait for a place."""

    def refill(self, connection: Connection) -> None:
        """Send what waits, as much as fits on `connection`."""

    def trouble(self, reason: str, is_lasting: bool) -> None:
        """Take note that there is no connection, or one that was for nothing."""


class Pool:
    """Keeps connections for `owner` while `run` runs; `counts` is what happened, by name."""

    def __init__(
        self,
        name: str,
        dial: Dial,
        settings: PoolSettings,
        owner: Owner,
        jitter: Callable[[], float],
    ) -> None:
        self.counts: Counter[str] = Counter()
        #: Those that take requests.
        self.ready: list[Connection] = []
        self._name = name
        self._dial = dial
        self._settings = settings
        self._owner = owner
        self._jitter = jitter
        self._failures = 0  # to connect, or to get anything answered, in a row
        self._wanted = trio.Event()

    def call(self) -> None:
        """See to it that what waits leaves soon: over a connection with room, or a new one."""
        for connection in self.ready:
            if connection.is_awake and not connection.is_writing:
                return
            if connection.engine.room:
                connection.wake()
                if not connection.is_writing:  # else its server may not be reading
                    return
        if len(self.ready) < self._settings.connections:
            self._wanted.set()

    def renew(self) -> None:
        """Send nothing more over the present connections; those end with their last answer."""
        for connection in list(self.ready):
            connection.engine.retire()
            self.changed(connection)
            connection.end_if_drained()

    async def run(self) -> None:
        """Connect when wanted, until cancelled; all connections end then."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._wanted.wait()
                if self._failures:
                    backoff = self._settings.backoff
                    await trio.sleep(backoff.delay(self._failures, 0, self._jitter()) or 0)
                self._wanted = trio.Event()
                if not self._is_short():
                    continue
                try:
                    await self._connect(nursery)
                except ConnectError as error:
                    self._connect_failed(error)

    def _is_short(self) -> bool:
        if not self.ready:
            return True
        has_room = any(connection.engine.room for connection in self.ready)
        has_place = len(self.ready) < self._settings.connections
        return has_place and not has_room and self._owner.queued > 0

    async def _connect(self, nursery: trio.Nursery) -> None:
        connection, settings = None, self._settings
        with trio.move_on_after(settings.connect_seconds):
            stream = await self._dial()
            engine = Http2Client(most_streams=settings.streams, table_bytes=settings.table_bytes)
            refill = self._owner.refill
            connection = Connection(stream, engine, settings.connection, refill, self.changed)
            nursery.start_soon(self._run_connection, connection)
            await connection.started.wait()
        if connection is None:
            raise ConnectError("timeout")
        if not connection.engine.is_ready:
            connection.end("no-settings")
            raise ConnectError("no-settings")

    def changed(self, connection: Connection) -> None:
        """Use a connection that has become ready; look for another when it takes no more."""
        is_listed, is_closing = connection in self.ready, connection.engine.is_closing
        if not is_listed and not is_closing:
            self.ready.append(connection)
            self.call()
        elif is_listed and is_closing:
            self.ready.remove(connection)
            if connection.engine.goaway is not None:
                self.counts["goaways"] += 1
            if self._owner.queued or connection.engine.open_streams:
                self._wanted.set()  # before the old one is empty

    async def _run_connection(self, connection: Connection) -> None:
        self.counts["connections"] += 1
        answers = self._owner.answers
        log.info("push_connection_opened", origin=self._name)
        try:
            await connection.run()
        finally:
            if connection in self.ready:
                self.ready.remove(connection)
        goaway, reason = connection.engine.goaway, connection.reason
        self.counts[f"ended-{reason}"] += 1
        code, detail = (goaway.code, goaway.detail) if goaway else ("", "")
        log.info(
            "push_connection_closed", origin=self._name, reason=reason, code=code, detail=detail
        )
        if self._owner.answers != answers or reason == "idle":
            self._failures = 0
        elif connection.engine.is_ready:
            self._failures += 1  # it came and went for nothing
            self._owner.trouble(reason, False)
        if self._owner.queued:
            self._wanted.set()

    def _connect_failed(self, error: ConnectError) -> None:
        self._failures += 1
        self.counts[f"connect-{error.reason}"] += 1
        log.warning("push_connect_failed", origin=self._name, error=str(error))
        self._owner.trouble(error.reason, error.is_lasting)
        if self._owner.queued:
            self._wanted.set()
