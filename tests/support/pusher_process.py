"""A real pusher for a test: own folder with a short path, own ports, and nothing left behind."""

from __future__ import annotations

import fcntl
import shutil
import socket
import tempfile
from pathlib import Path
from types import TracebackType

from demo.daemon import Daemon, Settings
from demo.ports import free_ports

__all__ = ["ActivatedPusher", "PusherProcess", "short_folder"]


def short_folder(prefix: str = "mp-") -> Path:
    """Return a new folder under /tmp that other users may enter (mode 755).

    pytest's own are too deep for the 107 bytes of a UNIX socket's path, and closed to the user
    that Cyrus runs as. The caller removes it.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    folder.chmod(0o755)
    return folder


class PusherProcess(Daemon):
    """`with PusherProcess({"streams": {"ping_seconds": 1}}) as pusher:` gives a ready daemon.

    State lies under `pusher.folder`/run/ and outlives `stop`, `kill` and `restart`; the folder goes
    at the end. Both intake sockets are open to every user. `settings` are tables of the
    configuration file on top of that; relative paths in them start at `pusher.folder`.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        folder = short_folder()
        streams, api = free_ports(2)
        defaults: Settings = {
            "intake": {"mode": "0666"},
            "streams": {"listen": f"127.0.0.1:{streams}"},
            "api": {"listen": f"127.0.0.1:{api}"},
        }
        wanted = settings or {}
        names = [*defaults, *(name for name in wanted if name not in defaults)]
        super().__init__(
            folder,
            folder / "config.toml",
            {name: {**defaults.get(name, {}), **wanted.get(name, {})} for name in names},
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.close()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def stop(self) -> int:
        """End it with SIGTERM; it must be gone within 5 s, in order (exit code 0)."""
        code = super().stop()
        assert code == 0, f"pusher ended with {code}; its log:\n{self.log}"
        return code


class ActivatedPusher(PusherProcess):
    """A pusher whose intake sockets outlive it, as with a socket unit of systemd."""

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings)
        self._sockets = [
            _bound(self.stream_socket, socket.SOCK_STREAM),
            _bound(self.datagram_socket, socket.SOCK_DGRAM),
        ]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            super().__exit__(kind, error, traceback)
        finally:
            for listener in self._sockets:
                listener.close()

    def _command(self) -> list[str]:
        # sd_listen_fds(3): the sockets are descriptors 3 and 4, LISTEN_PID is who uses them.
        first, second = self._descriptors()
        script = f'exec 3<&{first} 4<&{second}; LISTEN_FDS=2 LISTEN_PID=$$ exec "$@"'
        return ["bash", "-c", script, "bash", *super()._command()]

    def _descriptors(self) -> tuple[int, ...]:
        return tuple(listener.fileno() for listener in self._sockets)


def _bound(path: Path, kind: socket.SocketKind) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, kind)
    listener.bind(str(path))
    path.chmod(0o666)
    if kind == socket.SOCK_STREAM:
        listener.listen(128)
    # Above those the script puts them at, so that neither overwrites the other.
    duplicate = socket.socket(fileno=_above_ten(listener.fileno()))
    listener.close()
    return duplicate


def _above_ten(descriptor: int) -> int:
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
