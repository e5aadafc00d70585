"""What an SMS costs is what Twilio says, and what is cut is cut where a person would."""

from __future__ import annotations

import json
import random
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from notifyd.compose.graphemes import graphemes
from notifyd.compose.gsm7 import SEPTETS, is_gsm7, near
from notifyd.compose.sms_text import Segments, segments, squeeze
from tests.support.node import run_script

SCRIPT = Path(__file__).parents[2] / "support" / "segments.js"

FAMILY, FLAG, WAVE, RAINBOW = "👨‍👩‍👧", "🇩🇪", "👋🏽", "🏳️‍🌈"
CLUSTERS = [
    FAMILY,
    FLAG,
    WAVE,
    RAINBOW,
    "😀",
    "❤️",
    "1️⃣",
    "e\u0323\u0301",
    "각",
    "각",
    "นำ",
    "षि",
    "நி",
]
ALPHABETS = {
    "gsm": "".join(SEPTETS),
    "gsm, dear": "abc {}[]€^|~\\\f",
    "nearly gsm": "abc def ghi jkl ê",
    "western": "abcdefg éèçñß ąęłő",
    "several scripts": "абв γδε 日本語 한국어 שלום سلام",
    "beyond 16 bits": "a😀𝒳𐍈🂡",
    "clusters": CLUSTERS,
    "clusters and gsm": [*CLUSTERS, *"abc €{}"],
}
#: Where a count changes, and around it.
EDGES = (
    0,
    1,
    66,
    67,
    68,
    69,
    70,
    71,
    72,
    133,
    134,
    135,
    152,
    153,
    154,
    159,
    160,
    161,
    201,
    306,
    307,
)


def random_texts(number: int) -> list[str]:
    chance = random.Random(23038)
    texts = [
        "".join(chance.choices(alphabet, k=length))
        for alphabet in ALPHABETS.values()
        for length in EDGES
    ]
    while len(texts) < number:
        alphabet = chance.choice(list(ALPHABETS.values()))
        texts.append(
            "".join(chance.choices(alphabet, k=chance.choice([*EDGES, chance.randrange(400)])))
        )
    return texts


def test_segments_are_counted_as_twilio_counts_them() -> None:
    texts = random_texts(6000)
    answers = json.loads(run_script(SCRIPT, json.dumps(texts)))
    ours = [segments(text) for text in texts]
    names = {"gsm7": "GSM-7", "ucs2": "UCS-2"}
    different = [
        (text, answer)
        for text, mine, answer in zip(texts, ours, answers, strict=True)
        if [names[mine.encoding], mine.count] != answer
    ]
    assert different == []
    assert {mine.encoding for mine in ours} == {"gsm7", "ucs2"}
    assert {mine.count for mine in ours} >= {1, 2, 3, 4, 5}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Segments("gsm7", 0, 1)),
        ("a" * 160, Segments("gsm7", 160, 1)),
        ("a" * 161, Segments("gsm7", 161, 2)),
        ("€" * 80, Segments("gsm7", 160, 1)),
        # 153 is odd: the escape pair does not go into the last septet of a part
        ("€" * 153, Segments("gsm7", 306, 3)),
        ("ж" * 70, Segments("ucs2", 70, 1)),
        ("ж" * 71, Segments("ucs2", 71, 2)),
        # 67 is odd, a surrogate pair is not cut
        ("😀" * 67, Segments("ucs2", 134, 3)),
        (FAMILY * 17, Segments("ucs2", 136, 3)),
    ],
)
def test_nothing_that_belongs_together_lies_in_two_parts(text: str, expected: Segments) -> None:
    assert segments(text) == expected


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_cluster_is_one_character(cluster: str) -> None:
    assert list(graphemes(f"a{cluster}b")) == ["a", cluster, "b"]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        (FLAG * 2, [FLAG, FLAG]),
        ("🇩🇪🇫", ["🇩🇪", "🇫"]),
        ("a\u200d👧", ["a\u200d", "👧"]),
        ("\n\u0301", ["\n", "\u0301"]),
        ("日本", ["日", "本"]),
        ("\u0600۱", ["\u0600۱"]),
        ("가나각ㄱ", ["가", "나", "각", "ㄱ"]),
        ("🏴\U000e0067\U000e0062\U000e007f!", ["🏴\U000e0067\U000e0062\U000e007f", "!"]),
    ],
)
def test_clusters_end_where_the_rules_of_unicode_say(text: str, pieces: list[str]) -> None:
    assert list(graphemes(text)) == pieces


@given(st.text())
def test_pieces_are_the_text(text: str) -> None:
    assert "".join(graphemes(text)) == text


