"""From a calendar and a Sieve script on a real Cyrus to a mail in a Maildir, through everything.

Cyrus with calalarmd, pusher, the queue, notifyd, PostgreSQL and Postfix, all real.
"""

from __future__ import annotations

import smtplib
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage

import pytest

from demo.managesieve import put_active_script
from demo.waiting import wait_until
from shared.jobqueue import QueueView
from tests.support.cyrus import ALICE, BOB, PASSWORD, CyrusServer
from tests.support.notifyd_process import NotifydProcess, notifyd_settings
from tests.support.postfix import PostfixServer
from tests.support.postgres import PostgresServer
from tests.support.pusher_process import PusherProcess

pytestmark = pytest.mark.real

HOME = "alice.home@example.net"
GUEST = "guest@example.net"
PHONE = "bob.phone@example.net"
SENDER = "calendar@example.org"


@dataclass
class Chain:
    """All of it, with two accounts: alice in Berlin, bob in the default language."""

    cyrus: CyrusServer
    pusher: PusherProcess
    postfix: PostfixServer

    def mails_to(self, address: str) -> list[EmailMessage]:
        """What lies in the Maildir for `address`, by envelope."""
        return [mail for mail in self.postfix.mails() if mail["X-Original-To"] == address]

    def wait_for_mail(
        self, address: str, wanted: Callable[[EmailMessage], bool] = lambda _: True
    ) -> EmailMessage:
        """Return the first such mail, once it is there."""

        def found() -> EmailMessage | None:
            return next(filter(wanted, self.mails_to(address)), None)

        mail = wait_until(found, f"a mail to {address}; notifyd says:\n{self.pusher.log}", 60)
        assert mail is not None
        return mail

    def buried(self) -> list[str]:
        """Why jobs were buried."""
        view = QueueView.open_read_only(self.pusher.folder / "run" / "queue.db")
        try:
            return [job.reason for job in view.jobs("buried")]
        finally:
            view.close()


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    with PostfixServer() as postfix, PostgresServer() as postgres:
        settings: dict[str, dict[str, object]] = {
            **notifyd_settings(),
            "smtp": {"port": postfix.port},
            "store": {"url": postgres.new_database()},
            "mail": {"sender": SENDER, "sender_name": "Kalender"},
        }
        with PusherProcess(settings) as pusher:
            notifyd(pusher, "migrate")
            place = ["--locale", "de", "--timezone", "Europe/Berlin", "--address", HOME]
            notifyd(pusher, "users", "add", ALICE, *place)
            with (
                NotifydProcess.beside(pusher),
                CyrusServer(f"dlist:{pusher.stream_socket}") as cyrus,
            ):
                yield Chain(cyrus, pusher, postfix)


def notifyd(pusher: PusherProcess, *arguments: str) -> None:
    command = [sys.executable, "-m", "notifyd", *arguments, "--config", str(pusher.config_path)]
    subprocess.run(command, check=True, timeout=60)


def event_with_alarm(start: datetime, *attendees: str) -> str:
    """An iCalendar object whose alarm, a mail, is due ten minutes before `start`."""
    lines = [
        "BEGIN:VCALENDAR",
        "VERSION:2.0",
        "PRODID:-//example//test//EN",
        "BEGIN:VEVENT",
        "UID:dentist",
        "DTSTAMP:20260101T000000Z",
        f"DTSTART:{start:%Y%m%dT%H%M%SZ}",
        "DURATION:PT1H",
        "SUMMARY:Zahnärztin\\, mit Röntgenbild",
        "LOCATION:Hauptstraße 1",
        "BEGIN:VALARM",
        "ACTION:EMAIL",
        "TRIGGER:-PT10M",
        "SUMMARY:x",
        "DESCRIPTION:x",
        *(f"ATTENDEE:mailto:{attendee}" for attendee in attendees),
        "END:VALARM",
        "END:VEVENT",
        "END:VCALENDAR",
        "",
    ]
    return "\r\n".join(lines)


def test_an_alarm_that_is_due_becomes_one_mail_each_in_the_readers_language(chain: Chain) -> None:
    start = datetime.now(UTC) + timedelta(minutes=10, seconds=3)
    path = f"/dav/calendars/user/{ALICE}/Default/dentist.ics"
    chain.cyrus.put_dav(path, "text/calendar", event_with_alarm(start, HOME, GUEST), ALICE)

    mail, to_guest = chain.wait_for_mail(HOME), chain.wait_for_mail(GUEST)

    assert "Zahnärztin, mit Röntgenbild" in mail["Subject"]
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["From"].addresses[0].addr_spec == SENDER
    assert mail["Return-Path"] == "<>"
    text = mail.get_body(("plain",))
    html = mail.get_body(("html",))
    assert text is not None
    assert html is not None
    assert "Hauptstraße 1" in text.get_content()
    assert 'lang="de"' in html.get_content()
    assert mail["Message-ID"] != to_guest["Message-ID"]
    assert len(chain.mails_to(HOME)) == len(chain.mails_to(GUEST)) == 1


def test_a_sieve_script_notifies_by_mail(chain: Chain) -> None:
    script = (
        'require ["enotify", "variables"];'
        f'notify :message "Post: $subject$" "mailto:{PHONE}?subject=Neue%20Post";'
    )
    put_active_script(chain.cyrus.sieve_port, BOB, PASSWORD, script)
    chain.cyrus.deliver(BOB, subject="Rechnung")

    mail = chain.wait_for_mail(PHONE)

    assert mail["Subject"] == "Neue Post"
    assert str(mail["Auto-Submitted"]).startswith("auto-notified")
    text = mail.get_body(("plain",))
    assert text is not None
    assert "Post: Rechnung" in text.get_content()


def test_two_accounts_that_notify_each_other_stop_after_one_round(chain: Chain) -> None:
    for owner, other in ((ALICE, BOB), (BOB, ALICE)):
        script = f'require "enotify"; notify :message "new" "mailto:{other}";'
        put_active_script(chain.cyrus.sieve_port, owner, PASSWORD, script)
    chain.cyrus.deliver(ALICE, subject="start")
    first = chain.wait_for_mail(BOB)
    before = len(chain.buried())

    # What a mail server of both would do next: the notification arrives at bob's.
    with smtplib.LMTP("127.0.0.1", chain.cyrus.lmtp_port, timeout=30) as lmtp:
        lmtp.sendmail("", [BOB], first.as_bytes())

    wait_until(lambda: len(chain.buried()) > before, "the second round to be refused", 30)
    assert "loop" in chain.buried()[-1]
    assert chain.mails_to(ALICE) == []
