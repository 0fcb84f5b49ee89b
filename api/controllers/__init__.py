"""Controllers: compare what is wanted with what is, and create, update or cancel DAG runs.  They do no work."""

from __future__ import annotations

import asyncio
from types import TracebackType

from starlette.routing import Route

from api.admitters import ADMITTERS
from api.airflow import Airflow
from api.backends.local import LocalBackend
from api.config import Config
from api.controllers import reports
from api.controllers.adoption import Adopter
from api.controllers.deployment import DeploymentController, InferenceServerController
from api.controllers.pipeline import PipelineController
from api.controllers.pipeline_run import PipelineRunController
from api.controllers.platform import Platform
from api.controllers.project import ProjectController
from api.controllers.revision import ModelController, RevisionController
from api.controllers.runtime import Manager
from api.controllers.trigger_run import TriggerRunController
from api.manifests import Manifests
from api.resources import Resources
from api.store.base import Key, Store


class ControlPlane:
    """Resources with their admission, and the controllers that act on them.  Use as an async context manager."""

    def __init__(self, store: Store, config: Config, *, lease_ttl_s: float = 15.0) -> None:
        self.resources = Resources(store, ADMITTERS)
        self._config = config
        self._airflow = Airflow(config.airflow_url)
        self._backend = LocalBackend(config.serving_url, config.token)
        platform = Platform(
            config, self.resources, self._airflow, Manifests(config), self._backend, lambda key: self.manager.wake(key)
        )
        self._runs = PipelineRunController(platform)
        self._adopter = Adopter(platform, self._runs)
        self.manager = Manager(
            self.resources,
            [
                ProjectController(platform),
                PipelineController(platform),
                self._runs,
                TriggerRunController(platform),
                RevisionController(platform),
                ModelController(platform),
                DeploymentController(platform),
                InferenceServerController(platform),
            ],
            lease_ttl_s=lease_ttl_s,
        )
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def running(self) -> bool:
        """Whether the controllers' tasks are alive."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    def routes(self) -> list[Route]:
        """Return the HTTP routes of reports."""
        return reports.routes(self._config.token, self._adopter.seen, self._serving_started)

    async def _serving_started(self) -> None:
        for kind in ("InferenceServer", "Deployment"):
            for item in (await self.resources.list(kind)).items:
                self.manager.wake(Key(kind, item.metadata.namespace, item.metadata.name))

    async def __aenter__(self) -> ControlPlane:
        self._tasks = [asyncio.create_task(self.manager.run()), asyncio.create_task(self._adopter.resync())]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._airflow.close()
        await self._backend.close()
