"""`notifyd migrate` and `notifyd users …` as an operator or a script meets them."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from cyclopts import App

from notifyd.store_cli import migrate, users_app
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.real

EVIL = "a\x1b[31m\u202eb"


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def objects(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.out.splitlines()]


Command = Callable[..., Result]


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/state.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()


def caller(tmp_path: Path, capsys: pytest.CaptureFixture[str], url: str) -> Command:
    config = tmp_path / "config.toml"
    config.write_text(f'[store]\nurl = "{url}"\ntimeout_seconds = 1\n')
    app = App(name="notifyd", exit_on_error=False, result_action="return_value")
    app.command(users_app)
    app.command(migrate)

    def call(*arguments: str) -> Result:
        code = app([*arguments, "--config", str(config)])
        return Result(code, *capsys.readouterr())

    return call


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str], url: str) -> Command:
    """The commands on a store that is not migrated yet."""
    return caller(tmp_path, capsys, url)


@pytest.fixture
def users(command: Command) -> Command:
    """`notifyd users …` on a store that is."""
    assert command("migrate").code == os.EX_OK
    return lambda *arguments: command("users", *arguments)


def test_migrate_says_what_it_did(command: Command) -> None:
    assert command("migrate") == (os.EX_OK, "tables made\n", "")
    assert command("migrate") == (os.EX_OK, "tables are up to date already\n", "")


def test_sql_is_only_written(command: Command) -> None:
    written = command("migrate", "--sql")
    assert written.code == os.EX_OK
    assert "CREATE TABLE accounts" in written.out
    assert command("migrate").out == "tables made\n"


def test_before_migrating_every_verb_says_to_migrate(command: Command) -> None:
    result = command("users", "list")
    assert result == (os.EX_CONFIG, "", "notifyd: store: schema: run `notifyd migrate` first\n")


def test_account_from_adding_to_deleting(users: Command) -> None:
    name = "alice@example.org"
    assert users("add", name, "--locale", "pt_br", "--sms-number", "+49 170 123-4567").code == 0
    assert users("set", name, "--timezone", "Europe/Berlin", "--clock", "24").code == 0
    assert users("credit", "add", name, "12").out == "12\n"
    assert users("credit", "take", name, "2", "--json").objects == [
        {"account": name, "sms_credit": 10}
    ]
    shown = users("show", name)
    assert (
        shown.out.split()
        == (
            f"account {name} address - locale pt-BR timezone Europe/Berlin clock 24"
            " sms_number +491701234567 sms_credit 10"
        ).split()
    )
    assert users("show", name, "--json").objects == [
        {
            "account": name,
            "address": "",
            "locale": "pt-BR",
            "timezone": "Europe/Berlin",
            "clock": "24",
            "sms_number": "+491701234567",
            "sms_credit": 10,
        }
    ]
    assert users("set", name, "--clock", "", "--timezone", "").code == 0
    assert users("show", name, "--json").objects[0]["clock"] is None
    assert users("delete", name).code == 0
    assert users("show", name).code == os.EX_NOUSER


def test_adding_twice_is_refused(users: Command) -> None:
    users("add", "alice")
    again = users("add", "alice", "--locale", "de")
    assert again == (os.EX_CANTCREAT, "", "notifyd: there is an account alice already\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "nobody"),
        ("set", "nobody", "--locale", "de"),
        ("delete", "nobody"),
        ("credit", "add", "nobody", "1"),
    ],
)
def test_unknown_account_has_its_own_exit_code(users: Command, arguments: tuple[str, ...]) -> None:
    assert users(*arguments) == (os.EX_NOUSER, "", "notifyd: no such account: nobody\n")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("add", "a", "--locale", "klingon"), "locale: expected a language"),
        (("add", "a", "--timezone", "Mars/Olympus"), "timezone: expected a name of the tz"),
        (("add", "a", "--clock", "13"), 'clock: expected "12" or "24"'),
        (("add", "a", "--sms-number", "0170 1234567"), "sms_number: expected an international"),
        (("add", "a", "--sms-number", "+٤٩١٧٠١٢٣٤٥٦٧"), "sms_number: expected"),
        (("add", "a", "--sms-credit", "99999999999"), "sms_credit: expected a whole number"),
        (("add", "a", "--address", "Alice <a@b.org>"), "address: expected a bare mail address"),
        (("add", "a\x00b"), "account: control characters"),
        (("add", ""), "account: expected 1 to"),
        (("set", "a"), "say what to change"),
        (("delete",), "name the accounts"),
        (("credit", "add", "a", "1.5"), "expected a whole number"),
    ],
)
def test_bad_value_is_named_and_nothing_is_stored(
    users: Command, arguments: tuple[str, ...], complaint: str
) -> None:
    result = users(*arguments)
    assert (result.code, result.out) == (os.EX_USAGE, "")
    assert complaint in result.err
    assert users("list", "--json").out == ""


def test_every_bad_value_is_named_at_once(users: Command) -> None:
    result = users("add", "a", "--locale", "klingon", "--clock", "13")
    assert "locale: " in result.err
    assert "clock: " in result.err


def test_list_is_by_name_with_prefix_and_limit(users: Command, tmp_path: Path) -> None:
    file = tmp_path / "users.csv"
    names = [f"user{number:04}" for number in range(1, 1203)]
    file.write_text("account\n" + "\n".join([*names, "zoe"]) + "\n")
    assert users("import", str(file)).out == "1203 added 0 changed\n"
    assert [each["account"] for each in users("list", "--json").objects] == [*names, "zoe"]
    listed = users("list", "user000", "--limit", "3").out.splitlines()
    assert [line.split()[-1] for line in listed] == ["ADDRESS", *names[:3]]
    assert users("list", "--limit", "0", "--json").out == ""


def test_terminal_is_safe_from_what_is_shown(users: Command, tmp_path: Path) -> None:
    for arguments in (
        ("show", EVIL),
        ("add", EVIL),
        ("delete", EVIL),
        ("add", "a", "--locale", EVIL),
    ):
        result = users(*arguments)
        assert result.code != os.EX_OK
        assert "\x1b" not in result.out + result.err
        assert "\u202e" not in result.out + result.err
    file = tmp_path / "users.csv"
    file.write_text(f"account,locale\na,{EVIL}\n")
    assert "\x1b" not in users("import", str(file)).err


CSV = """\
account,address,locale,sms_number,sms_credit
alice@example.org,,de,+49 170 1234567,10
bob,bob@example.org,pt-BR,,
"o'neil, pat",pat@example.org,,,0
"""
JSON_LINES = """\
{"account": "alice@example.org", "locale": "de", "sms_number": "+491701234567", "sms_credit": 10}
{"account": "bob", "address": "bob@example.org", "locale": "pt-BR", "sms_number": null}

