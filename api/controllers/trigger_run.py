"""TriggerRun: becomes a small DAG with the schedule.  Airflow keeps the time; nothing here does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf import json_format

from api.controllers.pipeline import VISIBLE_WAIT_S
from api.controllers.platform import Platform
from api.errors import NotFound, Unavailable
from api.gen.michelangelo.api.v2 import trigger_run_pb2 as wire
from api.kinds import Resource
from api.pipeline_dags import dag_id
from api.store.base import Change, Criterion, Group, Key, Operator
from api.store.values import DELETING
from api.workflows import spec_hash

FINALIZER = "michelangelo.airflow/trigger-dag"
ENDED = {wire.TRIGGER_RUN_STATE_KILLED, wire.TRIGGER_RUN_STATE_FAILED, wire.TRIGGER_RUN_STATE_SUCCEEDED}


def pipeline_key(trigger: Any) -> Key:
    """Return the pipeline that a trigger starts."""
    return Key("Pipeline", trigger.spec.pipeline.namespace or trigger.metadata.namespace, trigger.spec.pipeline.name)


def trigger_tag(trigger: Any, schedule: Any) -> str:
    """Return the DAG tag that shows which schedule a parsed trigger DAG was built from."""
    return f"spec:{spec_hash(schedule)[:12]}"


class TriggerRunController:
    """RUNNING <-> PAUSED, until KILLED."""

    kind = "TriggerRun"

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._pipelines: dict[Key, Key] = {}

    @property
    def unsettled(self) -> Group:
        """Those that did not end, and those to be removed."""
        ended = Criterion("state", Operator.NOT_IN, tuple(sorted(ENDED)))
        return Group((ended, Criterion(DELETING, Operator.IS_NOT_NULL)), any=True)

    def settled(self, resource: Resource) -> bool:
        """Whether it ended and is not to be removed."""
        return resource.status.state in ENDED and not resource.metadata.HasField("deletionTimestamp")

    async def related(self, change: Change) -> Sequence[Key]:
        """A pipeline's trigger map feeds the triggers that name an entry of it."""
        if change.key.kind != "Pipeline":
            return ()
        return [trigger for trigger, pipeline in self._pipelines.items() if pipeline == change.key]

    async def reconcile(self, key: Key) -> float | None:
        """Bring the trigger's DAG in line with the spec."""
        resources = self._platform.resources
        trigger = await resources.find(key)
        if trigger is None or self.settled(trigger):
            self._pipelines.pop(key, None)
            return None
        self._pipelines[key] = pipeline_key(trigger)
        if trigger.metadata.HasField("deletionTimestamp"):
            await self._remove(trigger)
            await resources.set_finalizer(trigger, FINALIZER, present=False)
            return None
        trigger = await resources.set_finalizer(trigger, FINALIZER, present=True)
        if trigger.spec.kill or trigger.spec.action == wire.TRIGGER_RUN_ACTION_KILL:
            await self._remove(trigger)
            await self._report(trigger, wire.TRIGGER_RUN_STATE_KILLED)
            return None
        schedule = await self._schedule(trigger)
        if schedule is None:
            name = trigger.spec.source_trigger_name
            await self._report(trigger, wire.TRIGGER_RUN_STATE_FAILED, f"its pipeline has no trigger {name!r}")
            return None
        await self._activate(trigger, schedule)
        return None

    async def _schedule(self, trigger: Any) -> Any | None:
        """Return the trigger to carry out: its own, or the entry of the pipeline's map that it names."""
        if trigger.spec.trigger.WhichOneof("trigger_type") is not None:
            return trigger.spec.trigger
        pipeline = await self._platform.resources.find(pipeline_key(trigger))
        if pipeline is None:
            return None
        return pipeline.spec.manifest.trigger_map.get(trigger.spec.source_trigger_name)

    async def _activate(self, trigger: Any, schedule: Any) -> None:
        manifest = self._manifest(trigger, schedule)
        changed = self._platform.manifests.write_trigger(manifest)
        project, name = manifest["project"], self._dag(trigger)
        tag = trigger_tag(trigger, schedule)
        stale = changed or not await self._platform.has_tag(name, tag)
        if stale and not await self._platform.shown(project, name, tag, timeout_s=VISIBLE_WAIT_S):
            raise Unavailable(f"Airflow does not show DAG {name} yet")
        reason = await self._platform.broken(name)
        if reason:
            await self._report(trigger, wire.TRIGGER_RUN_STATE_FAILED, reason)
            return
        paused = (await self._platform.airflow.dag(name)).is_paused
        asked = trigger.spec.action == wire.TRIGGER_RUN_ACTION_PAUSE
        # Without an action the switch is left as it is: it may have been set in Airflow's UI.
        if trigger.spec.action != wire.TRIGGER_RUN_ACTION_NO_ACTION and paused != asked:
            await self._platform.airflow.pause(name, asked)
            paused = asked
        trigger.status.actual_trigger.CopyFrom(schedule)
        trigger.status.execution_workflow_id = name
        trigger.status.log_url = f"{self._platform.config.airflow_url}/dags/{name}"
        await self._report(trigger, wire.TRIGGER_RUN_STATE_PAUSED if paused else wire.TRIGGER_RUN_STATE_RUNNING)

    def _dag(self, trigger: Any) -> str:
        return f"{dag_id(pipeline_key(trigger).namespace, pipeline_key(trigger).name)}.{trigger.metadata.name}"

    def _manifest(self, trigger: Any, schedule: Any) -> dict[str, Any]:
        which = schedule.WhichOneof("trigger_type")
        parameters = {
            entry: json_format.MessageToDict(value, preserving_proto_field_name=True)
            for entry, value in schedule.parameters_map.items()
        }
        return {
            "kind": "TriggerRun",
            "project": pipeline_key(trigger).namespace,
            "name": trigger.metadata.name,
            "uid": trigger.metadata.uid,
            "pipeline": pipeline_key(trigger).name,
            "cron": schedule.cron_schedule.cron if which == "cron_schedule" else None,
            "interval_s": (
                schedule.interval_schedule.interval.ToTimedelta().total_seconds()
                if which == "interval_schedule"
                else None
            ),
            "parameters": parameters or {"default": {}},
            "max_concurrency": schedule.max_concurrency,
            "start": trigger.metadata.creationTimestamp.ToJsonString(),
            "tags": [trigger_tag(trigger, schedule)],
        }

    async def _remove(self, trigger: Any) -> None:
        pipeline = pipeline_key(trigger)
        if self._platform.manifests.remove_trigger(pipeline.namespace, pipeline.name, trigger.metadata.name):
            await self._platform.reparse(pipeline.namespace)
        try:
            await self._platform.airflow.pause(self._dag(trigger), True)
        except NotFound:
            return

    async def _report(self, trigger: Any, state: Any, message: str = "") -> None:
        trigger.status.state = state
        trigger.status.error_message = message
        await self._platform.resources.update_status(trigger)
