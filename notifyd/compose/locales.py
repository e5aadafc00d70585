"""Which language a person is spoken to, and with which country's way of writing dates."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from typing import Final

from babel import Locale, UnknownLocaleError

#: The language of the message ids: spoken without a catalogue.
SOURCE: Final = "en"

_tag: Final = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8}){0,3}").match


@lru_cache(maxsize=256)
def parse(tag: str) -> Locale | None:
    """The locale of "pt-br", "de_AT.UTF-8", ...; of the language alone if the rest is unknown."""
    found = _tag(tag.strip())
    parts = re.split("[-_]", found[0]) if found else []
    while parts:
        try:
            return Locale.parse("_".join(parts))
        except (UnknownLocaleError, ValueError):
            parts.pop()
    return None


def choose(tag: str, spoken: Collection[str]) -> tuple[str, Locale] | None:
    """The catalogue among `spoken` ("en", "pt_BR", ...) for `tag`, and the locale for dates.

    The country counts for dates even if its words are another country's: "de-AT" reads German
    words and Austrian months. None if the language is not spoken.
    """
    locale = parse(tag)
    if locale is None:
        return None
    near = sorted(name for name in spoken if name.partition("_")[0] == locale.language)
    for name in (str(locale), locale.language, *near):
        if name in spoken:
            return name, locale
    return None


@lru_cache(maxsize=256)
def language_tag(locale: Locale) -> str:
    """`locale` as BCP 47 has it: "pt-BR"."""
    return str(locale).replace("_", "-")


@lru_cache(maxsize=256)
def is_rtl(locale: Locale) -> bool:
    """Whether it is written from right to left."""
    return locale.text_direction == "rtl"
