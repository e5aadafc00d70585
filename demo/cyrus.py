"""A private, real Cyrus IMAP in a folder: Debian's packages, own ports, two users, no systemd.

For the demo and for tests. Knows how to set Cyrus up so that it tells a socket of every change, and
how to make things happen in it; not what the other end of the socket does.
"""

from __future__ import annotations

import base64
import http.client
import imaplib
import json
import os
import signal
import smtplib
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from demo.ports import free_ports
from demo.waiting import wait_until

PROGRAMS: Final = Path("/usr/lib/cyrus/bin")
PACKAGES: Final = "cyrus-imapd cyrus-caldav sasl2-bin libsasl2-modules libsasl2-modules-db"
ALICE: Final = "alice@example.org"
BOB: Final = "bob@example.org"
PASSWORD: Final = "secret"  # noqa: S105 - of throw-away users on loopback
ADMIN: Final = "cyrus"
_SERVER_NAME: Final = "mail.example.org"
_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 5.0

# What each event tells beside what every event tells. The last four exist only for events about a
# mailbox: with them the groups access, quota and subscription must stay off, because Debian's build
# checks by assertion that an event has every parameter asked for, and every login would end imapd.
_PARAMETERS: Final = (
    "bodyStructure clientAddress diskUsed flagNames messageSize messages modseq service timestamp"
    " uidnext vnd.cmu.davFilename vnd.cmu.davUid vnd.cmu.emailid vnd.cmu.envelope"
    " vnd.cmu.mailboxACL vnd.cmu.mbtype vnd.cmu.midset vnd.cmu.sessionId vnd.cmu.threadid"
    " vnd.cmu.unseenMessages vnd.fastmail.cid vnd.fastmail.clientId vnd.fastmail.jmapEmail"
    " vnd.fastmail.sessionId"
    " vnd.fastmail.convExists vnd.fastmail.convUnseen vnd.fastmail.counters"
    " vnd.fastmail.jmapStates"
)

_IMAPD_CONF: Final = """\
configdirectory: {folder}/conf
defaultpartition: default
partition-default: {folder}/spool
sievedir: {folder}/conf/sieve
servername: {server}
admins: {admin}
virtdomains: userid
defaultdomain: internal
unixhierarchysep: yes
altnamespace: yes
allowplaintext: yes
sasl_mech_list: PLAIN LOGIN
sasl_pwcheck_method: auxprop
sasl_auxprop_plugin: sasldb
sasl_sasldb_path: {folder}/sasldb2
lmtpsocket: {folder}/conf/socket/lmtp
notifysocket: {notify}
event_notifier: pusher
event_groups: message flags mailbox calendar applepushservice
event_extra_params: {parameters}
sievenotifier: sieve
reverseacls: yes
conversations: yes
conversations_db: twoskip
httpmodules: caldav carddav jmap
jmap_nonstandard_extensions: yes
httpallowcompress: no
caldav_allowscheduling: yes
calendar_user_address_set: example.org
sendmail: /bin/false
autocreate_quota: -1
sync_log: no
duplicatesuppression: no
expunge_mode: delayed
delete_mode: delayed
"""

_CYRUS_CONF: Final = """\
START {{
  recover cmd="{programs}/ctl_cyrusdb -C {conf} -r"
}}
SERVICES {{
  imap cmd="{programs}/imapd -C {conf}" listen="127.0.0.1:{imap}" prefork=0
  http cmd="{programs}/httpd -C {conf}" listen="127.0.0.1:{http}" prefork=0
  sieve cmd="{programs}/timsieved -C {conf}" listen="127.0.0.1:{sieve}" prefork=0
  lmtp cmd="{programs}/lmtpd -C {conf} -a" listen="127.0.0.1:{lmtp}" prefork=0
}}
EVENTS {{
  checkpoint cmd="{programs}/ctl_cyrusdb -C {conf} -c" period=180
}}
DAEMON {{
  calalarmd cmd="{programs}/calalarmd -C {conf}"
}}
"""


