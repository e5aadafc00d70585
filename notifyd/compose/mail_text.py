"""A mail as one short readable text: what its writer wrote, without what programs put around it.

Removes quotes and their announcements, signatures, footers of lists, and the header blocks of
forwarded messages. If nothing is left without them, they are what the mail is about and stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import islice, takewhile
from typing import Final

from notifyd.compose.graphemes import graphemes
from notifyd.compose.mail_parts import text_of
from notifyd.compose.mail_words import (
    is_announced_quote,
    is_footer,
    is_forward,
    is_header_block,
    is_original,
    is_remark_of_a_program,
    is_rule,
)
from shared.plaintext import plain

_MOST_LINES: Final = 600
_MOST_LINE_CHARACTERS: Final = 2000
#: A line this long was ended by the width of the window, not by its writer.
_LEAST_WRAPPED: Final = 50
#: So much of the end is given up to end with a whole word.
_MOST_OF_A_WORD: Final = 20


def summary(raw: bytes, most_characters: int) -> str:
    """The beginning of what the writer of `raw` (RFC 5322) wrote; "" if there is no text.

    At most so many characters, cut between words or graphemes and ended by "…". Paragraphs are
    lines; there are no controls. Never raises, whatever `raw` is.
    """
    text = text_of(raw)
    lines = list(takewhile(_is_readable, map(_tidy, text.lines.split("\n")[:_MOST_LINES])))
    written = _written(lines) or [_quote(line)[1] for line in lines]
    paragraphs = written if text.flowed else _unwrap(written)
    return _cut("\n".join(line for line in paragraphs if line), most_characters)


_spaces: Final = re.compile(r"\s+").sub
#: What fills up the line that a mailbox shows beside the subject, and other invisible things.
_invisible: Final = re.compile(
    "[\u00ad\u034f\u115f\u1160\u17b4\u17b5\u200b\u2060\ufeff\ufff9-\ufffc]"
).sub
_loose_joiners: Final = re.compile("(?<![^ ])[\u200c\u200d]+(?![^ ])").sub


def _tidy(line: str) -> str:
    if line in ("-- ", "> -- "):  # the one line whose end means something
        return line
    tidy = _invisible("", plain(line[:_MOST_LINE_CHARACTERS]))
    return _spaces(" ", _loose_joiners("", _spaces(" ", tidy))).strip()


_marks: Final = re.compile(r"(?:> ?)+").match


def _quote(line: str) -> tuple[int, str]:
    """How deep `line` is quoted, and what it says."""
    found = _marks(line)
    return (found[0].count(">"), line[found.end() :].strip()) if found else (0, line.strip())


def _written(lines: Sequence[str]) -> list[str]:
    """The lines that are the writer's own; none if all are others'."""
    kept: list[str] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        has_text = any(kept)
        if is_forward(line) or (not has_text and is_original(line)):
            lines, at = _forwarded(lines[at + 1 :]), 0
            continue
        if has_text and (_is_signature(line) or is_original(line) or is_footer(lines, at)):
            break
        block = is_header_block(lines, at)
        if block:  # Outlook puts one before what it answers to, and before what it forwards
            if has_text:
                break
            at += block
            continue
        announced = is_announced_quote(lines, at)
        if announced:
            at += announced
            if has_text and not _quote_follows(lines, at):
                break
            continue
        begins_paragraph = not kept or not kept[-1]
        if not line.startswith(">") and not (begins_paragraph and is_remark_of_a_program(line)):
            kept.append(line)
        at += 1
    while kept and (not kept[-1] or is_rule(kept[-1])):  # it led over to what was left out
        kept.pop()
    return kept if any(kept) else []


def _is_readable(line: str) -> bool:
    return not line.startswith(("-----BEGIN PGP SIGNATURE", "-----BEGIN PGP MESSAGE"))


def _is_signature(line: str) -> bool:
    return line in ("-- ", "--")


def _quote_follows(lines: Sequence[str], at: int) -> bool:
    return next((line for line in islice(lines, at, at + 3) if line), "").startswith(">")


def _forwarded(lines: Sequence[str]) -> Sequence[str]:
    """The text of a forwarded message: without its fields, and not as a quote if all is one."""
    start = next((at for at, line in enumerate(lines) if line), len(lines))
    rest = lines[start:]
    if rest and rest[0].startswith(">"):
        rest = [line.removeprefix(">").removeprefix(" ") for line in rest]
    return rest[is_header_block(rest, 0) :]


_is_item: Final = re.compile(r"(?:[-*•·–]|\d{1,3}[.)])\s").match


def _unwrap(lines: Iterable[str]) -> list[str]:
    """`lines` with those joined that belong to one paragraph."""
    done: list[str] = []
    before = ""
    for line in lines:
        if line and len(before) >= _LEAST_WRAPPED and not _is_item(line):
            done[-1] += f" {line}"
        else:
            done.append(line)
        before = line
    return done


def _cut(text: str, most_characters: int) -> str:
    if len(text) <= most_characters:
        return text
    pieces: list[str] = []
    length = 1  # the ellipsis
    for piece in graphemes(text[: most_characters + 40]):
        length += len(piece)
        if length > most_characters:
            break
        pieces.append(piece)
    last = max((at for at, piece in enumerate(pieces) if piece.isspace()), default=0)
    if 0 < len(pieces) - last <= _MOST_OF_A_WORD < last:
        pieces = pieces[:last]
    return ("".join(pieces).rstrip(" \n,;:.-") + "…")[: max(most_characters, 0)]
