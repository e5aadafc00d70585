"""The log of both programs: one JSON line per event on standard output.

Knows how a line is written and what must never be in one; not what is worth logging. Names of
accounts become short hashes with a key that changes daily, unless the operator wants them in clear.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import sys
import time
from collections.abc import Callable, MutableMapping
from typing import Any

import structlog

#: Fields that name a person: hashed.
PERSONAL = frozenset({"account", "user", "recipient", "owner"})
#: Fields that hold a secret or content: dropped, whoever passes them by mistake.
SECRET = frozenset(
    {
        "token", "authorization", "cookie", "password", "key", "endpoint", "device_token",
        "subject", "message", "payload", "envelope", "text", "body",
    }
)  # fmt: skip

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_DAY_SECONDS = 86_400


class Redactor:
    """A structlog processor that keeps people and secrets out of the log."""

    def __init__(self, personal_data: bool, wall: Callable[[], float] = time.time) -> None:
        self.personal_data = personal_data
        self._wall = wall
        self._day = -1
        self._key = b""

    def __call__(
        self, _logger: object, _method: str, fields: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        for name in SECRET & fields.keys():
            fields[name] = "[not logged]"
        if not self.personal_data:
            for name in PERSONAL & fields.keys():
                if fields[name] is not None:
                    fields[name] = self.pseudonym(str(fields[name]))
        return fields

    def pseudonym(self, text: str) -> str:
        """Return the same short hash for the same text all day, and another one tomorrow."""
        day = int(self._wall() // _DAY_SECONDS)
        if day != self._day:
            self._day, self._key = day, secrets.token_bytes(16)
        name = text.encode(errors="backslashreplace")
        return "#" + hashlib.blake2b(name, key=self._key, digest_size=6).hexdigest()


def configure(level: str, personal_data: bool) -> None:
    """Set the log up for this process; call again to change it."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            Redactor(personal_data),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=False,
    )
    # Libraries that use the standard library's logging are heard from warnings up, in our form.
    logging.basicConfig(level=logging.WARNING, handlers=[_Handler()], force=True)


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger()
        level = min(record.levelno // 10 * 10, logging.CRITICAL)  # structlog knows no others
        try:
            log.log(level, record.getMessage(), logger=record.name, exc_info=record.exc_info)
        except Exception:  # a mistake in how a library logs must not reach what it was doing
            self.handleError(record)


class Limited:
    """Lets one line per kind and minute through, and tells how many were held back.

    `clock` is monotonic seconds. The kinds come from a closed set of the caller's.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, seconds: float = 60.0) -> None:
        self._clock = clock
        self._seconds = seconds
        self._last: dict[str, tuple[float, int]] = {}

    def allows(self, kind: str) -> int | None:
        """Return how many of `kind` were held back since its last line; None to hold this too."""
        now = self._clock()
        last = self._last.get(kind)
        if last is not None and now - last[0] < self._seconds:
            self._last[kind] = (last[0], last[1] + 1)
            return None
        self._last[kind] = (now, 0)
        return last[1] if last is not None else 0
