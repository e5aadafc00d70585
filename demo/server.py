"""Serves the demo page on loopback and does what its buttons ask for.

Standard library only: a thread per connection is plenty for one person's browser. Knows the page's
files, the source of events and pusher's tail socket; the streams go from pusher to the page direct.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, Self
from urllib.parse import urlsplit

from demo.cyrus import ALICE, CyrusError
from demo.daemon import Daemon
from demo.managesieve import ManageSieveError
from demo.postbox import Postbox, Received
from demo.sources import ACTIONS, Nothing, Source

_HERE: Final = Path(__file__).parent
_FILES: Final = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_TOKEN_SECONDS: Final = 3600.0
_FEED_RETRY_SECONDS: Final = 0.2
_FEED_PING_SECONDS: Final = 1.0


class DemoServer(ThreadingHTTPServer):
    """The page for `daemon` and `source` at `port`; `with` serves it from a thread.

    `events_url` is where the page opens its stream: pusher itself, or a proxy before it. `crash`
    kills pusher and starts it again; without it the page has no such button. `postbox` is where
    notifyd's mails arrive. OSError if the port is taken.
    """

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(
        self,
        port: int,
        daemon: Daemon,
        source: Source,
        *,
        events_url: str | None = None,
        crash: Callable[[], None] | None = None,
        postbox: Postbox | None = None,
    ) -> None:
        self.daemon = daemon
        self.source = source
        self.events_url = events_url or daemon.events_url
        self.crash = crash
        self.postbox = postbox
        self.closing = threading.Event()
        super().__init__(("127.0.0.1", port), _Handler)
        self.port: int = self.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.1,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self.closing.set()
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of browsers that go away in the middle of an answer."""


def origins(port: int) -> list[str]:
    """Return the origins under which a page at `port` may call itself."""
    return [f"http://127.0.0.1:{port}", f"http://localhost:{port}"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    server: DemoServer

    _SECURITY: ClassVar[Mapping[str, str]] = {
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if not self._is_ours():
            return
        if path in _FILES:
            name, content_type = _FILES[path]
            self._answer(HTTPStatus.OK, (_HERE / name).read_bytes(), content_type)
        elif path == "/setup":
            self._json(HTTPStatus.OK, self._setup())
        elif path == "/numbers":
            self._numbers()
        elif path == "/mails":
            self._mails()
        elif path.startswith("/mails/"):
            self._mail(path.removeprefix("/mails/"))
        elif path == "/feed":
            self._feed()
        else:
            self._json(HTTPStatus.NOT_FOUND, {"error": "There is nothing here."})

    def do_POST(self) -> None:
        self.rfile.read(min(int(self.headers.get("Content-Length") or 0), 65_536))
        if not self._is_ours():
            return
        action = self.path.removeprefix("/do/")
        crash = self.server.crash
        try:
            if action in ACTIONS:
                self.server.source.do(action)
            elif action == "crash" and crash is not None:
                threading.Thread(target=crash).start()
            else:
                self._json(HTTPStatus.NOT_FOUND, {"error": "There is no such action."})
                return
        except Nothing as nothing:
            self._json(HTTPStatus.CONFLICT, {"error": str(nothing)})
        except (OSError, CyrusError, ManageSieveError) as error:
            self._json(HTTPStatus.BAD_GATEWAY, {"error": f"That did not work: {error}"})
        else:
            self._json(HTTPStatus.OK, {"done": action})

    def _is_ours(self) -> bool:
        """Refuse other sites: they must neither press buttons nor, by DNS, read our tokens."""
        allowed = origins(self.server.port)
        origin = self.headers.get("Origin")
        host = f"http://{self.headers.get('Host')}"
        if host in allowed and (origin is None or origin in allowed):
            return True
        self._json(HTTPStatus.FORBIDDEN, {"error": "This page is only for this machine."})
        return False

    def _setup(self) -> dict[str, object]:
        return {
            "account": ALICE,
            "mode": self.server.source.mode,
            "events": self.server.events_url,
            "token": self.server.daemon.token(ALICE, _TOKEN_SECONDS),
            "canCrash": self.server.crash is not None,
        }

    def _numbers(self) -> None:
        try:
            self._json(HTTPStatus.OK, self.server.source.numbers())
        except (OSError, CyrusError) as error:
            self._json(HTTPStatus.BAD_GATEWAY, {"error": f"The server does not say: {error}"})

    def _received(self) -> list[Received]:
        return self.server.postbox.mails() if self.server.postbox is not None else []

    def _mails(self) -> None:
        mails = [
            {
                "number": mail.number,
                "to": mail.recipient,
                "subject": str(mail.message["Subject"]),
                "html": bool(mail.body("html")),
                "text": mail.body("plain"),
            }
            for mail in self._received()
        ]
        self._json(HTTPStatus.OK, {"mails": mails})

    def _mail(self, number: str) -> None:
        """Show one mail's HTML, for a frame of the page; it may hold nothing but its own style."""
        for mail in self._received():
            if str(mail.number) == number:
                policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'"
                body = mail.body("html").encode()
                self._answer(HTTPStatus.OK, body, "text/html; charset=utf-8", policy)
                return
        self._json(HTTPStatus.NOT_FOUND, {"error": "There is no such mail."})

    # --- answers ---------------------------------------------------------------------------------

    def _json(self, status: HTTPStatus, value: Mapping[str, object]) -> None:
        self._answer(status, json.dumps(value).encode(), "application/json")

    def _answer(
        self, status: HTTPStatus, body: bytes, content_type: str, policy: str | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", policy or self._policy())
        for name, value in self._SECURITY.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _policy(self) -> str:
        parts = urlsplit(self.server.events_url)
        allowed = f"'self' {parts.scheme}://{parts.netloc}"
        return f"default-src 'self'; img-src data:; connect-src {allowed}; frame-ancestors 'none'"

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Keep the terminal for what the person at it should read."""

    # --- the feed: what `pusher tail` shows, as an EventSource -----------------------------------

    def _feed(self) -> None:
        self.close_connection = True
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/event-stream")
        for name, value in {**self._SECURITY, "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()
        self._say("retry: 500\n\n")
        was_there = None
        while not self.server.closing.is_set():
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as tail:
                is_there = tail.connect_ex(str(self.server.daemon.tail_socket)) == 0
                if is_there != was_there:
                    self._say(f"event: pusher\ndata: {json.dumps({'up': is_there})}\n\n")
                    was_there = is_there
                if is_there:
                    self._pass_on(tail)
            self.server.closing.wait(_FEED_RETRY_SECONDS)

    def _pass_on(self, tail: socket.socket) -> None:
        tail.settimeout(_FEED_PING_SECONDS)
        pending = b""
        while not self.server.closing.is_set():
            try:
                data = tail.recv(65_536)
            except TimeoutError:
                self._say(":\n\n")
                continue
            except OSError:
                return
            if not data:
                return
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                self._say(f"data: {line.decode()}\n\n")

    def _say(self, text: str) -> None:
        self.wfile.write(text.encode())
        self.wfile.flush()
