"""What the ledger of SMS knows and answers: values only; `ledger.py` makes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class SendState(StrEnum):
    """What is known of a job's SMS."""

    #: Credit is taken, nothing was sent.
    RESERVED = "reserved"
    #: It may have been sent.
    SENDING = "sending"
    #: The provider has it.
    SENT = "sent"
    #: It was not sent, and the credit is given back.
    REFUNDED = "refunded"
    #: It may have been sent, and the provider was asked once in vain.
    UNKNOWN = "unknown"


class Verdict(StrEnum):
    """What `reserve` says to a job."""

    #: Credit was taken just now: send.
    NEW = "new"
    #: An earlier try took the credit and has not sent: send.
    RESERVED = "reserved"
    #: An earlier try may have sent: ask the provider.
    SENDING = "sending"
    UNKNOWN = "unknown"
    #: Done already.
    SENT = "sent"
    #: Nothing is taken and nothing may be sent.
    OUT_OF_CREDIT = "out-of-credit"
    OPTED_OUT = "opted-out"
    NO_ACCOUNT = "no-account"


@dataclass(frozen=True, slots=True)
class Send:
    """One row of the ledger. Its repr shows nobody."""

    #: The job's key, or its hash if that cannot be stored.
    job_key: str = field(repr=False)
    account: str = field(repr=False)
    number: str = field(repr=False)
    #: Taken from the credit, unless refunded.
    units: int
    state: SendState
    #: How many times `mark_sending` let it go out.
    attempt: int
    provider_id: str | None
    reserved_at: float
    sending_at: float | None
    #: When it became sent, refunded or unknown.
    settled_at: float | None


@dataclass(frozen=True, slots=True)
class Reservation:
    """The answer to `reserve`; `send` is the row if the job has one."""

    verdict: Verdict
    send: Send | None

    @property
    def may_send(self) -> bool:
        """Whether the next step is `mark_sending`."""
        return self.verdict in (Verdict.NEW, Verdict.RESERVED)


@dataclass(frozen=True, slots=True)
class Audit:
    """All credit there is and all units taken, by the state of their rows."""

    credit: int
    reserved: int
    sending: int
    sent: int
    unknown: int

    @property
    def total(self) -> int:
        """What accounts were ever given, as long as none is deleted and no row purged."""
        return self.credit + self.reserved + self.sending + self.sent + self.unknown
