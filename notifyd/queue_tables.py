"""Jobs as an operator reads them: aligned plain text, or JSON. Does no I/O and knows no clock.

Everything shown came from outside: control characters, bidi marks included, are escaped.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import pairwise

from shared.jobqueue import SHAPE_BOUNDS_SECONDS, Job

LIST_HEADER = (
    f"{'ID':>8}  {'STATE':<7}  {'KIND':<16}  {'TRIES':>5}  {'AGE':>6}  {'NEXT':>6}  ACCOUNT  REASON"
)
_SHAPE_NAMES = ("5s", "1m", "5m", "30m", "2h", "1d", "1d+")
_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def escaped(text: str) -> str:
    r"""Return `text` with all that is not printable as \x1b, \u202e …, so it cannot act."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def as_json(value: object) -> str:
    """Return one line of ASCII, safe to show on a terminal."""
    # JSON leaves DEL alone; inside this output it can only be within a string.
    return json.dumps(value, ensure_ascii=True).replace("\x7f", "\\u007f")


def duration(seconds: float) -> str:
    """Return two units at most: `0s`, `59s`, `2h05m`, `3d`; a clock set back gives `0s`."""
    left = max(0, int(seconds))
    for (unit, size), (small, small_size) in pairwise(_UNITS):
        if left >= size:
            rest = left % size // small_size
            return f"{left // size}{unit}" + (f"{rest:02}{small}" if rest else "")
    return f"{left}s"


def moment(at: float | None) -> str:
    """Return an ISO 8601 time in UTC, or `-`."""
    if at is None:
        return "-"
    try:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return str(at)


def list_row(job: Job, now: float) -> str:
    """Return the line of one job below LIST_HEADER."""
    return (
        f"{job.id:>8}  {job.state:<7}  {escaped(job.kind):<16}  {job.attempts:>5}"
        f"  {duration(now - job.created_at):>6}  {_next(job, now):>6}"
        f"  {escaped(job.account)}  {escaped(job.reason)}"
    ).rstrip()


def _next(job: Job, now: float) -> str:
    """Return in how long something happens to the job by itself."""
    if job.state in ("held", "buried"):
        return "-"
    at = job.due_at if job.lease_until is None else job.lease_until
    return "now" if at <= now else duration(min(at - now, 1e9))


def summary(job: Job) -> dict[str, object]:
    """Return the JSON object of one job in a list: no key and no content."""
    return {
        "id": job.id,
        "kind": job.kind,
        "state": job.state,
        "account": job.account,
        "attempts": job.attempts,
        "created_at": job.created_at,
        "age_from": job.age_from,
        "due_at": job.due_at,
        "ended_at": job.ended_at,
        "worker": job.worker,
        "lease_until": job.lease_until,
        "reason": job.reason,
        "attachment_bytes": job.attachment_bytes,
        "attachment_truncated": job.attachment_truncated,
        "attachment_error": job.attachment_error,
    }


def details(job: Job) -> dict[str, object]:
    """Return the JSON object of one job with key and payload; the attachment stays out."""
    try:
        content: dict[str, object] = {"payload": json.loads(job.payload)}
    except (ValueError, RecursionError):
        content = {"payload": None, "payload_text": _text(job.payload)}
    return {**summary(job), "key": job.key, **content}


def whole(job: Job) -> dict[str, object]:
    """Return all there is of a job, its attachment in base64, to be kept or read by a program."""
    body = None if job.attachment is None else base64.b64encode(job.attachment).decode()
    return {**details(job), "attachment": body}


def show_lines(job: Job, now: float) -> Iterator[str]:
    """Yield what an operator sees of one job: its fields, then its payload, indented."""
    rows = {
        "id": str(job.id),
        "kind": job.kind,
        "state": job.state,
        "account": job.account,
        "key": job.key,
        "attempts": str(job.attempts),
        "created": f"{moment(job.created_at)} ({duration(now - job.created_at)} ago)",
        "due": moment(job.due_at),
        "reason": job.reason or "-",
        "worker": job.worker or "-",
        "lease until": moment(job.lease_until),
        "buried": moment(job.ended_at),
        "attachment": _attachment(job),
    }
    for name, value in rows.items():
        yield f"{name:<12} {escaped(value)}"
    yield "payload"
    for line in _pretty(job.payload).splitlines():
        yield f"  {escaped(line)}"


def _attachment(job: Job) -> str:
    if job.attachment_error:
        return f"missing: {job.attachment_error}"
    if job.attachment_bytes is None:
        return "-"
    return f"{job.attachment_bytes} bytes" + (" (cut)" if job.attachment_truncated else "")


def _pretty(payload: bytes) -> str:
    try:
        return json.dumps(json.loads(payload), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return _text(payload)


def _text(payload: bytes) -> str:
    return payload.decode("utf-8", "backslashreplace")


def shape_lines(shape: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """Yield the age table, totals first, like qshape."""
    columns = list(zip(*shape.values(), strict=True)) or [()] * len(_SHAPE_NAMES)
    rows = {"TOTAL": tuple(sum(column) for column in columns), **shape}
    width = max(len(escaped(kind)) for kind in rows)
    yield _shape_row("", ("T", *_SHAPE_NAMES), width)
    for kind, numbers in rows.items():
        yield _shape_row(escaped(kind), (sum(numbers), *numbers), width)


def _shape_row(kind: str, cells: Iterable[object], width: int) -> str:
    return f"{kind:>{width}}" + "".join(f" {cell!s:>7}" for cell in cells)


def shape_object(shape: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
    """Return the age table for machines; the last column is open."""
    return {"upper_bounds_seconds": [*SHAPE_BOUNDS_SECONDS, None], "kinds": dict(shape)}
