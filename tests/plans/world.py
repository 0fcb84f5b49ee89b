"""A whole platform in one process: API server, controllers, store; only Airflow and the serving backend are fakes.

What is there is read from where it ends up: objects, files for Airflow, switches in Airflow.  Nothing of the plan's own
code is used for it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from google.protobuf import json_format

from api import revisions
from api.admitters import ADMITTERS
from api.airflow import Airflow
from api.client import Client
from api.config import Config
from api.controllers import controllers_of
from api.controllers import pipeline as pipelines
from api.controllers.adoption import Adopter
from api.controllers.leadership import Leadership
from api.controllers.pipeline_run import PipelineRunController
from api.controllers.platform import Platform as Parts
from api.controllers.runtime import Manager, Term
from api.controllers.templates import Templates
from api.gen.michelangelo.api.v2 import pipeline_pb2, trigger_run_pb2
from api.hub import Hub
from api.manifests import Manifests
from api.platform import Platform
from api.resources import Resources
from api.server import grpc_server
from api.store.sqlite import SqliteStore
from api.workflows import spec_hash
from tests.patience import TERM_S, soon
from tests.robustness.fakes.airflow import FakeAirflow
from tests.robustness.fakes.backend import FakeBackend

PROJECT = "flights"
NEVER_SHOWN = {"kind", "project", "name", "uid", "tags", "namespace"}
READY, ERROR = pipeline_pb2.PIPELINE_STATE_READY, pipeline_pb2.PIPELINE_STATE_ERROR
ENDED = (
    trigger_run_pb2.TRIGGER_RUN_STATE_KILLED,
    trigger_run_pb2.TRIGGER_RUN_STATE_FAILED,
    trigger_run_pb2.TRIGGER_RUN_STATE_SUCCEEDED,
)
Seen = dict[tuple[str, str], dict[str, Any]]


class World:
    """Use as an async context manager.  `client`: what a user has; its calls block, so they are made by `ask`."""

    def __init__(self, folder: Path) -> None:
        self.config = Config(home=folder, projects_root=folder)
        self.store = SqliteStore(folder / "store.db")
        self.resources = Resources(self.store, ADMITTERS, followers={"Pipeline": revisions.follow})
        self.fake = FakeAirflow(self.config.dags_path, self.config.manifests_path)
        self.fake.template(
            "train", rows={"type": "integer", "minimum": 1, "default": 10}, deployment={"type": "string"}
        )
        self.fake.template("score", rows={"type": "integer", "default": 1})
        self.airflow = Airflow("http://airflow", transport=httpx.ASGITransport(app=self.fake.app))
        self.manager = Manager(self.resources, self._begin, ttl_s=TERM_S)
        self.client: Client

    def _begin(self, leadership: Leadership) -> Term:
        parts = Parts(
            self.config,
            leadership.resources,
            leadership.guard(self.airflow),
            leadership.guard(Manifests(self.config)),
            leadership.guard(FakeBackend()),
            self.manager.wake,
        )
        runs = PipelineRunController(parts)
        self.adopter = Adopter(parts, runs)
        return Term(controllers_of(parts, runs))

    async def __aenter__(self) -> World:
        pipelines.TEMPLATES_SETTLE_S = 0.0
        self._leading = asyncio.create_task(self.manager.run())
        platform = Platform(
            self.resources, Hub(self.resources), schemas=Templates(self.airflow, self.config.artifacts_url).schemas
        )
        self._server = grpc_server(self.resources, 0, platform)
        port = await self._server.__aenter__()
        self.client = Client(f"127.0.0.1:{port}")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.client.close()
        await self._server.__aexit__(None, None, None)
        self._leading.cancel()
        await asyncio.gather(self._leading, return_exceptions=True)
        await self.airflow.close()
        await self.store.close()

    async def ask(self, method: str, *given: Any, **more: Any) -> Any:
        """Make a call of the client."""
        return await asyncio.to_thread(getattr(self.client, method), *given, **more)

    async def rest(self) -> None:
        """Wait until the controllers have done what is to be done."""
        deadline = time.monotonic() + soon(20)
        still = 0
        while still < 3:
            assert time.monotonic() < deadline, "the controllers do not come to rest"
            still = still + 1 if not self.manager.busy and await self._done() else 0
            await asyncio.sleep(0.01)

    async def _done(self) -> bool:
        for pipeline in (await self.resources.list("Pipeline")).items:
            whole = await self.resources.get("Pipeline", pipeline.metadata.namespace, pipeline.metadata.name)
            if whole.status.state not in (READY, ERROR) or whole.status.build_id != spec_hash(whole.spec):
                return False
        triggers = (await self.resources.list("TriggerRun")).items
        return all(trigger.status.state != 0 for trigger in triggers)

    async def seen(self) -> Seen:
        """Return everything that a plan speaks of, as it is."""
        found: Seen = {}
        for revision in (await self.resources.list("Revision")).items:
            parent = {"parent": revision.spec.parent.name} if revision.spec.parent.name else {}
            what = f"{revision.spec.base_type.kind} {revision.spec.base_resource.name}"
            content = {"content": revision.spec.revision_id} if what.startswith("Pipeline") else {}
            found["REVISION", revision.metadata.name] = {"of": what, **content, **parent}
        for path in sorted(self.config.manifests_path.glob("*/*.json")):
            manifest = json.loads(path.read_text())
            dag = f"{manifest['project']}.{path.name.removesuffix('.json').removesuffix('.trigger')}"
            if manifest["kind"] == "Pipeline":
                root = manifest["root_dir"].removeprefix(str(self.config.projects_root.resolve())).strip("/")
                found["DAG", dag] = flat({**manifest, "root_dir": root})
            else:
                found |= await self._trigger(dag, manifest)
        for deployment in (await self.resources.list("Deployment")).items:
            desired = deployment.spec.desired_revision.name
            found["DEPLOYMENT", deployment.metadata.name] = {"desired_revision": desired} if desired else {}
        for dag in [dag for part, dag in found if part == "DAG"]:
            await self._wire(dag, found)
        return found

    async def _trigger(self, dag: str, manifest: Mapping[str, Any]) -> Seen:
        ends = manifest["type"] in ("backfill", "rerun")
        pipeline = await self.resources.get("Pipeline", PROJECT, manifest["pipeline"])
        latest = pipeline.status.latest_revision.name if pipeline.status.state == READY else ""
        fields = flat({key: value for key, value in manifest.items() if ends or key != "start"})
        fields |= {"runs_revision": manifest["revision"] or latest, "paused": self.fake.dags[dag].is_paused}
        return {("BACKFILL" if ends else "SCHEDULE", dag): fields}

    async def _wire(self, dag: str, found: Seen) -> None:
        fields = found["DAG", dag]
        name = fields.get("params.deployment")
        if isinstance(name, str) and name:
            fields_there = found.setdefault(("DEPLOYMENT", name), {})
            fields_there[f"rolled_out_by[{dag.partition('.')[2]}]"] = fields["revision"]


def flat(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest as fields."""
    found: dict[str, Any] = {}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict) and value:
            for key, item in value.items():
                walk(item, f"{path}.{key}" if path else key)
        elif isinstance(value, list) and value and all(isinstance(item, dict) and "name" in item for item in value):
            for item in value:
                walk(item, f"{path}[{item['name']}]")
        elif isinstance(value, list) and value:
            for position, item in enumerate(value):
                walk(item, f"{path}[{position}]")
        else:
            found[path] = value

    walk({key: value for key, value in manifest.items() if key not in NEVER_SHOWN}, "")
    return found


def spec_of(resource: Any) -> dict[str, Any]:
    """Return a spec and the labels that people gave as fields, in protobuf's own JSON."""
    labels = {f"metadata.labels[{key}]": value for key, value in resource.metadata.labels.items() if "/" not in key}
    return flat({"spec": json_format.MessageToDict(resource.spec)}) | labels
