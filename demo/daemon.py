"""Real `pusher serve` and `notifyd serve` as child processes, on one configuration file.

Knows where in it things are; not what is sent to them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from demo.program import Program
from pusher import auth
from shared import config as configuration

#: A drain takes at most 4.8 s by pusher's own promise.
STOP_SECONDS = 5.0

#: Tables of the configuration file: {"streams": {"ping_seconds": 1}}.
Settings = Mapping[str, Mapping[str, object]]


class Daemon(Program):
    """One pusher that works in `folder` (state under `folder`/run/), with `settings` on top."""

    def __init__(self, folder: Path, config_path: Path, settings: Settings) -> None:
        write_settings(config_path, settings)
        self._config = configuration.load(config_path)
        self.streams_port = self._config.streams.listen.port
        self.api_port = self._config.api.listen.port
        super().__init__(
            "pusher", folder, config_path, health_port=self.api_port, stop_seconds=STOP_SECONDS
        )

    @property
    def stream_socket(self) -> Path:
        """The UNIX stream socket for Cyrus dlist and JSON lines."""
        return self._path("intake", "stream", "run/intake.sock")

    @property
    def datagram_socket(self) -> Path:
        """The UNIX datagram socket for Cyrus NUL fields and JSON objects."""
        return self._path("intake", "datagram", "run/intake.dgram")

    @property
    def tail_socket(self) -> Path:
        """The UNIX socket that tells what became of each event."""
        return self.folder / self._config.tail_path  # an absolute one stays as it is

    @property
    def events_url(self) -> str:
        """The EventSource in the modseq shape."""
        return f"http://127.0.0.1:{self.streams_port}/events"

    def token(self, account: str, ttl_seconds: float = 3600.0) -> str:
        """Return a token that opens the streams of `account`."""
        section = self._config.auth
        if "key_file" not in section.model_fields_set:
            section = section.model_copy(update={"key_file": self.folder / "run" / "auth.key"})
        return auth.mint(section, account, ttl_seconds)

    def _path(self, section: str, key: str, default: str) -> Path:
        values = getattr(self._config, section)
        if key in values.model_fields_set:
            return Path(getattr(values, key))
        return self.folder / default


class Worker(Program):
    """The notifyd beside a pusher: the same folder, the same file."""

    def __init__(self, folder: Path, config_path: Path) -> None:
        section = configuration.load(config_path).notifyd
        super().__init__(
            "notifyd",
            folder,
            config_path,
            health_port=section.listen.port,
            stop_seconds=section.drain_seconds + 5,
        )


def write_settings(path: Path, settings: Settings) -> None:
    """Write a configuration file."""
    path.write_text(_toml(settings))


def _toml(settings: Settings) -> str:
    """Write tables of text, numbers, truth values and lists; JSON is TOML for those."""
    lines: list[str] = []
    for section, values in settings.items():
        lines.append(f"[{section}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"
