"""Readers of streams for tests: see `demo.eventsource`, which the smoke test uses as well."""

from __future__ import annotations

from demo.daemon import Daemon
from demo.eventsource import Block, EventStream, StreamEndError

__all__ = ["Block", "EventStream", "StreamEndError", "open_stream"]


def open_stream(
    pusher: Daemon,
    account: str,
    path: str = "/events",
    *,
    last_event_id: str | None = None,
) -> EventStream:
    """Return an open stream of `account` at `path` (its query included), with a fresh token."""
    url = f"http://127.0.0.1:{pusher.streams_port}{path}"
    stream = EventStream(url, token=pusher.token(account), last_event_id=last_event_id)
    assert stream.status == 200, f"the stream was refused with {stream.status}"
    return stream
