"""Notifications as a mail server would write them: four spellings, two sockets.

Written from Cyrus' side and on purpose not with pusher's own code, so that the smoke test hears it
from somebody else.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: The eight fields of a notification; None is "not given".
Fields = Mapping[str, Any]

_ORDER = ("METHOD", "CLASS", "PRIORITY", "USER", "MAILBOX", "OPTIONS", "MESSAGE", "FILEPATH")
_NAMES = {"METHOD", "CLASS", "PRIORITY"}  # always short words: written bare


def event_fields(event: Mapping[str, Any]) -> Fields:
    """Return the notification that carries a mailbox event."""
    message = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    return {"METHOD": "pusher", "CLASS": "EVENT", "OPTIONS": [], "MESSAGE": message}


def dlist(fields: Fields) -> bytes:
    """Spell it as Cyrus does on a stream: NOTIFY %(KEY value …) CRLF."""
    words = [key.encode() + b" " + _value(key, fields.get(key)) for key in _ORDER]
    return b"NOTIFY %(" + b" ".join(words) + b")\r\n"


def datagram(fields: Fields) -> bytes:
    """Spell it as Cyrus does in a datagram: fields that end in NUL."""
    options = fields.get("OPTIONS") or []
    words = [fields.get(key) or "" for key in _ORDER[:5]]
    words += [str(len(options)), *options, fields["MESSAGE"]]
    if fields.get("FILEPATH"):
        words.append(fields["FILEPATH"])
    return b"".join(word.encode() + b"\0" for word in words)


def json_object(fields: Fields) -> bytes:
    """Spell it as one JSON object, for producers other than Cyrus; a line if LF is added."""
    if fields["CLASS"] == "EVENT":
        return str(fields["MESSAGE"]).encode()
    return json.dumps({key.lower(): fields.get(key) for key in _ORDER}).encode()


def send_stream(path: Path, request: bytes, within: float = 5.0) -> bytes:
    """Hand one request in and return the answer, as Cyrus does: a connection for each."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(within)
        connection.connect(str(path))
        connection.sendall(request)
        return connection.recv(1024)


def send_datagram(path: Path, packet: bytes, within: float = 5.0) -> None:
    """Hand one datagram in; there is no answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(within)
        sender.sendto(packet, str(path))


def _value(key: str, value: object) -> bytes:
    if value is None:
        return b"NIL"
    if isinstance(value, list):
        return b"(" + b" ".join(_literal(item) for item in value) + b")"
    return str(value).encode() if key in _NAMES else _literal(str(value))


def _literal(text: str) -> bytes:
    data = text.encode()
    return b"{%d+}\r\n%b" % (len(data), data)
