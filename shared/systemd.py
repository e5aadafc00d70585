"""What systemd is told of this process (sd_notify(3)); nothing when it did not start us."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(message: str) -> None:
    """Send a state such as "READY=1" or "STOPPING=1"; never blocks, never fails."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, contextlib.suppress(OSError):
        sender.setblocking(False)
        sender.sendto(message.encode(), address)
