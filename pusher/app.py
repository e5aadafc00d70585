"""Builds every part of pusher, runs them in one nursery, and ends them in good order.

The only file that knows all the others.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import resource
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import structlog
import trio

from pusher import auth, plugins
from pusher.dispatch import Dispatcher
from pusher.handshake import Doorkeeper, HandshakeSettings
from pusher.hub import TICK_SECONDS, Hub, HubSettings
from pusher.intake import Intake
from pusher.keeper import Keeper
from pusher.loop_lag import LoopLag
from pusher.metrics import STREAM_KEYS, Metrics
from pusher.publisher import Publisher
from pusher.reactor import settle_garbage_collector
from pusher.shards import Shards
from pusher.snapshot import Journal
from pusher.sockets import Sockets, inherited
from pusher.state.modseq import ModseqTable
from pusher.tail import TailServer
from pusher.tap import Tap
from shared import config as configuration
from shared import systemd
from shared.config import Config
from shared.errors import ConfigError
from shared.http import application, health
from shared.http.serving import serve as serve_http
from shared.jobqueue import QueueWriter
from shared.jobqueue.configured import open_configured
from shared.log import Limited
from shared.log import configure as configure_log

log = structlog.get_logger()

#: Descriptors that are not for streams: databases, logs, event connections, the API.
RESERVED_DESCRIPTORS = 256
#: After SIGTERM the process is gone by then, whatever hangs.
LAST_RESORT_SECONDS = 4.8
_API_USER_TIMEOUT_MILLISECONDS = 3000
_SWITCH_SECONDS = 0.0005


def version() -> str:
    """Return the version of the installed distribution."""
    return importlib.metadata.version("mailbox-pusher")


async def serve(config: Config, path: Path | None) -> None:
    """Run until SIGTERM or SIGINT; `path` is where SIGHUP reads the configuration again."""
    configure_log(config.log.level, config.log.personal_data)
    app = App(config, path)
    try:
        await app.run()
    finally:
        app.close()


class App:
    """All parts of one pusher. ConfigError if a socket or key cannot be had."""

    def __init__(self, config: Config, path: Path | None) -> None:
        self._config = config
        self._path = path
        self._token = trio.lowlevel.current_trio_token()
        self._stopping = trio.Event()
        self._api_stopping = trio.Event()
        self._api_stopped = trio.Event()
        self._drained = trio.Event()
        self._limited = Limited()
        self._lag = LoopLag()
        self._passed = Sockets(inherited())
        self._closing = contextlib.ExitStack()
        try:
            self._build()
        except BaseException:
            self._closing.close()
            raise

    def _build(self) -> None:
        config = self._config
        authenticator = auth.load(config.auth)
        self._descriptor_limit = _descriptor_limit()
        self._hub = Hub(HubSettings())
        self._closing.callback(self._hub.reactor.close)
        self._table = ModseqTable(config.state.max_accounts)
        intake_sockets, outlive_us = self._intake_sockets()
        journal = Journal(config.snapshot_path)
        self._keeper = Keeper(journal, self._table, self._limited, sockets_outlive_us=outlive_us)
        self._keeper.restore()
        self._build_streams()
        self._build_intake(*intake_sockets)
        self._build_listeners(authenticator)
        self._hub.reactor.after_round.append(self._publisher.flush)
        self._apply(config)
        for address in self._passed.unused:
            log.warning("socket_unused", address=address)

    def _build_streams(self) -> None:
        """Make what tells readers: the hub or the processes with one each, and the publisher."""
        section = self._config.streams
        self._settings = self._hub.settings
        self._shards: Shards | None = None
        if section.processes > 1:
            self._shards = Shards(section.processes, self._hub.reactor, self._settings)
            self._closing.callback(self._shards.close)
        self._outlet: Hub | Shards = self._hub if self._shards is None else self._shards
        self._publisher = Publisher(
            self._table,
            self._outlet,
            retry_seconds=section.retry_seconds,
            most_per_account=section.max_connections_per_account,
        )

    def _build_intake(self, stream: socket.socket | None, datagram: socket.socket | None) -> None:
        """Make what takes events: the sockets' reader, the dispatcher, the queue it fills."""
        section = self._config.intake
        queue = open_configured(self._config.queue)
        self._closing.callback(queue.close)
        self._writer = QueueWriter(queue, clock=time.time, hop=self._hop)
        self._tap = Tap()
        self._plugins = plugins.load(self._config.plugins.enabled)
        self._dispatcher = Dispatcher(
            self._publisher, self._writer, self._tap, limited=self._limited
        )
        self._intake = Intake(
            self._hub.reactor,
            self._dispatcher,
            stream=stream,
            datagram=datagram,
            max_bytes=section.max_bytes,
            idle_seconds=section.idle_seconds,
        )
        self._closing.callback(self._intake.close)

    def _build_listeners(self, authenticator: auth.Authenticator) -> None:
        """Make what answers on the network: new streams, the API, and the tail's socket."""
        config = self._config
        self._doorkeeper = Doorkeeper(
            self._hub.reactor,
            self._passed.tcp(config.streams.listen, for_streams=True),
            HandshakeSettings(authenticator, config.auth.cookie),
            self._publisher.open,
            lambda: len(self._outlet),
            tls=_tls_context(config),
        )
        self._closing.callback(self._doorkeeper.close)
        self._api_socket = self._passed.tcp(config.api.listen)
        self._api_socket.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _API_USER_TIMEOUT_MILLISECONDS
        )
        self._closing.callback(self._api_socket.close)
        self._tail = self._tail_server(config)
        self._metrics = Metrics(
            intake=self._intake,
            dispatcher=self._dispatcher,
            publisher=self._publisher,
            reactor=self._hub.reactor,
            lag=self._lag,
            streams=self._stream_counts,
            handshakes=lambda: vars(self._doorkeeper.counts),
            refusals=lambda: self._doorkeeper.counts.refused,
            writer=self._writer,
            version=version(),
        )

    def _intake_sockets(
        self,
    ) -> tuple[tuple[socket.socket | None, socket.socket | None], bool]:
        section, outlive = self._config.intake, True
        found: list[socket.socket | None] = []
        for path, kind in (
            (section.stream, socket.SOCK_STREAM),
            (section.datagram, socket.SOCK_DGRAM),
        ):
            if path is None:
                found.append(None)
                continue
            listener, passed = self._passed.unix(path, kind, section.mode, section.group)
            outlive = outlive and passed
            found.append(listener)
        self._closing.callback(self._passed.remove_files)
        return (found[0], found[1]), outlive

    def _tail_server(self, config: Config) -> TailServer | None:
        try:
            return TailServer(self._tap, config.tail_path, self._passed)
        except ConfigError as error:
            # An operator's convenience must not keep the service down.
            log.warning("tail_unavailable", problems=error.problems)
            return None

    def _hop(self, function: Callable[[], None]) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(function)

    # --- running ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until told to stop, then drain and save."""
        self._writer.start()
        settle_garbage_collector()
        # While events pour in, the queue's thread would get its turn after 5 ms each time it asks,
        # and a mail server waits for what it commits.
        sys.setswitchinterval(_SWITCH_SECONDS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._signals)
            nursery.start_soon(self._hub.reactor.run)
            nursery.start_soon(self._ticks)
            nursery.start_soon(self._keeper.run, lambda: self._config.state.snapshot_seconds)
            if self._tail is not None:
                nursery.start_soon(self._tail.run)
            nursery.start_soon(self._serve_api)
            for name, output in self._plugins.items():
                nursery.start_soon(plugins.run, name, output, self._tap)
            systemd.notify("READY=1")
            log.info(
                "serving",
                streams=str(self._config.streams.listen),
                api=str(self._config.api.listen),
                version=version(),
            )
            await self._stopping.wait()
            await self._drain()
            nursery.cancel_scope.cancel()
        await self._keeper.finish()
        log.info("stopped")

    def close(self) -> None:
        """Close what is open; after `run`, or instead of it."""
        self._hub.close_all()
        self._closing.close()

    async def _signals(self) -> None:
        wanted = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
        with trio.open_signal_receiver(*wanted) as signals:
            await self._obey(signals)

    async def _obey(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if number == signal.SIGHUP:
                self.reload()
            elif number == signal.SIGUSR1:
                self._dump()
            elif not self._stopping.is_set():
                log.info("stopping", signal=signal.Signals(number).name)
                systemd.notify("STOPPING=1")
                _exit_at_last()
                self._stopping.set()

    async def _ticks(self) -> None:
        count = 0
        while True:
            due = trio.current_time() + TICK_SECONDS
            await trio.sleep_until(due)
            self._lag.note(trio.current_time() - due, time.monotonic())
            self._hub.tick()
            count += 1
            if self._shards is not None and count % 20 == 0:
                self._shards.tick()
                self._lag.note(self._shards.lag_seconds, time.monotonic())
            if count % 5 == 0:
                self._doorkeeper.tick()
            if count % 20 == 0:
                self._intake.tick()
                self._dispatcher.tick()

    async def _serve_api(self) -> None:
        routes = health.routes(self.not_ready, self._metrics.page, version())
        await serve_http(self._api_socket, application(routes), self._api_stopping.wait)
        self._api_stopped.set()

    # --- stopping --------------------------------------------------------------------------------

    async def _drain(self) -> None:
        """Take what was handed in, let readers that are behind catch up, then end the streams."""
        self._doorkeeper.stop_accepting()
        self._passed.remove_files()
        self._intake.stop()
        self._publisher.flush()
        if self._shards is not None:
            self._shards.drain(self._config.streams.drain_seconds)
        with trio.move_on_after(self._config.streams.drain_seconds):
            while self._is_owing():  # noqa: ASYNC110 - three parts, none of them an event
                await trio.sleep(0.01)
        self._doorkeeper.close()
        self._hub.close_all()
        if self._shards is not None:
            await self._end_shards(self._shards)
        self._api_stopping.set()
        with trio.move_on_after(1):
            await trio.to_thread.run_sync(self._writer.close, abandon_on_cancel=True)
        with trio.move_on_after(1):
            # Cancelled in the middle of its own ending, the API server fails and so would we.
            await self._api_stopped.wait()
        await trio.lowlevel.checkpoint()  # answers of the last commits hop in now
        self._intake.close()

    async def _end_shards(self, shards: Shards) -> None:
        with trio.move_on_after(0.7):
            while not shards.is_drained:  # noqa: ASYNC110 - processes end without telling an event
                await trio.sleep(0.01)
        shards.close()

    def _is_owing(self) -> bool:
        return bool(self._hub.stalled or self._intake.is_waiting or self._writer.state.backlog)

    # --- what may change while running ----------------------------------------------------------

    def reload(self) -> None:
        """Read the configuration again and take over what can be; keep the old one if it is bad."""
        try:
            new = configuration.load(self._path)
            auth.load(new.auth)
        except ConfigError as error:
            log.error("reload_failed", problems=error.problems)
            return
        restart = configuration.needs_restart(self._config, new)
        self._config = new
        self._apply(new)
        log.info("reloaded", needs_restart=restart)

    def _apply(self, config: Config) -> None:
        configure_log(config.log.level, config.log.personal_data)
        self._settings.ping_seconds = config.streams.ping_seconds
        self._settings.stalled_seconds = config.streams.stalled_seconds
        if self._shards is not None:
            self._shards.send_settings()
        self._publisher.retry_seconds = config.streams.retry_seconds
        self._publisher.most_per_account = config.streams.max_connections_per_account
        settings = self._doorkeeper.settings
        settings.authenticator = auth.load(config.auth)
        settings.cookie = config.auth.cookie
        settings.allowed_origins = frozenset(config.streams.allowed_origins)
        settings.handshake_seconds = config.streams.handshake_seconds
        room = max(16, self._descriptor_limit - RESERVED_DESCRIPTORS) * config.streams.processes
        wanted = config.streams.max_connections or room
        if wanted > room:
            log.warning("max_connections_lowered", wanted=wanted, possible=room)
        settings.max_connections = min(wanted, room)

    # --- what others ask ------------------------------------------------------------------------

    def not_ready(self) -> list[str]:
        """Return why not to rely on this process just now."""
        reasons = [self._keeper.problem] if self._keeper.problem else []
        queue = self._writer.state
        if not queue.running:
            reasons.append("queue: its writer has stopped")
        elif queue.last_error:
            reasons.append(f"queue: {queue.last_reason}")
        if self._stopping.is_set():
            reasons.append("stopping")
        return reasons

    def _stream_counts(self) -> dict[str, int]:
        if self._shards is not None:
            counts = self._shards.counts()
            return {key: counts[key] for key in ("open", "behind", *STREAM_KEYS)}
        ours = vars(self._hub.counts)
        return {
            "open": len(self._hub),
            "behind": self._hub.stalled,
            **{key: ours[key] for key in STREAM_KEYS},
        }

    def _dump(self) -> None:
        log.info(
            "state",
            streams=self._stream_counts(),
            handshakes=len(self._doorkeeper),
            producers=len(self._intake),
            accounts=len(self._table),
            events=dict(self._dispatcher.events),
            results=dict(self._dispatcher.results),
            rejected=dict(self._dispatcher.rejected),
            queue=str(self._writer.state),
            lag_seconds=round(self._lag.recent_seconds, 4),
            not_ready=self.not_ready(),
        )


def _descriptor_limit() -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return soft


def _tls_context(config: Config) -> ssl.SSLContext | None:
    section = config.streams
    if section.tls_certificate_file is None or section.tls_key_file is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    context.set_alpn_protocols(["http/1.1"])
    # Session tickets would be written to readers that only listen; they save little here.
    context.num_tickets = 0
    try:
        context.load_cert_chain(section.tls_certificate_file, section.tls_key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError([f"streams.tls_certificate_file: {error}"]) from error
    return context


def _exit_at_last() -> None:
    """End the process even if a library hangs; what was acknowledged is on disk by then."""
    timer = threading.Timer(LAST_RESORT_SECONDS, os._exit, (0,))
    timer.daemon = True
    timer.start()
