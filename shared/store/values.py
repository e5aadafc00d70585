"""What may be stored at all, and texts in the form they are looked up by. Does no I/O."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final

# PostgreSQL's text holds no NUL, and neither database half a surrogate pair.
_unstorable: Final = re.compile("[\x00\ud800-\udfff]").search

#: PostgreSQL refuses an indexed value beyond about 2 700 bytes; a character has up to four.
LONGEST_KEY: Final = 600


def can_be_key(text: str) -> bool:
    """Tell whether `text` can be a primary key here; what cannot be one is not there either."""
    return len(text) <= LONGEST_KEY and not _unstorable(text)


def stored_key(key: str) -> str:
    """Return `key`, or its hash where it cannot be stored: parts of it are from outside."""
    if can_be_key(key):
        return key
    return f"sha256:{sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()}"


def address_key(address: str) -> str:
    """Return a mail address as it is looked up: case matters before the `@` only (RFC 5321 2.4)."""
    local, at, domain = address.rpartition("@")
    return f"{local}{at}{domain.lower()}"
