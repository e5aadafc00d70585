"""Text set for its medium: lines, links, directions. Knows no language and no template."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Iterator
from typing import Final, NamedTuple

from shared.plaintext import plain, plain_lines

#: As RFC 3676 §4.2 likes it for lines of mail.
WIDTH: Final = 76

_FIRST_STRONG_ISOLATE: Final = "\u2068"
_POP_DIRECTIONAL_ISOLATE: Final = "\u2069"

#: Thin and narrow spaces of CLDR: few mail programs' fonts have them, and "10:00 AM" can be ASCII.
_PLAIN_SPACES: Final = str.maketrans({"\u202f": " ", "\u2009": " ", "\u200f": "", "\u200e": ""})

_url: Final = re.compile(r"https?://[^\s<>\"'`{}|\\^]+", re.IGNORECASE).finditer
_colour: Final = re.compile(r"#([0-9A-Fa-f]{6})(?:[0-9A-Fa-f]{2})?").fullmatch


class Piece(NamedTuple):
    """A piece of text; `href` is "" unless it is a link."""

    text: str
    href: str


def one_line(text: str, most: int) -> str:
    """`text` without controls, in one line without runs of spaces, of at most `most` characters."""
    return cut(" ".join(plain(text).split()), most)


def some_lines(text: str, most: int) -> str:
    """`text` without controls, its lines kept, without empty ones at the ends; cut after `most`."""
    lines = (line.rstrip() for line in plain_lines(text).split("\n"))
    return cut(re.sub("\n{3,}", "\n\n", "\n".join(lines)).strip("\n"), most)


def cut(text: str, most: int) -> str:
    """`text`, or what fits into `most` characters with an ellipsis, cut between words if it can."""
    if len(text) <= most:
        return text
    short = text[: most - 1]
    words = short.rpartition(" ")[0]
    kept = words if len(words) > most * 2 // 3 else _whole_characters(short, text[most - 1])
    return kept.rstrip() + "…"


def _whole_characters(text: str, following: str) -> str:
    """`text` without its last character's beginning, if `following` belongs to that character."""
    while text and (unicodedata.combining(following) or following in "\u200d\ufe0f"):
        text, following = text[:-1], text[-1]
    return text.removesuffix("\u200d")


def isolated(text: str, *, rtl: bool) -> str:
    """`text` so that its direction does not disturb the words around it in a plain line.

    `rtl` is the direction of those words. Marked only where it could matter: ordinary mails stay
    free of invisible characters. Must be free of such marks itself.
    """
    strange = rtl or (not text.isascii() and any(map(_is_from_the_right, text)))
    return f"{_FIRST_STRONG_ISOLATE}{text}{_POP_DIRECTIONAL_ISOLATE}" if text and strange else text


def _is_from_the_right(char: str) -> bool:
    return unicodedata.bidirectional(char) in ("R", "AL")


def wrapped(text: str, indent: int = 0) -> str:
    """`text` in lines of at most WIDTH where spaces allow; all but the first line are indented."""
    before = " " * indent
    first, *others = text.split("\n")
    return "\n".join(
        [_filled(first, "", before), *(_filled(one, before, before) for one in others)]
    )


def _filled(line: str, first: str, others: str) -> str:
    """`line` in lines that begin with `first`, and all but the first with `others`."""
    if line[-1:] not in ("", " ") and len(first) + len(line) <= WIDTH and line.isprintable():
        return first + line  # as the wrapper does, which takes fifty times as long
    return textwrap.fill(
        line,
        WIDTH,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )


def linked(text: str) -> Iterator[Piece]:
    """The pieces of `text`: its http(s) URLs are links, without the punctuation after them."""
    done = 0
    for match in _url(text):
        url = match[0].rstrip(".,;:!?*_~")
        while url.endswith((")", "]")) and url.count(url[-1]) > url.count("(["[url[-1] == "]"]):
            url = url[:-1].rstrip(".,;:!?")
        if match.start() > done:
            yield Piece(text[done : match.start()], "")
        yield Piece(url, url)
        done = match.start() + len(url)
    if done < len(text):
        yield Piece(text[done:], "")


def css_colour(colour: str, otherwise: str) -> str:
    """`#RRGGBB` of an iCalendar colour with or without alpha, which mail programs do not know."""
    match = _colour(colour)
    return f"#{match[1].lower()}" if match else otherwise


def ink_on(colour: str) -> str:
    """Black or white, whichever is read better on `#RRGGBB` (WCAG's relative luminance)."""
    red, green, blue = (_linear(int(colour[at : at + 2], 16) / 255) for at in (1, 3, 5))
    return "#ffffff" if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.179 else "#000000"


def _linear(part: float) -> float:
    return part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4


def plain_spaces(text: str) -> str:
    """`text` of CLDR with spaces that every font has, and without marks of direction."""
    return text.translate(_PLAIN_SPACES)
