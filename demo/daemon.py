"""A real `pusher serve` as a child process: start, ready, stop, kill, start again in its place.

Knows the process, its folder and its configuration file; not what is sent to it.
"""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from demo.waiting import wait_until
from pusher import auth
from shared import config as configuration

READY_SECONDS = 20.0
#: A drain takes at most 4.8 s by pusher's own promise.
STOP_SECONDS = 5.0

#: Tables of the configuration file: {"streams": {"ping_seconds": 1}}.
Settings = Mapping[str, Mapping[str, object]]


class Daemon:
    """One pusher that works in `folder` (state under `folder`/run/), with `settings` on top.

    The same object can be started again after `stop` or `kill`: same ports, same files.
    """

    def __init__(self, folder: Path, config_path: Path, settings: Settings) -> None:
        self.folder = folder
        self.config_path = config_path
        self.log_path = folder / "run" / "pusher.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0  # of the present life
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        config_path.write_text(_toml(settings))
        self._config = configuration.load(config_path)
        self.streams_port = self._config.streams.listen.port
        self.api_port = self._config.api.listen.port

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # --- where things are ------------------------------------------------------------------------

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

    @property
    def log(self) -> str:
        """Everything the daemon has written so far, all its lives."""
        return self.log_path.read_text() if self.log_path.exists() else ""

    @property
    def pid(self) -> int:
        """The process id of the running daemon."""
        return self._running().pid

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

    # --- life and death --------------------------------------------------------------------------

    def start(self) -> None:
        """Start and return when /readyz says so; RuntimeError with the log's end if it dies."""
        with self.log_path.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                self._command(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=self._descriptors(),
                # Ctrl-C in a terminal reaches us only; we stop the daemon in order.
                start_new_session=True,
            )
        try:
            wait_until(self._is_ready, "pusher to be ready", READY_SECONDS)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> int:
        """End it with SIGTERM and return its exit code; killed and TimeoutExpired after 5 s."""
        process = self._running()
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        self._process = None
        return code

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would; nothing is drained or saved."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Start again on the same ports and files, ending the running one in order first."""
        if self._process is not None:
            self.stop()
        self.start()

    def suspend(self) -> None:
        """Stop it where it is (SIGSTOP): its sockets stay open and nobody reads them."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a suspended daemon go on."""
        self._running().send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it if it runs, whatever state it is in."""
        if self._process is None or self._process.poll() is not None:
            self._process = None
            return
        self.resume()
        self.stop()

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "pusher", "serve", "--config", str(self.config_path)]

    def _descriptors(self) -> tuple[int, ...]:
        """Open files the child is to inherit; none, unless a subclass has some."""
        return ()

    # --- what it answers -------------------------------------------------------------------------

    def get(self, path: str) -> tuple[int, str]:
        """Return status and body of a GET on the API listener; OSError if nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.api_port, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from error
        finally:
            connection.close()

    def _is_ready(self) -> bool:
        code = self._running().poll()
        if code is not None:
            self._process = None
            end = "\n".join(self.log[self._log_start :].splitlines()[-5:])
            raise RuntimeError(f"pusher ended with exit code {code}:\n{end}")
        try:
            return self.get("/readyz")[0] == 200
        except OSError:
            return False

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("pusher is not running")
        return self._process


def _toml(settings: Settings) -> str:
    """Write tables of text, numbers, truth values and lists; JSON is TOML for those."""
    lines: list[str] = []
    for section, values in settings.items():
        lines.append(f"[{section}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"
