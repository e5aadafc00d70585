"""prism (Stoplight) with Twilio's own description of its API: says if our requests are right."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from demo.ports import free_ports, is_free
from demo.waiting import wait_until
from tests.support.node import judges, node_program

DESCRIPTION = Path(__file__).parents[1] / "data" / "twilio_messages.json"


class Prism:
    """A mock of Twilio on a free port; it refuses with 422 what the description does not allow."""

    def __init__(self) -> None:
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        program = judges() / "node_modules" / "@stoplight" / "prism-cli" / "dist" / "index.js"
        where = ("--host", "127.0.0.1", "--port", str(self.port))
        self._command = [node_program(), str(program), "mock", *where, "--errors", str(DESCRIPTION)]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        try:
            wait_until(lambda: not is_free(self.port), "prism to listen", 30)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(10)
