"""`notifyd`: calendar alarms from the queue into a real Postfix, against a bare SMTP loop."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench import proc
from bench.report import Figure, ratio_at_least, value_at_most
from bench.rounds import Options, Sample, taking_turns
from demo.waiting import wait_until
from notifyd.compose.calendar_alarm import compose_calendar_alarm
from notifyd.compose.transfer import transfer
from notifyd.phrasebook import read_voice
from shared.accounts import Account
from shared.events import Attendee, CalendarAlarm
from shared.jobqueue import JobQueue, NewJob, QueueView, ring
from shared.slow_sections import Mail
from shared.store import Store
from tests.support.notifyd_process import NotifydProcess
from tests.support.postfix import PostfixServer
from tests.support.slow_path import with_store

_CONNECTIONS = 4
_LOCALES = ("en", "de", "fr", "es", "ja", "ar", "pl", "pt-BR")
#: So many that whoever has an alarm has not just had one.
_ACCOUNTS = 50 * len(_LOCALES)
_WARM_UP = 10 * len(_LOCALES)
_PATIENCE_SECONDS = 120.0


def postfix(options: Options) -> Iterator[Figure]:
    """Prepared jobs, one mail each; from the doorbell until the last is done in the queue."""
    count = options.count(1_500)
    with PostfixServer() as server, tempfile.TemporaryDirectory(prefix="mpb-") as mails:
        write_mails(Path(mails))

        def bare() -> Sample:
            return _delivered(server, count, lambda: _bare(server.port, mails, count))

        def ours() -> Sample:
            return _delivered(server, count + _WARM_UP, lambda: _ours(server.port, count))

        results = taking_turns(
            "notifyd.postfix", options.rounds, {"aiosmtplib": bare, "ours": ours}
        )
    yield results.figure("per_second", "mails/s", "aiosmtplib", ratio_at_least(0.9))
    yield results.figure("cpu_per_mail", "ms", "aiosmtplib")
    yield results.worst("lost", "mails", value_at_most(0))


def account(number: int) -> Account:
    """One of the accounts that have alarms, each with a language of its own."""
    number %= _ACCOUNTS
    locale = _LOCALES[number % len(_LOCALES)]
    return Account(f"u{number}@example.org", locale=locale, timezone="Asia/Tokyo")


def alarm(number: int, now: datetime) -> CalendarAlarm:
    """An alarm with all that a mail can show."""
    start = now + timedelta(minutes=15)
    name = account(number).account
    return CalendarAlarm(
        account=name,
        calendar_name="Work",
        calendar_color="#FF2968FF",
        uid=f"event-{number}",
        action="email",
        alarm_time=f"{now:%Y%m%dT%H%M%SZ}",
        recipients=(name,),
        summary="Planning of the next quarter",
        description="Bring the figures of the last one.\nCoffee is there.",
        location="Room 4",
        timezone="UTC",
        start=f"{start:%Y%m%dT%H%M%SZ}",
        end=f"{start + timedelta(hours=1):%Y%m%dT%H%M%SZ}",
        attendees=(
            Attendee("mailto:bob@example.org", "Bob", "ACCEPTED"),
            Attendee("mailto:eve@example.org", "Eve", "NEEDS-ACTION"),
        ),
        organizer="mailto:ann@example.org",
    )


def write_mails(folder: Path) -> None:
    """Write what notifyd sends, once for each language: the mails of the bare loop."""
    voice, now = read_voice(Mail()), datetime.now(UTC)
    for number in range(len(_LOCALES)):
        reader = account(number)
        mail = compose_calendar_alarm(
            alarm(number, now), reader.account, reader, f"key-{number}", voice=voice, now=now
        )
        (folder / f"{number}.eml").write_bytes(transfer(mail).content)


def _delivered(server: PostfixServer, count: int, send: Callable[[], Sample]) -> Sample:
    """Have `send` measured, and what it sent counted when it lies in the mailbox."""
    mailbox = server.folder / "mail" / "all" / "new"
    before = len(list(mailbox.glob("*")))
    sample = send()
    wait_until(server.is_idle, "Postfix to deliver all", _PATIENCE_SECONDS)
    return {**sample, "lost": before + count - len(list(mailbox.glob("*")))}


def _bare(port: int, mails: str, count: int) -> Sample:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bench.bare_smtp"),
            *(str(port), str(_CONNECTIONS), mails, str(count)),
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=_PATIENCE_SECONDS,
    )
    answer: Sample = json.loads(done.stdout)
    return answer


def _ours(port: int, count: int) -> Sample:
    with NotifydProcess({"smtp": {"port": port, "connections": _CONNECTIONS}}) as notifyd:
        state = notifyd.folder / "run"
        with_store(f"sqlite:///{state}/state.db", _put_accounts)
        _work_off(state / "queue.db", range(_WARM_UP))
        before, began = proc.cpu(notifyd.pid), time.perf_counter()
        _work_off(state / "queue.db", range(_WARM_UP, _WARM_UP + count))
        seconds, used = time.perf_counter() - began, proc.cpu(notifyd.pid) - before
    return {"per_second": count / seconds, "cpu_per_mail": used.total * 1e3 / count}


async def _put_accounts(store: Store) -> None:
    for number in range(_ACCOUNTS):
        await store.accounts.put(account(number))


def _work_off(path: Path, numbers: range) -> None:
    """Put in a job for each number at once, and wait until notifyd has done with them."""
    now = datetime.now(UTC)
    jobs = [
        NewJob("calendar_alarm", f"key-{number}", account(number).account, event.to_json())
        for number in numbers
        for event in [alarm(number, now)]
    ]
    with closing(JobQueue.open(path)) as queue:
        queue.enqueue(jobs, now.timestamp())
    ring(path)
    with closing(QueueView.open_read_only(path)) as view:
        wait_until(lambda: not view.counts(), "the queue to be worked off", _PATIENCE_SECONDS)


SCENARIOS: dict[str, Callable[[Options], Iterator[Figure]]] = {"postfix": postfix}
