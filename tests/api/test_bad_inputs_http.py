"""The server's HTTP port: who may report, what a report may be, and what is no route."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

import httpx
import pytest

from api.controllers.reports import LARGEST_BYTES, MOST_EVENTS, routes
from api.http import app

EVENTS = "/internal/airflow/events"
TOKEN = {"authorization": "Bearer secret"}
EVENT = {"type": "dag_run", "dag_id": "shop.train", "run_id": "manual__1", "state": "running"}
Heard = list[tuple[str, str]]


@pytest.fixture
def heard() -> Heard:
    return []


@pytest.fixture
async def http(heard: Heard) -> AsyncIterator[httpx.AsyncClient]:
    async def seen(dag_id: str, run_id: str, ended: bool) -> None:
        heard.append((dag_id, run_id))

    async def started() -> None:
        heard.append(("serving", "started"))

    async def ready() -> bool:
        return False

    application = app.build(ready, routes("secret", seen, started))
    transport = httpx.ASGITransport(app=application, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        yield client


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("authorization", "")],
        [("authorization", "Bearer")],
        [("authorization", "Bearer ")],
        [("authorization", "secret")],
        [("authorization", "Basic secret")],
        [("authorization", "bearer  secret")],
        [("authorization", "Bearer secret ")],
        [("authorization", "Bearer secre")],
        [("authorization", "Bearer s\u00e9cret")],
        [("authorization", "Bearer " + "x" * 60_000)],
        [("authorization", "Bearer secret"), ("authorization", "Bearer other")],
    ],
)
@pytest.mark.parametrize("path", [EVENTS, "/internal/serving/started"])
async def test_only_the_token_opens_the_routes(
    http: httpx.AsyncClient, heard: Heard, path: str, headers: list[tuple[str, str]]
) -> None:
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    answer = await http.post(path, json={"events": [EVENT]}, headers=encoded)
    assert (answer.status_code, answer.json()) == (401, {"reason": "UNAUTHENTICATED"})
    await asyncio.sleep(0)
    assert heard == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"events": [{}]}',
        b'{"events": [{"dag_id": "a"}]}',
        b'{"events": null}',
        b'{"events": [[]]}',
        b'{"a": ' + b"9" * 5_000 + b"}",
        b"[" * 100_000,
        b'{"events": ' + b"[" * 100_000,
        b'{"events": [{"dag_id": "a", "run_id": "b"}]} trailing',
    ],
)
async def test_a_report_that_cannot_be_read_is_refused(http: httpx.AsyncClient, heard: Heard, body: bytes) -> None:
    answer = await http.post(EVENTS, content=body, headers=TOKEN)
    assert (answer.status_code, answer.json()) == (400, {"reason": "BAD_MESSAGE"})
    assert heard == []


async def test_a_report_that_is_too_large_is_refused_while_it_arrives(http: httpx.AsyncClient, heard: Heard) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield b" " * (LARGEST_BYTES // 4)

    answer = await http.post(EVENTS, content=endless(), headers=TOKEN)
    assert (answer.status_code, answer.json()) == (413, {"reason": "TOO_LARGE"})
    assert heard == []
    exact = b'{"events": []}'.ljust(LARGEST_BYTES)
    assert (await http.post(EVENTS, content=exact, headers=TOKEN)).status_code == 202


async def test_events_beyond_the_most_are_left_to_the_resync(http: httpx.AsyncClient, heard: Heard) -> None:
    events = [{**EVENT, "run_id": f"run-{number}"} for number in range(MOST_EVENTS + 50)]
    assert (await http.post(EVENTS, json={"events": events}, headers=TOKEN)).status_code == 202
    await asyncio.sleep(0.05)
    assert len(heard) == MOST_EVENTS


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", EVENTS, 405),
        ("PUT", EVENTS, 405),
        ("DELETE", "/healthz", 405),
        ("POST", "/metrics", 405),
        ("GET", "/", 404),
        ("GET", "/internal", 404),
        ("GET", "/healthz/../internal/airflow", 404),
        ("GET", "/%2e%2e/etc/passwd", 404),
        ("GET", "/healthz", 200),
        ("HEAD", "/healthz", 200),
        ("GET", "/readyz", 503),
    ],
)
async def test_what_is_no_route_is_said(http: httpx.AsyncClient, method: str, path: str, status: int) -> None:
    answer = await http.request(method, path, headers=TOKEN)
    assert answer.status_code == status
    if status == 405:
        assert answer.headers["allow"]
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("headers", [{"host": "x/abc?"}, {"host": ""}, {"x-request-id": "y" * 8_000}])
async def test_odd_headers_change_nothing(http: httpx.AsyncClient, headers: Mapping[str, str]) -> None:
    assert (await http.get("/healthz", headers=headers)).status_code == 200
    answer = await http.post(EVENTS, json={"events": []}, headers=headers)
    assert answer.status_code == 401
