"""What a person may write into an account: each field's text, checked and in its normal form.

For the command line, imports and the admin page. Does no I/O; the store itself checks nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, Literal
from zoneinfo import available_timezones

from babel import Locale, UnknownLocaleError

from shared.store.values import LONGEST_KEY

#: RFC 5321 4.5.3.1: 64 before the `@`, 255 after it.
_LONGEST_ADDRESS: Final = 320
#: Far below what the database's integer holds, so that refunds cannot overflow it.
MOST_CREDIT: Final = 1_000_000_000

_is_address: Final = re.compile(r"[^\s@<>,;\"]+@[^\s@<>,;\"]+").fullmatch
_punctuation: Final = re.compile(r"[ ().\u00a0\u2010\u2011/-]").sub
_is_e164: Final = re.compile(r"\+[1-9][0-9]{6,14}").fullmatch
_is_number: Final = re.compile(r"[0-9]{1,10}").fullmatch


def account(text: str) -> str:
    """Return the name of an account. This and all below raise ValueError saying what is wrong."""
    if not text or len(text) > LONGEST_KEY:
        raise ValueError(f"expected 1 to {LONGEST_KEY} characters")
    if not text.isprintable() or text != text.strip():
        raise ValueError("control characters and space around it are not allowed")
    return text


def address(text: str) -> str:
    """Return a bare mail address, or "" for the account's name."""
    if text and not (_is_address(text) and text.isprintable() and len(text) <= _LONGEST_ADDRESS):
        raise ValueError('expected a bare mail address, such as "alice@example.org"')
    return text


def locale(text: str) -> str:
    """Return a language tag as BCP 47 writes it, "pt-BR"; or ""."""
    if not text:
        return ""
    try:
        return str(Locale.parse(text.replace("-", "_"))).replace("_", "-")
    except (ValueError, UnknownLocaleError):
        raise ValueError('expected a language such as "de" or "pt-BR"') from None


def timezone(text: str) -> str:
    """Return a name of the tz database, or ""."""
    if text and text not in available_timezones():
        raise ValueError('expected a name of the tz database, such as "Europe/Berlin"')
    return text


def clock(text: str) -> Literal["12", "24"] | None:
    """Return "12" or "24"; None for "" is as the language has it."""
    if text not in ("", "12", "24"):
        raise ValueError('expected "12" or "24"')
    return "12" if text == "12" else "24" if text == "24" else None


def sms_number(text: str) -> str:
    """Return a number as E.164 writes it, without the punctuation people use; or ""."""
    number = _punctuation("", text)
    if number and not _is_e164(number):
        raise ValueError('expected an international number, such as "+491701234567"')
    return number


def sms_credit(text: str) -> int:
    """Return a count of SMS segments."""
    if not _is_number(text) or int(text) > MOST_CREDIT:
        raise ValueError(f"expected a whole number from 0 to {MOST_CREDIT}")
    return int(text)


#: By the names in `shared.accounts.Account`.
CHECKS: Final[dict[str, Callable[[str], Any]]] = {
    "address": address,
    "locale": locale,
    "timezone": timezone,
    "clock": clock,
    "sms_number": sms_number,
    "sms_credit": sms_credit,
}
