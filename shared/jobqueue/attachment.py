"""Taking over a spooled file into a job, bounded, whatever the path turns out to be."""

from __future__ import annotations

import os
import stat
from typing import NamedTuple


class Attachment(NamedTuple):
    """What is stored beside a job: the bytes, or why there are none."""

    body: bytes | None = None
    truncated: bool = False
    error: str = ""


def cut(body: bytes, max_bytes: int) -> Attachment:
    """Return `body`, or its beginning if it is longer than `max_bytes`."""
    return Attachment(body[:max_bytes], truncated=len(body) > max_bytes)


def take_over(path: str, max_bytes: int) -> Attachment:
    """Read the file at `path`; never raises and never waits (a FIFO or device is refused)."""
    try:
        # O_NONBLOCK: opening a FIFO must not hang the one writer thread.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags)
        try:
            return _read(descriptor, max_bytes)
        finally:
            os.close(descriptor)
    except OSError as error:
        return Attachment(error=error.strerror or type(error).__name__)
    except ValueError:
        return Attachment(error="not a path")  # NUL or lone surrogates in it


def _read(descriptor: int, max_bytes: int) -> Attachment:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return Attachment(error="Not a regular file")
    parts: list[bytes] = []
    wanted = max_bytes + 1
    while wanted > 0 and (part := os.read(descriptor, wanted)):
        parts.append(part)
        wanted -= len(part)
    return cut(b"".join(parts), max_bytes)
