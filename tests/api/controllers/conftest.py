"""A control plane over a real store and fakes of what it drives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from api import revisions
from api.admitters import ADMITTERS
from api.airflow import Airflow
from api.config import Config
from api.controllers import controllers_of
from api.controllers import pipeline as pipelines
from api.controllers.adoption import Adopter
from api.controllers.leadership import Leadership
from api.controllers.pipeline_run import PipelineRunController
from api.controllers.platform import Platform, utc_now
from api.controllers.runtime import Manager, Term
from api.errors import Conflict
from api.gen.michelangelo.api.v2 import pipeline_pb2
from api.kinds import kinds
from api.manifests import Manifests
from api.resources import Resources
from api.store.base import Key
from api.store.sqlite import SqliteStore
from api.workflows import TEMPLATE_TYPE, typed
from tests.patience import PATIENCE_S, TERM_S, eventually
from tests.robustness.fakes.airflow import FakeAirflow
from tests.robustness.fakes.backend import FakeBackend


class World:
    """One platform.  `start` begins to control; objects are written through `resources`."""

    def __init__(self, folder: Path) -> None:
        self.config = Config(home=folder, projects_root=folder)
        self.store = SqliteStore(folder / "store.db")
        self.resources = Resources(self.store, ADMITTERS, followers={"Pipeline": revisions.follow})
        self.airflow = FakeAirflow(self.config.dags_path, self.config.manifests_path)
        self.airflow.template("train", rows={"type": "integer", "minimum": 1, "default": 10})
        self.backend = FakeBackend()
        self.client = Airflow("http://airflow", transport=httpx.ASGITransport(app=self.airflow.app))
        self.adopter: Adopter
        # How far the platform's time of day is ahead: what is old by it was made just now.
        self.ahead = timedelta()
        self.manager = self.another_manager()
        self._tasks: list[asyncio.Task[Any]] = []

    def another_manager(self, *, lease_ttl_s: float = TERM_S) -> Manager:
        """Return one more manager of the same store."""
        made = Manager(self.resources, lambda leadership: self._begin(leadership, made.wake), ttl_s=lease_ttl_s)
        return made

    def _begin(self, leadership: Leadership, wake: Callable[[Key], None]) -> Term:
        platform = Platform(
            self.config,
            leadership.resources,
            leadership.guard(self.client),
            leadership.guard(Manifests(self.config)),
            leadership.guard(self.backend),
            wake,
            lambda: utc_now() + self.ahead,
        )
        self.runs = runs = PipelineRunController(platform)
        self.adopter = Adopter(platform, runs)
        self.controllers = controllers_of(platform, runs)
        return Term(self.controllers)

    def start(self) -> None:
        """Control, and hear Airflow's reports."""
        loop = asyncio.get_running_loop()
        self._tasks.append(loop.create_task(self.manager.run()))
        self.airflow.listen(lambda dag, run: self._tasks.append(loop.create_task(self.adopter.seen(dag, run))))

    async def end(self) -> None:
        """Control no more; `start` begins the next term."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def stop(self) -> None:
        await self.end()
        await self.client.close()
        await self.store.close()

    async def project(self, name: str = "flights") -> Any:
        return await self.resources.create(kinds()["Project"].new(name, name))

    async def pipeline(self, name: str = "train", template: str = "train", **params: Any) -> Any:
        new = kinds()["Pipeline"].new("flights", name)
        new.spec.manifest.type = pipeline_pb2.PipelineManifest.PIPELINE_MANIFEST_TYPE_YAML
        new.spec.manifest.file_path = template
        new.spec.manifest.content.Pack(typed(TEMPLATE_TYPE, params))
        return await self.resources.create(new)

    async def ready(self) -> Any:
        """Create the project and a pipeline that is ready."""
        await self.project()
        await self.pipeline()
        return await self.until("Pipeline", "train", lambda found: found.status.state == READY)

    async def run(self, name: str, **params: Any) -> Any:
        new = kinds()["PipelineRun"].new("flights", name)
        new.spec.pipeline.namespace, new.spec.pipeline.name = "flights", "train"
        if params:
            new.spec.input.update({"kw_args": params})
        return await self.resources.create(new)

    async def change(self, kind: str, name: str, change: Callable[[Any], None]) -> None:
        """Read, change and write an object as a client does: again when a controller wrote meanwhile."""
        while True:
            found = await self.resources.get(kind, "flights", name)
            change(found)
            try:
                await self.resources.update(found)
            except Conflict:
                continue
            return

    async def until(self, kind: str, name: str, holds: Callable[[Any], bool], timeout_s: float = PATIENCE_S) -> Any:
        """Wait until an object is as asked; tell what it is when it does not become so."""
        return await eventually(self._looking(kind, name), lambda it: it is not None and holds(it), timeout_s)

    async def until_gone(self, kind: str, name: str) -> None:
        """Wait until there is no such object."""
        await eventually(self._looking(kind, name), lambda it: it is None)

    def _looking(self, kind: str, name: str) -> Callable[[], Awaitable[Any]]:
        return lambda: self.resources.find(Key(kind, "flights", name))


READY = pipeline_pb2.PIPELINE_STATE_READY

Begin = Callable[[], Awaitable[World]]


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(pipelines, "TEMPLATES_SETTLE_S", 0.3)
    made = World(tmp_path)
    made.start()
    yield made
    await made.stop()
