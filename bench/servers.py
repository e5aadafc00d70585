"""The servers under test, each started alone in a directory of its own, behind one interface."""

import os
import resource
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import jwt

from bench import build, proc

#: How to start the server of this project; another checkout's can be measured instead.
OUR_COMMAND = f"{shlex.quote(sys.executable)} -m pusher"

_START_SECONDS = 30.0
_AUDIENCE = "bench"


class StartError(Exception):
    """A server did not come up; the text says what it said."""


@dataclass(frozen=True)
class Server:
    """A running server, as the load client and the measuring see it."""

    name: str
    process: subprocess.Popen[bytes]
    directory: Path
    port: int
    publish: str  # how the load client publishes: dgram:PATH or http:PORT
    path: Callable[[int], str]  # the request path that opens a stream of an account
    stream: Path | None = None  # where dlist connections are taken
    datagram: Path | None = None
    metrics_url: str | None = None

    @property
    def pid(self) -> int:
        """The first process; all others are its descendants."""
        return self.process.pid

    def said(self) -> str:
        """The end of what the server wrote to its output."""
        return _said(self.directory)

    def gauge(self, name: str) -> float | None:
        """The highest sample of a metric the server shows, None if it shows none."""
        if self.metrics_url is None:
            return None
        with urllib.request.urlopen(self.metrics_url, timeout=10) as answer:
            text = answer.read().decode()
        samples = [
            float(line.split()[-1])
            for line in text.splitlines()
            if line.startswith((name + " ", name + "{"))
        ]
        return max(samples, default=None)


@dataclass(frozen=True)
class Recipe:
    """How to start a server: its name, and a function that starts it in a directory."""

    name: str
    start: Callable[[Path], Server] = field(compare=False)

    @contextmanager
    def running(self) -> Iterator[Server]:
        """Start the server in a fresh directory; stop it and remove the directory afterwards."""
        with tempfile.TemporaryDirectory(prefix="mpb-", dir="/tmp") as name:
            directory = Path(name)
            server = self.start(directory)
            try:
                yield server
            finally:
                _stop(server.process)


def ours(command: str = OUR_COMMAND, processes: int = 1) -> Recipe:
    """The pusher of this project, checking a token per stream."""
    return Recipe("ours", lambda directory: _start_ours(directory, command, processes))


def limit() -> Recipe:
    """The least C program that does the same work."""
    return Recipe("limit", _start_limit)


def nchan() -> Recipe:
    """The pub/sub module of nginx: one worker, nothing buffered, no check of anything."""
    return Recipe("nchan", _start_nchan)


def _start_ours(directory: Path, command: str, processes: int) -> Server:
    port, api_port = free_port(), free_port()
    key = secrets.token_hex(32).encode()
    key_file = directory / "key"
    key_file.touch(mode=0o600)
    key_file.write_bytes(key)
    config = directory / "c.toml"
    config.write_text(
        f"""[intake]
stream = "{directory}/s"
datagram = "{directory}/d"

[streams]
listen = "127.0.0.1:{port}"
processes = {processes}
max_connections = 200000
max_connections_per_account = 20000

[api]
listen = "127.0.0.1:{api_port}"

[auth]
key_file = "{key_file}"
audience = "{_AUDIENCE}"

[queue]
path = "{directory}/queue.db"

[store]
url = "sqlite:///{directory}/state.db"
""",
        encoding="utf-8",
    )
    process = spawn([*shlex.split(command), "serve", "--config", str(config)], directory)
    wait(process, directory, lambda: _answers(f"http://127.0.0.1:{api_port}/readyz"))
    return Server(
        name="ours",
        process=process,
        directory=directory,
        port=port,
        publish=f"dgram:{directory}/d",
        path=lambda account: f"/events?token={_token(key, account)}",
        stream=directory / "s",
        datagram=directory / "d",
        metrics_url=f"http://127.0.0.1:{api_port}/metrics",
    )


def _start_limit(directory: Path) -> Server:
    port = free_port()
    socket_path = directory / "d"
    process = spawn([str(build.program("limit")), str(port), str(socket_path)], directory)
    wait(process, directory, lambda: _accepts(port) and socket_path.exists())
    return Server(
        name="limit",
        process=process,
        directory=directory,
        port=port,
        publish=f"dgram:{socket_path}",
        path=lambda account: f"/events?account={account_name(account)}",
        datagram=socket_path,
    )


def _start_nchan(directory: Path) -> Server:
    port = free_port()
    config = directory / "nginx.conf"
    user = "user root;\n" if os.geteuid() == 0 else ""
    # 60 000 connections: nchan counts more than one for a subscriber.
    config.write_text(
        f"""{user}load_module /usr/lib/nginx/modules/ngx_nchan_module.so;
worker_processes 1;
worker_rlimit_nofile {_descriptors()};
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/error.log error;
events {{ worker_connections 60000; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    tcp_nodelay on;
    nchan_shared_memory_size 512m;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = /sub {{
            nchan_subscriber eventsource;
            nchan_channel_id $arg_id;
            nchan_store_messages off;
            nchan_subscriber_first_message newest;
        }}
        location = /pub {{
            nchan_publisher http;
            nchan_channel_id $arg_id;
            nchan_store_messages off;
        }}
    }}
}}
""",
        encoding="utf-8",
    )
    command = ["/usr/sbin/nginx", "-e", f"{directory}/error.log", "-p", f"{directory}/"]
    process = spawn([*command, "-c", str(config)], directory)
    wait(process, directory, lambda: _accepts(port))
    return Server(
        name="nchan",
        process=process,
        directory=directory,
        port=port,
        publish=f"http:{port}",
        path=lambda account: f"/sub?id={account_name(account)}",
    )


def account_name(account: int) -> str:
    """The name the load client gives to an account number."""
    return f"u{account:06d}"


def free_port() -> int:
    """A loopback TCP port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _token(key: bytes, account: int) -> str:
    claims = {"sub": account_name(account), "aud": _AUDIENCE, "exp": int(time.time()) + 7200}
    return jwt.encode(claims, key, algorithm="HS256")


def _descriptors() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def spawn(command: list[str], directory: Path) -> subprocess.Popen[bytes]:
    """Start in a session of its own with all descriptors allowed; what it says goes to a file."""
    with (directory / "log").open("wb") as log:
        return subprocess.Popen(
            ["sh", "-c", 'ulimit -n "$(ulimit -Hn)" && exec "$@"', "sh", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait(process: subprocess.Popen[bytes], directory: Path, ready: Callable[[], bool]) -> None:
    end = time.monotonic() + _START_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            _stop(process)
            raise StartError(f"exit {process.returncode}: {_said(directory)}")
        time.sleep(0.05)
    proc.settled(process.pid)


def _said(directory: Path) -> str:
    text = (directory / "log").read_text("utf-8", errors="replace")
    return text[-3000:].strip() or "nothing"


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the process we started and its descendants: politely, then not."""
    members = proc.tree(process.pid)
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        for member in members:
            with suppress(ProcessLookupError):
                os.kill(member, signal.SIGKILL)
        process.wait()


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return int(answer.status) == 200
    except (OSError, urllib.error.URLError):
        return False
