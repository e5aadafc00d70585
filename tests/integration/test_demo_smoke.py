"""What `bin/run` does: the smoke test, and the demo from its start to Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

from demo.eventsource import EventStream
from demo.ports import free_ports, is_free

ROOT = Path(__file__).parents[2]


def test_smoke_test_checks_every_output_in_under_a_minute() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "demo", "--smoke"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\nok ") + done.stdout.startswith("ok ") >= 12
    assert "FAILED" not in done.stdout


def test_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # somebody's demo is running: as good
            taken.bind(("127.0.0.1", 8402))
            taken.listen()
        done = subprocess.run(
            [sys.executable, "-m", "demo"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
    assert done.returncode == 69
    assert "is in use" in done.stderr
    assert "Traceback" not in done.stderr


def three_ports_in_a_row() -> int:
    return next(p for p in free_ports(200) if all(map(is_free, range(p, p + 3))))


def test_interrupted_demo_ends_everything_it_started(tmp_path: Path) -> None:
    first = three_ports_in_a_row()
    with subprocess.Popen(
        [sys.executable, "-m", "demo", "--port", str(first)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        told = "".join(demo.stdout.readline() for _ in range(3))
        page = f"http://127.0.0.1:{first + 2}/"
        assert page in told
        assert "Ctrl-C" in told
        with urllib.request.urlopen(page, timeout=5) as answer:
            assert b"mailbox-pusher" in answer.read()
        # An open stream and an open feed must not keep it.
        with EventStream(f"{page}feed") as feed:
            assert feed.status == 200
            demo.send_signal(signal.SIGINT)
            assert demo.wait(10) == 0
        assert "Stopped." in demo.stdout.read()
    assert all(is_free(port) for port in range(first, first + 3))
    assert not list((tmp_path / "run").glob("*.sock"))
