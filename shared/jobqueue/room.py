"""Free space under the queue, and the ballast given up when there is none left.

At ENOSPC even DELETE fails in SQLite, because its log cannot grow: nothing could be finished and
every effect would repeat for ever. A file of real blocks, deleted then, makes finishing work again.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

BALLAST_BYTES: Final = 1024 * 1024


def free_bytes(directory: Path) -> int:
    """Return what an unprivileged process may still write into `directory`; OSError if gone."""
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize


class Ballast:
    """`<queue>.ballast`: allocated blocks without meaning. Shared by all processes on the queue."""

    def __init__(self, queue_path: Path) -> None:
        self._path = queue_path.with_name(queue_path.name + ".ballast")

    def drop(self) -> bool:
        """Give the blocks back to the disk; False if there were none."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True

    def ensure(self, min_free_bytes: int) -> bool:
        """Make it again once `min_free_bytes` stay free besides it; True if it is there."""
        try:
            if self._path.exists():
                return True
            if free_bytes(self._path.parent) < min_free_bytes + BALLAST_BYTES:
                return False
            self._allocate()
        except OSError:
            return False  # another process was quicker, or the disk: ask again later
        return True

    def _allocate(self) -> None:
        descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, BALLAST_BYTES)
        except OSError:
            with suppress(OSError):
                self._path.unlink()
            raise
        finally:
            os.close(descriptor)
