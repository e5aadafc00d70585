"""One notification in, everything that follows from it: numbers, streams, jobs, counts, the tap.

The place where an event meets its consequences. Knows which part does what; not how any does it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

import structlog
from msgspec.structs import replace

from pusher.intake import SURELY_FAST, Done
from pusher.protocol.mboxevent import (
    CHANGE_ERRORS,
    CYRUS_EVENTS,
    RFC5423_EVENTS,
    Buffer,
    MailboxChange,
    MailboxEvent,
    decode,
    decode_change,
)
from pusher.protocol.normal import (
    alarm_jobs,
    calendar_alarm,
    sieve_jobs,
    sieve_notify,
)
from pusher.protocol.notification import Notification
from pusher.protocol.numbers import NAMES, RESYNC
from pusher.publisher import Publisher
from pusher.state.routing import Route, route
from pusher.tap import Happening, Tap
from shared.errors import DecodeError, QueueError
from shared.jobqueue import NewJob
from shared.log import Limited

log = structlog.get_logger()

KNOWN_EVENTS: Final = frozenset(RFC5423_EVENTS) | frozenset(CYRUS_EVENTS)
#: Classes that are counted beside the event types; MAIL and IMIP nothing here handles.
OTHER_CLASSES: Final = ("SIEVE", "MAIL", "IMIP")
#: What can become of an event.
RESULTS: Final = ("told", "noted", "known", "rests", "kept", "refused", "ignored")
_ALARM: Final = b"CalendarAlarm"


class Queue(Protocol):
    """Where slow jobs go: stored together or not at all, then `done` is called in the loop."""

    def submit(self, jobs: Sequence[NewJob], done: Done) -> None:
        """Never blocks."""


class Dispatcher:
    """Takes what intake hands over (see `intake.Taker`); `wall` is seconds since the epoch."""

    def __init__(
        self,
        publisher: Publisher,
        queue: Queue,
        tap: Tap,
        *,
        wall: Callable[[], float] = time.time,
        limited: Limited | None = None,
    ) -> None:
        self._events = dict.fromkeys((*sorted(KNOWN_EVENTS), *OTHER_CLASSES, "other"), 0)
        self._results = dict.fromkeys(RESULTS, 0)
        self.rejected: Counter[str] = Counter()
        self.lags: list[float] = []
        self._publisher = publisher
        self._connected = publisher.outlet.accounts
        self._shortcut = publisher.shortcut
        self._take_short = publisher.shortcut.take
        self._queue = queue
        self._tap = tap
        self._wall = wall
        self._limited = limited or Limited()
        self._sequence = 0
        self._watching = tap.listeners
        self._wants_sample = True

    @property
    def events(self) -> dict[str, int]:
        """How many events of each type were taken."""
        short = self._shortcut
        taken = short.told + short.noted + short.known
        return {**self._events, "MailboxModseq": self._events["MailboxModseq"] + taken}

    @property
    def results(self) -> dict[str, int]:
        """How many events became what (see RESULTS)."""
        names = ("told", "noted", "known")
        short = {name: self._results[name] + getattr(self._shortcut, name) for name in names}
        return {**self._results, **short}

    def tick(self) -> None:
        """Have the lag of the next event measured: its own timestamp against our clock.

        Call it about once a second.
        """
        self._wants_sample = True

    # --- what intake asks ------------------------------------------------------------------------

    def is_slow(self, notification: Notification) -> bool:
        """Tell whether it may become jobs; looks for a word, does not decode."""
        class_, message = notification.class_, notification.message
        if class_ == "EVENT":
            return not message.startswith(SURELY_FAST) and _ALARM in message
        return class_ == "SIEVE"

    def take(self, notification: Notification) -> None:
        """Act on a fast notification."""
        if notification.class_ != "EVENT":
            self._other_class(notification)
            return
        self.take_event(notification.message)

    def take_event(self, message: Buffer) -> None:
        """Act on the JSON of a fast mailbox event; `message` may change afterwards."""
        if self._wants_sample or self._watching:
            self._take_whole(bytes(message))
            return
        try:
            event = decode_change(message)
        except CHANGE_ERRORS:
            self._take_whole(bytes(message))
            return
        self._event(event)

    def take_short(self, message: Buffer) -> bool:
        """Act on a MailboxModseq if it is as most of them are; False if it is not."""
        return not (self._wants_sample or self._watching) and self._take_short(message)

    def _take_whole(self, message: bytes) -> None:
        """Act on an event that somebody wants to see, that is odd, or that is a sample."""
        try:
            event = decode(message)
        except DecodeError as error:
            self.reject(error.reason)
            return
        if self._wants_sample:
            self._wants_sample = False
            self._note_lag(event.timestamp)
        self._event(event)

    def keep(self, notification: Notification, done: Done) -> None:
        """Put a slow notification's jobs into the queue; `done` follows in the loop's thread."""
        event = None
        try:
            if notification.class_ == "SIEVE":
                jobs = self._sieve_jobs(notification)
            else:
                event = decode(notification.message)
                jobs = _alarm_jobs(event)
        except DecodeError as error:
            self.reject(error.reason)
            done(QueueError(error.reason))
            return
        if not jobs:
            done(None)
            if event is not None:
                self._event(event)
            return
        self._events["CalendarAlarm" if event is not None else "SIEVE"] += 1

        def stored(error: QueueError | None) -> None:
            self._stored(jobs, event, notification, done, error)

        self._queue.submit(jobs, stored)

    def reject(self, reason: str) -> None:
        """Count input that made no sense; one log line per reason and minute."""
        self.rejected[reason] += 1
        held_back = self._limited.allows(f"rejected:{reason}")
        if held_back is not None:
            log.warning("event_rejected", reason=reason, held_back=held_back)
        if self._tap:
            self._tap.tell(Happening(self._wall(), "rejected", reason))

    # --- fast ------------------------------------------------------------------------------------

    def _event(self, event: MailboxChange | MailboxEvent) -> None:
        event_type = event.event_type
        try:
            self._events[event_type] += 1
        except KeyError:
            self._events["other"] += 1
        goes = route(event)
        if goes.rests and event.counters is None:
            mask, outcome = 0, "rests"
        else:
            mask = self._publisher.change(goes, event)
            if mask:
                outcome = "told" if goes.account in self._connected else "noted"
            else:
                outcome = "known" if goes.account is not None else "noted"
        self._results[outcome] += 1
        if self._tap:
            self._tell(event, goes, outcome, mask)

    def _tell(
        self,
        event: MailboxChange | MailboxEvent,
        goes: Route,
        outcome: str,
        mask: int,
    ) -> None:
        if isinstance(event, MailboxChange):
            return
        streams = self._publisher.outlet.streams_of(goes.account) if goes.account else 0
        numbers = self._publisher.table.numbers(goes.account) if goes.account else None
        self._tap.tell(
            Happening(
                self._wall(),
                outcome,
                "resync" if mask & RESYNC else goes.rests,
                event,
                account=goes.account,
                streams=streams,
                moved=tuple(name for at, name in enumerate(NAMES) if mask >> at & 1),
                numbers=dict(zip(NAMES, numbers.values, strict=True)) if numbers else None,
            )
        )

    def _note_lag(self, timestamp: str | None) -> None:
        try:
            lag = self._wall() - datetime.fromisoformat(timestamp or "").timestamp()
        except (ValueError, OverflowError):
            return
        if len(self.lags) < 10_000:
            self.lags.append(max(0.0, lag))

    def _other_class(self, notification: Notification) -> None:
        class_ = notification.class_
        self._results["ignored"] += 1
        self._events[class_ if class_ in OTHER_CLASSES else "other"] += 1
        if self._tap:
            self._tap.tell(
                Happening(self._wall(), "ignored", "nobody handles its class", None, notification)
            )

    # --- slow ------------------------------------------------------------------------------------

    def _sieve_jobs(self, notification: Notification) -> list[NewJob]:
        asked = sieve_notify(notification)
        if not asked.account:
            raise DecodeError("no-account")
        delivery = _delivery(notification.filepath)
        if not delivery:  # then nothing says that two are the same
            self._sequence += 1
            delivery = f"{self._wall()}-{self._sequence}"
        return [
            NewJob(
                kind=job.kind,
                key=job.key,
                account=asked.account,
                payload=job.asked.to_json(),
                attachment_path=notification.filepath,
            )
            for job in sieve_jobs(asked, delivery)
        ]

    def _stored(
        self,
        jobs: Sequence[NewJob],
        event: MailboxEvent | None,
        notification: Notification,
        done: Done,
        error: QueueError | None,
    ) -> None:
        done(error)
        outcome, detail = "kept", f"{len(jobs)} {jobs[0].kind}"
        if error is not None:
            outcome, detail = "refused", error.reason
            held_back = self._limited.allows(f"refused:{error.reason}")
            if held_back is not None:
                log.error("job_refused", reason=error.reason, held_back=held_back)
        self._results[outcome] += 1
        if self._tap:
            account = jobs[0].account
            self._tap.tell(
                Happening(self._wall(), outcome, detail, event, notification, account=account)
            )


def _delivery(filepath: str | None) -> str:
    """Return what tells the spooled message of one delivery from all others; "" if it is gone.

    Its name alone does not: Cyrus makes it of a process and a second, and uses it again.
    """
    try:
        found = Path(filepath).stat() if filepath else None
    except (OSError, ValueError):
        return ""
    return f"{filepath}:{found.st_ino}:{found.st_mtime_ns}" if found else ""


def _alarm_jobs(event: MailboxEvent) -> list[NewJob]:
    """Return one job per recipient of an alarm that asks for mail; none for other events."""
    if event.event_type != "CalendarAlarm" or (event.action or "").lower() != "email":
        return []
    alarm = calendar_alarm(event)
    if not alarm.account:
        raise DecodeError("no-account")
    return [
        NewJob(
            kind="calendar_alarm",
            key=key,
            account=alarm.account,
            payload=replace(alarm, recipients=(recipient,)).to_json(),
        )
        for key, recipient in alarm_jobs(alarm)
    ]
