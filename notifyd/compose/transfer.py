"""A mail as a server takes it, and what the server's answer means for it.

For SMTP (RFC 5321) and for `sendmail`. Not: connections, processes, or when to try again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from email import policy
from email.message import EmailMessage
from email.policy import EmailPolicy
from functools import lru_cache
from typing import Final

from notifyd.compose.headers import checked_address, needs_smtputf8
from notifyd.compose.mail import Mail
from shared.outcome import Delivered, Outcome, Rejected, Retry, Unavailable
from shared.plaintext import plain

#: All octets ASCII (but for header fields of SMTPUTF8), so that no server needs 8BITMIME.
_PLAIN: Final = policy.SMTP.clone(cte_type="7bit")
_INTERNATIONAL: Final = policy.SMTPUTF8.clone(cte_type="7bit")

_MAX_SAID: Final = 200
#: Never longer than a reply that a server may send (RFC 5321 §4.5.3.1.5, a few lines of it).
_MAX_READ: Final = 4000
_addresses: Final = re.compile(r"[^\s<>()\[\]{}\"',:;=@]+@[^\s<>()\[\]{}\"',:;=@]+").sub

#: Answers about us and not about the mail: no login, not this one, no TLS (RFC 4954 §6, RFC 3207
#: §4). They would be the same for each mail, which must not all be buried for it.
_ABOUT_US: Final = frozenset({530, 534, 535, 538})


@dataclass(frozen=True, slots=True)
class Transfer:
    """The envelope and the octets of one mail. Its repr shows no content."""

    sender: str = field(repr=False)
    recipient: str = field(repr=False)
    content: bytes = field(repr=False)
    #: It can go only to a server that offers SMTPUTF8 (RFC 6531).
    is_international: bool


def transfer(mail: Mail, linesep: str = "\r\n") -> Transfer:
    """`mail` written out, its lines ended by `linesep`.

    Raises DecodeError: "bad-recipient" for an address that is none, in either place.
    """
    if mail.sender:
        checked_address(mail.sender)
    is_international = needs_smtputf8(mail)
    return Transfer(
        sender=mail.sender,
        recipient=checked_address(mail.recipient),
        content=mail.message.as_bytes(policy=_form(is_international, linesep)),
        is_international=is_international,
    )


@lru_cache(maxsize=4)
def _form(is_international: bool, linesep: str) -> EmailPolicy[EmailMessage]:
    return (_INTERNATIONAL if is_international else _PLAIN).clone(linesep=linesep)


def said(text: str) -> str:
    """What a server or program said, fit for a log: one line, short, without mail addresses."""
    shown = _addresses("(address)", " ".join(plain(text[:_MAX_READ]).split()))
    return shown if len(shown) <= _MAX_SAID else f"{shown[: _MAX_SAID - 1]}…"


def refusal(step: str, code: int, text: str) -> Outcome:
    """What the server's `code` at `step` (MAIL, RCPT, DATA), which is not the hoped one, means."""
    reason = f"{code} at {step}: {said(text)}" if text else f"{code} at {step}"
    # MAIL names nobody but us: a system status there (RFC 3463 §3.4) is about all mails.
    is_system = step == "MAIL" and 400 <= code <= 499 and text.lstrip().startswith("4.3.")
    if code == 421 or code in _ABOUT_US or is_system:
        return Unavailable(reason)
    if 500 <= code <= 599:
        return Rejected(reason)
    if 400 <= code <= 499 or step != "DATA":
        return Retry(reason)
    return Retry(f"fate unknown: {reason}")  # no answer that there is to the end of a mail


#: sysexits.h: usage, data, no such user, no such host: the mail itself is at fault.
_ABOUT_THE_MAIL: Final = frozenset({64, 65, 67, 68})
#: System error, file of the system, cannot create, input or output, permission, configuration:
#: the machine is at fault, whatever the mail is.
_ABOUT_THE_MACHINE: Final = frozenset({71, 72, 73, 74, 77, 78})


def exit_outcome(status: int, text: str) -> Outcome:
    """What the exit `status` of `sendmail` means, which wrote `text`; below 0: minus a signal."""
    spoken = said(text)
    if status == 0:
        return Delivered(spoken)
    reason = f"sendmail exited with {status}" if status > 0 else f"sendmail got signal {-status}"
    if spoken:
        reason = f"{reason}: {spoken}"
    if status in _ABOUT_THE_MAIL:
        return Rejected(reason)
    if status in _ABOUT_THE_MACHINE:
        return Unavailable(reason)
    return Retry(reason)
