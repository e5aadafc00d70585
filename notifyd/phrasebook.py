"""Reads templates and catalogues once, at start, and makes the voice of all mails from them."""

from __future__ import annotations

from pathlib import Path

from jinja2 import BaseLoader, ChoiceLoader, DictLoader, TemplateSyntaxError

from notifyd.compose.locales import choose
from notifyd.compose.render import Speech, Voice, speak
from notifyd.resources import folder
from shared.errors import ConfigError
from shared.slow_sections import Mail

_TEMPLATES = ("*.html", "*.txt")


def read_voice(mail: Mail) -> Voice:
    """The voice `[mail]` describes; its own templates come before ours.

    Raises ConfigError with every template that cannot be read or compiled.
    """
    sources = _sources(mail)
    speeches = speak(_loader(sources), _catalogues())
    if problems := [*_broken(speeches, sources)]:
        raise ConfigError(problems)
    if choose(mail.default_locale, speeches) is None:
        spoken = ", ".join(sorted(speeches))
        raise ConfigError([f"mail.default_locale: {mail.default_locale!r} is not one of {spoken}"])
    return Voice(
        speeches=speeches,
        sender=mail.sender,
        sender_name=mail.sender_name,
        default_locale=mail.default_locale,
        default_timezone=mail.default_timezone,
        list_id=(mail.list_id or "").strip("<> "),
    )


def _sources(mail: Mail) -> list[dict[str, str]]:
    """What is in the template folders, the first one counts."""
    folders = [folder("templates")]
    if mail.templates is not None:
        folders.insert(0, mail.templates)
    try:
        return [_read(place) for place in folders]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"mail.templates: {error}"]) from error


def _read(place: Path) -> dict[str, str]:
    if not place.is_dir():
        raise NotADirectoryError(f"{place} is not a folder")
    paths = (path for pattern in _TEMPLATES for path in sorted(place.glob(pattern)))
    return {path.name: path.read_text("utf-8") for path in paths}


def _loader(sources: list[dict[str, str]]) -> BaseLoader:
    return ChoiceLoader([DictLoader(texts) for texts in sources])


def _catalogues() -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in sorted(folder("locale").glob("*.po"))}


def _broken(speeches: dict[str, Speech], sources: list[dict[str, str]]) -> list[str]:
    """Compile every template once, so that a mistake is told at start and not at night."""
    problems = []
    speech = next(iter(speeches.values()))
    for name in sorted({name for texts in sources for name in texts}):
        try:
            speech.environment.get_template(name)
        except TemplateSyntaxError as error:
            problems.append(f"mail.templates: {name}, line {error.lineno}: {error.message}")
    return problems
