"""The exceptions both programs share: a breakage is an exception, an answer is a value.

Each carries what its handler needs: a reason from a closed set (for counting), never event content.
"""

from __future__ import annotations


class MailboxPusherError(Exception):
    """Root of everything this project raises on purpose."""


class DecodeError(MailboxPusherError):
    """Input that makes no sense; intake counts it by `reason`, logs once and goes on.

    `reason` is a short constant in kebab-case, usable as a metric label.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ProtocolError(MailboxPusherError):
    """A connected client broke its protocol; `status` is the HTTP status that says so."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class ConfigError(MailboxPusherError):
    """The configuration is wrong: every problem found, each with path, reason and hint."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class QueueError(MailboxPusherError):
    """The queue cannot keep its promise (disk full, refused, broken); nothing was stored.

    `reason` is a short constant in kebab-case, usable as a metric label.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class StoreError(MailboxPusherError):
    """The central database gave no usable answer; a write may or may not have happened.

    `reason` is "unavailable" (down, refused, too slow: what needs it waits), "schema" (not
    migrated, or by a newer version) or "broken" (our mistake, or a damaged database).
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
