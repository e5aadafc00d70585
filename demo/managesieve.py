"""Puts a Sieve script onto a server (ManageSieve, RFC 5804), as a mail program would."""

from __future__ import annotations

import base64
import socket
from io import BufferedRWPair


class ManageSieveError(Exception):
    """The server said no, in its words."""


def put_active_script(port: int, user: str, password: str, script: str) -> None:
    """Make `script` the active one of `user`."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        stream = connection.makefile("rwb")
        _answer(stream)
        secret = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
        _ask(stream, f'AUTHENTICATE "PLAIN" "{secret}"'.encode())
        text = script.encode()
        _ask(stream, b'PUTSCRIPT "test" {%d+}\r\n%b' % (len(text), text))
        _ask(stream, b'SETACTIVE "test"')
        _ask(stream, b"LOGOUT")


def _ask(stream: BufferedRWPair, request: bytes) -> None:
    stream.write(request + b"\r\n")
    stream.flush()
    _answer(stream)


def _answer(stream: BufferedRWPair) -> None:
    """Read up to the line that ends an answer."""
    while True:
        line = stream.readline()
        if line.startswith(b"OK"):
            return
        if not line or line.startswith((b"NO", b"BYE")):
            raise ManageSieveError(line.decode("utf-8", "replace") + _literal(stream, line))


def _literal(stream: BufferedRWPair, line: bytes) -> str:
    if not line.rstrip().endswith(b"}"):
        return ""
    size = int(line.rsplit(b"{", 1)[1].rstrip(b"+}\r\n"))
    return stream.read(size).decode("utf-8", "replace")
