"""Accounts written down in a file: CSV with a header line, or JSON lines. Does no I/O.

Columns are the fields of `shared.accounts.Account`; `account` is needed. A column that is not
there leaves that field as it is; an empty cell or null empties it (of the credit: leaves it).
"""

from __future__ import annotations

import csv
import difflib
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple, cast

from shared.store import fields
from shared.store.accounts import Changes

Format = Literal["csv", "jsonl"]


class Parsed(NamedTuple):
    """What a file says; with any problem nothing of it is to be used."""

    rows: dict[str, Changes]
    #: One line each, beginning with the line it is about.
    problems: list[str]


class _Line(NamedTuple):
    number: int
    values: dict[str, Any]
    problem: str = ""


def parse(text: str, form: Format | None = None) -> Parsed:
    """Return the accounts written in `text` and all that is wrong with it.

    JSON lines are told from CSV by the first character, unless `form` says it.
    """
    text = text.removeprefix("\ufeff")
    if form is None:
        form = "jsonl" if text.lstrip().startswith("{") else "csv"
    return _checked(_json_lines(text) if form == "jsonl" else _csv_lines(text))


def _checked(lines: Iterable[_Line]) -> Parsed:
    rows: dict[str, Changes] = {}
    problems: list[str] = []
    seen: dict[str, int] = {}
    for line in lines:
        name, changes, wrong = _row(line)
        if not wrong and name in seen:
            wrong = [f"account: the same as in line {seen[name]}"]
        seen.setdefault(name, line.number)
        problems += [f"line {line.number}: {problem}" for problem in wrong]
        rows[name] = changes
    if not rows and not problems:
        problems.append("line 1: no accounts")
    return Parsed({} if problems else rows, problems)


def _row(line: _Line) -> tuple[str, Changes, list[str]]:
    """Return the account's name, what is said of it, and what is wrong with that."""
    if line.problem:
        return "", {}, [line.problem]
    changes: dict[str, Any] = {}
    problems: list[str] = []
    for name, value in {"account": "", **line.values}.items():
        try:
            text = _text(name, value)
            if name == "account":
                changes[name] = fields.account(text)
            elif name not in fields.CHECKS:
                raise ValueError(f"no such field{_did_you_mean(name)}")
            elif text or name != "sms_credit":
                changes[name] = fields.CHECKS[name](text)
        except ValueError as error:
            problems.append(f"{name}: {error}" + (f" (got {value!r})" if value else ""))
    return str(changes.pop("account", "")), cast("Changes", changes), problems


def _text(name: str, value: object) -> str:
    if value is None:
        return ""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if whole and name in ("sms_credit", "clock"):
        return str(value)
    if isinstance(value, str):
        return value
    raise ValueError("expected text")


def _did_you_mean(name: str) -> str:
    known = ["account", *fields.CHECKS]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"


def _json_lines(text: str) -> Iterator[_Line]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield _Line(number, {}, f"not JSON: {error}")
            continue
        if isinstance(values, dict):
            yield _Line(number, values)
        else:
            yield _Line(number, {}, "not a JSON object")


def _csv_lines(text: str) -> Iterator[_Line]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    try:
        for cells in reader:
            number = reader.line_num
            if not any(cells):
                continue
            if header is not None:
                yield _csv_line(number, header, cells)
                continue
            header = [cell.strip() for cell in cells]
            if problem := _header_problem(header):
                yield _Line(number, {}, problem)
                return
    except csv.Error as error:
        yield _Line(reader.line_num, {}, f"not CSV: {error}")


def _header_problem(header: list[str]) -> str:
    unknown = [name for name in header if name != "account" and name not in fields.CHECKS]
    if unknown:
        return f"column {unknown[0]!r}: no such field{_did_you_mean(unknown[0])}"
    if "account" not in header:
        return "no column `account`; the first line names the columns"
    twice = [name for name in header if header.count(name) > 1]
    return f"column {twice[0]!r} is there twice" if twice else ""


def _csv_line(number: int, header: list[str], cells: list[str]) -> _Line:
    if len(cells) != len(header):
        return _Line(number, {}, f"{len(cells)} cells under {len(header)} columns")
    return _Line(number, dict(zip(header, (cell.strip() for cell in cells), strict=True)))