class CyrusError(Exception):
    """Cyrus cannot be had, or refused something; the text is for the operator."""


class Cyrus:
    """A Cyrus in `folder` (made when missing) that notifies `notify`; `with` starts and stops it.

    `notify` is Cyrus' own spelling: "/path" for datagrams, "dlist:/path" for the stream. `extra`
    replaces or adds lines of imapd.conf. It must be started as root: master gives the sockets to
    its services, which run as user cyrus. Users are alice and bob, see ALICE and BOB.
    """

    def __init__(self, folder: Path, notify: str, extra: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.notify = notify
        self.imap_port, self.lmtp_port, self.http_port, self.sieve_port = free_ports(4)
        self._extra = extra or {}
        self._master: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # --- up and down -----------------------------------------------------------------------------

    def start(self) -> None:
        """Configure and start it, create the users; CyrusError says what is in the way."""
        _check(self.folder, self.notify)
        self._configure()
        command = [str(PROGRAMS / "master"), "-C", str(self._conf), "-M", str(self._services)]
        self._master = subprocess.Popen(
            # Should this program be killed, no mail server stays behind.
            ["setpriv", "--pdeathsig", "TERM", *command, "-p", str(self.folder / "master.pid")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self._create_users()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it: in order (SIGQUIT), or at once if it takes longer than 5 s."""
        if self._master is None:
            return
        for number in (signal.SIGQUIT, signal.SIGTERM, signal.SIGKILL):
            self._master.send_signal(number)
            try:
                self._master.wait(_STOP_SECONDS)
                break
            except subprocess.TimeoutExpired:
                continue
        self._master = None

    def run_as_cyrus(self, program: str, *arguments: str) -> None:
        """Run one of Cyrus' own programs, `calalarmd -t EPOCH` for one; CyrusError if it fails."""
        command = [str(PROGRAMS / program), "-C", str(self._conf), *arguments]
        done = subprocess.run(
            ["setpriv", "--reuid", "cyrus", "--regid", "mail", "--init-groups", *command],
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
        )
        if done.returncode:
            raise CyrusError(f"{program} ended with {done.returncode}: {done.stderr}")

    @property
    def _conf(self) -> Path:
        return self.folder / "imapd.conf"

    @property
    def _services(self) -> Path:
        return self.folder / "cyrus.conf"

    def _configure(self) -> None:
        for name in ("socket", "proc", "lock", "log", "db", "user", "quota", "sieve"):
            (self.folder / "conf" / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "spool").mkdir(exist_ok=True)
        self.folder.chmod(0o755)
        lines = _IMAPD_CONF.format(
            folder=self.folder,
            server=_SERVER_NAME,
            admin=ADMIN,
            notify=self.notify,
            parameters=_PARAMETERS,
        ).splitlines()
        settings = dict(line.split(": ", 1) for line in lines) | dict(self._extra)
        self._conf.write_text("".join(f"{key}: {settings[key]}\n" for key in settings))
        self._services.write_text(
            _CYRUS_CONF.format(
                programs=PROGRAMS,
                conf=self._conf,
                imap=self.imap_port,
                http=self.http_port,
                sieve=self.sieve_port,
                lmtp=self.lmtp_port,
            )
        )
        for user in (ADMIN, ALICE, BOB):
            self._set_password(user)
        _run("chown", "-R", "cyrus:mail", str(self.folder))

    def _set_password(self, user: str) -> None:
        # sasldb wants user and realm apart; a login without realm is looked up in servername.
        name, _, realm = user.partition("@")
        database = str(self.folder / "sasldb2")
        command = ["-f", database, "-p", "-c", "-u", realm or _SERVER_NAME, name]
        _run("saslpasswd2", *command, given=PASSWORD)

    def _create_users(self) -> None:
        def admin() -> imaplib.IMAP4 | None:
            master = self._master
            if master is None or master.poll() is not None:
                raise CyrusError(
                    f"Cyrus' master has ended (exit code {master and master.returncode}, 78 is a"
                    " mistake in imapd.conf); it says why only to syslog"
                )
            try:
                return imaplib.IMAP4("127.0.0.1", self.imap_port, timeout=20)
            except (OSError, imaplib.IMAP4.abort):
                return None

        connection = wait_until(admin, "Cyrus to answer on IMAP", _START_SECONDS)
        assert connection is not None
        with connection as imap:
            imap.login(ADMIN, PASSWORD)
            for user in (ALICE, BOB):
                status, answer = imap.create(f"user/{user}")
                if status != "OK" and b"already exists" not in answer[0]:
                    raise CyrusError(f"CREATE user/{user}: {answer[0].decode()}")

    # --- making things happen --------------------------------------------------------------------

    def deliver(
        self, to: str = ALICE, subject: str = "hello", text: str = "hello", *, within: float = 60.0
    ) -> None:
        """Deliver a mail over LMTP; smtplib's exceptions unless Cyrus says 250."""
        message = (
            f"From: Carol <carol@example.net>\r\nTo: {to}\r\nSubject: {subject}\r\n"
            f"Message-ID: <{os.urandom(8).hex()}@example.net>\r\n\r\n{text}\r\n"
        )
        client = smtplib.LMTP("127.0.0.1", self.lmtp_port, timeout=within)
        try:
            client.sendmail("carol@example.net", [to], message)
            client.quit()
        finally:
            client.close()

    @contextmanager
    def imap(self, user: str = ALICE) -> Iterator[imaplib.IMAP4]:
        """Give a session of `user`, logged out at the end."""
        with imaplib.IMAP4("127.0.0.1", self.imap_port, timeout=20) as connection:
            connection.login(user, PASSWORD)
            yield connection

    def mark_newest_read(self, user: str = ALICE) -> bool:
        """Set \\Seen on the newest unread mail of INBOX; False if there is none."""
        with self.imap(user) as imap:
            imap.select("INBOX")
            unread = imap.uid("SEARCH", "UNSEEN")[1][0].split()
            if not unread:
                return False
            imap.uid("STORE", unread[-1].decode(), "+FLAGS", "(\\Seen)")
        return True

    def put_event(self, name: str, summary: str, user: str = ALICE) -> None:
        """Write a calendar event into the default calendar by CalDAV; CyrusError if refused."""
        text = "\r\n".join(
            [
                "BEGIN:VCALENDAR",
                "VERSION:2.0",
                "PRODID:-//example//demo//EN",
                "BEGIN:VEVENT",
                f"UID:{name}",
                "DTSTAMP:20260101T000000Z",
                "DTSTART:20300101T090000Z",
                "DTEND:20300101T100000Z",
                f"SUMMARY:{summary}",
                "END:VEVENT",
                "END:VCALENDAR",
                "",
            ]
        )
        self.put_dav(f"/dav/calendars/user/{user}/Default/{name}.ics", "text/calendar", text, user)

    def put_alarm(self, name: str, summary: str, start: datetime, user: str = ALICE) -> None:
        """Write a calendar event whose alarm, a mail to `user`, is due ten minutes before."""
        lines = [
            "BEGIN:VCALENDAR",
            "VERSION:2.0",
            "PRODID:-//example//demo//EN",
            "BEGIN:VEVENT",
            f"UID:{name}",
            "DTSTAMP:20260101T000000Z",
            f"DTSTART:{start:%Y%m%dT%H%M%SZ}",
            "DURATION:PT1H",
            f"SUMMARY:{summary}",
            "LOCATION:Café",
            "BEGIN:VALARM",
            "ACTION:EMAIL",
            "TRIGGER:-PT10M",
            f"SUMMARY:{summary}",
            f"DESCRIPTION:{summary}",
            f"ATTENDEE:mailto:{user}",
            "END:VALARM",
            "END:VEVENT",
            "END:VCALENDAR",
            "",
        ]
        path = f"/dav/calendars/user/{user}/Default/{name}.ics"
        self.put_dav(path, "text/calendar", "\r\n".join(lines), user)

    def put_card(self, name: str, full_name: str, user: str = ALICE) -> None:
        """Write a card into the default address book by CardDAV; CyrusError if refused."""
        lines = [
            "BEGIN:VCARD",
            "VERSION:3.0",
            f"UID:{name}",
            f"FN:{full_name}",
            f"N:{full_name};;;;",
        ]
        text = "\r\n".join([*lines, "END:VCARD", ""])
        self.put_dav(f"/dav/addressbooks/user/{user}/Default/{name}.vcf", "text/vcard", text, user)

    def make_collections(self, user: str = ALICE) -> None:
        """Let Cyrus make the default calendars and address books; it does when they are seen."""
        for kind in ("calendars", "addressbooks"):
            self.request("PROPFIND", f"/dav/{kind}/user/{user}/", user, headers={"Depth": "1"})

    def put_dav(self, path: str, content_type: str, text: str, user: str) -> None:
        """Write one resource; CyrusError if refused."""
        self.make_collections(user)
        status, body = self.request("PUT", path, user, text, {"Content-Type": content_type})
        if status not in (201, 204):
            raise CyrusError(f"PUT {path}: {status} {body[:200]}")

    def counters(self, user: str = ALICE) -> dict[str, int]:
        """Return the server's own counters of `user` now: highestModSeq, mailModSeq, …"""
        question = {"using": _JMAP_USING, "methodCalls": [["UserCounters/get", {}, "0"]]}
        kind = {"Content-Type": "application/json"}
        status, body = self.request("POST", "/jmap/", user, json.dumps(question), kind)
        if status != 200:
            raise CyrusError(f"JMAP: {status} {body[:200]}")
        answer: dict[str, Any] = json.loads(body)["methodResponses"][0][1]["list"][0]
        return {name: value for name, value in answer.items() if isinstance(value, int)}

    def request(
        self,
        method: str,
        path: str,
        user: str = ALICE,
        body: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, str]:
        """Make one HTTP request as `user`; return status and body."""
        credentials = base64.b64encode(f"{user}:{PASSWORD}".encode()).decode()
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=20)
        try:
            connection.request(
                method,
                path,
                body.encode() if body is not None else None,
                {"Authorization": f"Basic {credentials}", **(headers or {})},
            )
            response = connection.getresponse()
            return response.status, response.read().decode("utf-8", "replace")
        finally:
            connection.close()


_JMAP_USING: Final = [
    "urn:ietf:params:jmap:core",
    "https://cyrusimap.org/ns/jmap/usercounters",
]


def can_enter(folder: Path) -> bool:
    """Tell whether Cyrus' user may go into `folder`, which must exist."""
    command = ["setpriv", "--reuid", "cyrus", "--regid", "mail", "--init-groups"]
    found = subprocess.run([*command, "test", "-x", str(folder)], check=False, capture_output=True)
    return found.returncode == 0


def check_machine() -> None:
    """Raise CyrusError unless Cyrus is installed and we may start it."""
    if os.geteuid() != 0:
        raise CyrusError("Cyrus must be started as root; its services then run as user cyrus")
    for name in ("master", "imapd", "lmtpd", "httpd", "ctl_cyrusdb"):
        if not (PROGRAMS / name).exists():
            raise CyrusError(f"{PROGRAMS / name} is missing: apt-get install {PACKAGES}")


def _check(folder: Path, notify: str) -> None:
    check_machine()
    socket_path = notify.removeprefix("dlist:")
    if len(socket_path.encode()) > 107:
        raise CyrusError(f"the path of a UNIX socket has at most 107 bytes: {socket_path}")
    folder.mkdir(parents=True, exist_ok=True)
    closed = next((at for at in reversed(folder.parents) if not can_enter(at)), None)
    if closed is not None:
        raise CyrusError(f"user cyrus cannot enter {closed}: chmod o+x it, or use another folder")


def _run(*command: str, given: str = "") -> None:
    done = subprocess.run(command, check=False, input=given, capture_output=True, text=True)
    if done.returncode:
        raise CyrusError(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()}")
