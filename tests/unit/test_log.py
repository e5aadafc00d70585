"""The log has one JSON line per event, no secret, and no person unless the operator wants it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from shared.log import PERSONAL, SECRET, Limited, Redactor, configure

DAY = 86_400


@pytest.fixture
def fresh_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    root.handlers = []
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def redact(redactor: Redactor, **fields: Any) -> dict[str, Any]:
    return dict(redactor(None, "info", fields))


# --- redaction ---------------------------------------------------------------------------------


@pytest.mark.parametrize("field", sorted(SECRET))
@pytest.mark.parametrize("personal_data", [True, False])
def test_a_secret_is_never_logged(field: str, personal_data: bool) -> None:
    redactor = Redactor(personal_data)
    assert redact(redactor, event="e", **{field: "hush"}) == {"event": "e", field: "[not logged]"}


@pytest.mark.parametrize("field", sorted(PERSONAL))
def test_a_person_is_a_short_hash_unless_wanted_in_clear(field: str) -> None:
    hidden = redact(Redactor(False), **{field: "alice@example.org"})[field]
    assert hidden.startswith("#")
    assert len(hidden) == 13
    assert redact(Redactor(True), **{field: "alice@example.org"})[field] == "alice@example.org"


def test_other_fields_and_missing_people_are_left_alone() -> None:
    assert redact(Redactor(False), status=7, account=None) == {"status": 7, "account": None}


@pytest.mark.parametrize("name", ["", "ü", "half \ud800", "a\r\nb", 7])
def test_any_name_can_be_hidden(name: object) -> None:
    assert redact(Redactor(False), account=name)["account"].startswith("#")


def test_the_same_person_is_the_same_all_day_and_nobody_knows_tomorrow() -> None:
    now = 10.0 * DAY
    redactor = Redactor(False, wall=lambda: now)
    today = redactor.pseudonym("alice")
    assert redactor.pseudonym("bob") != today
    now += DAY - 1
    assert redactor.pseudonym("alice") == today
    now += 1
    tomorrow = redactor.pseudonym("alice")
    assert tomorrow != today
    now -= 1
    assert redactor.pseudonym("alice") not in (today, tomorrow)  # the key of yesterday is gone


def test_two_processes_hide_the_same_person_differently() -> None:
    assert Redactor(False).pseudonym("alice") != Redactor(False).pseudonym("alice")


# --- lines -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fresh_logging")
def test_every_event_is_one_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", personal_data=False)
    log = structlog.get_logger()
    log.info("first", account="alice", detail="a\nb\u2028c\x1b[31m")
    log.debug("not at this level")
    log.warning("second", token="hush")
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["event"], first["level"]) == ("first", "info")
    assert first["account"].startswith("#")
    assert first["detail"] == "a\nb\u2028c\x1b[31m"
    assert first["timestamp"].endswith("Z")
    assert (second["event"], second["token"]) == ("second", "[not logged]")


@pytest.mark.usefixtures("fresh_logging")
def test_a_failure_is_one_line_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    configure("error", personal_data=False)
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        structlog.get_logger().exception("failed")
    (line,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert "RuntimeError: broken" in line["exception"]


@pytest.mark.usefixtures("fresh_logging")
@pytest.mark.parametrize("level", [logging.WARNING, logging.ERROR, logging.CRITICAL, 35, 999])
def test_libraries_are_heard_from_warnings_up_in_our_form(
    capsys: pytest.CaptureFixture[str], level: int
) -> None:
    configure("info", personal_data=False)
    library = logging.getLogger("some.package")
    library.info("chatter")
    library.log(level, "trouble with %s", "it")
    (line,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (line["event"], line["logger"]) == ("trouble with it", "some.package")


@pytest.mark.usefixtures("fresh_logging")
def test_a_library_that_logs_wrongly_is_not_disturbed(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", personal_data=False)
    logging.getLogger("some.package").warning("%d of them", "many")
    assert "TypeError" in capsys.readouterr().err


@pytest.mark.usefixtures("fresh_logging")
def test_configuring_again_does_not_log_twice(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        configure("info", personal_data=True)
    logging.getLogger("some.package").warning("trouble")
    assert len(capsys.readouterr().out.splitlines()) == 1


# --- limits ------------------------------------------------------------------------------------


def test_one_line_per_kind_and_minute_and_none_uncounted() -> None:
    now = 0.0
    limited = Limited(clock=lambda: now)
    assert limited.allows("a") == 0
    assert [limited.allows("a") for _ in range(3)] == [None] * 3
    assert limited.allows("b") == 0
    now = 59.9
    assert limited.allows("a") is None
    now = 60.0
    assert limited.allows("a") == 4
    now = 200.0
    assert limited.allows("a") == 0
