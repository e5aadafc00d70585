"""What a job is, for those who put it in and those who work on it. Knows no storage."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Literal, NamedTuple

State = Literal["ready", "claimed", "held", "buried"]

#: Every state a stored job can be in; a finished job is not stored.
STATES: tuple[State, ...] = ("ready", "claimed", "held", "buried")


@dataclass(frozen=True, slots=True)
class NewJob:
    """One piece of work to put into the queue. Its repr shows no content."""

    #: Which handler it is for, e.g. "calendar_alarm"; a metric label, so from a closed set.
    kind: str
    #: What makes it the same job when it arrives again; unique within its kind.
    key: str = field(repr=False)
    #: Whose it is; for the operator to filter by.
    account: str = field(repr=False)
    #: Versioned JSON, `{"v": 1, …}`.
    payload: bytes = field(repr=False)
    attachment: bytes | None = field(default=None, repr=False)
    #: Not to be claimed before; None: at once.
    due_at: float | None = None
    #: Read into `attachment` just before the commit; unreadable is noted on the job, no error.
    attachment_path: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Job:
    """One stored job, as a worker or the operator sees it. Its repr shows no content."""

    id: int
    kind: str
    key: str = field(repr=False)
    account: str = field(repr=False)
    payload: bytes = field(repr=False)
    state: State
    #: How many times it was claimed, the present claim included.
    attempts: int
    created_at: float
    #: Where an age limit counts from: `created_at`, or the last `retry` by hand.
    age_from: float
    due_at: float
    #: Why it was deferred, recovered or buried last; "" if never.
    reason: str
    worker: str | None
    lease_until: float | None
    #: When it was buried.
    ended_at: float | None
    #: Size of the stored attachment; None: there is none.
    attachment_bytes: int | None
    #: The file was longer than the limit; only its beginning is stored.
    attachment_truncated: bool
    #: Why the file could not be taken over; "" if it could, or none was named.
    attachment_error: str
    #: The blob itself; always None in listings.
    attachment: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Finish:
    """A claimed job is done: remove it and remember its key."""

    job_id: int


@dataclass(frozen=True, slots=True)
class Defer:
    """Put a claimed job back until `due_at`; a time in the past means behind those due already."""

    job_id: int
    due_at: float
    reason: str


@dataclass(frozen=True, slots=True)
class Bury:
    """Give a claimed job up and keep it for a human."""

    job_id: int
    reason: str


@dataclass(frozen=True, slots=True)
class HandBack:
    """A claimed job could not be begun, for no fault of its own: no attempt, due behind others."""

    job_id: int
    reason: str


Settlement = Finish | Defer | Bury | HandBack


class Recovered(NamedTuple):
    """What `recover` did with expired claims."""

    made_due: int
    buried: int


def digest(kind: str, key: str) -> bytes:
    """Return the 16 bytes by which a job that is gone is recognised when it arrives again.

    Keys name people; the remembered ones need not.
    """
    return blake2b(f"{kind}\0{key}".encode(), digest_size=16).digest()
