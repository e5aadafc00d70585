"""Templates and catalogues as one voice: says things in a person's language, from values alone.

Templates come through a loader and catalogues as bytes, both from outside. Undefined names are
errors, `.html` is escaped, everything else is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from typing import Final

from babel import Locale
from babel.messages.mofile import write_mo
from babel.messages.pofile import PoFileError, read_po
from babel.support import NullTranslations, Translations
from jinja2 import BaseLoader, Environment, StrictUndefined, select_autoescape

from notifyd.compose import locales, typography
from shared.errors import DecodeError

#: What templates need beside Jinja itself; `babel.toml` extracts with the same.
EXTENSIONS: Final = ("jinja2.ext.i18n",)


@dataclass(frozen=True, slots=True)
class Speech:
    """One language: its words, its templates, and a locale for dates."""

    locale: Locale
    environment: Environment = field(repr=False)
    translations: NullTranslations = field(repr=False)

    @property
    def language(self) -> str:
        """As BCP 47 has it: "pt-BR"."""
        return locales.language_tag(self.locale)

    @property
    def is_rtl(self) -> bool:
        """Whether it is written from right to left."""
        return locales.is_rtl(self.locale)

    def gettext(self, message: str, /, **values: object) -> str:
        """`message` in this language, with `values` filled in."""
        return self.translations.ugettext(message) % values

    def pgettext(self, context: str, message: str, /, **values: object) -> str:
        """As gettext, for a message that means something else elsewhere."""
        return str(self.translations.upgettext(context, message)) % values

    def npgettext(self, context: str, one: str, many: str, num: int, /) -> str:
        """`one` or `many` things with the right plural; `num` is filled in."""
        return self.translations.unpgettext(context, one, many, num) % {"num": num}

    def render(self, template: str, /, **values: object) -> str:
        """The template of that name with `values` and what every template may use."""
        return self.environment.get_template(template).render(
            language=self.language, direction="rtl" if self.is_rtl else "ltr", **values
        )


@dataclass(frozen=True, slots=True)
class Voice:
    """All languages, and in whose name mails are sent. Its repr shows no address."""

    #: By catalogue: "en", "pt_BR", ...
    speeches: Mapping[str, Speech] = field(repr=False)
    #: Where mails come from.
    sender: str = field(repr=False)
    #: Beside it; "" is the name of what is sent, in the reader's language.
    sender_name: str = field(default="", repr=False)
    default_locale: str = locales.SOURCE
    default_timezone: str = "UTC"
    #: List-Id of calendar mails, without angle brackets; "": made from the sender's domain.
    list_id: str = ""

    def speech(self, wanted: str) -> Speech:
        """The language for "de-AT", ...; the default one for "" or one that is not spoken."""
        for tag in (wanted, self.default_locale, locales.SOURCE):
            if found := locales.choose(tag, self.speeches):
                name, locale = found
                speech = self.speeches[name]
                return Speech(locale, speech.environment, speech.translations)
        raise DecodeError("no-language")


def speak(loader: BaseLoader, catalogues: Mapping[str, bytes]) -> dict[str, Speech]:
    """The languages of `catalogues` (name: its .po file), and English, with `loader`'s templates.

    Raises ValueError for a catalogue that is not one.
    """
    texts: dict[str, NullTranslations] = {locales.SOURCE: NullTranslations()}
    texts.update({name: _translations(name, po) for name, po in catalogues.items()})
    return {name: _speech(name, loader, translations) for name, translations in texts.items()}


def _translations(name: str, po: bytes) -> NullTranslations:
    compiled = BytesIO()
    try:
        write_mo(compiled, read_po(BytesIO(po), locale=name, abort_invalid=True))
    except PoFileError as error:
        raise ValueError(f"{name}: {error}") from error
    compiled.seek(0)
    return Translations(compiled)


def _speech(name: str, loader: BaseLoader, translations: NullTranslations) -> Speech:
    locale = Locale.parse(name)
    return Speech(
        locale, environment(loader, translations, rtl=locales.is_rtl(locale)), translations
    )


def environment(loader: BaseLoader, translations: NullTranslations, *, rtl: bool) -> Environment:
    """Jinja for one language."""
    made = Environment(
        loader=loader,
        extensions=EXTENSIONS,
        undefined=StrictUndefined,
        autoescape=select_autoescape(("html",), default=False, default_for_string=False),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
    )
    made.install_gettext_translations(translations, newstyle=True)  # type: ignore[attr-defined]
    made.filters["isolated"] = partial(typography.isolated, rtl=rtl)
    made.filters["linked"] = typography.linked
    made.filters["wrapped"] = typography.wrapped
    return made
