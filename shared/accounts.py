"""An account as the central database knows it: where and how its owner is to be told things."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Account:
    """One account. "" is "not told": the configured default holds. Its repr shows nobody."""

    #: As the mail server names it, e.g. "alice@example.org".
    account: str = field(repr=False)
    #: Where mail for it goes; "" is the account's name, if that is an address.
    address: str = field(default="", repr=False)
    #: "de", "pt-BR", ...
    locale: str = ""
    #: A name of the tz database.
    timezone: str = ""
    #: Hours as 3 PM or 15:00; None is as the locale has it.
    clock: Literal["12", "24"] | None = None
    #: E.164, "+491701234567"; "" is none.
    sms_number: str = field(default="", repr=False)
    #: Segments that may still be sent.
    sms_credit: int = 0
