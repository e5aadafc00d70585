"""HTTP routes for short requests (Starlette): each validates, calls one function, answers."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

__all__ = ["application"]


def application(routes: Sequence[BaseRoute]) -> Starlette:
    """Return the application; every error it answers with is a problem document (RFC 9457)."""
    return Starlette(routes=routes, exception_handlers={HTTPException: _problem, 500: _broken})


async def _problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return problem(error.status_code, error.detail, error.headers)


async def _broken(_request: Request, _error: Exception) -> Response:
    return problem(500, "something broke here; the log says what")


def problem(status: int, detail: str, headers: object = None) -> Response:
    """Return a problem document."""
    title = HTTPStatus(status).phrase
    document = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return JSONResponse(
        document,
        status,
        headers=dict(headers) if isinstance(headers, dict) else None,
        media_type="application/problem+json",
    )
