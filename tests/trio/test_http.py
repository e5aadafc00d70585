"""The API listener's routes and limits, through the application itself."""

from __future__ import annotations

import httpx
import pytest

from shared.http import application, health

pytestmark = pytest.mark.trio


def client(reasons: list[str]) -> httpx.AsyncClient:
    app = application(health.routes(lambda: reasons, lambda: b"x 1\n", "1.2.3"))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api")


async def test_ready_says_why_not() -> None:
    async with client([]) as api:
        assert (await api.get("/readyz")).json() == {"status": "ready", "reasons": []}
        assert (await api.get("/healthz")).json() == {"status": "ok", "version": "1.2.3"}
        assert (await api.get("/metrics")).text == "x 1\n"
    async with client(["queue: disk-full"]) as api:
        answer = await api.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["reasons"] == ["queue: disk-full"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/nowhere", {}, 404),
        ("POST", "/healthz", {}, 405),
        ("GET", "/healthz", {"x": "a" * 20_000}, 431),
        ("GET", "/healthz?" + "a" * 20_000, {}, 431),
        ("POST", "/healthz", {"content-length": "70000"}, 413),
    ],
)
async def test_refusals_are_problem_documents(
    method: str, path: str, headers: dict[str, str], status: int
) -> None:
    async with client([]) as api:
        answer = await api.request(method, path, headers=headers)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status
