"""A real PostgreSQL for tests: Debian's, in a folder of its own, on a UNIX socket.

Runs as the user `postgres` (or as ourselves if we are not root), and can be killed, stopped,
continued and started again. Everything goes away with it.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from demo.ports import free_ports
from shared.slow_sections import Store as StoreSection
from tests.support.pusher_process import short_folder

_BINARIES: Final = Path("/usr/lib/postgresql")
_START_SECONDS: Final = 20.0
_INITDB: Final = (
    *("--auth=trust", "--no-sync", "--no-instructions", "--username=postgres"),
    *("--encoding=UTF8", "--locale=C.UTF-8"),
)


class PostgresServer:
    """`with PostgresServer() as postgres: postgres.new_database()` gives a URL for `[store]`.

    With `tcp` it listens on a port of 127.0.0.1 as well. With `durable` it syncs to disk, for
    tests in which the machine counts; kill -9 of PostgreSQL alone loses nothing either way.
    """

    def __init__(self, *, tcp: bool = False, durable: bool = False) -> None:
        self.folder = short_folder("pg-")
        self.port = free_ports(1)[0] if tcp else 5432
        self._settings = {
            "listen_addresses": "127.0.0.1" if tcp else "",
            "port": str(self.port),
            "fsync": "on" if durable else "off",
            "max_connections": "60",
            "unix_socket_directories": str(self.folder),
        }
        self._tcp = tcp
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> PostgresServer:
        try:
            if os.geteuid() == 0:
                shutil.chown(self.folder, "postgres", "postgres")
            self._run("initdb", "-D", str(self._data), *_INITDB)
            self.start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._remove()

    @property
    def log(self) -> str:
        """What the server wrote."""
        return (self.folder / "log").read_text("utf-8", "replace")

    def url(self, database: str = "postgres") -> str:
        """Return the URL of a database over the socket, or over TCP if asked for."""
        if self._tcp:
            return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"
        return f"postgresql://postgres@/{database}?host={self.folder}&port={self.port}"

    def new_database(self) -> str:
        """Make an empty database and return its URL."""
        name = f"test_{secrets.token_hex(6)}"
        self.sql(f"CREATE DATABASE {name}")
        return self.url(name)

    def section(self, **settings: Any) -> StoreSection:
        """Return `[store]` for a new, empty database."""
        return StoreSection(url=self.new_database(), **settings)

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run SQL as the superuser through psql; return the rows, columns separated by `|`."""
        return self._run(
            *("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres"),
            *("-h", str(self.folder), "-p", str(self.port), "-d", database, "-c", statement),
        ).strip()

    def start(self) -> None:
        """Start the server, again after `stop` or `kill`, and wait until it takes connections."""
        settings = [f"-c{name}={value}" for name, value in self._settings.items()]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [_binary("postgres"), "-D", str(self._data), *settings],
                **self._as_postgres(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while True:
            with suppress(subprocess.CalledProcessError):
                self.sql("SELECT 1")
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"PostgreSQL did not start:\n{self.log}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it at once but in good order (SIGINT: a fast shutdown)."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Kill the server and all of its processes with -9, as a crash would."""
        self._end(signal.SIGKILL)

    @property
    def running(self) -> bool:
        """Whether it was started and neither stopped nor killed; one that is paused counts."""
        return self._process is not None

    def pause(self) -> None:
        """SIGSTOP all of it: connections stay open, and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue after `pause`."""
        self._signal(signal.SIGCONT)

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        # Its backends make process groups of their own, so each gets it.
        for pid in [self._process.pid, *_children(self._process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        family = _children(self._process.pid)
        if number is signal.SIGKILL:
            self._signal(number)
        else:
            self.resume()
            self._process.send_signal(number)
        self._process.wait(_START_SECONDS)
        self._process = None
        _wait_for_end(family)  # or the next start finds the memory they shared in use

    def _remove(self) -> None:
        try:
            self._end(signal.SIGKILL)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> str:
        done: subprocess.CompletedProcess[str] = subprocess.run(
            [_binary(program), *arguments],
            **self._as_postgres(),
            stdin=subprocess.DEVNULL,
            check=True,
            capture_output=True,
            text=True,
            timeout=_START_SECONDS * 2,
        )
        return done.stdout

    def _as_postgres(self) -> dict[str, Any]:
        environment: Mapping[str, str] = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
        common = {"cwd": self.folder, "env": environment}
        if os.geteuid() != 0:
            return common
        user = pwd.getpwnam("postgres")
        return {**common, "user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _binary(name: str) -> str:
    """Return a program of the newest PostgreSQL installed; Debian keeps them off the PATH."""
    found = sorted(_BINARIES.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    assert found, "PostgreSQL is missing: apt-get install --no-install-recommends postgresql"
    return str(found[-1])


def _wait_for_end(pids: list[int]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, "processes of PostgreSQL do not end"
        time.sleep(0.005)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
