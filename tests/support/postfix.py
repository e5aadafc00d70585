"""A real Postfix for tests: Debian's, with a configuration, a queue and a port of its own.

Takes mail for any address and puts it into one Maildir. Can be killed, stopped, continued and
started again; everything goes away with it. Needs root, as Postfix's master does.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import trustme

from demo.ports import free_ports
from demo.waiting import wait_until
from shared.slow_sections import Smtp
from tests.support.pusher_process import short_folder

_DAEMONS: Final = Path("/usr/lib/postfix/sbin")
_START_SECONDS: Final = 20.0
_NOBODY: Final = 65534
_QUEUES: Final = ("maildrop", "incoming", "active", "deferred")

_MAIN: Final = {
    "compatibility_level": "3.6",
    "command_directory": "/usr/sbin",
    "daemon_directory": str(_DAEMONS),
    "maillog_file": "{folder}/log",
    "maillog_file_prefixes": "{folder}",
    "queue_directory": "{folder}/queue",
    "data_directory": "{folder}/data",
    "inet_interfaces": "127.0.0.1",
    "inet_protocols": "ipv4",
    "myhostname": "mx.example.org",
    "mydestination": "",
    "alias_maps": "",
    "mynetworks": "127.0.0.0/8",
    "smtputf8_enable": "yes",
    "virtual_mailbox_domains": "static:all",
    "virtual_mailbox_base": "{folder}/mail",
    "virtual_mailbox_maps": "static:all/",
    "virtual_minimum_uid": "1",
    "virtual_uid_maps": f"static:{_NOBODY}",
    "virtual_gid_maps": f"static:{_NOBODY}",
    # Refusals are to be told at once.
    "smtpd_error_sleep_time": "0",
}

#: service, type, private, unprivileged, chroot, wakeup, processes, command: see master(5).
_MASTER: Final = """\
127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


class PostfixServer:
    """`with PostfixServer() as postfix: mailer(postfix.section())`.

    `settings` are lines of main.cf on top; with a `certificate` it offers STARTTLS.
    """

    def __init__(
        self,
        settings: Mapping[str, str] | None = None,
        *,
        certificate: trustme.LeafCert | None = None,
    ) -> None:
        assert os.geteuid() == 0, "Postfix in a folder of its own needs root"
        self.folder = short_folder("px-")
        (self.port,) = free_ports(1)
        self._settings = {**_MAIN, **(settings or {})}
        self._certificate = certificate
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._write()
            self.start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._remove()

    @property
    def config(self) -> Path:
        """The folder of main.cf; as `MAIL_CONFIG` it makes `sendmail` hand in here."""
        return self.folder / "etc"

    @property
    def log(self) -> str:
        """What the server wrote."""
        log = self.folder / "log"
        return log.read_text("utf-8", "replace") if log.exists() else ""

    @property
    def running(self) -> bool:
        """Whether it was started and neither stopped nor killed; one that is paused counts."""
        return self._process is not None

    def section(self, **settings: Any) -> Smtp:
        """`[smtp]` for this server."""
        return Smtp(port=self.port, **settings)

    def start(self) -> None:
        """Start it, again after `stop` or `kill`, and wait until it listens."""
        command = [str(_DAEMONS / "master"), "-d", "-c", str(self.config)]
        with (self.folder / "err").open("ab") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stderr=errors, start_new_session=True
            )
        process = self._process
        wait_until(
            lambda: self._listens() or process.poll() is not None,
            "Postfix to listen",
            _START_SECONDS,
        )
        if process.poll() is not None:
            self._process = None
            raise AssertionError(f"Postfix did not start:\n{self._errors}\n{self.log}")

    def _listens(self) -> bool:
        # Not by trying to bind: whoever holds the port for that moment keeps Postfix from it.
        rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
        return any(row[1].endswith(f":{self.port:04X}") and row[3] == "0A" for row in rows)

    def stop(self) -> None:
        """End it in good order."""
        self.resume()
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the master and all of its processes with -9, as a crash would."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """SIGSTOP all of it: connections stay open and are even taken, but nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue after `pause`."""
        self._signal(signal.SIGCONT)

    def mails(self) -> list[EmailMessage]:
        """All mails delivered so far, in no order, with their envelope in Postfix's fields."""
        parser = BytesParser(EmailMessage, policy=policy.default)
        found = []
        for path in self._delivered():
            with path.open("rb") as content:
                found.append(parser.parse(content))
        return found

    def wait_for_mails(self, count: int, within: float = 30.0) -> list[EmailMessage]:
        """All mails, once there are at least `count`."""
        wait_until(lambda: len(self._delivered()) >= count, f"{count} mails", within)
        return self.mails()

    def is_idle(self) -> bool:
        """Whether nothing is in its queue: what was taken is delivered."""
        queues = (self.folder / "queue" / name for name in _QUEUES)
        return not any(_is_taken(path) for queue in queues for path in queue.rglob("*"))

    def _delivered(self) -> list[Path]:
        return list((self.folder / "mail" / "all" / "new").glob("*"))

    @property
    def _errors(self) -> str:
        return (self.folder / "err").read_text("utf-8", "replace")

    def _write(self) -> None:
        for name in ("etc", "queue", "data", "mail"):
            (self.folder / name).mkdir()
        shutil.chown(self.folder / "data", "postfix")
        os.chown(self.folder / "mail", _NOBODY, _NOBODY)
        if self._certificate is not None:
            self._settings |= self._tls(self._certificate)
        lines = [f"{name} = {value}\n" for name, value in self._settings.items()]
        main = "".join(lines).replace("{folder}", str(self.folder))
        (self.config / "main.cf").write_text(main)
        (self.config / "master.cf").write_text(_MASTER.format(port=self.port))
        # Makes the folders of the queue, with the owners that Postfix insists on.
        subprocess.run(
            ["/usr/sbin/postfix", "-c", str(self.config), "check"],
            stdin=subprocess.DEVNULL,
            check=True,
            timeout=_START_SECONDS,
        )

    def _tls(self, certificate: trustme.LeafCert) -> dict[str, str]:
        chain = self.folder / "etc" / "chain.pem"
        certificate.private_key_and_cert_chain_pem.write_to_path(str(chain))
        return {
            "smtpd_tls_chain_files": str(chain),
            "smtpd_tls_security_level": "encrypt",
            "smtpd_tls_received_header": "yes",
        }

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        # The master first, or it would start new ones for those that end.
        for pid in [self._process.pid, *_children(self._process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        family = _children(self._process.pid)
        if number is signal.SIGKILL:
            self.pause()
            family = _children(self._process.pid)
            self._signal(number)
        else:
            self._process.send_signal(number)
        self._process.wait(_START_SECONDS)
        self._process = None
        wait_until(
            lambda: not any(Path(f"/proc/{pid}").exists() for pid in family),
            "the processes of Postfix to end",
            _START_SECONDS,
        )

    def _remove(self) -> None:
        try:
            self._end(signal.SIGKILL)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)


def _is_taken(path: Path) -> bool:
    """Whether it is a whole mail: executable. What a killed process left is not, and stays."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    return stat.S_ISREG(mode) and bool(mode & stat.S_IXUSR)


def _children(pid: int) -> list[int]:
    with suppress(FileNotFoundError):
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(child) for child in text.split()]
    return []
