"""Accounts as an operator reads them: aligned plain text, or JSON. Does no I/O and knows no clock.

What is shown may come from anywhere: control characters, bidi marks included, are escaped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from notifyd.queue_tables import as_json, escaped
from shared.accounts import Account

LIST_HEADER = (
    f"{'LOCALE':<7} {'ZONE':<20} {'CLOCK':>5} {'CREDIT':>7} {'NUMBER':<16} ACCOUNT  ADDRESS"
)


def list_row(account: Account) -> str:
    """Return the line of one account below LIST_HEADER."""
    cells = {name: escaped(str(value or "-")) for name, value in asdict(account).items()}
    return (
        f"{cells['locale']:<7} {cells['timezone']:<20} {cells['clock']:>5}"
        f" {account.sms_credit:>7} {cells['sms_number']:<16} {cells['account']}"
        f"  {escaped(account.address)}"
    ).rstrip()


def show_lines(account: Account) -> Iterator[str]:
    """Yield the fields of one account; what is not told is `-`, and the default holds."""
    for name, value in asdict(account).items():
        shown = str(value) if name == "sms_credit" else str(value or "-")
        yield f"{name:<12} {escaped(shown)}"


def account_json(account: Account) -> str:
    """Return one account as a line of JSON that `users import` takes."""
    return as_json(asdict(account))
