"""Reports need the platform's token and are only hints."""

import asyncio

import httpx
import pytest
from starlette.applications import Starlette

from api.controllers.reports import routes

EVENT = {"events": [{"type": "dag_run", "dag_id": "flights.train", "run_id": "manual__1", "state": "running"}]}
TOKEN = {"authorization": "Bearer secret"}


class Heard:
    def __init__(self) -> None:
        self.runs: list[tuple[str, str]] = []
        self.ended: list[bool] = []
        self.started = 0

    async def run_seen(self, dag_id: str, run_id: str, ended: bool) -> None:
        self.runs.append((dag_id, run_id))
        self.ended.append(ended)

    async def serving_started(self) -> None:
        self.started += 1


def client(heard: Heard, token: str = "secret") -> httpx.AsyncClient:
    app = Starlette(routes=routes(token, heard.run_seen, heard.serving_started))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://api")


@pytest.fixture
def heard() -> Heard:
    return Heard()


async def test_a_report_wakes_each_run_once(heard: Heard) -> None:
    async with client(heard) as http:
        twice = {"events": EVENT["events"] * 2}
        assert (await http.post("/internal/airflow/events", json=twice, headers=TOKEN)).status_code == 202
        assert (await http.post("/internal/serving/started", json={}, headers=TOKEN)).status_code == 202
        await asyncio.sleep(0.01)
    assert heard.runs == [("flights.train", "manual__1")]
    assert heard.started == 1


@pytest.mark.parametrize(
    ("kind", "state", "ended"),
    [
        ("dag_run", "success", True),
        ("dag_run", "failed", True),
        ("dag_run", "running", False),
        ("task", "success", False),
    ],
)
async def test_only_the_end_of_a_run_is_its_end(heard: Heard, kind: str, state: str, ended: bool) -> None:
    (event,) = EVENT["events"]
    async with client(heard) as http:
        told = {"events": [{**event, "type": kind, "state": state}]}
        await http.post("/internal/airflow/events", json=told, headers=TOKEN)
        await asyncio.sleep(0.01)
    assert heard.ended == [ended]


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer"}, {"authorization": "Bearer other"}])
async def test_without_the_token_nothing_is_heard(heard: Heard, headers: dict[str, str]) -> None:
    async with client(heard) as http:
        for path in ("/internal/airflow/events", "/internal/serving/started"):
            assert (await http.post(path, json=EVENT, headers=headers)).status_code == 401
    assert heard.runs == []


async def test_a_platform_without_a_token_is_closed(heard: Heard) -> None:
    async with client(heard, token="") as http:
        for headers in ({}, {"authorization": "Bearer "}):
            answer = await http.post("/internal/airflow/events", json=EVENT, headers=headers)
            assert answer.status_code == 401


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"5", b'{"events": 5}', b'{"events": {}}', b'{"events": [1]}', b'"x"']
)
async def test_a_malformed_report_is_refused(heard: Heard, body: bytes) -> None:
    async with client(heard) as http:
        answer = await http.post("/internal/airflow/events", content=body, headers=TOKEN)
    assert answer.status_code == 400
    assert heard.runs == []
