"""Where the demo's events come from: a recording that is played again, or a real Cyrus.

Both can do the same few things and know the mail server's own numbers; neither knows the page.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol

from demo import wire
from demo.cyrus import ALICE, PASSWORD, Cyrus
from demo.managesieve import put_active_script

ACTIONS: Final = ("deliver", "read", "calendar", "contact", "alarm", "notify")
_SCRIPT: Final = (
    'require "enotify"; notify :message "New mail from $from$: $subject$"'
    ' "mailto:alice@phone.example";'
)
_DATA: Final = Path(__file__).parent / "data"


class Nothing(Exception):  # noqa: N818 - not an error: there is nothing to do
    """The action has nothing to act on; the text is for the person at the page."""


class Source(Protocol):
    """A mail server, or what plays one."""

    #: One word for the page: "recorded" or "cyrus".
    mode: str

    def do(self, action: str) -> None:
        """Make one of ACTIONS happen to alice; Nothing if it cannot, KeyError if unknown."""

    def numbers(self) -> dict[str, int]:
        """Return the server's own newest numbers of alice: mail, calendar, contacts."""


def recording(name: str) -> Any:
    """Return a recorded session: a list of events, or the fields of a notification."""
    return json.loads((_DATA / f"{name}.json").read_text())


class Recorded:
    """Plays recorded events of alice with ever higher numbers, as her server would count them.

    `send` hands one notification to pusher. `memory` keeps the numbers over restarts of the demo,
    as a mail server keeps them on its disk.
    """

    mode = "recorded"

    def __init__(self, send: Callable[[wire.Fields], None], memory: Path | None = None) -> None:
        self._send = send
        self._memory = memory
        self._lock = threading.Lock()
        self._unread = 0
        # highest, mail, calendar, contacts; those of the recording to begin with
        self._now = {"highest": 200, "mail": 200, "calendar": 175, "contacts": 190, "uid": 1}
        if memory is not None and memory.exists():
            self._now |= json.loads(memory.read_text())

    def do(self, action: str) -> None:
        """Play one of ACTIONS."""
        if action == "alarm":
            self._send(wire.event_fields(_alarm_of_now(datetime.now(UTC))))
            return
        if action == "notify":
            self._send(recording("sieve"))
            return
        moves = {"deliver": "mail", "read": "mail", "calendar": "calendar", "contact": "contacts"}
        moved = moves[action]
        with self._lock:
            if action == "read" and not self._unread:
                raise Nothing("There is no unread mail. Deliver one first.")
            self._unread += {"deliver": 1, "read": -1}.get(action, 0)
            before = dict(self._now)
            self._now["highest"] += 1
            self._now[moved] = self._now["highest"]
            self._now["uid"] += action != "read"
            if self._memory is not None:
                self._memory.write_text(json.dumps(self._now))
            # Counted whether or not anybody hears of it, as in a real server.
            for event in recording(action):
                self._send(wire.event_fields(_again(event, before, self._now)))

    def numbers(self) -> dict[str, int]:
        """Return the highest numbers counted so far."""
        with self._lock:
            return {name: self._now[name] for name in ("mail", "calendar", "contacts")}


def _again(
    event: Mapping[str, Any], before: Mapping[str, int], now: Mapping[str, int]
) -> dict[str, Any]:
    """Return a recorded event as of now: MailboxModseq has the new counters, others the old ones.

    So does Cyrus: whoever trusts the last event of an operation gets its numbers wrong.
    """
    counted = now if event["event"] == "MailboxModseq" else before
    again = dict(event)
    again["timestamp"] = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    old = event["vnd.fastmail.counters"].split()
    old[1:5] = [str(counted[name]) for name in ("highest", "mail", "calendar", "contacts")]
    again["vnd.fastmail.counters"] = " ".join(old)
    again["vnd.fastmail.jmapStates"] = event["vnd.fastmail.jmapStates"] | {
        "Email": old[2],
        "CalendarEvent": old[3],
        "Contact": old[4],
        "ContactGroup": old[4],
    }
    if "modseq" in event:
        again["modseq"] = now["highest"]
        again["uidnext"] = now["uid"] + 1
        mailbox, has_uid, _ = event["uri"].partition("/;UID=")
        again["uri"] = f"{mailbox}{has_uid}{now['uid']}" if has_uid else mailbox
    return again


def _alarm_of_now(now: datetime) -> dict[str, Any]:
    """Return the recorded alarm for an event that begins in ten minutes."""
    start = now + timedelta(minutes=10)
    times = {"alarmTime": now, "start": start, "end": start + timedelta(hours=1)}
    written = {name: f"{at:%Y%m%dT%H%M%SZ}" for name, at in times.items()}
    event: dict[str, Any] = recording("alarm")[0]
    return {**event, **written, "uid": f"lunch-{now.timestamp()}@example.org"}


class RealCyrus:
    """Makes things happen in a running Cyrus; its numbers are asked from it by JMAP."""

    mode = "cyrus"

    def __init__(self, cyrus: Cyrus) -> None:
        self._cyrus = cyrus
        cyrus.make_collections()
        self._count = int(time.time())

    def do(self, action: str) -> None:
        """Do it over the protocol that a mail, calendar or contacts program would use."""
        self._count += 1
        if action == "deliver":
            self._cyrus.deliver(subject="Lunch on Friday?", text="Shall we meet at noon?")
        elif action == "read":
            if not self._cyrus.mark_newest_read():
                raise Nothing("There is no unread mail. Deliver one first.")
        elif action == "calendar":
            self._cyrus.put_event(f"lunch-{self._count}", "Lunch with Carol")
        elif action == "alarm":
            self._alarm()
        elif action == "notify":
            self._notify()
        elif action == "contact":
            self._cyrus.put_card(f"carol-{self._count}", "Carol")
        else:
            raise KeyError(action)

    def _alarm(self) -> None:
        due = int(time.time()) + 2  # an alarm that is due while the event is stored never goes off
        start = datetime.fromtimestamp(due + 600, UTC)
        self._cyrus.put_alarm(f"lunch-{self._count}", "Lunch with Carol", start)
        # By itself it looks every ten seconds.
        self._cyrus.run_as_cyrus("calalarmd", "-t", str(due + 1))

    def _notify(self) -> None:
        put_active_script(self._cyrus.sieve_port, ALICE, PASSWORD, _SCRIPT)
        self._cyrus.deliver(subject="Lunch on Friday?", text="Shall we meet at noon?")

    def numbers(self) -> dict[str, int]:
        """Return what Cyrus itself has now."""
        found = self._cyrus.counters(ALICE)
        return {name: found[f"{name}ModSeq"] for name in ("mail", "calendar", "contacts")}


def careless_sender(path: Path) -> Callable[[wire.Fields], None]:
    """Return what hands notifications to the stream socket at `path`, once, as Cyrus does.

    While nobody listens there they are lost; pages find out when pusher is back.
    """

    def send(fields: wire.Fields) -> None:
        with contextlib.suppress(OSError):
            wire.send_stream(path, wire.dlist(fields))

    return send
