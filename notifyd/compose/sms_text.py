"""What an SMS costs, and how a text is made to fit into so many of its parts.

Sizes are those of 3GPP TS 23.040 §9.2.3.24: 160 septets or 70 UTF-16 units alone, 153 or 67 in
each part of several.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final, Literal

from notifyd.compose.graphemes import graphemes
from notifyd.compose.gsm7 import SEPTETS, is_gsm7, near
from shared.plaintext import plain_lines

Encoding = Literal["gsm7", "ucs2"]

_ALONE: Final[dict[Encoding, int]] = {"gsm7": 160, "ucs2": 70}
_IN_PARTS: Final[dict[Encoding, int]] = {"gsm7": 153, "ucs2": 67}
#: "…" is outside the GSM alphabet: one of it would more than halve the room.
_ELLIPSIS: Final[dict[Encoding, str]] = {"gsm7": "...", "ucs2": "…"}

#: So much of the end is given up to end with a whole word.
_MOST_OF_A_WORD: Final = 20
#: Characters looked at for each segment: many may vanish (marks), none becomes shorter than one.
_LOOK_AT: Final = 640


@dataclass(frozen=True, slots=True)
class Segments:
    """What a text costs: `units` are septets (gsm7) or UTF-16 units (ucs2), headers not counted."""

    encoding: Encoding
    units: int
    count: int


def segments(text: str) -> Segments:
    """How `text` goes out, as Twilio counts: no escape pair or grapheme lies in two parts."""
    encoding: Encoding = "gsm7" if is_gsm7(text) else "ucs2"
    sizes = [_size(piece, encoding) for piece in graphemes(text)]
    return Segments(encoding, sum(sizes), _count(sizes, encoding))


def squeeze(text: str, max_segments: int, transliterate: bool) -> str:
    """As much of `text` as goes into `max_segments`, cut between graphemes, best after a word.

    What was cut ends in "…" ("..." in the GSM alphabet). With `transliterate` similar characters
    stand in where that brings the text into the GSM alphabet; where it cannot, nothing is changed.
    """
    tidy = _tidy(text[: max_segments * _LOOK_AT])
    similar = _tidy(near(tidy)) if transliterate else tidy
    for candidate in (similar, tidy):
        if (is_gsm7(candidate) or candidate is tidy) and segments(candidate).count <= max_segments:
            return candidate
    in_gsm7 = list(takewhile(is_gsm7, graphemes(similar)))
    kept = _longest(in_gsm7, "gsm7", max_segments)
    in_ucs2 = _longest(list(graphemes(tidy)), "ucs2", max_segments)
    if len(kept) >= len(in_ucs2):
        return _finish(kept, "gsm7")
    return _finish(in_ucs2, "ucs2")


_invisible: Final = re.compile("[\u00ad\u200b\u2060\ufeff\ufff9-\ufffb]").sub
_other_spaces: Final = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]").sub
_wide_gaps: Final = re.compile(" {2,}").sub
_empty_lines: Final = re.compile(" *\n\\s*").sub


def _tidy(text: str) -> str:
    """Without what nobody sees but everybody pays for."""
    clean = unicodedata.normalize("NFC", plain_lines(text))
    clean = _wide_gaps(" ", _other_spaces(" ", _invisible("", clean)))
    return _empty_lines("\n", clean).strip()


def _size(grapheme: str, encoding: Encoding) -> int:
    if encoding == "gsm7":
        return SEPTETS[grapheme]
    return len(grapheme.encode("utf-16-le", "surrogatepass")) // 2


def _count(sizes: Sequence[int], encoding: Encoding) -> int:
    if sum(sizes) <= _ALONE[encoding]:
        return 1
    parts, used = 1, 0
    for size in sizes:
        if used + size > _IN_PARTS[encoding]:
            parts, used = parts + 1, 0
        used += size
    return parts


def _longest(pieces: Sequence[str], encoding: Encoding, max_segments: int) -> list[str]:
    """The most of `pieces` that fit together with the ellipsis."""
    tail = [_size(each, encoding) for each in _ELLIPSIS[encoding]]
    sizes = [_size(piece, encoding) for piece in pieces]
    least, most = 0, len(pieces)
    while least < most:
        middle = (least + most + 1) // 2
        if _count([*sizes[:middle], *tail], encoding) <= max_segments:
            least = middle
        else:
            most = middle - 1
    return list(pieces[:least])


def _finish(pieces: Sequence[str], encoding: Encoding) -> str:
    last = max((at for at, piece in enumerate(pieces) if piece.isspace()), default=0)
    if 0 < len(pieces) - last <= _MOST_OF_A_WORD < last:
        pieces = pieces[:last]
    return "".join(pieces).rstrip(" \n,;:.-") + _ELLIPSIS[encoding]
