"""What the short text of a mail is: the corpus says it by example, the properties for the rest."""

from __future__ import annotations

import base64
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifyd.compose.html_text import text_of_html
from notifyd.compose.mail_parts import parse
from notifyd.compose.mail_text import summary

CORPUS = sorted((Path(__file__).parents[2] / "data" / "sms").glob("*.eml"))
LONG = 1000


def mail(body: str | bytes, *fields: str) -> bytes:
    head = "".join(f"{field}\n" for field in ("From: a@x", *fields))
    return head.encode() + b"\n" + (body.encode() if isinstance(body, str) else body)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: str(path.stem))
def test_corpus(path: Path) -> None:
    expected = path.with_suffix(".txt").read_text("utf-8").removesuffix("\n")
    raw = path.read_bytes()
    assert summary(raw, LONG) == expected
    assert summary(raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"), LONG) == expected


def test_the_corpus_is_there() -> None:
    assert len(CORPUS) >= 50


@pytest.mark.parametrize(
    ("text", "most", "expected"),
    [
        ("one two three", 13, "one two three"),
        ("one two three", 12, "one two thr…"),
        ("a sentence of many words, and some", 28, "a sentence of many words…"),
        ("👨‍👩‍👧👨‍👩‍👧", 9, "👨‍👩‍👧…"),
        ("abc", 1, "…"),
        ("abc", 0, ""),
    ],
)
def test_what_is_too_long_is_cut_between_words_or_characters(
    text: str, most: int, expected: str
) -> None:
    assert summary(mail(text, "Content-Type: text/plain; charset=utf-8"), most) == expected


def test_fields_are_read_as_a_reader_sees_them() -> None:
    part = parse(
        b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n =?utf-8?q?_x?=\r\nSubject: 2\r\n\r\nbody"
    )
    assert part.shown("subject") == "Grüße x"
    assert part.shown("x-none") == ""
    assert part.first("x-none") is None
    assert part.body == b"body"


def nested(depth: int) -> bytes:
    inner = b"Content-Type: text/plain\n\nat the bottom"
    for level in range(depth):
        boundary = f"b{level}".encode()
        inner = b'Content-Type: multipart/mixed; boundary="%b"\n\n--%b\n%b\n--%b--\n' % (
            boundary, boundary, inner, boundary,
        )  # fmt: skip
    return inner


def test_parts_are_looked_for_some_levels_deep_only() -> None:
    assert summary(nested(8), LONG) == "at the bottom"
    assert summary(nested(2000), LONG) == ""


MEGABYTE = 1024 * 1024
HTML = "Content-Type: text/html"
HOSTILE: dict[str, Callable[[], bytes]] = {
    "deep": lambda: nested(5000),
    "messages in messages": lambda: b"Content-Type: message/rfc822\n\n" * 30_000,
    "many parts": lambda: mail("--b\n\nx\n" * 100_000, "Content-Type: multipart/mixed; boundary=b"),
    "alternatives of alternatives": lambda: mail(
        ("--b\nContent-Type: multipart/alternative; boundary=b\n\n" * 20_000),
        "Content-Type: multipart/alternative; boundary=b",
    ),
    "one line": lambda: mail("a" * MEGABYTE),
    "no line": lambda: mail("\n" * MEGABYTE),
    "spaces": lambda: mail(" " * MEGABYTE),
    "quotes": lambda: mail("> " * (MEGABYTE // 2)),
    "quote marks by line": lambda: mail(">" * 100 + "\n" + ">\n" * (MEGABYTE // 2)),
    "flowed": lambda: mail("a \n" * 300_000, "Content-Type: text/plain; format=flowed"),
    "flowed quotes": lambda: mail("> > \n" * 200_000, "Content-Type: text/plain; format=flowed"),
    "rules": lambda: mail("-" * 200 + "\n" + ("_" * 90 + "\n") * 10_000),
    "announcements": lambda: mail("On 1\n" * 200_000),
    "long announcements": lambda: mail(("On 1 " + "<a" * 140 + "\n") * 3000),
    "fields": lambda: mail("From: a\nTo: b\n" * 70_000),
    "marks": lambda: mail("a" + "\u0301" * 400_000, "Content-Type: text/plain; charset=utf-8"),
    "joiners": lambda: mail("\u200c " * 250_000, "Content-Type: text/plain; charset=utf-8"),
    "header": lambda: b"X: " + b"a;" * MEGABYTE,
    "folded header": lambda: b"X: a" + b"\n " * MEGABYTE,
    "content type": lambda: mail("x", "Content-Type: text/plain; " + "a=\"b;" * 100_000),
    "open tags": lambda: mail("<a " * 350_000, HTML),
    "open quotes in tags": lambda: mail("<a '" * 250_000, HTML),
    "open comments": lambda: mail("<!--" * 250_000, HTML),
    "open declarations": lambda: mail("<!" * 500_000, HTML),
    "open elements": lambda: mail("<div>" * 200_000, HTML),
    "ends of elements": lambda: mail("<b>" * 1000 + "</div>" * 200_000, HTML),
    "hidden elements": lambda: mail("<p hidden>" * 100_000, HTML),
    "scripts": lambda: mail("<script>" * 130_000, HTML),
    "numbers": lambda: mail("&#" + "9" * MEGABYTE + ";", HTML),
    "entities": lambda: mail("&amp" * 250_000, HTML),
    "styles": lambda: mail('<p style="' + "display " * 130_000, HTML),
    "meta": lambda: mail("<meta " * 170_000, HTML),
    "base64": lambda: mail(b"!" * MEGABYTE + b"=", "Content-Transfer-Encoding: base64"),
    "quoted-printable": lambda: mail("=" * MEGABYTE, "Content-Transfer-Encoding: quoted-printable"),
    "binary": lambda: bytes(range(256)) * 4096,
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_megabyte_takes_no_time_to_speak_of(name: str) -> None:
    raw = HOSTILE[name]()
    before = time.process_time()
    assert len(summary(raw, 300)) <= 300
    assert time.process_time() - before < 1.0


def has_controls(text: str) -> bool:
    return any(unicodedata.category(c) in ("Cc", "Cs") for c in text.replace("\n", ""))


FRAGMENTS = st.lists(
    st.sampled_from([
        b"--b\n", b"--b--\n", b"\n", b"\r\n", b"From: a\n", b"Sent: x\n", b"To: b\n", b"> ", b">",
        b"Content-Type: multipart/mixed; boundary=b\n", b"Content-Type: text/html\n\n", b"<p>",
        b"Content-Type: message/rfc822\n\n", b"Content-Type: text/plain; charset=utf-7\n",
        b"Content-Type: text/plain; charset=punycode\n", b"Content-Type: text/plain; charset=\0\n",
        b"Content-Transfer-Encoding: base64\n", b"Content-Transfer-Encoding: quoted-printable\n",
        b"<blockquote type=cite>", b"</blockquote>", b"<script>", b"<!--", b"&#x0;", b"&#xd800;",
        b"-- \n", b"On 1 a wrote:\n", b"____________________\n", b"mailing list\n", b"\x85", b"\0",
        b"\xe2\x80\xae", b"\xf0\x9f\x91\xa8\xe2\x80\x8d", b"=ff", b"text text", b"format=flowed;",
        b"-------- Forwarded message --------\n", b"<pre>", b"<li>", b"<br>", b"<img alt='a'>",
    ])
    | st.binary(max_size=8)
).map(b"".join)  # fmt: skip


@given(st.binary() | FRAGMENTS, st.integers(-1, 400))
def test_of_any_bytes_comes_text_of_the_length_asked_for(raw: bytes, most: int) -> None:
    text = summary(raw, most)
    assert len(text) <= max(most, 0)
    assert not has_controls(text)
    assert text.encode().decode() == text


@given(st.text())
def test_of_any_html_comes_text(html: str) -> None:
    body = base64.b64encode(html.encode("utf-8", "replace"))
    fields = "Content-Transfer-Encoding: base64", "Content-Type: text/html; charset=utf-8"
    assert not has_controls(summary(mail(body, *fields), 100))
    assert "<p>" not in text_of_html(f"<p>{html.replace('<', '')}", 100)
