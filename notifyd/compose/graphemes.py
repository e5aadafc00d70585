"""Text as what a reader takes for characters: where it may be cut. Knows no encoding of SMS.

Extended grapheme clusters of UAX #29, told from general categories, so that no table of its own
goes stale. Where that is not exact it keeps together rather than cuts. Conjuncts of Indic scripts
(GB9c) are not kept together: no calculator of SMS segments does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from unicodedata import category

#: UAX #15 §13 (Stream-Safe): nothing that means anything has more marks on one character.
_MOST_CODE_POINTS: Final = 31

_ZWJ: Final = "\u200d"
#: Letters, symbols and format characters that go with what stands before them all the same:
#: ZWNJ, Thai and Lao AM, halfwidth voiced sound marks.
_OTHER_EXTENDERS: Final = frozenset("\u200c\u0e33\u0eb3\uff9e\uff9f")
#: GB9b: what goes with the character after it.
_PREPENDED: Final = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u08e2\U000110bd")


def graphemes(text: str) -> Iterator[str]:
    """`text` in pieces that a reader sees as one each; CR LF is two."""
    if text.isascii():
        yield from text
        return
    start = 0
    for at in range(1, len(text)):
        if at - start >= _MOST_CODE_POINTS or _is_boundary(text, start, at):
            yield text[start:at]
            start = at
    if start < len(text):
        yield text[start:]


def _is_boundary(text: str, start: int, at: int) -> bool:
    """Tell whether a cluster that began at `start` ends before `at`; the numbers are the rules'."""
    before, after = text[at - 1], text[at]
    if before < "\u0300" and after < "\u0300":  # the common case: nothing below joins
        return True
    if _is_control(before) or _is_control(after):  # GB4, GB5
        return True
    if _extends(after):  # GB9, GB9a
        return False
    if before in _PREPENDED or _is_one_syllable(before, after):  # GB9b, GB6-8
        return False
    if before == _ZWJ:  # GB11
        return not (_is_pictograph(text[start]) and _is_pictograph(after))
    # GB12, GB13: flags are pairs of regional indicators
    return not (_is_regional(after) and at - start == 1 and _is_regional(before))


def _extends(character: str) -> bool:
    return (
        category(character)[0] == "M"
        or character == _ZWJ
        or character in _OTHER_EXTENDERS
        or "\U0001f3fb" <= character <= "\U0001f3ff"  # skin tones
        or "\U000e0020" <= character <= "\U000e007f"  # tags: the flags of Scotland and the like
    )


def _is_control(character: str) -> bool:
    if category(character) not in ("Cc", "Cf", "Zl", "Zp", "Cs"):
        return False
    return not _extends(character) and character not in _PREPENDED


def _is_pictograph(character: str) -> bool:
    """Tell whether it may be part of an emoji of several; the unassigned are newer emoji."""
    if category(character) == "So" or character == "\u2194":
        return True
    return "\U0001f000" <= character <= "\U0001faff"


def _is_regional(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _is_one_syllable(before: str, after: str) -> bool:
    """Tell whether Hangul L, V, T, LV or LVT before L, V or T is one syllable (GB6-8)."""
    if not (_is_hangul(before) and _is_hangul(after)):
        return False
    first, second = _syllable_type(before), _syllable_type(after)
    if first == "L":
        return second in ("L", "V", "LV", "LVT")
    if first in ("LV", "V"):
        return second in ("V", "T")
    return second == "T"


def _is_hangul(character: str) -> bool:
    return (
        "\u1100" <= character <= "\u11ff"
        or "\ua960" <= character <= "\ua97c"
        or "\uac00" <= character <= "\ud7fb"
    )


def _syllable_type(character: str) -> str:
    if "\uac00" <= character <= "\ud7a3":
        return "LV" if (ord(character) - 0xAC00) % 28 == 0 else "LVT"
    if character <= "\u115f" or "\ua960" <= character <= "\ua97c":
        return "L"
    return "V" if character <= "\u11a7" or "\ud7b0" <= character <= "\ud7c6" else "T"
