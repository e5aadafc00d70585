"""Every language says everything: no message missing, none left over, no placeholder lost."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from functools import cache
from gettext import c2py
from pathlib import Path

import pytest
from babel import Locale
from babel.messages import Catalog
from babel.messages.catalog import Message
from babel.messages.extract import extract_from_file
from babel.messages.pofile import read_po

from tests.support.alarm_mails import LOCALES, voice

ROOT = Path(__file__).parents[3]
CATALOGUES = sorted((ROOT / "locale").glob("*.po"))
#: Words that are the same in both languages, or only order placeholders.
SAME = re.compile(r"(%\(\w+\)s|[\W\d_])*|%\(num\)d minutes?|Participants|Notifications")

languages = pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.stem)

MessageId = tuple[str | None, str | tuple[str, ...]]


def files(pattern: str) -> Iterator[Path]:
    """What a pattern of babel.toml means: all files below its folder that end like it."""
    folder, _, ending = pattern.partition("**")
    return (ROOT / folder).rglob(f"*{ending}")


@cache
def extracted() -> frozenset[MessageId]:
    """All messages in code and templates, found as babel.toml says."""
    found: set[MessageId] = set()
    for mapping in tomllib.loads((ROOT / "babel.toml").read_text("utf-8"))["mappings"]:
        options = {
            name: each for name, each in mapping.items() if name not in ("method", "pattern")
        }
        for path in files(mapping["pattern"]):
            if path.is_file():
                messages = extract_from_file(mapping["method"], path, options=options)
                found |= {(context, message) for _, message, _, context in messages}
    return frozenset(found)


@cache
def catalogue(path: Path) -> Catalog:
    with path.open("rb") as file:
        return read_po(file, locale=path.stem, abort_invalid=True)


def messages(path: Path) -> list[Message]:
    return [message for message in catalogue(path) if message.id]


def forms(value: object) -> tuple[str, ...]:
    """The singular, or all plural forms."""
    return (value,) if isinstance(value, str) else tuple(value)  # type: ignore[arg-type]


def placeholders(text: str) -> set[str]:
    return set(re.findall(r"%\(\w+\)[sd]", text))


def test_all_promised_languages_are_there() -> None:
    shipped = {"en", *(path.stem.replace("_", "-") for path in CATALOGUES)}
    assert shipped == set(LOCALES)
    assert {speech.language for speech in voice().speeches.values()} == shipped


def test_messages_are_found_in_code_and_templates() -> None:
    assert (None, "Starts in %(duration)s") in extracted()
    assert ("participant", "no reply yet") in extracted()
    assert (None, "Participants") in extracted()
    assert ("duration", ("%(num)d hour", "%(num)d hours")) in extracted()


@languages
def test_every_message_is_translated_and_none_is_left_over(path: Path) -> None:
    assert {(message.context, message.id) for message in messages(path)} == extracted()
    assert not catalogue(path).obsolete
    for message in messages(path):
        assert all(form.strip() for form in forms(message.string)), message.id
        assert not message.fuzzy, message.id


@languages
def test_words_are_not_left_in_english(path: Path) -> None:
    for message in messages(path):
        for form in forms(message.string):
            assert form not in forms(message.id) or SAME.fullmatch(form), form


@languages
def test_plurals_have_as_many_forms_as_cldr_knows(path: Path) -> None:
    """The formula of each catalogue puts every number where CLDR puts it."""
    rule = Locale.parse(path.stem).plural_form
    groups: dict[str, set[int]] = {}
    for num in range(1000):
        groups.setdefault(rule(num), set()).add(index(catalogue(path), num))
    assert all(len(chosen) == 1 for chosen in groups.values()), groups
    assert catalogue(path).num_plurals == len(groups)
    for message in messages(path):
        if not isinstance(message.id, str):
            assert len(forms(message.string)) == catalogue(path).num_plurals, message.id


def index(catalog: Catalog, num: int) -> int:
    chosen = c2py(catalog.plural_expr)(num)
    assert isinstance(chosen, int)
    return chosen


@languages
def test_placeholders_are_the_same(path: Path) -> None:
    """A form for one number alone may leave the number out ("two minutes" in Arabic)."""
    for message in messages(path):
        wanted = set[str]().union(*map(placeholders, forms(message.id)))
        several = forms(message.string)
        for number, form in enumerate(several):
            missing = wanted ^ placeholders(form)
            assert missing <= {"%(num)d"}, form
            if missing:
                assert len(several) == 6, form
                assert number in (1, 2), form


@languages
def test_no_translation_hides_markup_or_controls(path: Path) -> None:
    for message in messages(path):
        for form in forms(message.string):
            assert not re.search("[<>&\x00-\x1f\u200e\u200f\u202a-\u202e\u2066-\u2069]", form), form
