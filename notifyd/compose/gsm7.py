"""The alphabet of SMS (3GPP TS 23.038 §6.2.1): what costs how much, and what is near to it."""

from __future__ import annotations

import unicodedata
from typing import Final

_BASIC: Final = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENSION: Final = "\f^{}\\[~]|€"

#: Character: how many septets it takes. Those of the extension table are escape pairs.
SEPTETS: Final = dict.fromkeys(_BASIC, 1) | dict.fromkeys(_EXTENSION, 2)

_NEAR: Final = str.maketrans(
    dict.fromkeys("‘’‚‛′`´ʹʻʼʽˈ‹›", "'")
    | dict.fromkeys("“”„‟″«»〝〞", '"')
    | dict.fromkeys("‐‑‒–—―−⁃•·‣◦▪●", "-")
    | {"…": "...", "⁄": "/", "∕": "/", "÷": "/", "×": "x", "©": "(c)", "®": "(R)", "°": "o"}
    | {"→": "->", "←": "<-", "⇒": "=>", "≤": "<=", "≥": ">=", "≠": "!=", "✓": "v", "✔": "v"}
    | {"Đ": "D", "đ": "d", "Ð": "D", "ð": "d", "Ħ": "H", "ħ": "h", "ı": "i", "Ł": "L", "ł": "l"}
    | {"Œ": "OE", "œ": "oe", "Þ": "Th", "þ": "th", "Ŧ": "T", "ŧ": "t", "ŉ": "'n", "ẞ": "SS"}
    | {"₤": "£", "¢": "c", "№": "No", "ª": "a", "º": "o", "¬": "-", "¦": "|", "‖": "||"}
)

_FIRST_MARK: Final = "\u0300"
_LAST_MARK: Final = "\u036f"


def is_gsm7(text: str) -> bool:
    """Tell whether all of `text` is in the alphabet."""
    return SEPTETS.keys() >= set(text)


def near(text: str) -> str:
    """`text` with characters outside the alphabet replaced by similar ones, where there are any.

    Those in the alphabet stay (é, ß, €); the others lose their accents (ê, ą, ő), quotation marks
    and dashes become plain ones. What is like none of it stays: other scripts, emoji.
    """
    return "".join(c if c in SEPTETS else _near(c) for c in unicodedata.normalize("NFC", text))


def _near(character: str) -> str:
    if _FIRST_MARK <= character <= _LAST_MARK:  # NFC found no letter for it
        return ""
    plain = character.translate(_NEAR)
    if is_gsm7(plain):
        return plain
    split = unicodedata.normalize("NFKD", plain).translate(_NEAR)
    bare = "".join(c for c in split if not _FIRST_MARK <= c <= _LAST_MARK)
    return bare if is_gsm7(bare) else character
