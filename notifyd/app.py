"""Builds every part of notifyd, runs them, and ends them in good order.

The only file that knows all the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import os
import random
import secrets
import signal
import socket
import time
from pathlib import Path
from typing import Final

import structlog

from notifyd import handlers
from notifyd.metrics import Metrics
from notifyd.phrasebook import read_voice
from notifyd.recipients import Recipients
from notifyd.sms import provider
from notifyd.smtp import mailer
from notifyd.texting import Texter, tend
from notifyd.worker import Lane, Worker
from shared import config as configuration
from shared import systemd
from shared.config import Config
from shared.errors import ConfigError, StoreError
from shared.http import application, health
from shared.http.serving import serve as serve_http
from shared.jobqueue import NewJob
from shared.jobqueue.configured import open_configured
from shared.log import configure as configure_log
from shared.retry import RetryPolicy
from shared.store import Store, failures

log = structlog.get_logger()

#: The store is asked this often whether it is there.
_STORE_CHECK_SECONDS: Final = 2.0
_LEDGER_SECONDS: Final = 3600.0


def version() -> str:
    """Return the version of the installed distribution."""
    return importlib.metadata.version("mailbox-pusher")


async def serve(config: Config, path: Path | None) -> None:
    """Run until SIGTERM or SIGINT; `path` is where SIGHUP reads the configuration again."""
    configure_log(config.log.level, config.log.personal_data)
    async with contextlib.AsyncExitStack() as closing:
        app = App(config, path, closing)
        await app.run()
    log.info("stopped")


class App:
    """All parts of one notifyd. ConfigError for what cannot be used, QueueError for the queue."""

    def __init__(
        self, config: Config, path: Path | None, closing: contextlib.AsyncExitStack
    ) -> None:
        self._config = config
        self._path = path
        self._stopping = asyncio.Event()
        self._store_problem = ""
        self._queue = open_configured(config.queue)
        closing.callback(self._queue.close)
        self._store = Store(config.store, deadline=asyncio.timeout)
        closing.push_async_callback(self._store.close)
        self._services = self._build_services(closing)
        self._worker = Worker(
            self._queue,
            self._lanes(),
            f"{os.getpid()}-{secrets.token_hex(8)}",
            lease_seconds=config.notifyd.lease_seconds,
            max_attempts=config.notifyd.max_attempts,
            jitter=random.random,
        )
        self._metrics = Metrics(
            self._worker, self._services.recipients, self._queue, wall=time.time, version=version()
        )
        self._listener = _listener(config)
        closing.callback(self._listener.close)

    def _build_services(self, closing: contextlib.AsyncExitStack) -> handlers.Services:
        config = self._config
        mails = mailer(config.smtp)
        closing.push_async_callback(mails.close)
        sms = provider(config.sms)
        if sms is not None:
            closing.push_async_callback(sms.close)
        return handlers.Services(
            recipients=Recipients(self._store.accounts, config.store.fallback),
            voice=read_voice(config.mail),
            mailer=mails,
            texter=Texter(sms, self._store.ledger, time.time) if sms is not None else None,
            sms=config.sms,
            enqueue=self._enqueue,
        )

    def _lanes(self) -> dict[str, Lane]:
        section = self._config.notifyd
        table = handlers.handlers(self._services)
        alarms, scripts = section.alarm_max_age_seconds, section.sieve_max_age_seconds
        sizes = {
            handlers.CALENDAR_ALARM: (section.mail_concurrency, alarms),
            handlers.SIEVE_NOTIFY: (section.mail_concurrency, scripts),
            handlers.SIEVE_SMS: (section.sms_concurrency, scripts),
            handlers.CREDIT_WARNING: (1, scripts),
        }
        return {
            kind: Lane(
                table[kind],
                concurrency,
                RetryPolicy(section.retry_first_seconds, section.retry_most_seconds, max_age),
            )
            for kind, (concurrency, max_age) in sizes.items()
        }

    async def _enqueue(self, job: NewJob) -> None:
        await asyncio.to_thread(self._queue.enqueue, [job], time.time())
        self._worker.wake()

    # --- running ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until told to stop, then let what is being sent end."""
        await self._prepare_store()
        self._listen_to_signals()
        async with asyncio.TaskGroup() as group:
            tending = [
                group.create_task(self._watch_store()),
                group.create_task(self._tend_ledger()),
            ]
            group.create_task(self._serve_http())
            working = group.create_task(self._worker.run())
            systemd.notify("READY=1")
            log.info("serving", http=str(self._config.notifyd.listen), version=version())
            await self._stopping.wait()
            systemd.notify("STOPPING=1")
            log.info("stopping", in_flight=self._worker.in_flight)
            await self._worker.stop(self._config.notifyd.drain_seconds)
            await working
            for task in tending:
                task.cancel()

    async def _prepare_store(self) -> None:
        """Make the embedded store's tables; a store that is down now is waited for."""
        try:
            await self._store.check()
        except StoreError as error:
            if error.reason == failures.SCHEMA:
                await self._make_schema()
            else:
                self._note_store(str(error))

    async def _make_schema(self) -> None:
        from shared.store.migrate import ensure_schema  # loads alembic, which is seldom needed

        try:
            await ensure_schema(self._config.store, deadline=asyncio.timeout)
        except StoreError as error:
            raise ConfigError([f"store.url: {error.detail}"]) from error

    async def _watch_store(self) -> None:
        while True:
            try:
                await self._store.check()
            except StoreError as error:
                self._note_store(str(error))
            else:
                self._note_store("")
            await asyncio.sleep(_STORE_CHECK_SECONDS)

    async def _tend_ledger(self) -> None:
        """Give back, now and then, the credit of SMS that were given up before they were sent."""
        given_up_seconds = 2 * self._config.notifyd.sieve_max_age_seconds
        while True:
            with contextlib.suppress(StoreError):
                await tend(self._store.ledger, given_up_seconds, time.time())
            await asyncio.sleep(_LEDGER_SECONDS)

    def _note_store(self, problem: str) -> None:
        if bool(problem) != bool(self._store_problem):
            log.info("store_back") if not problem else log.error("store_down", error=problem)
        self._store_problem = problem

    async def _serve_http(self) -> None:
        async def stopping() -> None:
            await self._stopping.wait()

        routes = health.routes(self.not_ready, self._metrics.page, version())
        await serve_http(self._listener, application(routes), stopping)

    def not_ready(self) -> list[str]:
        """Return why jobs are not being done just now."""
        reasons = [f"store: {self._store_problem}"] if self._store_problem else []
        reasons += self._worker.not_ready()
        if self._stopping.is_set():
            reasons.append("stopping")
        return reasons

    # --- signals ---------------------------------------------------------------------------------

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        loop.add_signal_handler(signal.SIGUSR1, self._dump)

    def reload(self) -> None:
        """Read the configuration again: take over what mails look like and what is logged."""
        try:
            new = configuration.load(self._path)
            voice = read_voice(new.mail)
        except ConfigError as error:
            log.error("reload_failed", problems=error.problems)
            return
        restart = configuration.needs_restart(self._config, new)
        self._config = new
        self._services.voice = voice
        configure_log(new.log.level, new.log.personal_data)
        log.info("reloaded", needs_restart=restart)

    def _dump(self) -> None:
        log.info(
            "state",
            busy={kind: len(lane.busy) for kind, lane in self._worker.lanes.items()},
            results={f"{kind} {what}": n for (kind, what), n in self._worker.results.items()},
            not_ready=self.not_ready(),
        )


def _listener(config: Config) -> socket.socket:
    host, port = config.notifyd.listen
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError([f"notifyd.listen: {config.notifyd.listen}: {error.strerror}"]) from error
