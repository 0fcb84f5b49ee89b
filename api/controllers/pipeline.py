"""Pipeline: checks it against its template, snapshots it as a Revision, turns it into its own Airflow DAG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from api.controllers import plain_dags
from api.controllers.platform import Platform
from api.controllers.templates import Templates
from api.errors import NotFound, Unavailable
from api.gen.michelangelo.api.v2 import pipeline_pb2
from api.kinds import Resource
from api.pipeline_dags import dag_id, dag_of_pipeline, pipeline_manifest, plain_dag, revision_dag, revision_tag
from api.revisions import content_of, keep, name_of
from api.store.base import Change, Criterion, Key, Operator, Query
from api.store.values import key_of
from api.workflows import (
    HIDDEN_PARAM,
    WORKFLOW_TYPE,
    Workflow,
    is_built,
    param_faults,
    parse,
    spec_hash,
    typed,
)

FINALIZER = "michelangelo.airflow/dag"
VISIBLE_WAIT_S = 10.0
TEMPLATES_SETTLE_S = 10.0
ERROR_LOOK_S = 30.0


class PipelineController:
    """CREATED -> BUILDING -> READY | ERROR."""

    kind = "Pipeline"
    unsettled = None

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._templates = Templates(platform.airflow, platform.config.artifacts_url, TEMPLATES_SETTLE_S)
        self._roots: dict[str, str] = {}

    def settled(self, resource: Resource) -> bool:
        """Never: its manifest or its DAG may be gone."""
        return False

    async def related(self, change: Change) -> Sequence[Key]:
        """Where the code of a project lies is a part of all its DAGs."""
        here, kind = change.key.namespace, change.key.kind
        if kind != "Project" or self._roots.get(here) == change.resource.spec.root_dir:
            return ()
        self._roots[here] = change.resource.spec.root_dir
        return [key_of(item) for item in (await self._platform.resources.list("Pipeline", Query(namespace=here))).items]

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
            if plain_dag(pipeline):
                await self._follow(key, pipeline)
            elif not await self._is_current(key, pipeline):
                await self._build(key, pipeline)
        except Unavailable as error:
            await self._report(pipeline, pipeline_pb2.PIPELINE_STATE_BUILDING, error.message)
            raise
        except NotFound as error:
            if not plain_dag(pipeline):
                await self._keep_standing(key, pipeline)
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
        schemas = {} if faults else await self._templates.schemas(workflow)
        faults = faults or param_faults(schemas, workflow.params, "spec.manifest.content")
        if faults:
            listed = "; ".join(f"{fault.field} {fault.description}" for fault in faults)
            await self._keep_standing(key, pipeline)
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

    async def _follow(self, key: Key, pipeline: Any) -> None:
        """Say of a plain DAG what Airflow says of it."""
        schemas = await plain_dags.schemas(self._platform.airflow, pipeline)
        revision = await keep(self._platform.resources, pipeline, pipeline.status.latest_revision.name)
        await self._ready(key, pipeline, parse(pipeline.spec)[0], schemas, revision)

    async def _keep_standing(self, key: Key, pipeline: Any) -> None:
        """Leave a pipeline that cannot be built the DAG of its last revision that could."""
        latest = pipeline.status.latest_revision.name
        kept = await self._platform.resources.find(Key("Revision", key.namespace, latest)) if latest else None
        was = None if kept is None else content_of(kept)
        if was is not None:
            manifest = await self._manifest(key, was, parse(was.spec)[0])
            if self._platform.manifests.write_pipeline(manifest):
                await self._platform.reparse(key.namespace)

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
            "dag_id": dag_of_pipeline(pipeline),
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
        if not plain_dag(pipeline):
            if self._platform.manifests.remove_pipeline(key.namespace, key.name):
                await self._platform.reparse(key.namespace)
            await self._platform.forget_dag(dag_id(key.namespace, key.name))
            await self._forget_revisions(key)
        await self._platform.resources.set_finalizer(pipeline, FINALIZER, present=False)

    async def _forget_revisions(self, key: Key) -> None:
        """Remove the DAGs that runs of older revisions had, with their history."""
        its = Criterion("base_resource.name", Operator.EQUAL, (key.name,))
        found = await self._platform.resources.list("Revision", Query(namespace=key.namespace, where=its))
        names = [revision_dag(key.namespace, key.name, revision.metadata.name) for revision in found.items]
        remove = self._platform.manifests.remove_hidden
        removed = [remove(key.namespace, name.partition(".")[2]) for name in names]
        # Each parse is waited for: one is enough for all of them.
        if any(removed):
            await self._platform.reparse(key.namespace)
        for name in names:
            await self._platform.forget_dag(name)
