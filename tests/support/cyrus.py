"""A real Cyrus for tests: the demo's, in a folder of its own that goes away with it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from types import TracebackType

from demo.cyrus import ALICE, BOB, PASSWORD, Cyrus, CyrusError
from tests.support.pusher_process import short_folder

__all__ = ["ALICE", "BOB", "PASSWORD", "CyrusError", "CyrusServer"]


class CyrusServer(Cyrus):
    """`with CyrusServer(f"dlist:{pusher.stream_socket}") as cyrus:`; see `demo.cyrus.Cyrus`."""

    def __init__(self, notify: str, extra: Mapping[str, str] | None = None) -> None:
        super().__init__(short_folder("cy-"), notify, extra)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            super().__exit__(kind, error, traceback)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
