"""The IMAP ENVELOPE of a message (RFC 9051 §7.5.2), as text in an event: who wrote, about what."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, TypeAlias

from shared.errors import DecodeError
from shared.plaintext import decode_words, plain

__all__ = ["Address", "Envelope", "decode_envelope", "plain"]


@dataclass(frozen=True, slots=True)
class Address:
    """One mailbox; all three parts are decoded and `plain`, and any of them may be missing."""

    name: str | None
    mailbox: str | None
    host: str | None

    @property
    def email(self) -> str:
        """`mailbox@host`, or what there is of it."""
        return f"{self.mailbox or ''}@{self.host}" if self.host else self.mailbox or ""

    @property
    def display(self) -> str:
        """What to call the person: the name, else the address; may be ""."""
        return (self.name or "").strip() or self.email


@dataclass(frozen=True, slots=True)
class Envelope:
    """An ENVELOPE for display: text is decoded (RFC 2047) and `plain`, NIL is None.

    Groups are flattened to their members; an empty group leaves nothing.
    """

    date: str | None
    subject: str | None
    from_: tuple[Address, ...]
    sender: tuple[Address, ...]
    reply_to: tuple[Address, ...]
    to: tuple[Address, ...]
    cc: tuple[Address, ...]
    bcc: tuple[Address, ...]
    in_reply_to: str | None
    message_id: str | None


def decode_envelope(text: str) -> Envelope:
    """The envelope written in `text`; raises DecodeError("envelope") if it is none."""
    value = _parse(text.encode("utf-8", "replace"))
    if not isinstance(value, list) or len(value) != 10:
        raise DecodeError("envelope")
    from_, sender, reply_to, to, cc, bcc = map(_addresses, value[2:8])
    return Envelope(
        _shown(value[0]),
        _decoded(value[1]),
        from_,
        sender,
        reply_to,
        to,
        cc,
        bcc,
        _shown(value[8]),
        _shown(value[9]),
    )


_Value: TypeAlias = "bytes | list[_Value] | None"

# One alternative per token. Quoted text is matched in runs, so that it cannot backtrack.
_token: Final = re.compile(
    rb'[ \t\r\n]*(?:(\()|(\))|(NIL)|"([^"\\]*(?:\\.[^"\\]*)*)"|(?:~?\{([0-9]{1,10})\+?\}\r?\n))',
    re.DOTALL | re.IGNORECASE,
)
_escape: Final = re.compile(rb"\\(.)", re.DOTALL)
_MAX_DEPTH: Final = 3


def _parse(data: bytes) -> _Value:
    """The one value in `data`; lengths of literals count bytes of the UTF-8."""
    root: list[_Value] = []
    stack = [root]
    at = 0
    while len(stack) > 1 or not root:
        match = _token.match(data, at)
        if match is None:
            raise DecodeError("envelope")
        at = match.end()
        if match[1]:
            _open(stack)
        elif match[2]:
            _close(stack)
        elif match[5]:
            end = at + int(match[5])
            stack[-1].append(_exactly(data, at, end))
            at = end
        else:
            stack[-1].append(None if match[3] else _escape.sub(rb"\1", match[4]))
    if data[at:].strip():
        raise DecodeError("envelope")
    return root[0]


def _open(stack: list[list[_Value]]) -> None:
    if len(stack) > _MAX_DEPTH:
        raise DecodeError("envelope")
    inner: list[_Value] = []
    stack[-1].append(inner)
    stack.append(inner)


def _close(stack: list[list[_Value]]) -> None:
    if len(stack) == 1:
        raise DecodeError("envelope")
    stack.pop()


def _exactly(data: bytes, start: int, end: int) -> bytes:
    if end > len(data):
        raise DecodeError("envelope")
    return data[start:end]


def _text(value: _Value) -> str | None:
    if isinstance(value, list):
        raise DecodeError("envelope")
    return None if value is None else value.decode("utf-8", "replace")


def _shown(value: _Value) -> str | None:
    text = _text(value)
    return None if text is None else plain(text)


def _decoded(value: _Value) -> str | None:
    text = _text(value)
    # Controls are removed last: encoded words hide them too.
    return None if text is None else plain(decode_words(text)).strip()


def _addresses(value: _Value) -> tuple[Address, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise DecodeError("envelope")
    return tuple(address for address in map(_address, value) if address is not None)


def _address(value: _Value) -> Address | None:
    """One address; None for the start and the end of a group, which have no host (RFC 9051)."""
    if not isinstance(value, list) or len(value) != 4:
        raise DecodeError("envelope")
    name, _route, mailbox, host = value
    if host is None:
        return None
    return Address(_decoded(name), _shown(mailbox), _shown(host))
