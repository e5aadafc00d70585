"""A real notifyd beside a real pusher, or alone, for a test."""

from __future__ import annotations

import shutil
from types import TracebackType

from demo.daemon import Settings, Worker, write_settings
from demo.ports import free_ports
from tests.support.pusher_process import PusherProcess, short_folder


def notifyd_settings() -> dict[str, dict[str, object]]:
    """Return the tables that a notifyd of its own needs: its port, an embedded store."""
    (port,) = free_ports(1)
    return {"notifyd": {"listen": f"127.0.0.1:{port}"}}


class NotifydProcess(Worker):
    """`with NotifydProcess({"smtp": {"port": 2525}}) as notifyd:` gives a ready notifyd, alone.

    Beside a pusher whose settings have `notifyd_settings()`: `NotifydProcess.beside(pusher)`.
    """

    def __init__(
        self, settings: Settings | None = None, *, pusher: PusherProcess | None = None
    ) -> None:
        self._owns_folder = pusher is None
        if pusher is not None:
            super().__init__(pusher.folder, pusher.config_path)
            return
        folder = short_folder("nd-")
        wanted = settings or {}
        defaults = notifyd_settings()
        names = [*defaults, *(name for name in wanted if name not in defaults)]
        write_settings(
            folder / "config.toml",
            {name: {**defaults.get(name, {}), **wanted.get(name, {})} for name in names},
        )
        super().__init__(folder, folder / "config.toml")

    @classmethod
    def beside(cls, pusher: PusherProcess) -> NotifydProcess:
        """Return a notifyd for the queue of `pusher`, with the same configuration file."""
        return cls(pusher=pusher)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.close()
        finally:
            if self._owns_folder:
                shutil.rmtree(self.folder, ignore_errors=True)
