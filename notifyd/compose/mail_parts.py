"""A spooled message of any quality: its header fields, and the text a reader would be shown.

Own code, because the message may be hostile and cut: every step is linear; depth, number and size
of the parts are bounded, which Python's `email` does not promise. Not: what in the text matters.
"""

from __future__ import annotations

import binascii
import codecs
import re
from dataclasses import dataclass
from typing import Final

from notifyd.compose.html_text import text_of_html
from shared.plaintext import decode_words, plain

_MOST_HEADER_BYTES: Final = 128 * 1024
_MOST_VALUE_CHARACTERS: Final = 2000
_MOST_DEPTH: Final = 10
_MOST_PARTS: Final = 50
_MOST_TEXT_BYTES: Final = 384 * 1024
#: Text after so much is nobody's summary.
_MOST_CHARACTERS: Final = 40_000

_end_of_header: Final = re.compile(rb"\r?\n\r?\n|\A\r?\n").search
_folded: Final = re.compile(r"\r?\n[ \t]+").sub
_line_break: Final = re.compile(r"\r?\n").split
_field: Final = re.compile(r"([!-9;-~]+)[ \t]*:[ \t]*(.*)").fullmatch


@dataclass(frozen=True, slots=True)
class Part:
    """One message or part of one: its fields in order, names in lower case, and its raw body."""

    fields: tuple[tuple[str, str], ...]
    body: bytes

    def first(self, name: str) -> str | None:
        """The first field `name` (in lower case) as written, unfolded; None if there is none."""
        return next((value for each, value in self.fields if each == name), None)

    def shown(self, name: str) -> str:
        """The same as a reader sees it: decoded, on one line, "" if there is none."""
        return plain(decode_words(self.first(name) or "")).strip()


@dataclass(frozen=True, slots=True)
class Text:
    """The text of a message; `flowed` lines are not wrapped by hand (and HTML never is)."""

    lines: str
    flowed: bool


def parse(raw: bytes) -> Part:
    """`raw` split into fields and body; what does not start with a field is all body."""
    end = _end_of_header(raw, 0, _MOST_HEADER_BYTES)
    head = raw[: end.start()] if end else raw[:_MOST_HEADER_BYTES]
    lines = _line_break(_folded(" ", head.decode("utf-8", "replace")))
    if lines and lines[0].startswith("From "):  # of an mbox file
        lines = lines[1:]
    found = [field for line in lines if (field := _field(line[:_MOST_VALUE_CHARACTERS]))]
    if not found and head.strip():
        return Part((), raw)
    fields = tuple((field[1].lower(), field[2].strip()) for field in found)
    return Part(fields, raw[end.end() :] if end else b"")


def text_of(raw: bytes) -> Text:
    """The text that a reader of the message is shown first; empty if there is none."""
    found = _Finder().find(parse(raw), 0)
    return Text(found.lines[:_MOST_CHARACTERS], found.flowed)


_NOTHING: Final = Text("", False)
#: Parts that are text, but for programs.
_NOT_TO_READ: Final = frozenset({"calendar", "css", "csv", "directory", "vcard", "x-vcard", "xml"})
#: Plain text that only says where the text is.
_is_excuse: Final = re.compile(
    r"[^\n]{0,200}\b(?:html|browser)\b[^\n]{0,200}(?:\n[^\n]{0,120}){0,3}", re.IGNORECASE
).fullmatch


class _Finder:
    """Goes through the parts of one message, counting them."""

    def __init__(self) -> None:
        self._left = _MOST_PARTS

    def find(self, part: Part, depth: int) -> Text:
        self._left -= 1
        if self._left < 0 or depth > _MOST_DEPTH:
            return _NOTHING
        kind, parameters = _content_type(part)
        family, _, form = kind.partition("/")
        if depth and _is_attached(part, parameters):
            return _NOTHING
        if family == "multipart":
            bodies = _split(part.body, parameters.get("boundary", ""))
            if bodies:
                return self._multipart(form, bodies, depth)
            form = "plain"
        elif kind == "message/rfc822":
            return self.find(parse(_decode_transfer(part)), depth + 1)
        elif family != "text" or form in _NOT_TO_READ:
            return _NOTHING
        return _leaf(part, form, parameters)

    def _multipart(self, form: str, bodies: list[bytes], depth: int) -> Text:
        if form == "encrypted":
            return _NOTHING
        parts = [parse(body) for body in bodies[: max(self._left, 0)]]
        if form == "alternative":
            return self._best([self.find(each, depth + 1) for each in parts])
        if form in ("related", "signed", "report"):
            found = (self.find(each, depth + 1) for each in parts)
            return next((each for each in found if each.lines), _NOTHING)
        return self._joined(parts, depth)

    def _joined(self, parts: list[Part], depth: int) -> Text:
        """All texts of a mixed message; a forwarded one only if there is no other."""
        own = [each for each in parts if _content_type(each)[0] != "message/rfc822"]
        for candidates in (own, [each for each in parts if each not in own]):
            found = [each for part in candidates if (each := self.find(part, depth + 1)).lines]
            if found:
                text = "\n\n".join(each.lines for each in found[:5])
                return Text(text, all(each.flowed for each in found))
        return _NOTHING

    @staticmethod
    def _best(found: list[Text]) -> Text:
        """The first (plainest) one that is more than a hint to look at the other."""
        texts = [each for each in found if each.lines]
        longest = max(texts, key=lambda each: len(each.lines), default=_NOTHING)
        for each in texts:
            share = len(each.lines) / len(longest.lines)
            is_hint = _is_excuse(each.lines.strip()) if share < 0.7 else None
            if not is_hint and (share > 0.1 or len(each.lines) > 20):
                return each
        return _NOTHING


