"""HTTP routes for short requests (Starlette): each validates, calls one function, answers."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from shared.http.limits import Limits
from shared.http.problems import problem

__all__ = ["application"]


def application(routes: Sequence[BaseRoute]) -> Starlette:
    """Return the application; every error it answers with is a problem document (RFC 9457)."""
    return Starlette(
        routes=routes,
        middleware=[Middleware(Limits)],
        exception_handlers={HTTPException: _problem, 500: _broken},
    )


async def _problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return problem(error.status_code, error.detail, error.headers)


async def _broken(_request: Request, _error: Exception) -> Response:
    return problem(500, "something broke here; the log says what")
