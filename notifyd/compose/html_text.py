"""The text of an HTML mail, as lines. Not: what in it matters.

Own code rather than `html.parser`: that takes quadratic time for unclosed tags, and this reads mail
from anybody. Here every character is looked at once. Quotes become lines that start with ">".
"""

from __future__ import annotations

import re
from html import unescape
from typing import Final, NamedTuple

# Possessive, so that nothing is tried twice: a comment, a tag with its quoted values, or text.
_tokens: Final = re.compile(
    r"<!--(?:(?!-->).)*+(?:-->)?"
    r"|<(?P<close>/?)(?P<name>[a-zA-Z][a-zA-Z0-9]*+)"
    r"(?P<attributes>(?>[^>\"']+|\"[^\"]*\"|'[^']*'|[\"'])*+)>?"
    r"|<[!?/][^>]*+>?"
    r"|(?P<text>[^<]++|<)",
    re.DOTALL,
).finditer


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: What is between their tags is not markup.
_RAW: Final = _names("script style title textarea xmp noframes iframe")
_ends_of_raw: Final = {name: re.compile(rf"</{name}\b", re.IGNORECASE).search for name in _RAW}
_VOID: Final = _names("area base br col embed hr img input link meta param source track wbr")
#: What is in them is not shown.
_HIDDEN: Final = _names("head template svg math select object map audio")
_PARAGRAPHS: Final = _names("p h1 h2 h3 h4 h5 h6 ul ol dl table blockquote pre hr")
_LINES: Final = _names(
    "address article aside center dd div dt fieldset figcaption figure footer form header li main "
    "nav section tbody tr br"
)
_CELLS: Final = _names("td th")

_hides: Final = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*hidden|mso-hide\s*:\s*all"
    r"|(?:font-size|max-height|opacity)\s*:\s*0(?:\.0+)?(?:px|pt|em|%)?\s*(?:;|!|[\"']|$)"
    r"|(?:^|\s)hidden(?:\s|=|$)"
    # a signature, as their writers mark it
    r"|(?:class|id)\s*=\s*[\"']?(?:gmail_signature|moz-signature|signature\b)",
    re.IGNORECASE,
).search
_quotes: Final = re.compile(r"type\s*=\s*[\"']?cite|quote|cite", re.IGNORECASE).search
_alt: Final = re.compile(r"\balt\s*=\s*(?:\"([^\"]*)\"|'([^']*)')", re.IGNORECASE).search
_too_long_number: Final = re.compile(r"&#[xX]?[0-9a-fA-F]{8,}+;?").sub
_spaces: Final = re.compile(r"[ \t\n\r\f\xa0]+").sub

_MOST_OPEN: Final = 500
_MOST_ATTRIBUTES: Final = 1000


def text_of_html(html: str, most_characters: int) -> str:
    """What a reader of `html` sees, in lines, paragraphs apart; at most that many characters.

    Without any text, what stands in for its pictures.
    """
    reading = _Reading(most_characters)
    at = 0
    while at < len(html) and not reading.is_full:
        for token in _tokens(html, at):
            at = token.end()
            reading.take(token)
            if reading.is_full or reading.raw:
                break
        if reading.raw:  # goes on behind the element
            end = _ends_of_raw[reading.raw](html, at)
            at, reading.raw = (end.start() if end else len(html)), ""
    return reading.text()


class _Element(NamedTuple):
    name: str
    hides: bool
    quotes: bool


class _Reading:
    """What has been read so far, and within what."""

    def __init__(self, most_characters: int) -> None:
        self.raw = ""
        self._left = most_characters
        self._lines = [""]
        self._pictures: list[str] = []
        self._open: list[_Element] = []
        self._hiding = self._quoting = self._preformatted = 0

    @property
    def is_full(self) -> bool:
        return self._left <= 0

    def take(self, token: re.Match[str]) -> None:
        if token["text"] is not None:
            self._text(token["text"])
        elif token["name"] is not None:
            name = token["name"].lower()
            if token["close"]:
                self._end(name)
            else:
                self._start(name, token["attributes"][:_MOST_ATTRIBUTES])

    def text(self) -> str:
        lines = [line.strip() for line in self._lines]
        text = re.sub("\n{3,}", "\n\n", "\n".join(lines)).strip()
        return text if text.replace(">", "").strip() else " ".join(self._pictures)

    def _text(self, written: str) -> None:
        if self._hiding:
            return
        text = unescape(_too_long_number("", written[: self._left * 10]))
        first, *others = text.split("\n") if self._preformatted else [text]
        self._words(first)
        for line in others:
            self._lines.append("")
            self._left -= 1
            self._words(line)

    def _words(self, written: str) -> None:
        words = _spaces(" ", written)
        if not self._lines[-1].strip("> "):
            words = words.lstrip(" ")
        if words:
            self._put(words)

    def _put(self, text: str) -> None:
        if not self._lines[-1] and self._quoting:
            self._lines[-1] = "> "
        self._lines[-1] += text
        self._left -= len(text)

    def _start(self, name: str, attributes: str) -> None:
        self._break(name)
        if name in _RAW:
            self.raw = name
        elif name == "img":
            self._picture(attributes)
        elif name == "li" and not self._hiding:
            self._put("- ")
        if name in _VOID or name in _RAW or len(self._open) >= _MOST_OPEN:
            return
        hides = name in _HIDDEN or _hides(attributes) is not None
        quotes = name == "blockquote" and _quotes(attributes) is not None
        self._open.append(_Element(name, hides, quotes))
        self._count(self._open[-1], 1)

    def _end(self, name: str) -> None:
        """Close the innermost `name` with all in it; the end of what never began is ignored."""
        for at in range(len(self._open) - 1, max(-1, len(self._open) - 50), -1):
            if self._open[at].name == name:
                for element in self._open[at:]:
                    self._count(element, -1)
                del self._open[at:]
                break
        if name != "br":
            self._break(name)

    def _count(self, element: _Element, by: int) -> None:
        self._hiding += by * element.hides
        self._quoting += by * element.quotes
        self._preformatted += by * (element.name == "pre")

    def _break(self, name: str) -> None:
        if self._hiding:
            return
        if name in _CELLS:
            self._lines[-1] += " "
        elif name in _PARAGRAPHS:
            self._lines += ["", ""]
            self._left -= 2
        elif name in _LINES and (name == "br" or self._lines[-1]):
            self._lines.append("")
            self._left -= 1

    def _picture(self, attributes: str) -> None:
        alt = _alt(attributes)
        if alt and not self._hiding and len(self._pictures) < 20:
            self._pictures.append(_spaces(" ", unescape(alt[1] or alt[2] or "")).strip())
