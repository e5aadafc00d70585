"""Runs `http2_sink.js`: a push service that is not ours and misbehaves as told."""

from __future__ import annotations

import json
import signal
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme

from tests.support.node import node_program

_SCRIPT = Path(__file__).with_name("http2_sink.js")


@dataclass
class Ledger:
    """What the service says it has done."""

    accepted: set[str]
    twice: set[str]
    counts: dict[str, Any]


class Http2Sink:
    """One running service on loopback; `context` trusts it."""

    def __init__(self, process: subprocess.Popen[str], port: int, context: ssl.SSLContext) -> None:
        self.port = port
        self.context = context
        self._process = process

    def ledger(self) -> Ledger:
        """Ask the service what it has accepted."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("?\n")
        process.stdin.flush()
        told = json.loads(process.stdout.readline())
        return Ledger(set(told["accepted"]), set(told["twice"]), told["counts"])

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Have the service stand still, its sockets open."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)


@contextmanager
def http2_sink(folder: Path, **play: object) -> Iterator[Http2Sink]:
    """Run the service; `play` says what it does badly (see the script)."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    authority.configure_trust(context)
    files = {"certificate": str(folder / "cert.pem"), "key": str(folder / "key.pem")}
    command = [node_program(), str(_SCRIPT), json.dumps({**files, **play})]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdout is not None
    try:
        port = json.loads(process.stdout.readline())["port"]
        yield Http2Sink(process, port, context)
    finally:
        process.terminate()
        process.communicate()
