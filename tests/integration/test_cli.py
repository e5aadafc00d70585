"""The operator's verbs, run as he runs them."""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
from pathlib import Path

import jwt
import pytest

from tests.support.pusher_process import PusherProcess


def pusher(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pusher", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=30,
        check=False,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )


def test_check_config_names_every_problem_and_exits_78(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[streams]\nlisten = "nowhere"\nping_secs = 1\n[auth]\nkey_file = "none"\n')
    checked = pusher("check-config", "--config", str(file))
    assert checked.returncode == 78
    assert len(checked.stderr.splitlines()) == 3
    assert "did you mean 'ping_seconds'" in checked.stderr
    as_json = pusher("check-config", "--config", str(file), "--json")
    assert as_json.returncode == 78
    assert len(json.loads(as_json.stdout)["problems"]) == 3
    file.write_text("[streams]\nping_seconds = 1\n")
    assert pusher("check-config", "--config", str(file)).returncode == 0


def test_a_secret_too_short_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("short\n")
    (tmp_path / "config.toml").write_text('[auth]\nkey_file = "key"\n')
    checked = pusher("check-config", "--config", str(tmp_path / "config.toml"))
    assert checked.returncode == 78
    assert "too short" in checked.stderr
    serving = pusher("serve", "--config", str(tmp_path / "config.toml"), cwd=tmp_path)
    assert serving.returncode == 78


def test_config_show_says_where_each_value_is_from(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[streams]\nping_seconds = 7\n")
    shown = pusher("config", "show", "--origin", "--json", "--config", str(file))
    values = {item["path"]: item for item in json.loads(shown.stdout)}
    assert values["streams.ping_seconds"]["value"] == 7
    assert values["streams.ping_seconds"]["origin"] == str(file)
    assert values["streams.listen"]["origin"] == "default"
    text = pusher("config", "show", "--config", str(file)).stdout
    assert "ping_seconds = 7" in text


def test_the_shown_configuration_is_itself_a_configuration(tmp_path: Path) -> None:
    shown = pusher("config", "show", cwd=tmp_path).stdout
    (tmp_path / "again.toml").write_text(shown.replace('key_file = "run/auth.key"', ""))
    assert pusher("check-config", "--config", str(tmp_path / "again.toml")).returncode == 0


def test_a_token_is_for_one_account_one_audience_and_a_while(tmp_path: Path) -> None:
    token = pusher("token", "alice@example.org", "--ttl", "90s", cwd=tmp_path).stdout.strip()
    key = (tmp_path / "run/auth.key").read_text().strip()
    claims = jwt.decode(token, key, algorithms=["HS256"], audience="mailbox-pusher")
    assert claims["sub"] == "alice@example.org"
    assert (tmp_path / "run/auth.key").stat().st_mode & 0o777 == 0o600
    assert pusher("token", "alice", "--ttl", "soon", cwd=tmp_path).returncode == 64


@pytest.mark.parametrize("arguments", [("serve", "--nonsense"), ("no-such-verb",), ("token",)])
def test_a_wrong_command_line_exits_64(arguments: tuple[str, ...], tmp_path: Path) -> None:
    assert pusher(*arguments, cwd=tmp_path).returncode == 64


def test_tail_without_a_pusher_says_so(tmp_path: Path) -> None:
    tailed = pusher("tail", cwd=tmp_path)
    assert tailed.returncode == 69
    assert "no pusher listens" in tailed.stderr


def test_tail_shows_what_became_of_events_by_user_and_type() -> None:
    events: list[dict[str, object]] = [
        {"event": "MessageNew", "uri": "imap://x/user/alice;UIDVALIDITY=1/;UID=1", "modseq": 5},
        {"event": "MessageNew", "uri": "imap://x/user/bob;UIDVALIDITY=1/;UID=1", "modseq": 5},
        {"event": "FlagsSet", "uri": "imap://x/user/alice;UIDVALIDITY=1", "modseq": 6},
        {"event": "Login", "user": "alice"},
    ]
    with PusherProcess() as daemon:
        arguments = [sys.executable, "-m", "pusher", "tail", "--json", "--config"]
        filters = ["--user", "alice", "--type", "MessageNew"]
        with subprocess.Popen(
            [*arguments, str(daemon.config_path), *filters],
            stdout=subprocess.PIPE,
            cwd=daemon.folder,
            text=True,
        ) as tailing:
            assert tailing.stdout is not None
            line = ""
            for _ in range(200):  # it listens some time after it was started
                _send(daemon.datagram_socket, events)
                if line := _line_within(tailing, 0.1):
                    break
            tailing.terminate()
        told = json.loads(line)
        assert told["account"] == "alice"
        assert told["event"]["event_type"] == "MessageNew"
        assert told["outcome"] in ("noted", "known")


def _send(path: Path, events: list[dict[str, object]]) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        for event in events:
            sender.sendto(json.dumps(event).encode(), str(path))


def _line_within(process: subprocess.Popen[str], seconds: float) -> str:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], seconds)
    return process.stdout.readline() if ready else ""
