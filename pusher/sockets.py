"""Listening sockets: inherited from systemd when it passes a fitting one, else bound by us.

A stale UNIX socket file is replaced; one that somebody still listens on is refused.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
from pathlib import Path

from shared.errors import ConfigError
from shared.section_types import Address

_FIRST_INHERITED = 3  # sd_listen_fds(3)
_BACKLOG = 4096
#: What a reader that stops reading may keep of our memory in the kernel, which doubles it.
STREAM_SEND_BUFFER_BYTES = 4096
#: A peer that acknowledges nothing for this long is gone (RFC 5482).
USER_TIMEOUT_MILLISECONDS = 30_000


def inherited() -> list[socket.socket]:
    """Return the sockets systemd passed to this very process, and hide them from children."""
    try:
        if int(os.environ.pop("LISTEN_PID", "0")) != os.getpid():
            return []
        count = int(os.environ.pop("LISTEN_FDS", "0"))
    except ValueError:
        return []
    os.environ.pop("LISTEN_FDNAMES", None)
    sockets = []
    for descriptor in range(_FIRST_INHERITED, _FIRST_INHERITED + count):
        os.set_inheritable(descriptor, False)
        sockets.append(socket.socket(fileno=descriptor))
    return sockets


class Sockets:
    """Gives each part its listening socket; `passed` are those inherited from systemd."""

    def __init__(self, passed: list[socket.socket]) -> None:
        self._passed = list(passed)
        self._bound: list[Path] = []

    @property
    def unused(self) -> list[str]:
        """The addresses of inherited sockets that nothing asked for: a mistake in a unit."""
        return [str(listener.getsockname()) for listener in self._passed]

    def unix(
        self, path: Path, kind: socket.SocketKind, mode: int, group: str | None
    ) -> tuple[socket.socket, bool]:
        """Return the socket at `path` and whether it was inherited; ConfigError if it cannot be."""
        for listener in self._passed:
            if listener.family == socket.AF_UNIX and listener.type == kind:
                name = listener.getsockname()
                if isinstance(name, str) and Path(name).resolve() == path.resolve():
                    self._passed.remove(listener)
                    return listener, True
        return self._bind_unix(path, kind, mode, group), False

    def tcp(self, address: Address, *, for_streams: bool = False) -> socket.socket:
        """Return a listening TCP socket at `address`; ConfigError if it cannot be bound."""
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        for listener in self._passed:
            if listener.family == family and listener.getsockname()[:2] == tuple(address):
                self._passed.remove(listener)
                break
        else:
            listener = _bind_tcp(family, address)
        # Accepted connections inherit these.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MILLISECONDS)
        if for_streams:
            # We are woken when there is a request to read, not before; a client that sends none
            # is handed over all the same after a second or three.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, STREAM_SEND_BUFFER_BYTES)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return listener

    def remove_files(self) -> None:
        """Remove the socket files we made, so that producers are refused rather than kept."""
        for path in self._bound:
            path.unlink(missing_ok=True)
        self._bound.clear()

    def _bind_unix(
        self, path: Path, kind: socket.SocketKind, mode: int, group: str | None
    ) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, kind)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _make_way(path, kind)
            before = os.umask(0o777 & ~mode)
            try:
                listener.bind(str(path))
            finally:
                os.umask(before)
            if group is not None:
                shutil.chown(path, group=group)
            path.chmod(mode)
            if kind == socket.SOCK_STREAM:
                listener.listen(_BACKLOG)
        except (OSError, LookupError) as error:
            listener.close()
            raise ConfigError([f"cannot listen on {path}: {error}"]) from error
        self._bound.append(path)
        return listener


def _make_way(path: Path, kind: socket.SocketKind) -> None:
    """Remove a stale socket file; refuse to take over a live one, or anything else."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OSError(errno.EEXIST, "there is a file that is not a socket")
    except FileNotFoundError:
        return
    probe = socket.socket(socket.AF_UNIX, kind)
    try:
        probe.setblocking(False)
        probe.connect(str(path))
    except BlockingIOError:
        pass  # its backlog is full: somebody is there
    except (ConnectionRefusedError, FileNotFoundError):
        path.unlink(missing_ok=True)
        return
    except OSError as error:
        if error.errno != errno.EPROTOTYPE:
            raise
    finally:
        probe.close()
    raise OSError(errno.EADDRINUSE, "another program listens there")


def _bind_tcp(family: socket.AddressFamily, address: Address) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(tuple(address))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError([f"cannot listen on {address}: {error}"]) from error
    return listener