def test_a_heap_of_marks_is_cut_all_the_same() -> None:
    pieces = list(graphemes("a" + "\u0301" * 100_000))
    assert max(map(len, pieces)) == 31


@pytest.mark.parametrize(
    ("text", "most", "transliterate", "expected"),
    [
        ("short", 1, False, "short"),
        ("", 1, False, ""),
        ("a" * 160, 1, False, "a" * 160),
        ("a" * 161, 1, False, "a" * 157 + "..."),
        ("a" * 400, 2, False, "a" * 303 + "..."),
        ("ж" * 70, 1, False, "ж" * 70),
        ("ж" * 71, 1, False, "ж" * 69 + "…"),
        ("ж" * 200, 2, False, "ж" * 133 + "…"),
        # the pair does not fit any more, the ellipsis does
        ("😀" * 36, 1, False, "😀" * 34 + "…"),
        ("x" * 62 + FAMILY, 1, False, "x" * 62 + FAMILY),
        ("x" * 63 + FAMILY, 1, False, "x" * 63 + "..."),
        ("ж" * 60 + FAMILY * 2, 1, False, "ж" * 60 + FAMILY + "…"),
        ("ж" * 65 + FAMILY, 1, False, "ж" * 65 + "…"),
        ("€" * 81, 1, False, "€" * 78 + "..."),
        # the one character that would halve the room comes after the cut
        ("word " * 40 + "😀", 1, False, "word " * 30 + "word..."),
        ("„Grüße“ – ça va", 1, True, '"Grüße" - ca va'),
        ("„Grüße“ – ça va", 1, False, "„Grüße“ – ça va"),
        # no gain, so nothing is changed
        ("„Grüße“ 😀", 1, True, "„Grüße“ 😀"),
        ("“" + "a" * 200, 1, True, '"' + "a" * 156 + "..."),
        ("“" + "a" * 200, 1, False, "“" + "a" * 68 + "…"),
        ("one two three " + "a" * 150, 1, False, "one two three " + "a" * 143 + "..."),
        ("b" * 150 + " aaaaaaaaaaaaaaaa", 1, False, "b" * 150 + "..."),
        ("a\u00a0b\u200bc\u00add\ufeff \t\n\n e\r\n", 1, False, "a bcd\ne"),
        ("a\x00\x1b[31m\u202eb\x9f", 1, False, "a[31mb"),
        ("e\u0301", 1, False, "é"),
    ],
)  # fmt: skip
def test_squeeze(text: str, most: int, transliterate: bool, expected: str) -> None:
    assert squeeze(text, most, transliterate) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("éèùìòàäöüñÇßæøå€[]", "éèùìòàäöüñÇßæøå€[]"),
        ("êçáíóúÁŁódźőş", "ecaiouALodzos"),
        ("‘a’ “b” «c» – — …", '\'a\' "b" "c" - - ...'),
        ("½ ﬁ ™ № © ×", "1/2 fi TM No (c) x"),
        ("Œuvre Đà", "OEuvre Dà"),
        ("ＡＢ１", "AB1"),
        ("日本 😀 ж", "日本 😀 ж"),
    ],
)
def test_what_is_near(text: str, expected: str) -> None:
    assert near(text) == expected


anything = st.text() | st.lists(
    st.sampled_from([*CLUSTERS, *"ab €{é\n\u200d\u0301“ж\ud800"]), max_size=400
).map("".join)


@given(anything, st.integers(1, 4), st.booleans())
@example("\u0301" * 5000, 1, True)
@example("\u00a8", 1, True)  # like a space, which is nothing
@example(FAMILY * 500, 2, False)
def test_what_is_squeezed_fits_and_is_cut_between_characters(
    text: str, most: int, transliterate: bool
) -> None:
    squeezed = squeeze(text, most, transliterate)
    assert segments(squeezed).count <= most
    assert squeezed == squeezed.encode("utf-8").decode("utf-8")
    assert not any(unicodedata.category(c) == "Cc" for c in squeezed if c != "\n")
    whole = squeeze(text, 10_000, False), squeeze(text, 10_000, True)
    if squeezed not in whole:
        stem = squeezed.removesuffix("...").removesuffix("…")
        pieces = list(graphemes(stem))
        assert pieces in [list(graphemes(each))[: len(pieces)] for each in (*whole, near(whole[0]))]
    assert squeeze(squeezed, most, transliterate) == squeezed


@given(st.integers(0, 1000), st.integers(1, 4))
def test_of_plain_words_no_more_is_lost_than_needed(length: int, most: int) -> None:
    text = ("lorem ipsum " * 90)[:length].strip()
    squeezed = squeeze(text, most, False)
    room = 160 if most == 1 else 153 * most
    assert squeezed == text or len(squeezed) >= room - 12
    assert is_gsm7(squeezed)
