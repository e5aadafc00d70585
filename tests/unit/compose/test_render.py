"""The voice: whose language is spoken, what templates may do, and what reading them refuses."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import DictLoader, UndefinedError

from notifyd.compose import locales, typography
from notifyd.compose.calendar_alarm import compose_calendar_alarm
from notifyd.compose.render import speak
from notifyd.phrasebook import read_voice
from notifyd.resources import folder
from shared.errors import ConfigError
from shared.slow_sections import Mail
from tests.support.alarm_mails import ALARMS, LOCALES, NOW, html, reader, text, voice


@pytest.mark.parametrize(
    ("wanted", "language", "words"),
    [
        ("de", "de", "Kalender"),
        ("de-AT", "de-AT", "Kalender"),
        ("DE_at.UTF-8", "de-AT", "Kalender"),
        ("pt_BR", "pt-BR", "Calendário"),
        ("pt-br", "pt-BR", "Calendário"),
        ("pt", "pt", "Calendário"),
        ("pt-PT", "pt-PT", "Calendário"),
        ("es-419", "es-419", "Calendario"),
        ("fr-CA", "fr-CA", "Calendrier"),
        ("ar-EG", "ar-EG", "التقويم"),
        ("ja-JP-u-ca-japanese", "ja-JP", "カレンダー"),
        ("de-XX", "de", "Kalender"),
        ("en-GB", "en-GB", "Calendar"),
        ("", "en", "Calendar"),
        ("C", "en", "Calendar"),
        ("tlh", "en", "Calendar"),
        ("../de", "en", "Calendar"),
        ("zh-Hant-TW", "en", "Calendar"),
    ],
)
def test_a_language_is_found_by_what_people_call_it(wanted: str, language: str, words: str) -> None:
    speech = voice().speech(wanted)
    assert (speech.language, speech.gettext("Calendar")) == (language, words)


@given(st.text())
def test_any_language_name_is_answered(wanted: str) -> None:
    assert voice().speech(wanted).gettext("Calendar")


def test_the_default_language_is_for_who_has_none() -> None:
    made = read_voice(Mail(default_locale="pl"))
    assert made.speech("").language == "pl"
    assert made.speech("tlh").language == "pl"
    assert made.speech("de").language == "de"


def test_only_arabic_is_written_from_the_right() -> None:
    assert [name for name in LOCALES if voice().speech(name).is_rtl] == ["ar"]
    assert locales.parse("he") is not None


def test_an_undefined_name_is_an_error() -> None:
    speech = speak(DictLoader({"x.txt": "{{ missing }}"}), {})["en"]
    with pytest.raises(UndefinedError):
        speech.render("x.txt")


def test_html_is_escaped_and_text_is_not() -> None:
    one = "{{ a }} {{ gettext('%(b)s', b=a) }}"
    speech = speak(DictLoader({"x.txt": one, "x.html": one}), {})["en"]
    assert speech.render("x.txt", a='<&">') == '<&"> <&">'
    assert speech.render("x.html", a='<&">') == "&lt;&amp;&#34;&gt; &lt;&amp;&#34;&gt;"


def test_own_templates_come_first_and_the_rest_are_ours(tmp_path: Path) -> None:
    (tmp_path / "calendar_alarm.txt").write_text(
        "{{ summary }} – {{ gettext('Calendar') }}", "utf-8"
    )
    (tmp_path / "notes.md").write_text("{% not a template", "utf-8")
    made = read_voice(Mail(templates=tmp_path))
    mail = compose_calendar_alarm(
        ALARMS["recurring"], "a@b.example", reader("de"), "k", voice=made, now=NOW
    )
    assert text(mail).strip() == "Standup – Kalender"
    assert "Standup</h1>" in html(mail)


def test_a_broken_template_is_told_at_start(tmp_path: Path) -> None:
    (tmp_path / "layout.html").write_text("\n{% if %}", "utf-8")
    with pytest.raises(ConfigError, match=r"layout\.html, line 2"):
        read_voice(Mail(templates=tmp_path))


def test_a_folder_that_is_none_is_told_at_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mail\.templates"):
        read_voice(Mail(templates=tmp_path / "missing"))
    (tmp_path / "x.txt").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"mail\.templates"):
        read_voice(Mail(templates=tmp_path))


def test_a_default_language_nobody_speaks_is_told_at_start() -> None:
    with pytest.raises(ConfigError, match="'tlh' is not one of ar, de, en"):
        read_voice(Mail(default_locale="tlh"))


def test_a_catalogue_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="de"):
        speak(DictLoader({}), {"de": b"nonsense\n"})


def test_templates_fetch_nothing_and_run_nothing() -> None:
    for path in folder("templates").glob("*.html"):
        source = path.read_text("utf-8").lower()
        for word in (
            "<script",
            "<img",
            "<link",
            "@import",
            "url(",
            "src=",
            "http:",
            "| safe",
            "|safe",
        ):
            assert word not in source, (path.name, word)


@pytest.mark.parametrize(
    ("colour", "css"),
    [
        ("#FF2968FF", "#ff2968"),
        ("#0b8043", "#0b8043"),
        ("", "#000000"),
        ("red", "#000000"),
        ("#FF2968F", "#000000"),
        ("#FF2968;x:y", "#000000"),
        ("#FF2968\n", "#000000"),
        ("#٠٠٠٠٠٠", "#000000"),
    ],
)
def test_only_colours_become_css(colour: str, css: str) -> None:
    assert typography.css_colour(colour, "#000000") == css


@pytest.mark.parametrize(
    "colour", ["#ffffff", "#000000", "#ff2968", "#f6bf26", "#0b8043", "#767676"]
)
def test_letters_on_a_colour_can_be_read(colour: str) -> None:
    assert typography.ink_on(colour) == ("#000000" if colour[1] in "f7" else "#ffffff")


@pytest.mark.parametrize(
    ("source", "links"),
    [
        ("see https://a.example/x?y=1&z=2.", ["https://a.example/x?y=1&z=2"]),
        ("(https://a.example/w_(x))", ["https://a.example/w_(x)"]),
        ("<https://a.example/>", ["https://a.example/"]),
        ("HTTP://A.example, https://b.example!", ["HTTP://A.example", "https://b.example"]),
        ("javascript:alert(1) data:text/html,x ftp://x", []),
        ('https://a.example/"onclick="x', ["https://a.example/"]),
        ("no link", []),
        ("", []),
    ],
)
def test_only_web_addresses_become_links(source: str, links: list[str]) -> None:
    pieces = list(typography.linked(source))
    assert [piece.href for piece in pieces if piece.href] == links
    assert "".join(piece.text for piece in pieces) == source


@given(st.text(alphabet="htps:/.()[]!<> \"'ax", max_size=80))
def test_links_lose_no_letter(source: str) -> None:
    assert "".join(piece.text for piece in typography.linked(source)) == source


@pytest.mark.parametrize(
    ("long", "most", "short"),
    [
        ("short", 5, "short"),
        ("one two three four", 15, "one two three…"),
        ("abcdefghij", 5, "abcd…"),
        ("ae\u0301e\u0301e\u0301", 5, "ae\u0301…"),
        ("👩\u200d👩\u200d👧x", 4, "👩…"),
    ],
)
def test_text_is_cut_between_words_or_characters(long: str, most: int, short: str) -> None:
    assert typography.cut(long, most) == short


@given(st.text(), st.integers(2, 40))
def test_cut_text_is_never_longer(long: str, most: int) -> None:
    assert len(typography.cut(long, most)) <= most


def test_lines_are_wrapped_between_words_only() -> None:
    url = "https://example.org/" + "x" * 100
    assert typography.wrapped(f"{'word ' * 20}{url}", 2).split("\n")[-1] == f"  {url}"
    assert all(len(line) <= 76 for line in typography.wrapped("word " * 90).split("\n"))


@given(st.text("ab \t\n\xa0\u3000\u200b\x1f-é", max_size=120), st.sampled_from([0, 2, 9]))
def test_lines_are_wrapped_as_python_wraps_them(source: str, indent: int) -> None:
    first, *others = source.split("\n")
    how = {"width": 76, "break_long_words": False, "break_on_hyphens": False}
    space = " " * indent
    lines = [textwrap.fill(first, subsequent_indent=space, **how)]  # type: ignore[arg-type]
    for line in others:
        lines.append(
            textwrap.fill(line, initial_indent=space, subsequent_indent=space, **how)  # type: ignore[arg-type]
        )
    assert typography.wrapped(source, indent) == "\n".join(lines)


def test_directions_are_isolated_only_where_they_matter() -> None:
    assert typography.isolated("Room 4", rtl=False) == "Room 4"
    assert typography.isolated("أحمد", rtl=False) == "\u2068أحمد\u2069"
    assert typography.isolated("Room 4", rtl=True) == "\u2068Room 4\u2069"
    assert typography.isolated("", rtl=True) == ""
