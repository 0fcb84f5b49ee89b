"""What controllers rely on in a serving backend, over the fake and over the adapter of the local inference server."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from api.backends.base import ServingBackend, Target
from api.backends.local import LocalBackend
from api.errors import Unavailable
from tests.robustness.fakes.backend import FakeBackend

FIRST = Target("flights.late", "one", "file:///one", 1)
SECOND = Target("flights.late", "two", "file:///two", 2)


def admin(book: FakeBackend, token: str) -> Starlette:
    """Return the admin endpoints of an inference server whose models are those of `book`."""

    async def deployment(request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {token}":
            return JSONResponse({"reason": "UNAUTHENTICATED"}, status_code=401)
        name = request.path_params["name"]
        if request.method == "PUT":
            body = await request.json()
            await book.apply(Target(name, body["revision"], body["artifact_uri"], body["generation"]))
            return Response(status_code=202)
        if request.method == "DELETE":
            await book.delete(name)
            return Response(status_code=204)
        found = await book.observe(name)
        if found is None:
            return JSONResponse({"reason": "NOT_FOUND"}, status_code=404)
        shown: dict[str, Any] = {"state": found.state, "reason": found.reason, "message": found.message}
        for part in ("current", "candidate"):
            revision = getattr(found, part)
            shown[part] = {"revision": revision, "artifact_uri": ""} if revision else None
        return JSONResponse({**shown, "generation": found.generation})

    async def ready(_: Request) -> Response:
        return Response(status_code=503 if book.down else 200)

    return Starlette(
        routes=[
            Route("/admin/deployments/{name}", deployment, methods=["PUT", "GET", "DELETE"]),
            Route("/v2/health/ready", ready),
        ]
    )


@pytest.fixture(params=["fake", "local"])
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[tuple[ServingBackend, FakeBackend]]:
    book = FakeBackend()
    if request.param == "fake":
        yield book, book
        return
    transport = httpx.ASGITransport(app=admin(book, "secret"))
    local = LocalBackend("http://serving", "secret", transport=transport)
    yield local, book
    await local.close()


Pair = tuple[ServingBackend, FakeBackend]


async def test_what_was_never_applied_is_unknown(pair: Pair) -> None:
    assert await pair[0].observe("flights.late") is None


async def test_an_applied_target_loads_and_then_answers(pair: Pair) -> None:
    backend, _ = pair
    await backend.apply(FIRST)
    loading = await backend.observe("flights.late")
    assert loading is not None
    assert (loading.state, loading.candidate, loading.generation) == ("LOADING", "one", 1)
    ready = await backend.observe("flights.late")
    assert ready is not None
    assert (ready.state, ready.current, ready.candidate) == ("READY", "one", "")


async def test_a_broken_target_leaves_the_current_one_and_says_why(pair: Pair) -> None:
    backend, book = pair
    await backend.apply(FIRST)
    await backend.observe("flights.late")
    book.broken.add("file:///two")
    await backend.apply(SECOND)
    failed = await backend.observe("flights.late")
    assert failed is not None
    assert (failed.state, failed.current, failed.candidate) == ("FAILED", "one", "two")
    assert (failed.reason, failed.message) == ("INTEGRITY_FAILED", "model.onnx differs")


async def test_deleting_twice_is_no_error(pair: Pair) -> None:
    backend, _ = pair
    await backend.apply(FIRST)
    await backend.delete("flights.late")
    await backend.delete("flights.late")
    assert await backend.observe("flights.late") is None


async def test_health_says_whether_it_answers(pair: Pair) -> None:
    backend, book = pair
    assert await backend.healthy()
    book.down = True
    assert not await backend.healthy()


async def test_nobody_at_the_address_is_unavailable() -> None:
    local = LocalBackend("http://127.0.0.1:9", "secret")
    with pytest.raises(Unavailable):
        await local.observe("flights.late")
    assert not await local.healthy()
    await local.close()


async def test_an_answer_that_is_no_json_is_unavailable() -> None:
    async def html(_: Request) -> Response:
        return Response("<html>")

    app = Starlette(routes=[Route("/admin/deployments/{name}", html)])
    local = LocalBackend("http://serving", "secret", transport=httpx.ASGITransport(app=app))
    with pytest.raises(Unavailable, match="no JSON"):
        await local.observe("flights.late")
    await local.close()
