"""`pusher tail`: live events and what became of them, over a UNIX socket that only we may open.

Knows the socket and the lines on it; `tap` knows what happened.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trio

from pusher.protocol.normal import normal_event
from pusher.sockets import Sockets
from pusher.tap import Happening, Subscription, Tap

_KEPT = 1000
_MOST_WATCHERS = 16
_SEND_SECONDS = 5


class TailServer:
    """Gives every connection each happening as a JSON line."""

    def __init__(self, tap: Tap, path: Path, sockets: Sockets) -> None:
        self._tap = tap
        listener, _ = sockets.unix(path, socket.SOCK_STREAM, 0o600, None)
        listener.setblocking(False)
        self._listener = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        self._watchers = 0

    async def run(self) -> None:
        """Serve until cancelled."""
        await trio.serve_listeners(self._watch, [self._listener])

    async def _watch(self, stream: trio.SocketStream) -> None:
        if self._watchers >= _MOST_WATCHERS:
            return
        self._watchers += 1
        subscription = self._tap.channel(_KEPT)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_until_closed, stream, nursery.cancel_scope)
                await _pass_on(subscription, stream)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self._watchers -= 1
            subscription.close()


async def _until_closed(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
    while await stream.receive_some():
        pass
    scope.cancel()


async def _pass_on(subscription: Subscription, stream: trio.SocketStream) -> None:
    told_missed = 0
    async for happening in subscription.happenings:
        line = describe(happening)
        if subscription.missed > told_missed:
            line["missed"] = subscription.missed - told_missed
            told_missed = subscription.missed
        with trio.move_on_after(_SEND_SECONDS) as scope:
            await stream.send_all(json.dumps(line).encode() + b"\n")
        if scope.cancelled_caught:
            return


def describe(happening: Happening) -> dict[str, Any]:
    """Return a happening as plain JSON: the operator's view, without message content."""
    line: dict[str, Any] = {"at": round(happening.at, 3), "outcome": happening.outcome}
    if happening.detail:
        line["detail"] = happening.detail
    if happening.account is not None:
        line["account"] = happening.account
    if happening.event is not None:
        normal = json.loads(normal_event(happening.event).to_json())
        line["event"] = {key: value for key, value in normal.items() if key not in _CONTENT}
    elif happening.notification is not None:
        line["class"] = happening.notification.class_
        line["method"] = (happening.notification.method or "").partition(":")[0]
    if happening.moved:
        line["moved"] = list(happening.moved)
        line["streams"] = happening.streams
    if happening.numbers:
        line["numbers"] = {key: value for key, value in happening.numbers.items() if value}
    return line


_CONTENT = frozenset({"subject", "from", "to", "alarm", "message_ids"})


def one_line(line: Mapping[str, Any]) -> str:
    """Return a described happening as a line for people."""
    event = line.get("event", {})
    what = event.get("event_type") or line.get("class") or "-"
    where = event.get("folder") or ""
    told = f"{line['streams']} streams" if line.get("streams") else line.get("detail", "")
    moved = ",".join(line.get("moved", ()))
    missed = f"  ({line['missed']} missed)" if line.get("missed") else ""
    text = f"{line['outcome']:<8} {what:<20} {line.get('account') or '-'} {where} {moved} {told}"
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text) + missed
