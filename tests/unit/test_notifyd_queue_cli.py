"""`notifyd queue …` as an operator or a script meets it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from notifyd.__main__ import run
from notifyd.queue_tables import as_json, duration, escaped, moment
from shared.jobqueue import Doorbell, JobQueue, NewJob, State

EVIL = "a\x1b[31m\r\n\x00\x7f\u202eb\u2028"


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def objects(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.out.splitlines()]


Command = Callable[..., Result]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


@pytest.fixture
def command(path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    def call(*arguments: str, queue: bool = True) -> Result:
        where = ["--queue", str(path)] if queue else []
        code = run(["queue", *arguments, *where])
        return Result(code, *capsys.readouterr())

    return call


@pytest.fixture
def filled(path: Path) -> Path:
    """Jobs 1 (buried), 2 (due in an hour), 3 (held) and 4 (ready), none of them running."""
    now = time.time()
    with closing(JobQueue.open(path, min_free_bytes=0)) as queue:
        queue.enqueue(
            [
                NewJob("calendar_alarm", "key-1", "ann@example.com", b'{"v":1,"summary":"Lunch"}'),
                NewJob("sieve_notify", "key-2", "bob", b'{"v":1}', b"m" * 5, due_at=now + 3600),
                NewJob("calendar_alarm", "key-3", "cee", b'{"v":1}', attachment_path="/missing"),
                NewJob("calendar_alarm", "key-4", "dee", b"{not json \xff\x1b"),
            ],
            now - 90,
        )
        queue.hold([3, 4])
        queue.claim("w1", None, 1, 60, now)
        queue.bury(1, "w1", "550 no such user", now)
        queue.unhold([4])
    return path


def states(path: Path) -> dict[int, State]:
    with closing(JobQueue.open(path, min_free_bytes=0)) as queue:
        return {job.id: job.state for job in queue.jobs()}


@pytest.mark.usefixtures("filled")
class TestReading:
    def test_list_is_an_aligned_table(self, command: Command) -> None:
        result = command("list")
        lines = result.out.splitlines()
        assert (result.code, result.err, len(lines)) == (0, "", 5)
        assert " ".join(lines[0].split()) == "ID STATE KIND TRIES AGE NEXT ACCOUNT REASON"
        first = re.compile(r" +1  buried +calendar_alarm +1 +1m\d\ds +-  ann@\S+  550 no such user")
        assert first.fullmatch(lines[1])
        column = lines[0].index("ACCOUNT")
        assert [line[column : column + 3] for line in lines[1:]] == ["ann", "bob", "cee", "dee"]

    def test_list_as_json_is_one_object_a_line(self, command: Command) -> None:
        jobs = command("list", "--json").objects
        assert [(job["id"], job["state"]) for job in jobs] == [
            (1, "buried"),
            (2, "ready"),
            (3, "held"),
            (4, "ready"),
        ]

    def test_list_holds_no_content(self, command: Command) -> None:
        for text in (command("list").out, command("list", "--json").out):
            assert "key-" not in text
            assert "Lunch" not in text

    def test_list_filters(self, command: Command) -> None:
        assert [job["id"] for job in command("list", "--json", "--state", "held").objects] == [3]
        assert [
            job["id"] for job in command("list", "--json", "--kind", "sieve_notify").objects
        ] == [2]
        assert [job["id"] for job in command("list", "--json", "--limit", "2").objects] == [1, 2]

    def test_show_has_everything_but_the_attachment(self, command: Command) -> None:
        out = command("show", "1").out
        assert "key-1" in out
        assert '"summary": "Lunch"' in out
        assert "550 no such user" in out
        assert "5 bytes" in command("show", "2").out
        assert "missing: No such file" in command("show", "3").out

    def test_show_as_json_has_the_payload_as_an_object(self, command: Command) -> None:
        (job,) = command("show", "1", "--json").objects
        assert job["payload"] == {"v": 1, "summary": "Lunch"}

    def test_show_of_a_payload_that_is_no_json_shows_it_as_text(self, command: Command) -> None:
        assert r"{not json \\xff\x1b".replace(r"\\", "\\") in command("show", "4").out
        (job,) = command("show", "4", "--json").objects
        assert job["payload"] is None
        assert job["payload_text"] == "{not json \\xff\x1b"

    @pytest.mark.parametrize("unknown", ["77", "0", str(2**70)])
    def test_show_of_an_unknown_id_is_66(self, command: Command, unknown: str) -> None:
        result = command("show", unknown)
        assert (result.code, result.out) == (os.EX_NOINPUT, "")
        assert unknown in result.err

    def test_shape_counts_ages_of_living_jobs(self, command: Command) -> None:
        rows = [line.split() for line in command("shape").out.splitlines()]
        assert rows == [
            ["T", "5s", "1m", "5m", "30m", "2h", "1d", "1d+"],
            ["TOTAL", "3", "0", "0", "3", "0", "0", "0", "0"],
            ["calendar_alarm", "2", "0", "0", "2", "0", "0", "0", "0"],
            ["sieve_notify", "1", "0", "0", "1", "0", "0", "0", "0"],
        ]
        assert command("shape", "--state", "buried", "--json").objects == [
            {
                "upper_bounds_seconds": [5.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0, None],
                "kinds": {"calendar_alarm": [0, 0, 1, 0, 0, 0, 0]},
            }
        ]


class TestActing:
    def test_delete_named_jobs(self, command: Command, filled: Path) -> None:
        result = command("delete", "1", "3")
        assert (result.code, result.out) == (0, "2 changed 1 3\n")
        assert states(filled) == {2: "ready", 4: "ready"}

    def test_delete_all_of_a_state(self, command: Command, filled: Path) -> None:
        assert command("delete", "--all", "--state", "buried").out == "1 changed 1\n"
        assert 1 not in states(filled)

    def test_unknown_id_is_66_but_known_ones_are_done(self, command: Command, filled: Path) -> None:
        result = command("delete", "1", "77", str(2**70), "--json")
        assert result.code == os.EX_NOINPUT
        assert result.objects == [{"changed": [1], "unknown": [77, 2**70]}]
        assert 1 not in states(filled)

    @pytest.mark.parametrize("verb", ["hold", "release", "retry", "flush", "delete"])
    def test_naming_nothing_or_both_changes_nothing(
        self, command: Command, filled: Path, verb: str
    ) -> None:
        before = states(filled)
        assert command(verb).code == os.EX_USAGE
        assert command(verb, "1", "--all").code == os.EX_USAGE
        assert states(filled) == before

    def test_hold_and_release(self, command: Command, filled: Path) -> None:
        assert command("hold", "--all", "--kind", "sieve_notify").out == "1 changed 2\n"
        assert states(filled)[2] == "held"
        assert command("release", "2").out == "1 changed 2\n"
        assert command("unhold", "--all", "--account", "cee").out == "1 changed 3\n"
        assert set(states(filled).values()) == {"buried", "ready"}

    def test_retry_makes_a_buried_job_ready(self, command: Command, filled: Path) -> None:
        assert command("retry", "--all").out == "1 changed 1\n"
        assert states(filled)[1] == "ready"

    def test_flush_makes_waiting_jobs_due(self, command: Command, filled: Path) -> None:
        assert command("flush", "--all").out == "1 changed 2\n"
        with closing(JobQueue.open(filled, min_free_bytes=0)) as queue:
            assert {job.id for job in queue.claim("w", None, 9, 60, time.time())} == {2, 4}

    def test_the_worker_is_woken(self, command: Command, filled: Path) -> None:
        with closing(Doorbell(filled)) as bell:
            command("retry", "1")
            assert bell.drain()

    def test_works_beside_a_running_program(self, command: Command, filled: Path) -> None:
        with closing(JobQueue.open(filled, min_free_bytes=0)) as queue:
            (job,) = queue.claim("w1", None, 1, 60, time.time())
            assert command("list", "--json", "--state", "claimed").objects[0]["worker"] == "w1"
            assert command("delete", str(job.id)).code == 0
            assert not queue.finish(job.id, "w1", time.time())


class TestTrouble:
    def test_missing_queue_is_an_empty_table(self, command: Command, path: Path) -> None:
        for verb in ("list", "shape"):
            result = command(verb)
            assert result.code == 0
            assert len(result.out.splitlines()) in (1, 2)
            assert "no queue yet" in result.err
        assert command("list", "--json").out == ""
        assert command("shape", "--json").objects[0]["kinds"] == {}
        assert not path.exists()

    def test_acting_on_a_missing_queue_is_66_and_makes_none(
        self, command: Command, path: Path
    ) -> None:
        assert command("show", "1").code == os.EX_NOINPUT
        assert command("delete", "--all").code == os.EX_NOINPUT
        assert not path.exists()

    def test_file_that_is_no_queue_is_65(self, command: Command, path: Path) -> None:
        path.write_bytes(b"something else" * 500)
        assert command("list").code == os.EX_DATAERR
        assert command("delete", "--all").code == os.EX_DATAERR

    def test_wrong_usage_is_64(self, command: Command) -> None:
        for arguments in (["show"], ["show", "x"], ["bogus"], ["list", "--state", "odd"]):
            assert command(*arguments).code == os.EX_USAGE

    def test_configuration_names_the_queue(
        self, command: Command, filled: Path, tmp_path: Path
    ) -> None:
        config = tmp_path / "config.toml"
        config.write_text(f'[queue]\npath = "{filled}"\nmin_free_bytes = 0\n')
        listed = command("list", "--json", "--config", str(config), queue=False)
        assert len(listed.objects) == 4
        acted = command("retry", "1", "--config", str(config), queue=False)
        assert acted.out == "1 changed 1\n"

    def test_wrong_configuration_is_78_and_says_all_that_is_wrong(
        self, command: Command, tmp_path: Path
    ) -> None:
        config = tmp_path / "config.toml"
        config.write_text("[queue]\npaht = 1\nmin_free_bytes = -1\n")
        result = command("list", "--config", str(config), queue=False)
        assert (result.code, result.out) == (os.EX_CONFIG, "")
        assert "paht" in result.err
        assert "min_free_bytes" in result.err

    def test_control_characters_never_reach_the_terminal(
        self, command: Command, path: Path
    ) -> None:
        with closing(JobQueue.open(path, min_free_bytes=0)) as queue:
            payload = json.dumps({"v": EVIL}, ensure_ascii=False).encode()
            queue.enqueue([NewJob(EVIL, EVIL, EVIL, payload), NewJob("k", "k", "a", b"\x1b\r")], 0)
            (job,) = queue.claim("w", [EVIL], 1, 60, 1)
            queue.bury(job.id, "w", EVIL, 1)
        verbs = [["list"], ["show", "1"], ["show", "2"], ["shape", "--state", "buried"]]
        for verb in verbs:
            for more in ([], ["--json"]):
                result = command(*verb, *more)
                assert result.code == 0
                assert result.out.replace("\n", "").isprintable()


def test_version_and_broken_pipe_in_a_real_process(filled: Path) -> None:
    root = Path(__file__).parents[2]
    notifyd = [sys.executable, "-m", "notifyd"]
    version = subprocess.run([*notifyd, "--version"], cwd=root, capture_output=True, text=True)
    assert (version.returncode, version.stderr) == (0, "")
    assert version.stdout.startswith("notifyd (mailbox-pusher) ")
    reader, writer = os.pipe()
    os.close(reader)
    listing = subprocess.run(
        [*notifyd, "queue", "list", "--queue", str(filled)],
        cwd=root,
        stdout=writer,
        stderr=subprocess.PIPE,
    )
    os.close(writer)
    assert (listing.returncode, listing.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0s"),
        (0.9, "0s"),
        (59, "59s"),
        (60, "1m"),
        (61, "1m01s"),
        (3600, "1h"),
        (7500, "2h05m"),
        (86400 * 3 + 7200, "3d02h"),
    ],
)
def test_duration_has_two_units_at_most(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_escaping_keeps_words_and_disarms_the_rest() -> None:
    assert escaped("Möte 会議 ok") == "Möte 会議 ok"
    assert escaped(EVIL) == r"a\x1b[31m\r\n\x00\x7f\u202eb\u2028"
    assert as_json({EVIL: "\ud800"}).isprintable()


def test_moment_of_an_impossible_time_is_still_text() -> None:
    assert moment(None) == "-"
    assert moment(0) == "1970-01-01T00:00:00+00:00"
    assert moment(float("inf")) == "inf"
    assert moment(1e300) == "1e+300"


def test_export_writes_everything_of_each_job(filled: Path, command: Command) -> None:
    done = command("export")
    assert done.code == 0
    assert [job["id"] for job in done.objects] == [1, 2, 3, 4]
    assert [job["attachment"] for job in done.objects] == [None, "bW1tbW0=", None, None]
    assert done.objects[0]["payload"] == {"v": 1, "summary": "Lunch"}
    assert done.objects[0]["key"] == "key-1"
    assert [job["id"] for job in command("export", "--state", "buried").objects] == [1]
    assert "\x1b" not in done.out


def test_export_of_no_queue_is_empty(command: Command) -> None:
    assert command("export").out == ""
