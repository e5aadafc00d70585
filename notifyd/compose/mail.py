"""A mail ready to be sent: the message and its envelope."""

from __future__ import annotations

from dataclasses import dataclass, field
from email.message import EmailMessage


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail to one recipient. Its repr shows no content."""

    message: EmailMessage = field(repr=False)
    #: MAIL FROM; "" is the null sender, to which nothing bounces.
    sender: str = field(repr=False)
    #: RCPT TO.
    recipient: str = field(repr=False)
