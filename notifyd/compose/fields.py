"""Header fields that keep what they are given: Subject, From with a display name, To.

Python's own would read encoded words in the text we set (so that a summary of
"=?utf-8?q?=0D=0ABcc:_..?=" became a field of its own), lose spaces where it folds, and parse
again what was an address already, which takes as long as all the rest of a mail.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from email.headerregistry import (
    Address,
    BaseHeader,
    HeaderRegistry,
    UniqueAddressHeader,
    UniqueSingleAddressHeader,
    UniqueUnstructuredHeader,
)
from email.policy import Policy
from typing import Any, Final

#: RFC 2047 §2: a line with an encoded word has at most so many characters.
_LINE: Final = 76
_WORD_FRAME: Final = len("=?utf-8?b??=")
#: An address of so many characters is never folded, whoever folds.
_SHORT_ADDRESS: Final = 60


class Subject(UniqueUnstructuredHeader):
    """A subject of one line, without controls, never taken for encoded."""

    @classmethod
    def parse(cls, value: str, kwds: dict[str, Any]) -> None:
        """Take `value` as it is."""
        super().parse("", kwds)
        kwds["decoded"] = value

    def fold(self, *, policy: Policy) -> str:
        """The whole field as it goes over the wire, with line ends of `policy`."""
        return _folded("Subject", list(_words(str(self), len("Subject: "))), policy)


class From(UniqueSingleAddressHeader):
    """One address with a display name."""

    @classmethod
    def parse(cls, value: object, kwds: dict[str, Any]) -> None:
        """Take an `Address` as it is; read a text."""
        if isinstance(value, Address):
            kwds["parse_tree"] = ()  # for Python's way of folding only
        super().parse(value, kwds)  # type: ignore[arg-type]  # typeshed knows texts only

    def fold(self, *, policy: Policy) -> str:
        """As `Subject.fold`. An address beyond ASCII stays as it is: for SMTPUTF8 only."""
        address: Address = self.address
        name, bare = address.display_name, f"{address.username}@{address.domain}"
        if name.isascii() and "=?" not in name:
            return _folded("From", [str(address)], policy)
        return _folded("From", [*_words(name, len("From: ")), f"<{bare}>"], policy)


class To(UniqueAddressHeader):
    """Addresses; a single short one is neither parsed nor folded."""

    #: What Python read, and folds by; () if it did not read.
    _parse_tree: object

    @classmethod
    def parse(cls, value: object, kwds: dict[str, Any]) -> None:
        """As `From.parse`."""
        if isinstance(value, Address) and len(str(value)) <= _SHORT_ADDRESS:
            kwds["parse_tree"] = ()
        super().parse(value, kwds)  # type: ignore[arg-type]  # typeshed knows texts only

    def fold(self, *, policy: Policy) -> str:
        """As `Subject.fold`."""
        if self._parse_tree == ():
            return f"To: {self}{policy.linesep}"
        return BaseHeader.fold(self, policy=policy)  # type: ignore[arg-type]  # mixed in, as below


class _Registry(HeaderRegistry):
    """Makes the class of a field once, not for each field again."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[str, type[BaseHeader]] = {}

    def __getitem__(self, name: str) -> type[BaseHeader]:
        known = name.lower() if name.lower() in self.registry else ""
        if known not in self._made:
            self._made[known] = super().__getitem__(name)
        return self._made[known]


def registry() -> HeaderRegistry:
    """Python's header fields with ours among them."""
    made = _Registry()
    # typeshed asks for a BaseHeader, which the registry itself mixes in.
    made.map_to_type("subject", Subject)  # type: ignore[arg-type]
    made.map_to_type("from", From)  # type: ignore[arg-type]
    made.map_to_type("to", To)  # type: ignore[arg-type]
    return made


def _folded(name: str, words: list[str], policy: Policy) -> str:
    """Words joined by spaces, in lines that are no longer than they must be."""
    lines = [f"{name}:"]
    for word in words:
        if len(lines[-1]) + 1 + len(word) > _LINE and lines[-1] != f"{name}:":
            lines.append("")
        lines[-1] += f" {word}"
    return policy.linesep.join(lines) + policy.linesep


def _words(text: str, before: int) -> Iterator[str]:
    """`text` as it may stand in a field; encoded altogether if any of it must be (RFC 2047).

    `before` characters stand on the first line already.
    """
    if text.isascii() and "=?" not in text:
        yield from text.split(" ")
        return
    rest = text
    while rest:
        room = (_LINE - before - _WORD_FRAME) // 4 * 3
        piece = _fitting(rest, room)
        yield f"=?utf-8?b?{b64encode(piece.encode()).decode()}?="
        rest, before = rest[len(piece) :], 1


def _fitting(text: str, most_bytes: int) -> str:
    """As many whole characters of `text` as fit."""
    return text.encode()[:most_bytes].decode("utf-8", "ignore")
