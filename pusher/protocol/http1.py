"""The one request a stream connection carries (HTTP/1.1, RFC 9112), and its answers, as bytes.

Knows the head of a request and problem documents (RFC 9457); not what a path means.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import parse_qsl

import httptools

from shared.errors import ProtocolError

#: A request head longer than this is refused with 431.
MAX_HEAD_BYTES = 16_384


class Request(NamedTuple):
    """A request without a body. Header names are lower case; of repeated ones the last counts."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


class RequestReader:
    """Reads one request head from bytes as they come; anything after it is not looked at."""

    __slots__ = ("_head_bytes", "_headers", "_parser", "_read_bytes", "_request", "_target")

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._headers: dict[str, str] = {}
        self._target = b""
        self._request: Request | None = None
        self._read_bytes = 0
        self._head_bytes = 0  # of what is kept; the rest of the head is a few bytes a line

    def feed(self, data: bytes) -> Request | None:
        """Return the request once it is whole, else None; raise ProtocolError with its status."""
        self._read_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # the head was whole; the path decides whether an upgrade makes sense
        except httptools.HttpParserError as error:
            if self._request is None:
                raise ProtocolError(400, "not an HTTP/1.1 request") from error
        unfinished = self._read_bytes if self._request is None else 0
        if max(unfinished, self._head_bytes) > MAX_HEAD_BYTES:
            raise ProtocolError(431, f"more than {MAX_HEAD_BYTES} bytes of request head")
        return self._request

    # Called by httptools.

    def on_url(self, url: bytes) -> None:
        if self._request is not None:
            return  # of another request behind the one we answer
        self._target += url
        self._head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._request is None:
            self._head_bytes += len(name) + len(value)
            self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._request is not None:
            return
        if self._parser.get_http_version() not in ("1.0", "1.1"):
            raise ValueError("another version of HTTP")  # comes out of feed_data as its error
        path, _, query = self._target.decode("latin-1").partition("?")
        self._request = Request(
            self._parser.get_method().decode("latin-1"),
            path,
            dict(_pairs(query)) if query else {},
            self._headers,
        )


def _pairs(query: str) -> Iterator[tuple[str, str]]:
    if "%" in query or "+" in query:
        yield from parse_qsl(query.partition("#")[0], keep_blank_values=True)
        return
    for pair in query.partition("#")[0].split("&"):
        name, _, value = pair.partition("=")
        yield name, value


def has_body(request: Request) -> bool:
    """Tell whether the request announces a body, which no stream request has."""
    return request.headers.get("content-length", "0") != "0" or (
        "transfer-encoding" in request.headers
    )


def head(status: int, headers: Mapping[str, str]) -> bytes:
    """Return a response head; the connection ends with the body, so there is no framing in it."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> bytes:
    """Return a whole response that says what is wrong as application/problem+json (RFC 9457)."""
    title = HTTPStatus(status).phrase
    document = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    body = json.dumps(document).encode()
    fields = {
        "Content-Type": "application/problem+json",
        "Content-Length": str(len(body)),
        "Cache-Control": "no-store",
        "Connection": "close",
    }
    return head(status, fields | dict(headers or {})) + body
