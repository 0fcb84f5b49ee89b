"""The whole control plane over HTTP: Airflow's book at one port, the reports of its listener at another."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from api.config import Config
from api.controllers import ControlPlane
from api.gen.michelangelo.api.v2 import pipeline_pb2
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as wire
from api.http import app as http_app
from api.http.app import Application
from api.kinds import kinds
from api.store.base import Key
from api.store.sqlite import SqliteStore
from tests.patience import eventually, soon, under_way
from tests.robustness.fakes.airflow import FakeAirflow


@contextlib.asynccontextmanager
async def serving(app: Application) -> AsyncIterator[int]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", access_log=False))
    task = asyncio.create_task(server._serve([listener]))
    for _ in range(500):
        if server.started or task.done():
            break
        await asyncio.sleep(0.01)
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        listener.close()


class Platform:
    def __init__(self, plane: ControlPlane, airflow: FakeAirflow, url: str) -> None:
        self.plane, self.airflow, self.url = plane, airflow, url

    async def report(self, dag_id: str, run_id: str) -> None:
        """Do what the listener plugin does."""
        event = {"type": "dag_run", "dag_id": dag_id, "run_id": run_id, "state": "running"}
        async with httpx.AsyncClient(headers={"authorization": "Bearer secret"}) as http:
            answer = await http.post(f"{self.url}/internal/airflow/events", json={"events": [event]})
        assert answer.status_code == 202

    async def until(self, kind: str, name: str, holds: Any) -> Any:
        key = Key(kind, "flights", name)
        return await eventually(lambda: self.plane.resources.find(key), lambda it: it is not None and holds(it))


@pytest.fixture
async def platform(tmp_path: Path) -> AsyncIterator[Platform]:
    paths = Config(home=tmp_path, projects_root=tmp_path)
    airflow = FakeAirflow(paths.dags_path, paths.manifests_path)
    airflow.template("train")
    store = SqliteStore(tmp_path / "store.db")
    async with serving(airflow.app) as port:
        config = Config(home=tmp_path, projects_root=tmp_path, airflow_port=port, serving_port=9, token="secret")
        async with ControlPlane(store, config) as plane:

            async def ready() -> bool:
                return plane.running

            async with serving(http_app.build(ready, plane.routes())) as own:
                yield Platform(plane, airflow, f"http://127.0.0.1:{own}")
    await store.close()


async def pipeline(platform: Platform) -> None:
    resources = platform.plane.resources
    await resources.create(kinds()["Project"].new("flights", "flights"))
    new = kinds()["Pipeline"].new("flights", "train")
    new.spec.manifest.file_path = "train"
    await resources.create(new)
    ready = pipeline_pb2.PIPELINE_STATE_READY
    await platform.until("Pipeline", "train", lambda found: found.status.state == ready)


async def test_an_applied_pipeline_runs_and_reports_are_followed(platform: Platform) -> None:
    await pipeline(platform)
    new = kinds()["PipelineRun"].new("flights", "one")
    new.spec.pipeline.namespace, new.spec.pipeline.name = "flights", "train"
    await platform.plane.resources.create(new)
    run = await platform.until("PipelineRun", "one", lambda found: found.status.workflow_run_id != "")
    dag_run = platform.airflow.runs["flights.train", run.status.workflow_run_id]
    platform.airflow.expire_tokens()
    platform.airflow.finish(dag_run)
    began = time.monotonic()
    await platform.report("flights.train", dag_run.run_id)
    succeeded = wire.PIPELINE_RUN_STATE_SUCCEEDED
    await platform.until("PipelineRun", "one", lambda found: found.status.state == succeeded)
    assert time.monotonic() - began < soon(1)


async def test_a_run_started_in_airflow_is_listed_within_a_second(platform: Platform) -> None:
    await pipeline(platform)
    platform.airflow.begin("flights.train", "manual__2026-11-21T04:00:00+00:00")
    began = time.monotonic()
    await platform.report("flights.train", "manual__2026-11-21T04:00:00+00:00")
    while not (items := (await platform.plane.resources.list("PipelineRun")).items):
        assert time.monotonic() - began < soon(1), under_way()
        await asyncio.sleep(0.01)
    name = items[0].metadata.name
    run = await platform.until("PipelineRun", name, lambda found: found.status.workflow_run_id != "")
    assert run.status.workflow_run_id == "manual__2026-11-21T04:00:00+00:00"


async def test_a_trigger_dags_own_runs_are_no_pipeline_runs(platform: Platform) -> None:
    await pipeline(platform)
    platform.airflow.template("flights.train.nightly")
    platform.airflow.begin("flights.train.nightly", "scheduled__1")
    await platform.report("flights.train.nightly", "scheduled__1")
    await asyncio.sleep(0.1)
    assert not (await platform.plane.resources.list("PipelineRun")).items


async def test_lost_reports_are_healed_by_the_look_at_recent_runs(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pipeline(platform)
    platform.airflow.begin("flights.train", "manual__lost")
    monkeypatch.setattr("api.controllers.adoption.RESYNC_S", 0.05)
    assert platform.plane._adopter is not None
    resync = asyncio.create_task(platform.plane._adopter.resync())
    await eventually(lambda: platform.plane.resources.list("PipelineRun"), lambda page: bool(page.items))
    resync.cancel()
    await asyncio.gather(resync, return_exceptions=True)


async def test_readiness_follows_the_controllers(platform: Platform) -> None:
    async with httpx.AsyncClient() as http:
        assert (await http.get(f"{platform.url}/readyz")).status_code == 200
        platform.plane._tasks[0].cancel()
        for _ in range(round(soon(1) / 0.02)):
            if (await http.get(f"{platform.url}/readyz")).status_code == 503:
                return
            await asyncio.sleep(0.02)
        raise AssertionError("ready without its controllers")
