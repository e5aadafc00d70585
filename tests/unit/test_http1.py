"""One request head, however it comes in pieces; what is too long or no HTTP gets its status."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pusher.protocol import http1
from pusher.protocol.http1 import MAX_HEAD_BYTES, Request, RequestReader, has_body
from shared.errors import ProtocolError

PLAIN = b"GET /events?a=b HTTP/1.1\r\nHost: x\r\nLast-Event-ID: 7\r\n\r\n"


def read(data: bytes, piece: int = 0) -> Request | None:
    reader, request = RequestReader(), None
    for at in range(0, len(data), piece or len(data)):
        request = reader.feed(data[at : at + (piece or len(data))])
        if request is not None:
            break
    return request


def whole(data: bytes, piece: int = 0) -> Request:
    request = read(data, piece)
    assert request is not None
    return request


def status_of(data: bytes, piece: int = 0) -> int:
    with pytest.raises(ProtocolError) as refused:
        read(data, piece)
    return refused.value.status


@pytest.mark.parametrize("piece", [0, 1, 2, 7, 64])
def test_a_request_is_read_in_pieces_of_any_size(piece: int) -> None:
    request = whole(PLAIN, piece)
    assert (request.method, request.path, request.query) == ("GET", "/events", {"a": "b"})
    assert request.headers == {"host": "x", "last-event-id": "7"}


def test_nothing_is_answered_before_the_head_is_whole() -> None:
    reader = RequestReader()
    for at in range(len(PLAIN) - 1):
        assert reader.feed(PLAIN[at : at + 1]) is None
    assert reader.feed(PLAIN[-1:]) is not None


@pytest.mark.parametrize(
    ("query", "read_as"),
    [
        ("", {}),
        ("?", {}),
        ("?a=1&b=2", {"a": "1", "b": "2"}),
        ("?a=1&a=2", {"a": "2"}),
        ("?a", {"a": ""}),
        ("?a=", {"a": ""}),
        ("?token=x.y.z&lastEventId=7", {"token": "x.y.z", "lastEventId": "7"}),
        ("?types=Email%2CMailbox", {"types": "Email,Mailbox"}),
        ("?a=b+c", {"a": "b c"}),
        ("?a=%FF%zz", {"a": "\N{REPLACEMENT CHARACTER}%zz"}),
        ("?a=b=c", {"a": "b=c"}),
        ("?a=1#b=2", {"a": "1"}),
    ],
)
def test_queries(query: str, read_as: dict[str, str]) -> None:
    request = whole(f"GET /events{query} HTTP/1.1\r\n\r\n".encode())
    assert (request.path, {**request.query, "": ""}) == ("/events", {**read_as, "": ""})


@pytest.mark.parametrize(
    ("lines", "name", "value"),
    [
        ("Authorization: Bearer abc", "authorization", "Bearer abc"),
        ("AUTHORIZATION:Bearer abc", "authorization", "Bearer abc"),
        ("Cookie: a=1\r\nCookie: b=2", "cookie", "b=2"),
        ("X: \xe9", "x", "\xe9"),
        ("X:   spaced  ", "x", "spaced"),
        ("Host: a:8400", "host", "a:8400"),
        ("X:", "x", ""),
    ],
)
def test_headers(lines: str, name: str, value: str) -> None:
    request = whole(f"GET / HTTP/1.1\r\n{lines}\r\n\r\n".encode("latin-1"))
    assert request.headers[name].rstrip(" ") == value


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "HEAD", "DELETE", "PUT"])
def test_the_method_is_told_as_it_is(method: str) -> None:
    assert whole(f"{method} / HTTP/1.1\r\n\r\n".encode()).method == method


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_both_versions_that_browsers_and_proxies_speak(version: str) -> None:
    assert read(f"GET / HTTP/{version}\r\n\r\n".encode()) is not None


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01",  # TLS on a plain port
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/0.9\r\n\r\n",
        b"GET /\r\n\r\n",
        b"NOTIFY %(METHOD x)\r\n",
        b"{}\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"\0" * 100,
    ],
)
@pytest.mark.parametrize("piece", [0, 1])
def test_what_is_no_http_gets_400(data: bytes, piece: int) -> None:
    assert status_of(data, piece) == 400


@pytest.mark.parametrize(
    "data",
    [
        b"GET /" + b"a" * MAX_HEAD_BYTES + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * MAX_HEAD_BYTES,
        b"GET / HTTP/1.1\r\n" + b"a" * MAX_HEAD_BYTES * 2,
    ],
    ids=["target", "header", "headers", "header name"],
)
@pytest.mark.parametrize("piece", [0, 100, 1000])
def test_a_head_without_end_gets_431(data: bytes, piece: int) -> None:
    assert status_of(data, piece) == 431


def test_a_head_of_nearly_the_limit_passes() -> None:
    value = b"a" * (MAX_HEAD_BYTES - 100)
    assert whole(b"GET / HTTP/1.1\r\nX: " + value + b"\r\n\r\n").headers["x"] == value.decode()


@pytest.mark.parametrize(
    "behind",
    [b"GET /other HTTP/1.1\r\nEvil: 1\r\n\r\n", b"\0\0\0 rubbish", b"x" * 60_000, b"\r\n"],
)
@pytest.mark.parametrize("piece", [0, len(PLAIN)])
def test_what_follows_the_request_is_not_looked_at(behind: bytes, piece: int) -> None:
    request = whole(PLAIN + behind, piece)
    assert (request.path, request.headers) == (
        "/events",
        {"host": "x", "last-event-id": "7"},
    )


def test_a_wish_to_upgrade_is_an_ordinary_request() -> None:
    data = b"GET /events HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    assert whole(data).path == "/events"


@pytest.mark.parametrize(
    ("lines", "has_one"),
    [
        ("", False),
        ("Content-Length: 0\r\n", False),
        ("Content-Length: 1\r\n", True),
        ("Transfer-Encoding: chunked\r\n", True),
    ],
)
def test_a_body_is_noticed(lines: str, has_one: bool) -> None:
    assert has_body(whole(f"POST / HTTP/1.1\r\n{lines}\r\n".encode())) is has_one


@settings(deadline=None, max_examples=300)
@given(st.one_of(st.binary(max_size=200), st.binary(max_size=60).map(lambda x: PLAIN[:30] + x)))
def test_any_bytes_are_a_request_a_refusal_or_not_enough(data: bytes) -> None:
    reader = RequestReader()
    status = None
    for byte in data:
        try:
            if reader.feed(bytes([byte])) is not None:
                break
        except ProtocolError as error:
            status = error.status
            break
    assert status in (None, 400, 431)


# --- answers -----------------------------------------------------------------------------------


def test_a_problem_is_a_document_of_rfc_9457() -> None:
    response = http1.problem(401, "a valid token is needed", {"WWW-Authenticate": "Bearer"})
    head, body = response.split(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    fields = dict(line.split(": ") for line in lines[1:])
    assert lines[0] == "HTTP/1.1 401 Unauthorized"
    assert fields["Content-Type"] == "application/problem+json"
    assert fields["Content-Length"] == str(len(body))
    assert fields["Connection"] == "close"
    assert fields["Cache-Control"] == "no-store"
    assert fields["WWW-Authenticate"] == "Bearer"
    assert json.loads(body) == {
        "type": "about:blank",
        "title": "Unauthorized",
        "status": 401,
        "detail": "a valid token is needed",
    }


def test_a_head_has_its_fields_in_order_and_ends() -> None:
    assert http1.head(200, {"A": "1", "B": "2"}) == b"HTTP/1.1 200 OK\r\nA: 1\r\nB: 2\r\n\r\n"
