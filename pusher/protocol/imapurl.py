"""The `uri` of a mailbox event (RFC 5092, as Cyrus writes it): whose mailbox, which folder.

Two shapes. Cyrus names the mailbox as its admin sees it, owner in the path:
`imap://server/user/alice/Work%40example.org;UIDVALIDITY=1/;UID=2` (or with `.` between levels).
Others follow the RFC, owner in the authority: `imap://alice@server/Work;UIDVALIDITY=1/;UID=2`.
"""

from __future__ import annotations

import re
from binascii import Error as BinasciiError
from binascii import a2b_base64, b2a_base64
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import unquote


class MailboxName(NamedTuple):
    """What a mailbox URI says. `parse` never fails: what it cannot tell is None or empty."""

    #: Host, with its port if one is given.
    server: str
    #: Full user id, domain included; None if the mailbox is nobody's, or the URI odd.
    owner: str | None
    #: "INBOX", or the levels below the owner joined by "/"; of a mailbox without owner the whole
    #: path, domain included. "" if the URI has no path.
    folder: str
    uidvalidity: int | None
    uid: int | None


_LONGEST_CACHED: Final = 2048
_LONGEST_USER_ID: Final = 1024
_UNKNOWN: Final = MailboxName("", None, "", None, None)

_uri: Final = re.compile(
    r"imap://(?:(?P<user>[^@/]*)@)?(?P<server>\[[^\]/]*\](?::[0-9]*)?|[^/;@]*)"
    r"(?:/(?P<path>[^;?]*))?(?:;UIDVALIDITY=(?P<uidvalidity>[0-9]+))?"
    r"(?:/;UID=(?P<uid>[0-9]+)(?:/;.*)?)?/?",  # after the UID: a section or part of the message
    re.IGNORECASE | re.DOTALL,
).fullmatch


def parse(uri: str) -> MailboxName:
    """The mailbox and message `uri` names; never raises, an odd URI has owner None.

    The part that names the mailbox is cached, the UID is not part of it.
    """
    mailbox, separator, uid = uri.partition("/;UID=")
    if len(mailbox) > _LONGEST_CACHED:
        return _parse(uri)
    name = _cached(mailbox)
    if not separator:
        return name
    if not uid.isdecimal() or len(uid) > 10:
        return _parse(uri)
    return MailboxName(name[0], name[1], name[2], name[3], int(uid))


def _parse(uri: str) -> MailboxName:
    match = _uri(uri)
    if match is None:
        return _UNKNOWN
    owner, folder = _owner_and_folder(match["user"], match["path"] or "")
    return MailboxName(
        match["server"], owner, folder, _number(match["uidvalidity"]), _number(match["uid"])
    )


_cached = lru_cache(maxsize=65536)(_parse)


def _number(digits: str | None) -> int | None:
    # 32 bit (RFC 9051 §2.3.1.1); 10 digits also keep int() from its own limit.
    return int(digits) if digits and len(digits) <= 10 else None


def _owner_and_folder(authority: str | None, path: str) -> tuple[str | None, str]:
    if authority:
        user = unquote(authority.partition(";")[0])  # ";AUTH=..." is not the name
        folder = _from_utf7(unquote(path))
        return _user_id(user), "INBOX" if folder.upper() == "INBOX" else folder
    # Decoded first: Cyrus escapes neither separator, and no level can contain one.
    return _from_admin_name(unquote(path))


def _from_admin_name(path: str) -> tuple[str | None, str]:
    if path.startswith("user/"):
        separator = "/"
    elif path.startswith("user."):
        separator = "."
    else:
        return None, path
    mailbox, at, domain = path.rpartition("@")
    if not at or not _domain(domain):
        mailbox, at, domain = path, "", ""
    local, _, folder = mailbox[5:].partition(separator)
    if separator == ".":
        local, folder = _dotted(local), "/".join(map(_dotted, folder.split(".")))
    owner = _user_id(local + at + domain) if local else None
    return owner, folder or "INBOX"


# A folder may be called "a@b/c": only a host name behind the last @ is a virtual domain.
_domain: Final = re.compile(r"[\w-]+(?:\.[\w-]+)*").fullmatch


def _dotted(level: str) -> str:
    """A level of a name under the separator ".", where Cyrus shows a literal dot as "^"."""
    return level.replace("^", ".")


_odd: Final = re.compile(r"[\x00-\x1f\x7f-\x9f/\ufffd\u2028\u2029\ud800-\udfff]").search


def _user_id(name: str) -> str | None:
    """`name` if it can be a user id; None for what a bad or hostile URI may bring."""
    odd = not 0 < len(name) <= _LONGEST_USER_ID or name.startswith("@") or _odd(name)
    return None if odd else name


_shifted: Final = re.compile(r"&([A-Za-z0-9+,]*)-")


def _from_utf7(name: str) -> str:
    """`name` out of modified UTF-7 (RFC 3501 §5.1.3) if it is surely that, else as it is.

    RFC 5092 asks for UTF-8, so a bare "&" or "&-" proves nothing: all of the name must be ASCII,
    and at least one shift must decode to something that needed it.
    """
    if "&" not in name or not name.isascii():
        return name
    try:
        decoded = _shifted.sub(lambda match: _unshift(match[1]), name)
    except (ValueError, BinasciiError):
        return name
    return name if decoded.isascii() else decoded


def _unshift(base64: str) -> str:
    if not base64:
        return "&"
    standard = base64.replace(",", "/")
    raw = a2b_base64(standard + "=" * (-len(standard) % 4))
    if b2a_base64(raw, newline=False).rstrip(b"=") != standard.encode() or not raw:
        raise ValueError("not canonical")
    return raw.decode("utf-16-be")