_parameter: Final = re.compile(r';\s*([\w.*-]+)\s*=\s*(?:"([^"]*)"?|([^\s;"]+))').finditer


def _content_type(part: Part) -> tuple[str, dict[str, str]]:
    """The type in lower case, with its parameters; nonsense is text/plain (RFC 2045 §5.2)."""
    written = part.first("content-type") or ""
    kind = written.partition(";")[0].strip().lower()
    parameters = {each[1].lower(): each[2] or each[3] or "" for each in _parameter(written)}
    return (kind if kind.count("/") == 1 else "text/plain"), parameters


def _is_attached(part: Part, parameters: dict[str, str]) -> bool:
    disposition = (part.first("content-disposition") or "").lower()
    return disposition.startswith("attachment") or "filename" in disposition or "name" in parameters


#: The end of the boundary's own line.
_first_line_break: Final = re.compile(rb"\A\r?\n").sub


def _split(body: bytes, boundary: str) -> list[bytes]:
    """The parts between the boundary lines; the last one may have been cut off."""
    if not boundary:
        return []
    line = re.compile(
        rb"(?:\A|\r?\n)--" + re.escape(boundary.encode()) + rb"(--)?[ \t]*(?=\r?\n|\Z)"
    )
    start, bodies = -1, []
    for found in line.finditer(body):
        if start >= 0:
            bodies.append(_first_line_break(b"", body[start : found.start()], 1))
        if found[1] or len(bodies) > _MOST_PARTS:
            return bodies
        start = found.end()
    if start >= 0:
        bodies.append(_first_line_break(b"", body[start:], 1))
    return bodies


_named_in_html: Final = re.compile(
    rb"<meta\b[^>]{0,200}?\bcharset\s*=\s*[\"']?([\w.:-]{1,40})", re.IGNORECASE | re.ASCII
).search


def _leaf(part: Part, form: str, parameters: dict[str, str]) -> Text:
    raw = _decode_transfer(part)[:_MOST_TEXT_BYTES]
    charset = parameters.get("charset", "")
    if form == "html":
        named = None if charset else _named_in_html(raw, 0, 2000)
        html = _decode_charset(raw, named[1].decode() if named else charset)
        return Text(text_of_html(html, _MOST_CHARACTERS), True)
    text = _decode_charset(raw, charset)
    text = text.replace("\r\n", "\n")[:_MOST_CHARACTERS].strip("\n")
    if parameters.get("format", "").lower() == "flowed":
        return Text(_unflow(text, parameters.get("delsp", "").lower() == "yes"), True)
    return Text(text, False)


_not_base64: Final = re.compile(rb"[^A-Za-z0-9+/]+").sub


def _decode_transfer(part: Part) -> bytes:
    encoding = (part.first("content-transfer-encoding") or "").strip().lower()
    if encoding == "quoted-printable":
        return binascii.a2b_qp(part.body)
    if encoding == "base64":
        clean = _not_base64(b"", part.body.partition(b"=")[0])
        whole = clean[: len(clean) // 4 * 4] if len(clean) % 4 == 1 else clean
        return binascii.a2b_base64(whole + b"=" * (-len(whole) % 4))
    return part.body


#: What is declared is often a smaller charset than the one meant (WHATWG Encoding §4.2).
_MEANT: Final = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "euc_kr": "cp949",
    "shift_jis": "cp932",
    "iso8859-9": "cp1254",
    "tis-620": "cp874",
}
#: Codecs that are no charsets of mail, or are slow on hostile input.
_NO_CHARSETS: Final = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape"})


def _decode_charset(raw: bytes, declared: str) -> str:
    """`raw` in the `declared` charset; UTF-8 where it is that, whatever was declared."""
    try:
        name = codecs.lookup(declared).name
    except (LookupError, ValueError):  # ValueError: a NUL in the name
        name = "ascii"
    name = _MEANT.get(name, name)
    if name == "utf-8" or name.startswith("cp125"):
        in_utf8 = _decode_utf8(raw)
        if in_utf8 is not None:
            return in_utf8
        name = "cp1252" if name == "utf-8" else name
    try:
        return raw.decode("cp1252" if name.replace("-", "_") in _NO_CHARSETS else name, "replace")
    except (LookupError, ValueError):  # a codec that is none for text
        return raw.decode("cp1252", "replace")


_beyond_ascii: Final = re.compile("[\x00-\x7f]+").sub


def _decode_utf8(raw: bytes) -> str | None:
    """`raw` if it is UTF-8 but for a few broken characters; None if it is something else."""
    text = raw.decode("utf-8", "replace")
    if text.isascii():
        return text
    broken = text.count("\ufffd")
    whole = len(_beyond_ascii("", text)) - broken
    return text.rstrip("\ufffd") if broken <= 1 + whole // 10 and (whole or not broken) else None


_quotes: Final = re.compile(r">*").match


def _unflow(text: str, delete_space: bool) -> str:
    """`text` with the lines of each paragraph joined again (RFC 3676 §4)."""
    done: list[str] = []
    open_depth = -1
    for line in text.split("\n"):
        marks = _quotes(line)
        depth = marks.end() if marks else 0
        content = line[depth:].removeprefix(" ")
        if depth == open_depth:
            done[-1] += content
        else:
            done.append(f"{'>' * depth} {content}" if depth else content)
        soft = content.endswith(" ") and content != "-- "
        open_depth = depth if soft else -1
        if soft and delete_space:
            done[-1] = done[-1][:-1]
    return "\n".join(done)
