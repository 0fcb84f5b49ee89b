"""Controllers: compare what is wanted with what is, and create, update or cancel DAG runs.  They do no work."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType

from starlette.routing import Route

from api import revisions
from api.admitters import ADMITTERS
from api.airflow import Airflow
from api.audit_anchor import Anchor
from api.backends.local import LocalBackend
from api.blob_sweep import Sweeper
from api.blobs import opened
from api.broker.broker import Broker
from api.broker.retention import EventRetention
from api.code_store import CodeStore
from api.code_sweep import CodeSweeper
from api.config import Config
from api.controllers import reports
from api.controllers.adoption import Adopter
from api.controllers.cached_output import CachedOutputController
from api.controllers.collector import Collector
from api.controllers.deployment import DeploymentController, InferenceServerController
from api.controllers.event_graph import EventGraph
from api.controllers.leadership import Leadership
from api.controllers.notice import NoticeController
from api.controllers.pipeline import PipelineController
from api.controllers.pipeline_run import PipelineRunController
from api.controllers.platform import Platform
from api.controllers.project import ProjectController
from api.controllers.revision import ModelController, RevisionController
from api.controllers.runtime import Controller, Manager, Term
from api.controllers.templates import Templates
from api.controllers.trigger_run import TriggerRunController
from api.external import External
from api.hooks import installed
from api.hooks_after import AfterHooks
from api.manifests import Manifests
from api.notifications.herald import Herald
from api.notifications.keeping import Keeping
from api.resources import Resources
from api.store.base import Key, Store


class ControlPlane:
    """Resources with their admission, and the controllers that act on them.  Use as an async context manager."""

    def __init__(self, store: Store, config: Config) -> None:
        self._hooks, self.blobs = installed(), opened(config.blobs_url)
        self.resources = Resources(
            store,
            ADMITTERS,
            external=External(self.blobs),
            hooks=self._hooks,
            followers={"Pipeline": revisions.follow},
            registries=config.kubernetes.registries,
        )
        self._anchor = None if config.audit_anchor is None else Anchor(store, config.audit_anchor)
        self._config = config
        self._airflow = Airflow(config.airflow_url)
        self.templates = Templates(self._airflow, config.artifacts_url)
        self._manifests = Manifests(config)
        self._backend = LocalBackend(config.serving_url, config.token)
        self._adopter: Adopter | None = None
        self.manager = Manager(self.resources, self._begin, ttl_s=config.lease_ttl_s)
        self._tasks: list[asyncio.Task[None]] = []

    def _begin(self, leadership: Leadership) -> Term:
        """Return what acts in one term: nothing is known from the one before, nothing outlives it."""
        platform = Platform(
            self._config,
            leadership.resources,
            leadership.guard(self._airflow),
            leadership.guard(self._manifests),
            leadership.guard(self._backend),
            self.manager.wake,
        )
        runs = PipelineRunController(platform)
        self._adopter = Adopter(platform, runs)
        after_hooks = AfterHooks(leadership.resources, self._hooks)
        sweeper = Sweeper(leadership.resources, self.blobs)
        code_sweeper = CodeSweeper(leadership.resources, CodeStore(self._config.artifacts_url))
        graph = EventGraph(platform)
        broker = Broker(leadership.resources, graph.heard, graph.changed)
        events = (broker.run, graph.run, EventRetention(leadership.resources).run)
        herald = Herald(leadership.resources, {self._config.airflow_url: self._config.notify.link_url})
        keeping = Keeping(leadership.resources)
        background = (
            self._adopter.resync,
            after_hooks.run,
            sweeper.run,
            code_sweeper.run,
            *events,
            runs.dags.run,
            runs.plain.run,
            herald.run,
            keeping.run,
        )
        return Term(controllers_of(platform, runs), background)

    @property
    def running(self) -> bool:
        """Whether the controllers' tasks are alive."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    def routes(self) -> list[Route]:
        """Return the HTTP routes of reports."""
        return reports.routes(self._config.token, self._run_seen, self._serving_started)

    async def _run_seen(self, dag_id: str, run_id: str, ended: bool) -> None:
        """Act on a report of a run.  Whoever does not lead leaves it to the leader, which looks at its runs anyway."""
        if self._adopter is not None and self.manager.leading:
            await self._adopter.seen(dag_id, run_id, ended)

    async def _serving_started(self) -> None:
        for kind in ("InferenceServer", "Deployment"):
            for item in (await self.resources.list(kind)).items:
                self.manager.wake(Key(kind, item.metadata.namespace, item.metadata.name))

    async def __aenter__(self) -> ControlPlane:
        self._tasks = [asyncio.create_task(self.manager.run())]
        if self._anchor is not None:
            self._tasks.append(asyncio.create_task(self._anchor.run()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._airflow.close()
        await self._backend.close()


def controllers_of(platform: Platform, runs: PipelineRunController) -> Sequence[Controller]:
    """Return a controller of each kind that has one."""
    return (
        ProjectController(platform),
        PipelineController(platform),
        runs,
        TriggerRunController(platform),
        DeploymentController(platform),
        InferenceServerController(platform),
        RevisionController(platform),
        ModelController(platform),
        NoticeController(platform),
        CachedOutputController(platform),
        Collector(platform),
    )
