"""What follows from pipelines, triggers and deployments as they are wanted: revisions, DAGs, schedules, rollouts.

One function of a state, asked before and after what is planned: what differs is the plan.  It says what the controllers
bring about, from the same manifests; what somebody changed in Airflow by hand is not looked at.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from api.errors import NotFound, Unavailable
from api.gen.michelangelo.api.v2 import trigger_run_pb2
from api.gen.michelangelo.platform.v1 import resource_service_pb2 as wire
from api.pipeline_dags import dag_id, pipeline_manifest, plain_dag
from api.plans.fields import flat
from api.revisions import content_of, name_of, revision_id
from api.store.base import Criterion, Group, Key, Operator, Page, Query
from api.trigger_dags import REVISION, is_ending, pinned_revision, schedule_of, trigger_manifest, type_of
from api.workflows import Workflow, param_faults, parse

Part = wire.PlannedChange
Schemas = Callable[[Workflow], Awaitable[Mapping[str, Any]]]

ENDED = (
    trigger_run_pb2.TRIGGER_RUN_STATE_KILLED,
    trigger_run_pb2.TRIGGER_RUN_STATE_FAILED,
    trigger_run_pb2.TRIGGER_RUN_STATE_SUCCEEDED,
)
# What of a manifest is told elsewhere, or differs for every object of the name.
UNTOLD = frozenset({"kind", "project", "name", "uid", "tags", "namespace"})
ENDS_BY_ITSELF = frozenset({"backfill", "rerun"})


class Item(NamedTuple):
    """One thing.  `kind`: of a resource, else empty; `name`: of a DAG its id."""

    part: int
    kind: str
    namespace: str
    name: str


@dataclass
class Effects:
    """What there is, as fields by item.  `revisions`: of pipelines and models; `notes`: what else is to be known."""

    items: dict[Item, Mapping[str, Any]] = field(default_factory=dict)
    revisions: dict[Key, Item] = field(default_factory=dict)
    notes: dict[Item, str] = field(default_factory=dict)


class Reads(Protocol):
    """Reads objects of one state."""

    async def find(self, key: Key) -> Any | None:
        """Return one object, None if it does not exist."""
        ...

    async def list(self, kind: str, query: Query | None = None) -> Page:
        """Return objects."""
        ...


class State:
    """One state.  `visible`: the projects whose triggers may be told, None for all."""

    def __init__(self, reads: Reads, schemas: Schemas, visible: Collection[str] | None = None) -> None:
        self._reads = reads
        self._schemas = schemas
        self._visible = visible

    async def effects(
        self, pipelines: Collection[Key], deployments: Collection[Key], models: Collection[Key]
    ) -> Effects:
        """Return what follows from some pipelines with their triggers, and what some deployments have."""
        found = Effects()
        for key in sorted(models, key=str):
            item = Item(Part.REVISION, "", key.namespace, key.name)
            if await self._reads.find(key) is not None:
                found.items[item] = {"of": f"Model {key.name}"}
                found.revisions[key] = item
        wanted = dict.fromkeys(sorted(deployments, key=str))
        for key in sorted(pipelines, key=str):
            wanted |= dict.fromkeys(await self._pipeline(key, found))
        for key in wanted:
            deployment = await self._reads.find(key)
            if deployment is not None:
                item = Item(Part.DEPLOYMENT, "", key.namespace, key.name)
                found.items[item] = {**_served(deployment), **found.items.get(item, {})}
        return found

    async def _pipeline(self, key: Key, found: Effects) -> list[Key]:
        """Add what follows from a pipeline; return the deployments that it has to do with."""
        pipeline = await self._reads.find(key)
        if pipeline is None or pipeline.metadata.HasField("deletionTimestamp"):
            return []
        name = await name_of(self._reads, pipeline)
        revision = Item(Part.REVISION, "", key.namespace, name)
        kept = await self._reads.find(Key("Revision", key.namespace, name))
        found.revisions[key] = revision
        found.items[revision] = {"of": f"Pipeline {key.name}", "content": revision_id(pipeline)}
        if kept is not None and kept.spec.parent.name:
            found.items[revision] = {**found.items[revision], "parent": kept.spec.parent.name}
        built, note = await self._built(pipeline, name)
        stands = built is not None and built[1] == name
        dag = Item(Part.DAG, "", key.namespace, dag_id(key.namespace, key.name))
        if note:
            found.notes[dag] = note
        await self._triggers(key, pipeline, name if stands else "", found)
        if built is None or plain_dag(pipeline):
            # Of a plain DAG nothing is built.
            return []
        manifest = await self._manifest(*built)
        found.items[dag] = told(manifest)
        return await self._deployments(key, built[1], manifest, found)

    async def _built(self, pipeline: Any, name: str) -> tuple[tuple[Any, str] | None, str]:
        """Return the pipeline that has the DAG, with its revision: it, or as it last was; and why it is not it."""
        workflow, faults = parse(pipeline.spec)
        try:
            schemas = {} if faults else await self._schemas(workflow)
            faults = faults or param_faults(schemas, workflow.params, "spec.manifest.content")
            fault = "; ".join(f"{each.field} {each.description}" for each in faults)
        except NotFound as error:
            fault = error.message
        except Unavailable as error:
            return (pipeline, name), f"its parameters could not be checked: {error.message}"
        if not fault:
            return (pipeline, name), ""
        latest = pipeline.status.latest_revision.name
        kept = await self._reads.find(Key("Revision", pipeline.metadata.namespace, latest)) if latest else None
        was = None if kept is None else content_of(kept)
        return (None if was is None else (was, latest)), fault

    async def _manifest(self, pipeline: Any, revision: str) -> dict[str, Any]:
        project = await self._reads.find(Key("Project", pipeline.metadata.namespace, pipeline.metadata.namespace))
        root = "" if project is None else project.spec.root_dir
        workflow, _ = parse(pipeline.spec)
        return pipeline_manifest(pipeline, workflow, root_dir=root, revision=revision)

    async def _triggers(self, key: Key, pipeline: Any, latest: str, found: Effects) -> None:
        """Add the DAGs of a pipeline's triggers.  `latest`: its revision, empty if it cannot be built."""
        named = Group(
            (
                Criterion("pipeline.namespace", Operator.EQUAL, (key.namespace,)),
                Criterion("pipeline.name", Operator.EQUAL, (key.name,)),
            )
        )
        near = Criterion("pipeline.name", Operator.EQUAL, (key.name,))
        listed = [
            *(await self._reads.list("TriggerRun", Query(where=named))).items,
            *(await self._reads.list("TriggerRun", Query(namespace=key.namespace, where=near))).items,
        ]
        for trigger in {item.metadata.uid: item for item in listed}.values():
            home, own = trigger.spec.pipeline.namespace or trigger.metadata.namespace, trigger.metadata.namespace
            is_its = (home, trigger.spec.pipeline.name) == (key.namespace, key.name)
            if is_its and (self._visible is None or own in self._visible):
                await self._trigger(key, trigger, pipeline, latest, found)

    async def _trigger(self, key: Key, trigger: Any, pipeline: Any, latest: str, found: Effects) -> None:
        if trigger.status.state in ENDED or is_ending(trigger):
            return
        if not trigger.spec.auto_flip and not pinned_revision(trigger) and latest:
            trigger.metadata.annotations[REVISION] = latest
        pinned = pinned_revision(trigger)
        source = pipeline
        if pinned and pinned != latest:
            kept = await self._reads.find(Key("Revision", key.namespace, pinned))
            source = (None if kept is None else content_of(kept)) or pipeline
        schedule = schedule_of(trigger, source)
        if schedule is None:
            return
        manifest = trigger_manifest(trigger, schedule)
        ends = type_of(trigger, schedule) in ENDS_BY_ITSELF
        if not ends:
            # When it was made, or last went on after a pause.
            manifest.pop("start")
        dag = f"{dag_id(key.namespace, key.name)}.{trigger.metadata.name}"
        item = Item(Part.BACKFILL if ends else Part.SCHEDULE, "", key.namespace, dag)
        found.items[item] = {**told(manifest), "runs_revision": pinned or latest, "paused": _paused(trigger)}

    async def _deployments(self, key: Key, revision: str, manifest: Mapping[str, Any], found: Effects) -> list[Key]:
        """Add the deployments that runs of a pipeline roll out to; return them, and those that serve its models."""
        names = rolled_out(manifest)
        for name in names:
            item = Item(Part.DEPLOYMENT, "", key.namespace, name)
            found.items[item] = {**found.items.get(item, {}), f"rolled_out_by[{key.name}]": revision}
        for deployment in (await self._reads.list("Deployment", Query(namespace=key.namespace))).items:
            status, spec = deployment.status, deployment.spec
            model = status.current_revision.name or spec.desired_revision.name
            if model and await self._made_by(Key("Model", key.namespace, model), key.name):
                item = Item(Part.DEPLOYMENT, "", key.namespace, deployment.metadata.name)
                found.items[item] = {**found.items.get(item, {}), f"serves_model_of[{key.name}]": model}
                names.append(deployment.metadata.name)
        return [Key("Deployment", key.namespace, name) for name in dict.fromkeys(names)]

    async def _made_by(self, key: Key, pipeline: str) -> bool:
        """Whether a model was made by a run of a pipeline of its project."""
        model = await self._reads.find(key)
        name = "" if model is None else model.spec.source_pipeline_run.name
        run = await self._reads.find(Key("PipelineRun", key.namespace, name)) if name else None
        return run is not None and run.spec.pipeline.name == pipeline


def told(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a manifest is shown, flat."""
    return dict(flat({key: value for key, value in manifest.items() if key not in UNTOLD}))


def rolled_out(manifest: Mapping[str, Any]) -> list[str]:
    """Return the deployments that a pipeline's manifest names."""
    found = [manifest["params"].get("deployment")]
    found += [(step.get("with") or {}).get("deployment") for step in manifest["steps"]]
    return sorted({name for name in found if isinstance(name, str) and name and "{" not in name})


def _paused(trigger: Any) -> bool:
    action = trigger.spec.action
    if action == trigger_run_pb2.TRIGGER_RUN_ACTION_NO_ACTION:
        return bool(trigger.status.state == trigger_run_pb2.TRIGGER_RUN_STATE_PAUSED)
    return bool(action == trigger_run_pb2.TRIGGER_RUN_ACTION_PAUSE)


def _served(deployment: Any) -> dict[str, Any]:
    desired = deployment.spec.desired_revision.name
    return {"desired_revision": desired} if desired else {}
