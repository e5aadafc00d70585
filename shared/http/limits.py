"""What a request to the API may weigh, whatever route it is for."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from shared.http.problems import problem

MAX_HEAD_BYTES: Final = 16_384
MAX_BODY_BYTES: Final = 65_536


class Limits:
    """ASGI middleware: refuses long heads with 431 and announced long bodies with 413."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is small enough."""
        refused = _refusal(scope) if scope["type"] == "http" else None
        if refused is None:
            await self._app(scope, receive, send)
        else:
            await problem(*refused)(scope, receive, send)


def _refusal(scope: Scope) -> tuple[int, str] | None:
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    head = len(scope.get("raw_path") or b"") + len(scope["query_string"])
    head += sum(len(name) + len(value) + 4 for name, value in headers)
    if head > MAX_HEAD_BYTES:
        return 431, f"more than {MAX_HEAD_BYTES} bytes of request head"
    for name, value in headers:
        if name == b"content-length" and int(value) > MAX_BODY_BYTES:
            return 413, f"more than {MAX_BODY_BYTES} bytes of body"
    return None
