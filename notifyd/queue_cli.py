"""`notifyd queue …`: what an operator may see of the local queue, and do to it.

Works on the file itself, whether the programs run or not. Not: how it looks (`queue_tables.py`),
nor what a job means.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, Parameter

from notifyd import queue_tables as tables
from shared.errors import QueueError
from shared.jobqueue import JobQueue, QueueView, State, failures, ring

Flag = Parameter(negative="")

#: What the shell gets when the queue says no, by QueueError.reason; sysexits.h.
EXIT_CODES: Final = {
    failures.MISSING: os.EX_NOINPUT,
    failures.SCHEMA: os.EX_DATAERR,
    failures.CORRUPT: os.EX_DATAERR,
    failures.NO_ACCESS: os.EX_NOPERM,
    failures.IO_ERROR: os.EX_IOERR,
}

queue_app = App(
    name="queue",
    help="Look into the local queue and act on its jobs, whether the programs run or not.",
)


@Parameter(name="*")
@dataclass(frozen=True)
class Where:
    """The options of every verb."""

    queue: Path | None = None
    """File of the queue; otherwise the configured one."""

    config: Path | None = None
    """Configuration file."""

    json: Annotated[bool, Flag] = False
    """Write JSON, one object a line."""

    def open(self) -> JobQueue:
        """Open for acting; never makes a queue where there is none."""
        path, limits = self._settings()
        QueueView.open_read_only(path).close()
        return JobQueue.open(path, **limits)

    def look(self) -> QueueView:
        """Open for looking."""
        return QueueView.open_read_only(self._settings()[0])

    def _settings(self) -> tuple[Path, dict[str, int]]:
        if self.queue is not None:
            return self.queue, {}
        from shared.config import load  # pydantic: half of the start-up time, not always needed

        queue = load(self.config).queue
        limits = {"min_free_bytes": queue.min_free_bytes, "max_bytes": queue.max_bytes}
        return queue.path, limits


@Parameter(name="*")
@dataclass(frozen=True)
class Which:
    """Which jobs a verb acts on, beside the ids named."""

    all: Annotated[bool, Flag] = False
    """All jobs the verb makes sense for."""

    kind: str | None = None
    """Only jobs of this kind."""

    account: str | None = None
    """Only jobs of this account."""


_HERE = Where()
_NAMED = Which()


@queue_app.command(name="list")
def list_jobs(
    *,
    state: State | None = None,
    kind: str | None = None,
    account: str | None = None,
    limit: int | None = None,
    where: Where = _HERE,
) -> int:
    """List jobs in order of arrival, without their content."""
    now = time.time()
    try:
        view = where.look()
    except QueueError as error:
        return _nothing_yet(error, [] if where.json else [tables.LIST_HEADER])
    with closing(view):
        jobs = view.jobs(state, kind=kind, account=account, limit=limit)
        if where.json:
            _write(tables.as_json(tables.summary(job)) for job in jobs)
        else:
            _write([tables.LIST_HEADER])
            _write(tables.list_row(job, now) for job in jobs)
    return os.EX_OK


@queue_app.command
def show(job_id: int, /, *, where: Where = _HERE) -> int:
    """Show one job with its key and payload. These may be private."""
    with closing(where.look()) as view:
        job = view.get(job_id)
    if job is None:
        return _unknown([job_id])
    if where.json:
        _write([tables.as_json(tables.details(job))])
    else:
        _write(tables.show_lines(job, time.time()))
    return os.EX_OK


@queue_app.command
def export(
    *,
    state: State | None = None,
    kind: str | None = None,
    account: str | None = None,
    where: Where = _HERE,
) -> int:
    """Write jobs with all their content, one JSON object a line. These are private."""
    try:
        view = where.look()
    except QueueError as error:
        return _nothing_yet(error, [])
    with closing(view):
        listed = view.jobs(state, kind=kind, account=account)
        found = (view.get(job.id) for job in listed)  # one at a time: they may be large
        _write(tables.as_json(tables.whole(job)) for job in found if job is not None)
    return os.EX_OK


@queue_app.command
def shape(*, state: State | None = None, where: Where = _HERE) -> int:
    """Show how many jobs of each kind have which age; buried ones only with --state buried."""
    try:
        view = where.look()
    except QueueError as error:
        return _nothing_yet(error, _shape({}, where))
    with closing(view):
        _write(_shape(view.shape(time.time(), state=state), where))
    return os.EX_OK


@queue_app.command
def hold(*ids: int, which: Which = _NAMED, where: Where = _HERE) -> int:
    """Keep jobs from being worked on until they are released."""

    def act(queue: JobQueue, chosen: Sequence[int] | None) -> list[int]:
        return queue.hold(chosen, kind=which.kind, account=which.account)

    return _act(act, ids, which, where)


@queue_app.command(alias="unhold")
def release(*ids: int, which: Which = _NAMED, where: Where = _HERE) -> int:
    """Let held jobs be worked on again."""

    def act(queue: JobQueue, chosen: Sequence[int] | None) -> list[int]:
        return queue.unhold(chosen, kind=which.kind, account=which.account)

    return _act(act, ids, which, where)


@queue_app.command
def retry(*ids: int, which: Which = _NAMED, where: Where = _HERE) -> int:
    """Start buried jobs afresh, now."""

    def act(queue: JobQueue, chosen: Sequence[int] | None) -> list[int]:
        return queue.retry(chosen, time.time(), kind=which.kind, account=which.account)

    return _act(act, ids, which, where)


@queue_app.command
def flush(*ids: int, which: Which = _NAMED, where: Where = _HERE) -> int:
    """Try jobs that wait for their next attempt at once."""

    def act(queue: JobQueue, chosen: Sequence[int] | None) -> list[int]:
        return queue.flush(chosen, time.time(), kind=which.kind, account=which.account)

    return _act(act, ids, which, where)


@queue_app.command
def delete(
    *ids: int, state: State | None = None, which: Which = _NAMED, where: Where = _HERE
) -> int:
    """Delete jobs undone. The same events arriving again do not bring them back."""

    def act(queue: JobQueue, chosen: Sequence[int] | None) -> list[int]:
        return queue.delete(
            chosen, time.time(), state=state, kind=which.kind, account=which.account
        )

    return _act(act, ids, which, where)


def _act(
    act: Callable[[JobQueue, Sequence[int] | None], list[int]],
    ids: Sequence[int],
    which: Which,
    where: Where,
) -> int:
    """Do `act` to the ids named or to all, say what changed, and wake the worker."""
    if bool(ids) == which.all:
        return _complain("name the jobs by id, or say --all", os.EX_USAGE)
    with closing(where.open()) as queue:
        unknown = [job_id for job_id in ids if queue.get(job_id) is None]
        changed = sorted(act(queue, None if which.all else ids))
        ring(queue.path)
    if where.json:
        _write([tables.as_json({"changed": changed, "unknown": unknown})])
    else:
        _write([f"{len(changed)} changed" + "".join(f" {job_id}" for job_id in changed)])
    return _unknown(unknown) if unknown else os.EX_OK


def _shape(shape: dict[str, tuple[int, ...]], where: Where) -> Iterable[str]:
    if where.json:
        return [tables.as_json(tables.shape_object(shape))]
    return tables.shape_lines(shape)


def _nothing_yet(error: QueueError, empty: Iterable[str]) -> int:
    """Show an empty table for a queue nobody has made yet; any other trouble goes on upwards."""
    if error.reason != failures.MISSING:
        raise error
    _write(empty)
    return _complain(f"no queue yet: {error}", os.EX_OK)


def _unknown(ids: Sequence[int]) -> int:
    return _complain(f"no such job: {', '.join(map(str, ids))}", os.EX_NOINPUT)


def _write(lines: Iterable[str]) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)


def _complain(text: str, exit_code: int) -> int:
    sys.stderr.write(f"notifyd: {tables.escaped(text)}\n")
    return exit_code
