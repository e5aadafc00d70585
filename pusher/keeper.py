"""Keeps the numbers over a restart: what is read at the start, saved while serving and at the end.

Brings the table and its journal together. A disk that does not take them is named in `problem` and
keeps nothing from being served: readers that come back are told to resync, as after a crash.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import structlog
import trio

from pusher.snapshot import Journal
from pusher.state.modseq import ModseqTable
from shared.log import Limited

log = structlog.get_logger()

_BATCH = 20_000


class Keeper:
    """The one user of the journal. `sockets_outlive_us`: events wait in them between two runs."""

    def __init__(
        self, journal: Journal, table: ModseqTable, limited: Limited, *, sockets_outlive_us: bool
    ) -> None:
        #: Why the numbers cannot be kept; "" if they can.
        self.problem = ""
        self._journal = journal
        self._table = table
        self._limited = limited
        self._sockets_outlive_us = sockets_outlive_us

    def restore(self) -> None:
        """Give the table what an earlier run knew; blocks, so before anything is served."""
        try:
            restored = self._journal.load()
        except OSError as error:
            self.problem = f"snapshot cannot be read: {error.strerror}"
            log.error("snapshot_unreadable", error=str(error))
            return
        gapless = restored.gapless and self._sockets_outlive_us
        self._table.restore(restored.records.items(), gapless=gapless)
        if not gapless and restored.records:
            # Else a good end of this run would make the next one trust records of before the gap.
            try:
                self._journal.rewrite(self._table.records())
            except OSError as error:
                self._cannot_write(error)
        log.info("numbers_restored", accounts=len(self._table), gapless=gapless)

    async def run(self, seconds: Callable[[], float]) -> None:
        """Save what has changed, each time after `seconds`, until cancelled."""
        while True:
            await trio.sleep(seconds())
            await self._save()

    async def finish(self) -> None:
        """Save all that is left and end the journal in good order; cannot be cancelled."""
        with trio.CancelScope(shield=True):
            await self._save()
            while self._table.has_unsaved and not self.problem:
                await self._save()
            if not self.problem:
                with contextlib.suppress(OSError):
                    self._journal.finish(gapless=self._sockets_outlive_us)
            self._journal.close()

    async def _save(self) -> None:
        if self.problem or self._journal.is_long:
            work, records = self._journal.rewrite, self._table.records()
            self._table.take_unsaved(len(records))
        else:
            work, records = self._journal.append, self._table.take_unsaved(_BATCH)
            if not records:
                return
        try:
            await trio.to_thread.run_sync(work, records)
        except OSError as error:
            self._cannot_write(error)
            if self._limited.allows("snapshot") is not None:
                log.error("snapshot_failed", error=str(error))
        else:
            self.problem = ""

    def _cannot_write(self, error: OSError) -> None:
        self.problem = f"snapshot cannot be written: {error.strerror}"
