"""The benchmarks of the queue and of notifyd: what they measure with is what it claims to be."""

from __future__ import annotations

import email
from datetime import UTC, datetime
from email import policy
from pathlib import Path

import pytest

from bench import mails
from bench.enqueue import CONTENDERS, PAYLOAD, Tally, key
from bench.rounds import taking_turns
from pusher.protocol.normal import alarm_jobs
from shared.events import CalendarAlarm


def test_keys_and_payload_are_of_the_size_of_real_ones() -> None:
    alarm = CalendarAlarm.from_json(PAYLOAD)
    ((real, _),) = alarm_jobs(alarm)
    assert len(key(7)) == pytest.approx(len(real), rel=0.1)
    assert len({key(number) for number in range(5_000)}) == 5_000


@pytest.mark.parametrize("contender", ["append", "huey", "ours"])
@pytest.mark.parametrize("callers", [1, 3])
def test_contender_stores_what_it_counts(contender: str, callers: int, tmp_path: Path) -> None:
    tally = Tally(2, 0.05)
    CONTENDERS[contender](tally, callers, str(tmp_path))
    result = tally.result()
    assert result["per_second"] > 0
    assert result["p50_us"] <= result["p99_us"]


def test_what_the_bare_loop_sends_is_what_notifyd_sends_in_each_language(tmp_path: Path) -> None:
    mails.write_mails(tmp_path)
    found = [
        email.message_from_bytes(path.read_bytes(), policy=policy.default)
        for path in sorted(tmp_path.iterdir())
    ]
    assert len({str(mail["Subject"]) for mail in found}) == len(
        {mails.account(n) for n in range(8)}
    )
    assert all(mail.is_multipart() for mail in found)
    assert all(b"\r\n" in path.read_bytes() for path in tmp_path.iterdir())


def test_alarms_of_the_benchmark_are_new_ones() -> None:
    now = datetime(2026, 11, 24, tzinfo=UTC)
    assert mails.alarm(1, now).uid != mails.alarm(2, now).uid


def test_contender_that_fails_leaves_a_gap_and_not_the_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fails() -> dict[str, float]:
        raise RuntimeError("no disk")

    results = taking_turns("b", 2, {"ours": lambda: {"rate": 1.0}, "peer": fails})
    assert results.column("ours", "rate") == [1.0, 1.0]
    assert results.column("peer", "rate") == [None, None]
    assert "no disk" in capsys.readouterr().err
