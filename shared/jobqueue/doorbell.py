"""A datagram that says "look now" to whoever works on a queue. A hint: loss is allowed.

The truth is the queue itself, polled each second; the bell only makes it quick. (Watching the
database's files instead is wrong: they change before the commit can be seen.)
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

# struct sockaddr_un holds 108 bytes, the closing NUL included: unix(7).
_LONGEST_ADDRESS: Final = 107


def ring(queue_path: Path) -> None:
    """Wake the owner of the queue's doorbell, if there is one; never blocks, never raises."""
    with suppress(OSError), _datagram_socket() as sender, _address(_bell(queue_path)) as address:
        sender.sendto(b"\n", address)


class Doorbell:
    """The receiving end. Await readability of `fileno()`, `drain()`, then look into the queue.

    The newest one takes the bell over from an older or a dead one. OSError if it cannot be hung
    up: go on polling then.
    """

    def __init__(self, queue_path: Path) -> None:
        self._path = _bell(queue_path)
        self._socket = _datagram_socket()
        try:
            self._hang_up()
            self._inode = self._path.stat().st_ino
        except OSError:
            self._socket.close()
            raise

    def _hang_up(self) -> None:
        """Bind beside and rename, so that the name always leads to a living socket."""
        fresh = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        with _address(fresh) as address:
            self._socket.bind(address)
        fresh.chmod(0o600)
        fresh.rename(self._path)

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def drain(self) -> bool:
        """Forget all rings so far; True if there was one."""
        rung = False
        with suppress(BlockingIOError):
            while True:
                self._socket.recv(16)
                rung = True
        return rung

    def close(self) -> None:
        """Take the bell down, unless a newer one hangs there already."""
        self._socket.close()
        with suppress(OSError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()


def _bell(queue_path: Path) -> Path:
    return queue_path.with_name(queue_path.name + ".bell")


def _datagram_socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)


@contextmanager
def _address(path: Path) -> Iterator[str]:
    """Give a name for `path` that fits into a socket address, however long the path is."""
    if len(os.fsencode(path)) <= _LONGEST_ADDRESS:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
