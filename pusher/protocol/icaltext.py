"""iCalendar values as people read them (RFC 5545 §3.3.11, RFC 6868)."""

from __future__ import annotations

import re
from typing import Final

_backslashed: Final = re.compile(r"\\([nN\\,;])").sub
_circumflexed: Final = re.compile(r"\^([n'^])").sub
_CIRCUMFLEX: Final = {"n": "\n", "'": '"', "^": "^"}


def text_value(raw: str) -> str:
    """A TEXT property value without its escapes; a backslash that escapes nothing stays."""
    if "\\" not in raw:
        return raw
    return _backslashed(lambda match: "\n" if match[1] in "nN" else match[1], raw)


def parameter_value(raw: str) -> str:
    """A parameter value such as CN without its escapes.

    RFC 6868 defines `^n`, `^'` and `^^` here. Backslashes mean nothing in a parameter, but many
    programs write a comma or semicolon as in a TEXT value, so those two are read the same way.
    """
    plain_commas = re.sub(r"\\([,;])", r"\1", raw)
    return _circumflexed(lambda match: _CIRCUMFLEX[match[1]], plain_commas)
