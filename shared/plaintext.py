"""Text from outside as text that can be shown: no controls, no tricks with direction, decoded.

For subjects, names and the like before they reach a phone, a mail header or a log line; for both
programs.
"""

from __future__ import annotations

import codecs
import re
from binascii import Error as BinasciiError
from binascii import a2b_base64, a2b_qp
from typing import Final

# C0, DEL and C1; marks, embeddings, overrides and isolates of direction; halves of surrogate pairs.
_unwanted: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
).sub
_line_breaks: Final = re.compile("\r\n|[\t\n\r\x85\u2028\u2029]").sub
_ends_of_lines: Final = re.compile("\r\n|[\r\x85\u2028\u2029]").sub


def plain(text: str) -> str:
    """`text` on one line: line breaks and tabs are spaces, other controls and bidi are gone."""
    if text.isprintable():  # implies all of it, and is nearly always so
        return text
    return _unwanted("", _line_breaks(" ", text))


def plain_lines(text: str) -> str:
    """As `plain`, but keeps lines, each ended by LF."""
    return "\n".join(map(plain, _ends_of_lines("\n", text).split("\n")))


_encoded_word: Final = re.compile(r"=\?([^?\s*]+)(?:\*[^?\s]*)?\?([BbQq])\?([^?]*)\?=")
_encoded_words: Final = re.compile(
    r"=\?[^?\s]+\?[BbQq]\?[^?]*\?=(?:[ \t\r\n]+=\?[^?\s]+\?[BbQq]\?[^?]*\?=)*"
)


def decode_words(text: str) -> str:
    """`text` with its RFC 2047 encoded words decoded; a word that cannot be stays as it is.

    White space between neighbouring words is dropped. Bytes of neighbours in one charset are
    joined before they are decoded, for writers that cut characters in two.
    """
    return _encoded_words.sub(lambda run: _decode_run(run[0]), text) if "=?" in text else text


def _decode_run(run: str) -> str:
    pieces: list[tuple[str, bytes | None, str]] = []
    for word in _encoded_word.finditer(run):
        charset, raw = word[1].lower(), _word_bytes(word[2], word[3])
        if pieces and raw is not None and pieces[-1][0] == charset:
            _, before, written = pieces[-1]
            if before is not None:
                pieces[-1] = (charset, before + raw, f"{written} {word[0]}")
                continue
        pieces.append((charset, raw, word[0]))
    return "".join(_in_charset(*piece) for piece in pieces)


_is_base64: Final = re.compile(rb"[A-Za-z0-9+/]*").fullmatch


def _word_bytes(encoding: str, payload: str) -> bytes | None:
    raw = payload.encode("utf-8", "replace")
    if encoding in "Qq":
        return a2b_qp(raw, header=True)
    raw = raw.translate(None, b"= \t\r\n")
    if not _is_base64(raw):  # the decoder would skip what is not, and find letters in rubbish
        return None
    try:
        return a2b_base64(raw + b"=" * (-len(raw) % 4))
    except BinasciiError:
        return None


#: Python's codecs that are no charsets of mail: escapes that run code paths of their own, and
#: host name encodings that are slow on long input.
_NOT_CHARSETS: Final = frozenset({"unicode_escape", "raw_unicode_escape", "idna", "punycode"})


def _in_charset(charset: str, raw: bytes | None, written: str) -> str:
    if raw is None:
        return written
    try:
        if codecs.lookup(charset).name.replace("-", "_") in _NOT_CHARSETS:
            return written
        return raw.decode(charset, "replace")
    except (LookupError, ValueError):
        return raw.decode("ascii") if raw.isascii() else written
