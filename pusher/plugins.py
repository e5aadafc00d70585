"""Outputs of other people: an easy place to do something new with mailbox events.

A plug-in is an async function under the entry point group `mailbox_pusher.outputs`, named in
`[plugins] enabled`. It gets every happening, may await as it likes, and can harm nobody: it runs in
its own task behind a bounded channel, loses what it has no time for, and is started again when it
fails.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

import structlog
import trio

from pusher.tap import Happening, Tap
from shared.errors import ConfigError

log = structlog.get_logger()

GROUP: Final = "mailbox_pusher.outputs"
#: Happenings kept for a plug-in that is busy.
KEPT: Final = 1000
_RESTART_SECONDS: Final = (1.0, 60.0)

#: What a plug-in is: it iterates until it is cancelled.
Output = Callable[[AsyncIterator[Happening]], Awaitable[None]]


def load(names: Sequence[str]) -> dict[str, Output]:
    """Return the named plug-ins; ConfigError lists what is missing or broken."""
    installed = {entry.name: entry for entry in importlib.metadata.entry_points(group=GROUP)}
    outputs: dict[str, Output] = {}
    problems = []
    for name in names:
        if name not in installed:
            known = ", ".join(sorted(installed)) or "none"
            problems.append(f"plugins.enabled: {name!r} is not installed (installed: {known})")
            continue
        try:
            outputs[name] = installed[name].load()
        except Exception as error:  # somebody else's code: anything can happen on import
            problems.append(f"plugins.enabled: {name!r} cannot be loaded: {error}")
    if problems:
        raise ConfigError(problems)
    return outputs


async def run(name: str, output: Output, tap: Tap) -> None:
    """Run one plug-in until cancelled, again and again if it ends or fails."""
    least, most = _RESTART_SECONDS
    pause = least
    while True:
        subscription = tap.channel(KEPT)
        started = trio.current_time()
        try:
            await output(subscription.happenings)
            log.warning("plugin_ended", plugin=name, missed=subscription.missed)
        except Exception:  # a fence: its failure is not ours
            log.exception("plugin_failed", plugin=name, missed=subscription.missed)
        finally:
            subscription.close()
        if trio.current_time() - started > most:
            pause = least
        await trio.sleep(pause)
        pause = min(pause * 2, most)
