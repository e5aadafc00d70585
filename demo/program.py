"""A program of ours as a child process: start, ready, stop, kill, start again in its place.

Knows a process, its log and its health page; not which program it is, nor what is sent to it.
"""

from __future__ import annotations

import http.client
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

from demo.closing import Closing
from demo.waiting import wait_until

READY_SECONDS = 20.0


class Program(Closing):
    """`python -m NAME serve --config FILE` in `folder`, ready when its /readyz says so.

    The same object can be started again after `stop` or `kill`: same ports, same files.
    """

    def __init__(
        self, name: str, folder: Path, config_path: Path, *, health_port: int, stop_seconds: float
    ) -> None:
        self.name = name
        self.folder = folder
        self.config_path = config_path
        self.health_port = health_port
        self.log_path = folder / "run" / f"{name}.log"
        self._stop_seconds = stop_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0  # of the present life
        self.log_path.parent.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    @property
    def log(self) -> str:
        """Everything it has written so far, all its lives."""
        return self.log_path.read_text() if self.log_path.exists() else ""

    @property
    def pid(self) -> int:
        """The process id of the running program."""
        return self._running().pid

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
            wait_until(self._is_ready, f"{self.name} to be ready", READY_SECONDS)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> int:
        """End it with SIGTERM, return its exit code; killed and TimeoutExpired if that is slow."""
        process = self._running()
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(self._stop_seconds)
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
        return [sys.executable, "-m", self.name, "serve", "--config", str(self.config_path)]

    def _descriptors(self) -> tuple[int, ...]:
        """Open files the child is to inherit; none, unless a subclass has some."""
        return ()

    # --- what it answers -------------------------------------------------------------------------

    def get(self, path: str) -> tuple[int, str]:
        """Return status and body of a GET for short requests; OSError if nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.health_port, timeout=5)
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
            raise RuntimeError(f"{self.name} ended with exit code {code}:\n{end}")
        try:
            return self.get("/readyz")[0] == 200
        except OSError:
            return False

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError(f"{self.name} is not running")
        return self._process
