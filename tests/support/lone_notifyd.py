"""A notifyd alone between far ends for mails and SMS that fail as a test says."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from demo.waiting import wait_until
from shared.jobqueue import NewJob
from shared.store import Audit
from tests.support.background import Background
from tests.support.notifyd_process import NotifydProcess, notifyd_settings
from tests.support.slow_path import (
    Settings,
    audit,
    counts,
    let_grace_pass,
    marks_of_sms,
    prepare_store,
    put,
    sms_settings,
)
from tests.support.sms_far_end import FarEnd as SmsFarEnd
from tests.support.smtp_far_end import FarEnd as MailFarEnd

#: Short, so that what is given up after a time is so soon.
TIMEOUT_SECONDS = 1.0
#: What is promised once that which was down is back.
RECOVERY_SECONDS = 5.0


@dataclass
class Scene:
    """What a test of faults has; `background` runs the far ends."""

    notifyd: NotifydProcess
    mails: MailFarEnd
    sms: SmsFarEnd
    url: str
    background: Background
    queue: Path

    def put(self, *jobs: NewJob) -> None:
        """Put jobs into the queue."""
        put(self.queue, jobs, time.time())

    @property
    def mail_marks(self) -> list[str]:
        """The marks of all mails that were taken, with repeats."""
        heads = [content.partition(b"\r\n\r\n")[0] for content in list(self.mails.contents)]
        found = [re.search(rb"(?m)^To: ([\w-]+)@", head) for head in heads]
        return [match[1].decode() for match in found if match]

    @property
    def sms_marks(self) -> list[str]:
        """The marks of all SMS that were taken, with repeats."""
        return marks_of_sms(self.sms)

    def not_ready(self) -> list[str]:
        """What /readyz says is wrong."""
        status, body = self.notifyd.get("/readyz")
        reasons: list[str] = json.loads(body)["reasons"]
        assert (status == 503) == bool(reasons)
        return reasons

    def wait_until_said(self, reason: str, within: float = 10.0) -> None:
        """Wait until /readyz names it."""
        self.wait_for(
            lambda: any(reason in each for each in self.not_ready()), f"{reason!r}", within
        )

    def wait_until_ready(self, within: float = RECOVERY_SECONDS) -> None:
        """Wait until /readyz names nothing."""
        self.wait_for(lambda: not self.not_ready(), "nothing to be wrong", within)

    def wait_until_done(self, within: float = RECOVERY_SECONDS) -> None:
        """Wait until no job is left but buried ones."""
        self.wait_for(self._is_done, "all jobs to end", within)
        # The far ends may still be about to note what they have just said yes to.
        self.background.run(lambda: asyncio.sleep(0))

    def wait_for(self, condition: Callable[[], object], what: str, within: float = 10.0) -> None:
        """Wait, and show notifyd's log if that is in vain."""
        try:
            wait_until(condition, what, within)
        except TimeoutError as error:
            raise AssertionError(f"{error}; notifyd says:\n{self.notifyd.log[-5000:]}") from error

    def time_passes(self, seconds: float = 60.0) -> None:
        """Let what waits for a time later come now."""
        let_grace_pass(self.url, self.queue, time.time(), seconds)

    def audit(self) -> Audit:
        """All units of SMS credit there are."""
        return audit(self.url)

    def _is_done(self) -> bool:
        return not [state for _, state in counts(self.queue) if state != "buried"]


@contextmanager
def lone_notifyd(
    url: str, folder: Path, *, credit: int = 1000, more: Settings | None = None
) -> Iterator[Scene]:
    """`with lone_notifyd(url, tmp_path) as scene:`; `more` are settings on top, by section."""
    prepare_store(url, credit)
    with Background() as background:
        mails, sms = background.enter(MailFarEnd()), background.enter(SmsFarEnd())
        settings: Settings = {
            # Long enough for a busy machine: what is given up here waits for look-ups.
            **sms_settings(sms, folder, timeout_seconds=10),
            "notifyd": {
                **notifyd_settings()["notifyd"],
                "lease_seconds": 5,
                "retry_first_seconds": 0.2,
                "retry_most_seconds": 1,
            },
            "smtp": {"port": mails.port, "timeout_seconds": TIMEOUT_SECONDS},
            "store": {"url": url, "timeout_seconds": TIMEOUT_SECONDS},
        }
        for name, values in (more or {}).items():
            settings[name] = {**settings.get(name, {}), **values}
        with NotifydProcess(settings) as notifyd:
            path = Path(str(settings.get("queue", {}).get("path", "run/queue.db")))
            yield Scene(notifyd, mails, sms, url, background, notifyd.folder / path)
