"""Who gets a stream: tokens, where they stand in a request, and web origins."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from demo.daemon import Settings
from tests.support.hostile import OK, Answer, Producer, event_request, exchange, get
from tests.support.pusher_process import PusherProcess
from tests.support.streams import EventStream, open_stream

SECRET = b"s" * 40
AUDIENCE = "mailbox-pusher"
ALLOWED = "https://mail.example.org"


@pytest.fixture(scope="module")
def pusher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PusherProcess]:
    key = tmp_path_factory.mktemp("key") / "auth.key"
    key.write_bytes(SECRET + b"\n")
    settings: Settings = {
        "auth": {"key_file": str(key), "leeway_seconds": 0},
        "streams": {"allowed_origins": [ALLOWED]},
    }
    with PusherProcess(settings) as process:
        yield process


def claims(**changes: object) -> dict[str, Any]:
    good = {"sub": "ann", "aud": AUDIENCE, "exp": int(time.time()) + 600}
    return {name: value for name, value in (good | changes).items() if value is not None}


def signed(key: bytes = SECRET, **changes: object) -> str:
    return jwt.encode(claims(**changes), key, "HS256")


def part(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def forged(header: dict[str, object], key: bytes | None, **changes: object) -> str:
    """Return a token with any header, HMAC-signed with any key, which libraries refuse to make."""
    text = f"{part(header)}.{part(claims(**changes))}"
    mac = hmac.new(key, text.encode(), hashlib.sha256).digest() if key is not None else b""
    return f"{text}.{part(mac)}"


def ask(pusher: PusherProcess, token: str | None) -> Answer:
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    return exchange(pusher.streams_port, get("/events", headers))


NOT_GOOD: dict[str, Callable[[], str | None]] = {
    "none": lambda: None,
    "empty": lambda: "",
    "garbage": lambda: "not-a-token",
    "dots": lambda: "..",
    "not base64": lambda: "a.b.c",
    "not json": lambda: f"{part(b'{')}.{part(b'{')}.x",
    "expired": lambda: signed(exp=int(time.time()) - 5),
    "no exp": lambda: signed(exp=None),
    "exp as text": lambda: forged({"alg": "HS256"}, SECRET, exp="soon"),
    "endless exp": lambda: forged({"alg": "HS256"}, SECRET, exp=float("inf")),
    "huge exp": lambda: forged({"alg": "HS256"}, SECRET, exp=10**400),
    "not yet": lambda: signed(nbf=int(time.time()) + 600),
    "no audience": lambda: signed(aud=None),
    "foreign audience": lambda: signed(aud="another-service"),
    "audience as object": lambda: forged({"alg": "HS256"}, SECRET, aud={"a": AUDIENCE}),
    "wrong key": lambda: signed(key=b"t" * 40),
    "alg none": lambda: forged({"alg": "none"}, None),
    "alg None": lambda: forged({"alg": "None"}, None),
    "alg none but signed": lambda: forged({"alg": "none"}, SECRET),
    "alg unknown": lambda: forged({"alg": "HS257"}, SECRET),
    "alg as list": lambda: forged({"alg": ["HS256"]}, SECRET),
    "unknown critical": lambda: forged({"alg": "HS256", "crit": ["x"], "x": 1}, SECRET),
    "no sub": lambda: signed(sub=None),
    "empty sub": lambda: signed(sub=""),
    "sub as number": lambda: forged({"alg": "HS256"}, SECRET, sub=7),
    "sub as list": lambda: forged({"alg": "HS256"}, SECRET, sub=["ann"]),
    "endless sub": lambda: signed(sub="x" * 1025),
    "9 kB": lambda: signed(padding="x" * 7000),
    "deep": lambda: f"{part({'alg': 'HS256'})}.{part(b'[' * 5000)}.{part(b'x')}",
    "not ascii": lambda: "tök.én.x",
}


@pytest.mark.parametrize("name", NOT_GOOD)
def test_token_that_is_not_good_gets_401_and_learns_nothing(
    pusher: PusherProcess, name: str
) -> None:
    answer = ask(pusher, NOT_GOOD[name]())
    assert answer.status == 401
    assert answer.problem["detail"] == "a valid token is needed"
    assert answer.headers["www-authenticate"] == "Bearer"
    plain = ask(pusher, None)
    assert answer == plain, "all refusals look alike"


def test_good_tokens_are_taken(pusher: PusherProcess) -> None:
    for token in (
        signed(),
        signed(aud=["other", AUDIENCE]),
        signed(sub="first.last+x@example.org"),
        signed(exp=time.time() + 60.5),
        signed(extra={"scopes": ["x"]}),
    ):
        with EventStream(pusher.events_url, token=token) as stream:
            assert stream.status == 200
            assert stream.headers["content-type"] == "text/event-stream"
            assert stream.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("kind", ["EdDSA", "ES256", "RS256"])
def test_public_key_takes_its_own_algorithm_only(tmp_path: Path, kind: str) -> None:
    """The classic: HMAC with the public key, which everybody has, as its secret."""
    keys: dict[str, Any] = {
        "EdDSA": ed25519.Ed25519PrivateKey.generate,
        "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "RS256": lambda: rsa.generate_private_key(65537, 2048),
    }
    private, stranger = keys[kind](), keys[kind]()
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    path = tmp_path / "public.pem"
    path.write_bytes(public)
    with PusherProcess({"auth": {"public_key_file": str(path)}}) as pusher:
        good = jwt.encode(claims(), private, kind)
        with EventStream(pusher.events_url, token=good) as stream:
            assert stream.status == 200
        for bad in (
            jwt.encode(claims(), stranger, kind),
            forged({"alg": "HS256"}, public),
            forged({"alg": "HS256"}, public.strip()),
            forged({"alg": kind}, public),
            forged({"alg": "none"}, None),
            good[:-4] + "AAAA",
            signed(),
        ):
            assert ask(pusher, bad).status == 401


def test_token_in_header_goes_before_cookie_and_cookie_before_query(pusher: PusherProcess) -> None:
    good, bad = signed(), "bad"

    def status(header: str | None, cookie: str | None, query: str | None) -> int:
        headers = {}
        if header is not None:
            headers["Authorization"] = header
        if cookie is not None:
            headers["Cookie"] = f"a=b; mailbox_pusher={cookie}; c=d"
        url = pusher.events_url + (f"?x=1&token={query}" if query is not None else "")
        with EventStream(url, headers=headers) as stream:
            return stream.status

    assert status(f"Bearer {good}", None, None) == 200
    assert status(f"bearer  {good}", None, None) == 200
    assert status(None, good, None) == 200
    assert status(None, f'"{good}"', None) == 200
    assert status(None, None, good) == 200
    assert status(f"Bearer {good}", bad, bad) == 200
    assert status(f"Bearer {bad}", good, good) == 401
    assert status(None, good, bad) == 200
    assert status(None, bad, good) == 401
    assert status("Basic YTpi", good, None) == 200
    assert status(f"Basic {good}", None, None) == 401


def test_stream_ends_with_its_token(pusher: PusherProcess) -> None:
    token = signed(exp=int(time.time()) + 2)
    with EventStream(pusher.events_url, token=token) as stream:
        began = time.monotonic()
        with pytest.raises(ConnectionError):
            stream.wait_for(lambda _: False, within=8)
        assert 0.5 < time.monotonic() - began < 5


def test_streams_are_of_one_account_only(pusher: PusherProcess) -> None:
    with (
        EventStream(pusher.events_url, token=signed(sub="ann")) as own,
        EventStream(pusher.events_url, token=signed(sub="Ann")) as other_case,
        EventStream(pusher.events_url, token=signed(sub="ann@example.org")) as with_domain,
        Producer(pusher.stream_socket) as producer,
    ):
        for stream in (own, other_case, with_domain):
            stream.next_block()
        assert producer.ask(event_request("ann", 31)) == OK
        own.wait_for(lambda block: '"mailModSeq":31,' in block.data)
        assert other_case.quiet_for(0.2) == []
        assert with_domain.quiet_for(0.2) == []


# --- origins -------------------------------------------------------------------------------------


def with_origin(
    pusher: PusherProcess, origin: str | None, method: str = "GET", **headers: str
) -> EventStream:
    given = {"Authorization": f"Bearer {pusher.token('ann')}", **headers}
    if origin is not None:
        given["Origin"] = origin
    return EventStream(pusher.events_url, headers=given)


def test_allowed_origin_may_read_and_send_cookies(pusher: PusherProcess) -> None:
    with with_origin(pusher, ALLOWED) as stream:
        assert stream.status == 200
        assert stream.headers["access-control-allow-origin"] == ALLOWED
        assert stream.headers["access-control-allow-credentials"] == "true"
        assert stream.headers["vary"] == "Origin"


def test_without_origin_nothing_is_said_of_it(pusher: PusherProcess) -> None:
    with with_origin(pusher, None) as stream:
        assert stream.status == 200
        assert not [name for name in stream.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "https://mail.example.org.evil.example",
        "https://mail.example.org:444",
        "http://mail.example.org",
        "HTTPS://MAIL.EXAMPLE.ORG",
        "https://mail.example.org/",
        "",
        "*",
    ],
)
def test_foreign_origin_is_turned_away_whatever_it_knows(
    pusher: PusherProcess, origin: str
) -> None:
    for method in ("GET", "OPTIONS"):
        headers = {"Origin": origin, "Cookie": f"mailbox_pusher={signed()}"}
        answer = exchange(pusher.streams_port, get("/events", headers, method))
        assert answer.status == 403
        assert answer.problem["title"] == "Forbidden"
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_own_origin_is_no_foreign_one(pusher: PusherProcess) -> None:
    with with_origin(pusher, f"http://127.0.0.1:{pusher.streams_port}") as stream:
        assert stream.status == 200


def test_preflight_is_answered_for_the_allowed_origin(pusher: PusherProcess) -> None:
    headers = {
        "Origin": ALLOWED,
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "authorization,last-event-id",
    }
    answer = exchange(pusher.streams_port, get("/events", headers, "OPTIONS"))
    assert answer.status == 204
    assert answer.body == b""
    assert answer.headers["access-control-allow-origin"] == ALLOWED
    assert answer.headers["access-control-allow-methods"] == "GET"
    allowed = answer.headers["access-control-allow-headers"].lower()
    assert {"authorization", "last-event-id"} <= set(allowed.split(", "))


def test_page_of_an_allowed_origin_can_read_why_it_was_refused(pusher: PusherProcess) -> None:
    answer = exchange(pusher.streams_port, get("/events", {"Origin": ALLOWED}))
    assert answer.status == 401
    assert answer.headers["access-control-allow-origin"] == ALLOWED


def test_any_origin_may_read_but_then_without_cookies() -> None:
    with PusherProcess({"streams": {"allowed_origins": ["*"]}}) as pusher:
        with with_origin(pusher, "https://anywhere.example") as stream:
            assert stream.status == 200
            assert stream.headers["access-control-allow-origin"] == "*"
            assert "access-control-allow-credentials" not in stream.headers
        cookie = {"Origin": "https://anywhere.example"}
        cookie["Cookie"] = f"mailbox_pusher={pusher.token('ann')}"
        with EventStream(pusher.events_url, headers=cookie) as stream:
            # The browser would not let the page read it; neither do we hold it open for nothing.
            assert stream.status in (200, 401)
        with open_stream(pusher, "ann") as stream:
            stream.next_block()
