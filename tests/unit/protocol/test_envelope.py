"""Who wrote and about what, out of ENVELOPE text of any quality."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pusher.protocol.envelope import Address, decode_envelope
from shared.errors import DecodeError
from shared.plaintext import decode_words, plain, plain_lines

CAROL = '(("Carol" NIL "carol" "remote.test"))'


def envelope(subject: str = "NIL", sender: str = CAROL) -> str:
    return f'("Sat, 21 Nov 2026" {subject} {sender} NIL NIL NIL NIL NIL NIL "<id@x>")'


def test_all_ten_parts_are_read() -> None:
    read = decode_envelope(
        '("d" "s" ((NIL NIL "f" "h")) ((NIL NIL "s" "h")) ((NIL NIL "r" "h"))'
        ' ((NIL NIL "t" "h")("Two" NIL "t2" "h")) ((NIL NIL "c" "h")) ((NIL NIL "b" "h"))'
        ' "<reply>" "<id>")'
    )
    assert (read.date, read.subject, read.in_reply_to, read.message_id) == (
        "d", "s", "<reply>", "<id>",
    )  # fmt: skip
    everybody = (read.from_, read.sender, read.reply_to, read.to, read.cc, read.bcc)
    assert [[a.email for a in part] for part in everybody] == [
        ["f@h"], ["s@h"], ["r@h"], ["t@h", "t2@h"], ["c@h"], ["b@h"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("written", "subject"),
    [
        ("NIL", None),
        ("nil", None),
        ('""', ""),
        ('"Hello"', "Hello"),
        ('"NIL"', "NIL"),
        (r'"say \"hi\" \\o/"', r'say "hi" \o/'),
        ('{5}\r\na"b\\c', 'a"b\\c'),
        ("{2+}\r\nü", "ü"),
        ('"=?utf-8?Q?Gr=C3=BC=C3=9Fe_=22x=22?="', 'Grüße "x"'),
        ('"\t folded  here\t"', "folded  here"),
        ('"=?utf-8?Q?a=0D=0AX-Evil:_b?="', "a X-Evil: b"),
        ('"=?utf-8?Q?=E2=80=AEgpj.exe?="', "gpj.exe"),
        ('"' + "x" * 10_000 + '"', "x" * 10_000),
    ],
)
def test_subject_is_decoded_and_plain(written: str, subject: str | None) -> None:
    assert decode_envelope(envelope(written)).subject == subject


@pytest.mark.parametrize(
    ("written", "addresses"),
    [
        ("NIL", []),
        ("()", []),
        ('(("=?utf-8?B?SsO8cmdlbg==?=" NIL "j" "h"))', [Address("Jürgen", "j", "h")]),
        ('(("Robert Norris" NIL "robn" ""))', [Address("Robert Norris", "robn", "")]),
        ('((NIL "@relay1.test" "carol" "h"))', [Address(None, "carol", "h")]),
        (
            '((NIL NIL "A Group" NIL)("Chris" NIL "c" "a")(NIL NIL "joe" "w")(NIL NIL NIL NIL))',
            [Address("Chris", "c", "a"), Address(None, "joe", "w")],
        ),
        ('((NIL NIL "undisclosed-recipients" NIL)(NIL NIL NIL NIL))', []),
    ],
)
def test_addresses_are_read_and_groups_flattened(written: str, addresses: list[Address]) -> None:
    assert decode_envelope(envelope(sender=written)).from_ == tuple(addresses)


@pytest.mark.parametrize(
    ("address", "display", "email"),
    [
        (Address("Carol", "carol", "h"), "Carol", "carol@h"),
        (Address(None, "carol", "h"), "carol@h", "carol@h"),
        (Address(" ", "carol", ""), "carol", "carol"),
        (Address(None, None, None), "", ""),
    ],
)
def test_a_person_is_called_by_name_or_address(address: Address, display: str, email: str) -> None:
    assert (address.display, address.email) == (display, email)


@pytest.mark.parametrize(
    "text",
    [
        "", "NIL", "()", '"x"', "(", ")", envelope()[:-1], envelope() + ")", envelope() + "x",
        envelope("()"), envelope('"'), envelope("{9999}\r\nx"), envelope("{x}"), envelope("atom"),
        envelope(sender='("x")'), envelope(sender='(("a" "b" "c"))'), envelope(sender='"x"'),
        envelope(sender='(("a" NIL ("c") "d"))'), "(" * 100_000, envelope(sender="(((())))"),
    ],
    ids=lambda text: text[:40],
)  # fmt: skip
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(DecodeError, match="envelope"):
        decode_envelope(text)


@given(st.text() | st.text('()"\\{}123 \r\nNIL').map(envelope))
def test_random_text_raises_nothing_but_decode_error(text: str) -> None:
    with suppress(DecodeError):
        decode_envelope(text)


@pytest.mark.parametrize(
    ("written", "right"),
    [
        ("plain", "plain"),
        ("a =?utf-8?Q?b?= c", "a b c"),
        ("=?utf-8?Q?a?= =?utf-8?Q?b?=", "ab"),
        ("=?utf-8?Q?a?=\r\n =?iso-8859-1?Q?=FC?=", "aü"),
        ("=?utf-8?Q?a?= - =?utf-8?Q?b?=", "a - b"),
        ("=?UTF-8*de?b?w7w=?=", "ü"),
        ("=?utf-8?B?w7w?=", "ü"),  # padding forgotten
        ("=?utf-8?Q?=C3?= =?utf-8?Q?=BC?=", "ü"),  # a character cut in two
        ("=?iso-2022-jp?B?GyRCRURDZhsoQg==?=", "田中"),
        # what cannot be decoded stays readable
        ("=?x-klingon?B?cWFwbGEh?=", "qapla!"),
        ("=?nope?Q?a=FFb?=", "=?nope?Q?a=FFb?="),
        ("=?utf-8?B?!!!!?=", "=?utf-8?B?!!!!?="),
        ("=?utf-8?B?a?=", "=?utf-8?B?a?="),
        ("=?utf-8?Q?=FF?=", "\ufffd"),
        ("=?rot13?Q?nop?=", "nop"),
        ("=?unicode_escape?Q?=5Cx?=", "=?unicode_escape?Q?=5Cx?="),
        ("=?idna?Q?xn--?=", "=?idna?Q?xn--?="),
        ("=?\0?Q?=FF?=", "=?\0?Q?=FF?="),
        ("=?utf-8?X?a?=", "=?utf-8?X?a?="),
        ("=?utf-8?Q?", "=?utf-8?Q?"),
    ],
)
def test_encoded_words(written: str, right: str) -> None:
    assert decode_words(written) == right


@given(st.text() | st.text("=?utf8QBqb_ \n*"))
def test_decode_words_never_raises(text: str) -> None:
    assert isinstance(decode_words(text), str)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("line1\r\nline2\nline3\rline4", "line1 line2 line3 line4"),
        ("a\tb\u2028c\u2029d\x85e", "a b c d e"),
        ("a\0b\x1b[31mc\x7fd\x9be", "ab[31mcde"),
        ("\u202eabc\u202c\u2066x\u2069\u200e\u200f\u061c", "abcx"),
        ("👨\u200d👩 naïve", "👨\u200d👩 naïve"),
        ("a\ud800b", "ab"),
    ],
)
def test_plain_keeps_no_control_and_no_direction(text: str, right: str) -> None:
    assert plain(text) == right


def test_plain_lines_keeps_lines_only() -> None:
    assert plain_lines("a\r\nb\rc\n\td\u202e\0") == "a\nb\nc\n d"


@given(st.text())
def test_plain_text_is_on_one_line_and_stays_plain(text: str) -> None:
    once = plain(text)
    assert plain(once) == once
    assert len(once.splitlines()) <= 1
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in once)
