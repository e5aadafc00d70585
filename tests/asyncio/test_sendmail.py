"""What becomes of a mail for each way in which the `sendmail` program can end, or not end."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from demo.waiting import wait_until
from notifyd.compose.headers import Letter, automatic_mail
from notifyd.compose.mail import Mail
from notifyd.smtp import mailer
from shared.outcome import Delivered, Outcome, Rejected, Retry, Unavailable
from shared.slow_sections import Smtp

pytestmark = pytest.mark.asyncio

TIMEOUT_SECONDS = 0.5
#: What a machine that is busy with something else may add.
GRACE_SECONDS = 2.0


def mail(recipient: str = "alice@example.org", text: str = "um 14 Uhr\n.\nbis dann") -> Mail:
    letter = Letter("Zahnärztin", text, "<p>14</p>", "de")
    now = datetime(2026, 11, 21, 7, tzinfo=UTC)
    sender = "calendar@example.org"
    return automatic_mail(letter, recipient, "key", sender=sender, sender_name="", now=now)


class Program:
    """A `sendmail` that does what its `script` (sh) says, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "sendmail"

    def write(self, script: str) -> None:
        self.path.write_text(f"#!/bin/sh\ncd {self.folder}\n{script}\n")
        self.path.chmod(0o755)

    def section(self, timeout_seconds: float = 10.0, connections: int = 2) -> Smtp:
        return Smtp(
            transport="sendmail",
            sendmail=self.path,
            timeout_seconds=timeout_seconds,
            connections=connections,
        )

    def started(self) -> int:
        """The process id that a script wrote into `pid`, once it has."""
        pid = self.folder / "pid"
        return int(wait_until(lambda: pid.exists() and pid.read_text().strip(), "the program"))


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


async def sent(section: Smtp, one: Mail) -> Outcome:
    mails = mailer(section)
    try:
        return await mails.send(one)
    finally:
        await mails.close()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_the_program_gets_envelope_and_mail(program: Program) -> None:
    program.write('for each; do echo "$each"; done >arguments; cat >content; echo "fine" >&2')
    assert await sent(program.section(), mail()) == Delivered("fine")
    arguments = (program.folder / "arguments").read_text().splitlines()
    assert arguments == ["-i", "-f", "<>", "--", "alice@example.org"]
    content = (program.folder / "content").read_bytes()
    assert b"\r" not in content
    assert b"\num 14 Uhr\n.\nbis dann" in content or b"\num 14 Uhr\n=2E\nbis dann" in content


async def test_a_recipient_is_never_an_option(program: Program) -> None:
    program.write('echo "$@" >arguments; cat >/dev/null')
    assert isinstance(await sent(program.section(), mail("-bs@example.org")), Delivered)
    assert (program.folder / "arguments").read_text() == "-i -f <> -- -bs@example.org\n"


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ("cat >/dev/null; exit 75", Retry("sendmail exited with 75")),
        ("exit 75", Retry("sendmail exited with 75")),
        ("echo full >&2; exit 71", Unavailable("sendmail exited with 71: full")),
        ("exit 78", Unavailable("sendmail exited with 78")),
        ("exit 69", Retry("sendmail exited with 69")),
        ("exit 67", Rejected("sendmail exited with 67")),
        ("echo to=a@b.example >&2; exit 65", Rejected("sendmail exited with 65: to=(address)")),
        ("kill -9 $$", Retry("sendmail got signal 9")),
        ("yes no >&2 & sleep 0.05; kill $!; exit 75", None),
    ],
)
async def test_an_exit_has_its_outcome_whether_or_not_the_mail_was_read(
    program: Program, script: str, outcome: Outcome | None
) -> None:
    program.write(script)
    got = await sent(program.section(), mail(text="x" * 1_000_000))
    if outcome is not None:
        assert got == outcome
    assert not isinstance(got, Delivered)
    assert len(got.reason) < 250


async def test_a_program_that_cannot_be_started_is_nobodys_fault(program: Program) -> None:
    program.write("exit 0")
    mails = mailer(program.section())
    program.path.unlink()
    outcome = await mails.send(mail())
    await mails.close()
    assert outcome == Unavailable("sendmail cannot be started: No such file or directory")


async def test_what_does_not_end_is_killed_with_all_it_started(program: Program) -> None:
    program.write("sleep 600 & echo $! >pid; cat >/dev/null; wait")
    began = time.monotonic()
    outcome = await sent(program.section(TIMEOUT_SECONDS), mail())
    assert time.monotonic() - began < TIMEOUT_SECONDS + GRACE_SECONDS
    assert outcome == Retry("fate unknown: sendmail did not end within 0.5 s")
    child = program.started()
    wait_until(lambda: not is_running(child), "the program's child to end")


async def test_what_is_left_in_the_background_is_left_alone(program: Program) -> None:
    program.write("cat >/dev/null; sleep 600 & echo $! >pid; exit 0")
    assert await sent(program.section(), mail()) == Delivered()
    child = program.started()
    assert is_running(child)
    os.kill(child, 9)


async def test_a_cancelled_mail_ends_its_program(program: Program) -> None:
    program.write("echo $$ >pid; exec sleep 600")
    mails = mailer(program.section())
    sending = asyncio.create_task(mails.send(mail()))
    pid = await asyncio.to_thread(program.started)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert not is_running(pid)
    await mails.close()


async def test_closing_ends_what_runs(program: Program) -> None:
    program.write("echo $$ >pid; exec sleep 600")
    mails = mailer(program.section())
    sending = asyncio.create_task(mails.send(mail()))
    await asyncio.to_thread(program.started)
    await mails.close()
    assert await sending == Retry("sendmail got signal 9")


async def test_no_more_programs_run_than_configured(program: Program) -> None:
    program.write("cat >/dev/null; mkdir here || exit 65; sleep 0.02; rmdir here")
    mails = mailer(program.section(connections=1))
    outcomes = await asyncio.gather(*(mails.send(mail()) for _ in range(8)))
    assert outcomes == [Delivered()] * 8


async def test_what_is_no_address_is_never_passed_on(program: Program) -> None:
    program.write("exit 0")
    bad = Mail(mail().message, "", "a b@example.org")
    assert await sent(program.section(), bad) == Rejected("bad-recipient")
