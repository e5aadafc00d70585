"""A mail server that keeps what it is given, so that the page can show what notifyd sends.

On loopback, for the demo and its smoke test; no mail leaves the machine.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from typing import Final, Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from demo.closing import Closing
from demo.ports import free_ports

_MOST: Final = 20


@dataclass(frozen=True)
class Received:
    """One mail as it arrived; `number` counts from 1."""

    number: int
    recipient: str
    message: EmailMessage

    def body(self, kind: str) -> str:
        """Return its text of one kind, "plain" or "html"; "" if it has none."""
        part = self.message.get_body((kind,))
        return str(part.get_content()) if part is not None else ""


class Postbox(Closing):
    """Takes any mail from a thread of its own; `with` opens it. Keeps the newest twenty."""

    def __init__(self) -> None:
        (self.port,) = free_ports(1)
        self._lock = threading.Lock()
        self._mails: deque[Received] = deque(maxlen=_MOST)
        self._count = 0
        self._controller = Controller(
            self, hostname="127.0.0.1", port=self.port, enable_SMTPUTF8=True
        )

    def __enter__(self) -> Self:
        self._controller.start()
        return self

    def close(self) -> None:
        """Take no more mail."""
        self._controller.stop()

    def mails(self) -> list[Received]:
        """Return what has arrived, the newest first."""
        with self._lock:
            return list(reversed(self._mails))

    async def handle_DATA(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        """Called by aiosmtpd for each mail."""
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        message = BytesParser(EmailMessage, policy=policy.default).parsebytes(content)
        with self._lock:
            for recipient in envelope.rcpt_tos:
                self._count += 1
                self._mails.append(Received(self._count, recipient, message))
        return "250 2.0.0 kept"
