"""A far end that is there but never takes a connection: nothing can have been sent to it."""

from __future__ import annotations

import socket
from types import TracebackType


class BlackHole:
    """A port on loopback whose queue of connections is full, so that connecting takes for ever."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.port: int = self._listener.getsockname()[1]
        self._fillers: list[socket.socket] = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))
            self._fillers.append(filler)

    def __enter__(self) -> BlackHole:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        for each in (*self._fillers, self._listener):
            each.close()
