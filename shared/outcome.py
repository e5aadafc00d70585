"""What became of one thing sent to somebody else's service: an answer is a value.

For SMTP servers, SMS providers and push services alike. Not: which service said it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Delivered:
    """The service has taken it over; `detail` is its receipt (a queue id, a SID)."""

    detail: str = ""


@dataclass(frozen=True, slots=True)
class Retry:
    """Not now: try again, not before `after` seconds if the service said when."""

    reason: str
    after: float | None = None


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The service itself cannot be reached or takes nothing from anybody; it is nobody's fault."""

    reason: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """Never: this message, as it is, will not be taken."""

    reason: str


@dataclass(frozen=True, slots=True)
class Gone:
    """Never again for this receiver: it has left or opted out."""

    reason: str


Outcome = Delivered | Retry | Unavailable | Rejected | Gone
