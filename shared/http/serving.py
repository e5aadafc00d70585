"""Serves an application on a listening socket, under whichever event loop runs."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable

import anycorn
from anycorn.config import Config
from starlette.applications import Starlette

from shared.http.limits import MAX_HEAD_BYTES


async def serve(
    listener: socket.socket, application: Starlette, stopping: Callable[[], Awaitable[None]]
) -> None:
    """Serve until `stopping` returns, then for half a second more; `listener` is taken over."""
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.accesslog = None
    config.errorlog = "-"
    config.loglevel = "WARNING"
    config.graceful_timeout = 0.5
    config.h11_max_incomplete_size = MAX_HEAD_BYTES
    config.include_server_header = False
    await anycorn.serve(
        application,  # type: ignore[arg-type]  # Starlette is an ASGI application
        config,
        shutdown_trigger=stopping,
        mode="asgi",
    )