{"account": "o'neil, pat", "address": "pat@example.org", "sms_credit": "0"}
"""


@pytest.mark.parametrize("text", [CSV, "\ufeff" + CSV, CSV.replace("\n", "\r\n"), JSON_LINES])
def test_import_takes_csv_and_json_lines_alike(users: Command, tmp_path: Path, text: str) -> None:
    file = tmp_path / "users"
    file.write_bytes(text.encode())
    assert users("import", str(file), "--json").objects == [{"added": 3, "changed": 0}]
    assert [(each["account"], each["sms_credit"]) for each in users("list", "--json").objects] == [
        ("alice@example.org", 10),
        ("bob", 0),
        ("o'neil, pat", 0),
    ]


def test_import_leaves_what_the_file_does_not_say(users: Command, tmp_path: Path) -> None:
    users("add", "bob", "--sms-credit", "5", "--locale", "fr", "--timezone", "Europe/Paris")
    file = tmp_path / "users.csv"
    file.write_text("account,locale,sms_credit\nbob,,\n")
    assert users("import", str(file)).out == "0 added 1 changed\n"
    found = users("show", "bob", "--json").objects[0]
    assert (found["sms_credit"], found["locale"], found["timezone"]) == (5, "", "Europe/Paris")


def test_what_list_writes_import_reads(
    users: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "users.csv").write_text(CSV)
    users("import", str(tmp_path / "users.csv"))
    listed = users("list", "--json").out
    users("delete", "bob")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(listed.encode())))
    assert users("import", "-").out == "1 added 2 changed\n"
    assert users("list", "--json").out == listed


@pytest.mark.parametrize(
    ("text", "complaints"),
    [
        ("", ["line 1: no accounts"]),
        ("account\n", ["line 1: no accounts"]),
        ("name\nalice\n", ["line 1: column 'name': no such field"]),
        ("account,local\na,de\n", ["did you mean 'locale'"]),
        ("locale\nde\n", ["line 1: no column `account`"]),
        ("account,account\na,b\n", ["is there twice"]),
        ("account,locale\na\nb,de,x\n", ["line 2: 1 cells under 2", "line 3: 3 cells under 2"]),
        ("account\na\nb\na\n", ["line 4: account: the same as in line 2"]),
        ('account\n"a\n', ["not CSV"]),
        (
            "account,locale,timezone,clock,sms_number,sms_credit\n"
            "ok,de,UTC,24,+491701234567,1\n"
            ",xx-yy-zz,Nowhere,25,123,-1\n",
            ["account", "locale", "timezone", "clock", "sms_number", "sms_credit"],
        ),
        ('{"account": "a"\n[1]\n', ["line 1: not JSON", "line 2: not a JSON object"]),
        ('{"account": 5}\n{"account": "b", "locale": true}\n', ["line 1: account", "line 2: loc"]),
        ('{"locale": "de"}\n', ["line 1: account: expected 1 to"]),
        ('{"account": "a", "sms_credit": 1.5}\n', ["line 1: sms_credit: expected text"]),
        ('{"account": "a\\ud800"}\n', ["line 1: account"]),
    ],
)
def test_import_names_every_problem_with_its_line_and_does_nothing(
    users: Command, tmp_path: Path, text: str, complaints: list[str]
) -> None:
    file = tmp_path / "users"
    file.write_text(text)
    result = users("import", str(file))
    assert (result.code, result.out) == (os.EX_DATAERR, "")
    for complaint in complaints:
        assert complaint in result.err
    assert users("list", "--json").out == ""


def test_import_of_what_cannot_be_read_says_so(users: Command, tmp_path: Path) -> None:
    assert users("import", str(tmp_path / "missing")).code == os.EX_NOINPUT
    (tmp_path / "latin1").write_bytes("account\na\njürgen\n".encode("latin-1"))
    result = users("import", str(tmp_path / "latin1"))
    assert (result.code, result.err) == (os.EX_DATAERR, "notifyd: line 3: not UTF-8\n")


def test_dry_run_only_checks(users: Command, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text(CSV)
    assert users("import", str(tmp_path / "users.csv"), "--dry-run") == (os.EX_OK, "", "")
    assert users("list", "--json").out == ""


def test_credit_has_an_upper_bound(users: Command) -> None:
    users("add", "alice", "--sms-credit", "1000000000")
    assert users("credit", "add", "alice", "1").code == os.EX_DATAERR
    assert users("credit", "take", "alice", "999999999").out == "1\n"


def test_dead_database_is_a_temporary_failure_said_in_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with PostgresServer() as postgres:
        command = caller(tmp_path, capsys, postgres.new_database())
        assert command("migrate").code == os.EX_OK
        postgres.pause()
        begun = time.monotonic()
        result = command("users", "credit", "add", "alice", "1")
        assert time.monotonic() - begun < 2.5
        assert result.code == os.EX_TEMPFAIL
        assert "before you try again" in result.err
        postgres.kill()
        for arguments in (("users", "list"), ("migrate",)):
            assert command(*arguments).code == os.EX_TEMPFAIL
