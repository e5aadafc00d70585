"""`notifyd serve`: the daemon's start."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from notifyd.app import serve as run
from shared.config import load


def serve(*, config: Path | None = None) -> int:
    """Work on the queue until SIGTERM. SIGHUP reloads, SIGUSR1 dumps state to the log.

    Parameters
    ----------
    config
        Configuration file.
    """
    asyncio.run(run(load(config), config))
    return os.EX_OK
