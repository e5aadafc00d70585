"""What every mail of ours has in common: safe header fields, a stable Message-ID, two bodies.

RFC 3834: Auto-Submitted says that nobody wrote it, and the envelope's null sender that nothing
may come back.
"""

from __future__ import annotations

import re
from base64 import encodebytes
from binascii import b2a_qp
from dataclasses import dataclass, field
from datetime import datetime
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage, MIMEPart
from email.policy import Policy
from email.utils import format_datetime
from functools import lru_cache
from hashlib import sha256
from typing import Final

from notifyd.compose.fields import registry
from notifyd.compose.mail import Mail
from notifyd.compose.typography import one_line
from shared.errors import DecodeError

#: RFC 5321 §4.5.3.1: octets of a path without its angle brackets, and of what is before the @.
_MAX_ADDRESS_BYTES: Final = 254
_MAX_LOCAL_BYTES: Final = 64
_MAX_SUBJECT: Final = 200
_MAX_NAME: Final = 80

#: Bodies in ASCII octets, so that a mail goes through servers without 8BITMIME as it is.
_POLICY: Final = policy.SMTP.clone(cte_type="7bit", header_factory=registry())

_atom: Final = r"[\w!#$%&'*+/=?^`{|}~-]+"
_is_address: Final = re.compile(
    rf"{_atom}(?:\.{_atom})*@(?:[^\W_](?:[\w-]*[^\W_])?)(?:\.[^\W_](?:[\w-]*[^\W_])?)*"
).fullmatch
#: Each with its LF; `splitlines` would end them elsewhere too.
_lines: Final = re.compile("[^\n]*\n|[^\n]+").findall


@dataclass(frozen=True, slots=True)
class Letter:
    """What is said, and in which language; safe for no header yet."""

    subject: str = field(repr=False)
    text: str = field(repr=False)
    html: str = field(repr=False)
    language: str
    list_id: str = ""


def checked_address(address: str) -> str:
    """`address` if mail can go there: one dot-atom before one @ (RFC 5321, RFC 6531).

    Raises DecodeError: "bad-recipient". Quoted local parts and address literals are refused.
    """
    local = address.partition("@")[0]
    if (
        not _is_address(address)
        or len(address.encode("utf-8", "replace")) > _MAX_ADDRESS_BYTES
        or len(local.encode("utf-8", "replace")) > _MAX_LOCAL_BYTES
    ):
        raise DecodeError("bad-recipient")
    return address


def needs_smtputf8(mail: Mail) -> bool:
    """Whether it can go only through a server with SMTPUTF8, written with `policy.SMTPUTF8`."""
    return not (mail.recipient.isascii() and mail.sender.isascii() and _from_is_ascii(mail))


def _from_is_ascii(mail: Mail) -> bool:
    return all(address.addr_spec.isascii() for address in mail.message["From"].addresses)


def message_id(key: str, domain: str) -> str:
    """The same for the same job, so that a repeat can be told; `domain` in ASCII."""
    return f"<{_digest(key)[:40]}@{domain}>"


def automatic_mail(
    letter: Letter, recipient: str, key: str, *, sender: str, sender_name: str, now: datetime
) -> Mail:
    """`letter` as a mail that a program sends to `recipient`; the same `key` is the same mail.

    Raises DecodeError: "bad-recipient". The message can be written with `policy.SMTP` or, if
    `needs_smtputf8`, with `policy.SMTPUTF8`.
    """
    message = _Written(_boundary(key), [_Body("plain", letter.text), _Body("html", letter.html)])
    message["From"] = _mailbox(sender, sender_name)
    message["To"] = _mailbox(checked_address(recipient), "")
    message["Subject"] = one_line(letter.subject, _MAX_SUBJECT)
    # What follows is made here and well-formed: parsing it would take as long as all the rest.
    message.set_raw("Date", format_datetime(now))
    message.set_raw("Message-ID", message_id(key, _ascii_domain(sender)))
    message.set_raw("Auto-Submitted", "auto-generated")
    if letter.list_id:
        message.set_raw("List-Id", f"<{one_line(letter.list_id, _MAX_NAME)}>")
    message.set_raw("Content-Language", letter.language)
    message.set_raw("MIME-Version", "1.0")
    message.set_raw("Content-Type", f'multipart/alternative; boundary="{message.boundary}"')
    return Mail(message, sender="", recipient=recipient)


def domain_of(address: str) -> str:
    """What is after the @."""
    return address.rpartition("@")[2]


def _ascii_domain(sender: str) -> str:
    domain = domain_of(sender)
    return domain if domain.isascii() else "mailbox-pusher.invalid"


def _mailbox(address: str, name: str) -> Address:
    local, _, domain = address.rpartition("@")
    return Address(one_line(name, _MAX_NAME), local, domain)


def _boundary(key: str) -> str:
    """A boundary that needs no chance: with "=_" in it, it is in no encoded body."""
    return f"=_{_digest(key)[40:]}"


def _digest(key: str) -> str:
    return sha256(key.encode("utf-8", "replace")).hexdigest()


class _Body(MIMEPart):
    """A body in lines of ASCII."""

    def __init__(self, subtype: str, content: str) -> None:
        super().__init__(policy=_POLICY)
        encoding, self.lines = encoded_body(content)
        self.set_raw("Content-Type", f'text/{subtype}; charset="utf-8"')
        self.set_raw("Content-Transfer-Encoding", encoding)
        self.set_payload(self.lines)


class _Written(EmailMessage):
    """A message that knows its parts, and so is written without reading its own header again."""

    def __init__(self, boundary: str, bodies: list[_Body]) -> None:
        super().__init__(policy=_POLICY)
        self.boundary = boundary
        self._bodies = bodies
        self.set_payload([*bodies])

    def as_bytes(self, unixfrom: bool = False, policy: Policy | None = None) -> bytes:
        """As `EmailMessage.as_bytes`, octet for octet."""
        form = policy or self.policy
        newline = form.linesep
        pieces = [_head(self, form)]
        for body in self._bodies:
            lines = body.lines.replace("\r\n", "\n").replace("\r", "\n").replace("\n", newline)
            pieces += f"--{self.boundary}{newline}".encode(), _head(body, form), lines.encode()
            pieces.append(newline.encode())
        return b"".join([*pieces, f"--{self.boundary}--{newline}".encode()])


def _head(part: MIMEPart, form: Policy) -> bytes:
    """The header fields of `part`, and the empty line after them."""
    fields = (form.fold_binary(name, value) for name, value in part.raw_items())
    return b"".join([*fields, form.linesep.encode()])


def encoded_body(content: str) -> tuple[str, str]:
    """The Content-Transfer-Encoding for `content` and the lines it becomes, all in ASCII.

    Quoted-printable, which a person can nearly read, unless base64 is much shorter.
    """
    raw = content.encode()
    if len(raw) - len(content) > len(raw) // 6:
        return "base64", encodebytes(raw.replace(b"\n", b"\r\n")).decode()
    if "\r" in content:  # and which line ends the encoder chooses depends on all of them
        return "quoted-printable", b2a_qp(raw, istext=True).decode()
    return "quoted-printable", "".join(map(_quoted, _lines(content)))


@lru_cache(maxsize=1024)
def _quoted(line: str) -> str:
    """`line`, most often one of a template, and so seen before."""
    return b2a_qp(line.encode(), istext=True).decode()
