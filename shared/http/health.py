"""Health for machines: is it alive, is it ready (and if not, why), and its metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

#: Returns what is wrong, one short sentence each; empty when everything works.
Reasons = Callable[[], list[str]]

_NO_STORE: Final = {"Cache-Control": "no-store"}


def routes(reasons: Reasons, metrics: Callable[[], bytes], version: str) -> list[Route]:
    """Return `/healthz`, `/readyz` and `/metrics`."""

    async def healthz(_request: Request) -> Response:
        return JSONResponse({"status": "ok", "version": version}, headers=_NO_STORE)

    async def readyz(_request: Request) -> Response:
        found = reasons()
        body = {"status": "not ready" if found else "ready", "reasons": found}
        return JSONResponse(body, 503 if found else 200, headers=_NO_STORE)

    async def metrics_page(_request: Request) -> Response:
        return Response(metrics(), media_type=CONTENT_TYPE_LATEST, headers=_NO_STORE)

    return [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", metrics_page),
    ]
