"""Pipeline: checks it against its template, snapshots it as a Revision, turns it into its own Airflow DAG."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from api.code_tar import code_path
from api.controllers.platform import Platform
from api.errors import NotFound, Unavailable
from api.gen.michelangelo.api.v2 import pipeline_pb2
from api.kinds import Resource
from api.pipeline_dags import dag_id, pipeline_manifest, revision_tag
from api.revisions import keep, name_of
from api.store.base import Change, Key
from api.uniflow import Authored, schemas
from api.validation import nearest
from api.workflows import (
    HIDDEN_PARAM,
    STEPS_TEMPLATE,
    WORKFLOW_TYPE,
    Workflow,
    is_built,
    param_faults,
    parse,
    schema_of,
    spec_hash,
    typed,
)

FINALIZER = "michelangelo.airflow/dag"
TEMPLATE_TAG = "template"
VISIBLE_WAIT_S = 10.0
TEMPLATES_SETTLE_S = 10.0
ERROR_LOOK_S = 30.0


class PipelineController:
    """CREATED -> BUILDING -> READY | ERROR."""

    kind = "Pipeline"
    unsettled = None

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._templates: set[str] = set()
        self._settled = 0.0

    def settled(self, resource: Resource) -> bool:
        """Never: its manifest or its DAG may be gone."""
        return False

    async def related(self, change: Change) -> Sequence[Key]:
        """Nothing else changes a pipeline."""
        return ()

    async def reconcile(self, key: Key) -> float | None:
        """Bring Airflow's DAG in line with the spec."""
        resources = self._platform.resources
        pipeline = await resources.find(key)
        if pipeline is None:
            return None
        if pipeline.metadata.HasField("deletionTimestamp"):
            await self._remove(key, pipeline)
            return None
        pipeline = await resources.set_finalizer(pipeline, FINALIZER, present=True)
        try:
            if not await self._is_current(key, pipeline):
                await self._build(key, pipeline)
        except Unavailable as error:
            await self._report(pipeline, pipeline_pb2.PIPELINE_STATE_BUILDING, error.message)
            raise
        except NotFound as error:
            await self._report(pipeline, pipeline_pb2.PIPELINE_STATE_ERROR, error.message)
            return ERROR_LOOK_S
        return None

    async def _is_current(self, key: Key, pipeline: Any) -> bool:
        status = pipeline.status
        return bool(
            status.state == pipeline_pb2.PIPELINE_STATE_READY
            and is_built(pipeline)
            and not self._platform.manifests.write_pipeline(
                await self._manifest(key, pipeline, parse(pipeline.spec)[0])
            )
        )

    async def _build(self, key: Key, pipeline: Any) -> None:
        workflow, faults = parse(pipeline.spec)
        schemas = {} if faults else await self._schemas(workflow)
        faults = faults or param_faults(schemas, workflow.params, "spec.manifest.content")
        if faults:
            listed = "; ".join(f"{fault.field} {fault.description}" for fault in faults)
            await self._report(pipeline, pipeline_pb2.PIPELINE_STATE_ERROR, listed)
            return
        revision = await keep(self._platform.resources, pipeline, pipeline.status.latest_revision.name)
        manifests = self._platform.manifests
        manifests.write_project(key.namespace)
        manifests.write_pipeline(await self._manifest(key, pipeline, workflow))
        name = dag_id(key.namespace, key.name)
        if not await self._platform.has_tag(name, revision_tag(pipeline)):
            tag = revision_tag(pipeline)
            if not await self._platform.shown(key.namespace, name, tag, timeout_s=VISIBLE_WAIT_S):
                raise Unavailable(f"Airflow does not show DAG {name} yet: is its DAG processor running?")
        reason = await self._platform.broken(name)
        if reason:
            await self._report(pipeline, pipeline_pb2.PIPELINE_STATE_ERROR, reason)
            return
        await self._ready(key, pipeline, workflow, schemas, revision)

    async def _schemas(self, workflow: Workflow) -> Mapping[str, Any]:
        """Return the JSON Schema of every parameter of the template.  Raises NotFound with the nearest name."""
        if workflow.template == STEPS_TEMPLATE:
            return {}
        if workflow.authored.graph:
            return self._authored_schemas(workflow.authored)
        found = {dag.dag_id for dag in await self._platform.airflow.dags(tags=[TEMPLATE_TAG])}
        if workflow.template not in found:
            hint = nearest(workflow.template, sorted(found)) or f": there are {', '.join(sorted(found))}"
            text = f"spec.manifest.file_path {workflow.template[:64]!r} is no template{hint}"
            raise NotFound(text) if self._are_all(found) else Unavailable(f"{text} (Airflow may still be reading them)")
        params = (await self._platform.airflow.dag(workflow.template)).params
        return {name: schema_of(param.get("schema") or {}, param.get("value")) for name, param in params.items()}

    def _authored_schemas(self, authored: Authored) -> Mapping[str, Any]:
        """Return the JSON Schemas that a graph brings.  Raises NotFound if its code is not where runs take it."""
        tar = code_path(self._platform.config.artifacts_path, authored.namespace, authored.code)
        if not tar.is_file():
            told = f"spec.manifest.uniflow_tar: there is no code {authored.code[:12]} in the artifact store"
            raise NotFound(f"{told}: `ma pipeline apply -f` puts it there")
        return schemas(authored.graph)

    def _are_all(self, found: set[str]) -> bool:
        """Whether the templates have stayed the same for a while: Airflow shows one after another when it starts."""
        now = asyncio.get_running_loop().time()
        if found != self._templates:
            self._templates, self._settled = found, now + TEMPLATES_SETTLE_S
        return bool(found) and now >= self._settled

    async def _manifest(self, key: Key, pipeline: Any, workflow: Workflow) -> dict[str, Any]:
        root = str(await self._platform.project_root(key.namespace))
        revision = await name_of(self._platform.resources, pipeline)
        return pipeline_manifest(pipeline, workflow, root_dir=root, revision=revision)

    async def _ready(
        self, key: Key, pipeline: Any, workflow: Workflow, schemas: Mapping[str, Any], revision: str
    ) -> None:
        status = pipeline.status
        status.latest_revision.namespace, status.latest_revision.name = key.namespace, revision
        registered = {
            "dag_id": dag_id(key.namespace, key.name),
            "template": workflow.template,
            "revision": revision,
            "params_schema": {name: schema for name, schema in schemas.items() if name != HIDDEN_PARAM},
            "params": dict(workflow.params),
        }
        status.registered_workflow.Pack(typed(WORKFLOW_TYPE, registered))
        await self._report(pipeline, pipeline_pb2.PIPELINE_STATE_READY, "")

    async def _report(self, pipeline: Any, state: Any, message: str) -> None:
        pipeline.status.state = state
        pipeline.status.error_message = message
        pipeline.status.build_id = spec_hash(pipeline.spec)
        await self._platform.resources.update_status(pipeline)

    async def _remove(self, key: Key, pipeline: Any) -> None:
        if self._platform.manifests.remove_pipeline(key.namespace, key.name):
            await self._platform.reparse(key.namespace)
        await self._platform.forget_dag(dag_id(key.namespace, key.name))
        await self._platform.resources.set_finalizer(pipeline, FINALIZER, present=False)
