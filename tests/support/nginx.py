"""A real nginx before a pusher, with the snippet of the documentation as it is shipped."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from demo.ports import free_ports, is_free
from demo.waiting import wait_until
from tests.support.pusher_process import short_folder

SNIPPET = Path(__file__).parents[2] / "docs" / "nginx.conf"

_WRAPPER = """\
daemon off;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    access_log {folder}/access.log;
    gzip on;
    gzip_types text/event-stream;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream mailbox_pusher_streams {{ server 127.0.0.1:{streams_port}; }}
    server {{
        listen 127.0.0.1:{port};
        include {snippet};
    }}
}}
"""


class Nginx:
    """nginx on a free `port` for the streams of the pusher at `streams_port`."""

    def __init__(self, streams_port: int) -> None:
        self.folder = short_folder("ng-")
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        config = self.folder / "nginx.conf"
        config.write_text(
            _WRAPPER.format(
                folder=self.folder, streams_port=streams_port, port=self.port, snippet=SNIPPET
            )
        )
        self._command = ["nginx", "-p", str(self.folder), "-c", str(config)]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with (self.folder / "error.log").open("wb") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stderr=log)
        try:
            wait_until(lambda: not is_free(self.port) or self._died(), "nginx to listen", 10)
            assert not self._died(), self.log
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def log(self) -> str:
        """Warnings and errors so far."""
        return (self.folder / "error.log").read_text()

    @property
    def access_log(self) -> str:
        """Requests logged so far."""
        return (self.folder / "access.log").read_text()

    def _died(self) -> bool:
        return self._process is not None and self._process.poll() is not None
