"""`python -m demo`: both programs and a page to watch them work; `--smoke`: without a browser.

Everything lies under ./run/ of the working directory and listens on loopback.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from demo import smoke
from demo.cyrus import Cyrus, CyrusError, can_enter, check_machine
from demo.daemon import Daemon, Worker
from demo.ports import is_free
from demo.postbox import Postbox
from demo.server import DemoServer, origins
from demo.sources import RealCyrus, Recorded, Source, careless_sender

FIRST_PORT = 8400
CRASHED_SECONDS = 2.0
EX_UNAVAILABLE = 69


def main() -> int:
    """Run the demo until Ctrl-C, or the smoke test; return the exit code."""
    parser = argparse.ArgumentParser(prog="bin/run", description=__doc__)
    parser.add_argument(
        "--cyrus", action="store_true", help="events of a real Cyrus IMAP, not recorded ones"
    )
    parser.add_argument(
        "--port",
        type=int,
        default=FIRST_PORT,
        metavar="N",
        help=f"first of four ports: streams, API, page, notifyd (default {FIRST_PORT})",
    )
    parser.add_argument("--smoke", action="store_true", help="check every output and exit")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if arguments.smoke:
            return smoke.run(lambda line: print(line, flush=True))
        _demonstrate(Path.cwd(), arguments.port, with_cyrus=arguments.cyrus)
    except KeyboardInterrupt:
        print("\nStopped.")
    except (CyrusError, RuntimeError, TimeoutError, OSError) as error:
        print(f"bin/run: {error}", file=sys.stderr)
        return EX_UNAVAILABLE
    return 0


def _demonstrate(root: Path, first_port: int, *, with_cyrus: bool) -> None:
    if with_cyrus:
        check_machine()
    streams_port, api_port, page_port, notifyd_port = range(first_port, first_port + 4)
    uses = ("streams", "the API", "the page", "notifyd")
    for port, use in enumerate(uses, first_port):
        if not is_free(port):
            raise RuntimeError(
                f"port {port} of 127.0.0.1, meant for {use}, is in use."
                " Is another bin/run still running? Else choose four others: --port N"
            )
    settings: dict[str, dict[str, object]] = {"streams": {"allowed_origins": origins(page_port)}}
    if first_port != FIRST_PORT:
        settings["streams"]["listen"] = f"127.0.0.1:{streams_port}"
        settings["api"] = {"listen": f"127.0.0.1:{api_port}"}
        settings["notifyd"] = {"listen": f"127.0.0.1:{notifyd_port}"}
    run = root / "run"
    run.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(_cyrus_home(run)) if with_cyrus else run
        if with_cyrus:
            # As on a mail server: Cyrus' group may write to the sockets, nobody else.
            settings["intake"] = {
                "stream": str(home / "intake.sock"),
                "datagram": str(home / "intake.dgram"),
                "group": "mail",
            }
        postbox = stack.enter_context(Postbox())
        settings["smtp"] = {"port": postbox.port}
        daemon = stack.enter_context(Daemon(root, run / "demo.toml", settings))
        stack.enter_context(Worker(root, run / "demo.toml"))
        source = stack.enter_context(_source(daemon, home if with_cyrus else None))
        page = DemoServer(page_port, daemon, source, crash=lambda: _crash(daemon), postbox=postbox)
        stack.enter_context(page)
        print(f"Watch a mailbox change, live:   {page.url}")
        print(f"Events come from {_ORIGIN[source.mode]}; the same in a terminal: {_TAIL}")
        print("Ctrl-C stops everything.", flush=True)
        threading.Event().wait()


_TAIL = ".venv/bin/pusher tail --config run/demo.toml"
_ORIGIN = {"cyrus": "a real Cyrus IMAP server", "recorded": "a recording (--cyrus: a real server)"}


@contextlib.contextmanager
def _source(daemon: Daemon, home: Path | None) -> Iterator[Source]:
    if home is None:
        memory = daemon.folder / "run" / "demo-numbers.json"
        yield Recorded(careless_sender(daemon.stream_socket), memory)
        return
    with Cyrus(home / "cyrus", f"dlist:{daemon.stream_socket}") as cyrus:
        yield RealCyrus(cyrus)


@contextlib.contextmanager
def _cyrus_home(run: Path) -> Iterator[Path]:
    """Give a folder that user cyrus can reach: ./run, or a temporary one below /tmp.

    A clone in somebody's home folder is usually closed to other users.
    """
    if can_enter(run) and len(str(run / "intake.dgram")) < 100:
        yield run
        return
    with tempfile.TemporaryDirectory(prefix="mp-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        print(f"User cyrus cannot enter {run}: Cyrus works in {folder} instead.")
        yield folder


def _crash(daemon: Daemon) -> None:
    """Kill pusher as a crash would, and start it again a little later."""
    with _crashing:
        daemon.kill()
        threading.Event().wait(CRASHED_SECONDS)
        daemon.start()


_crashing = threading.Lock()


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    os.umask(0o022)
    raise SystemExit(main())
