"""TriggerRun: becomes a small DAG with the schedule.  Airflow keeps the time; nothing here does."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from api.airflow import DagRun
from api.controllers.pipeline import VISIBLE_WAIT_S
from api.controllers.platform import Platform
from api.controllers.run_report import TERMINAL
from api.errors import NotFound, Unavailable
from api.gen.michelangelo.api.v2 import pipeline_pb2
from api.gen.michelangelo.api.v2 import pipeline_run_pb2 as runs
from api.gen.michelangelo.api.v2 import trigger_run_pb2 as wire
from api.kinds import Resource
from api.pipeline_dags import dag_id
from api.store.base import Change, Criterion, Group, Key, LabelRequirement, Operator, Query
from api.store.values import DELETING
from api.trigger_dags import (
    ACTIVE_SINCE,
    KILL_RUNS,
    REVISION,
    instants_of,
    is_ending,
    pinned_revision,
    schedule_of,
    snapshot,
    trigger_manifest,
    type_of,
)
from api.workflows import is_built

FINALIZER = "michelangelo.airflow/trigger-dag"
TRIGGER_LABEL = "michelangelo.airflow/trigger"
ENDED = {wire.TRIGGER_RUN_STATE_KILLED, wire.TRIGGER_RUN_STATE_FAILED, wire.TRIGGER_RUN_STATE_SUCCEEDED}
# Backfills and reruns end by themselves: what becomes of their runs is looked at so often.
PROGRESS_LOOK_S = 3.0


def pipeline_key(trigger: Any) -> Key:
    """Return the pipeline that a trigger starts."""
    return Key("Pipeline", trigger.spec.pipeline.namespace or trigger.metadata.namespace, trigger.spec.pipeline.name)


class TriggerRunController:
    """RUNNING <-> PAUSED, until SUCCEEDED, FAILED or, by way of PENDING_KILL, KILLED."""

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
        """A pipeline's trigger map feeds the triggers that name an entry of it, its revisions those that follow it."""
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
        if is_ending(trigger):
            return await self._kill(trigger)
        pipeline = await resources.find(pipeline_key(trigger))
        trigger = await self._pinned(trigger, pipeline)
        schedule = await self._schedule(trigger, pipeline)
        if schedule is None:
            name = trigger.spec.source_trigger_name
            await self._remove(trigger)
            await self._report(trigger, wire.TRIGGER_RUN_STATE_FAILED, f"its pipeline has no trigger {name!r}")
            return None
        return await self._activate(trigger, schedule)

    async def _pinned(self, trigger: Any, pipeline: Any | None) -> Any:
        """Note once which revision was current when the trigger was activated, unless it follows the pipeline."""
        current = "" if pipeline is None or not is_ready(pipeline) else pipeline.status.latest_revision.name
        if trigger.spec.auto_flip or pinned_revision(trigger) or not current:
            return trigger
        trigger.metadata.annotations[REVISION] = current
        return await self._platform.resources.update(trigger)

    async def _schedule(self, trigger: Any, pipeline: Any | None) -> Any | None:
        """Return the trigger to carry out: its own, or the entry that it names in the revision that it is pinned to."""
        pinned = pinned_revision(trigger)
        if pinned and pipeline is not None:
            is_current = is_ready(pipeline) and pipeline.status.latest_revision.name == pinned
            if not is_current:
                kept = await self._platform.resources.find(Key("Revision", pipeline.metadata.namespace, pinned))
                return schedule_of(trigger, snapshot(kept) or pipeline)
        return schedule_of(trigger, pipeline)

    async def _activate(self, trigger: Any, schedule: Any) -> float | None:
        ends = type_of(trigger, schedule) in ("backfill", "rerun")
        if trigger.spec.action == wire.TRIGGER_RUN_ACTION_RESUME and not ends:
            trigger = await self._resumed(trigger)
        manifest = trigger_manifest(trigger, schedule)
        name, (tag,) = self._dag(trigger), manifest["tags"]
        changed = self._platform.manifests.write_trigger(manifest)
        stale = changed or not await self._platform.has_tag(name, tag)
        if stale and not await self._platform.shown(manifest["project"], name, tag, timeout_s=VISIBLE_WAIT_S):
            raise Unavailable(f"Airflow does not show DAG {name} yet")
        reason = await self._platform.broken(name)
        if reason:
            await self._report(trigger, wire.TRIGGER_RUN_STATE_FAILED, reason)
            return None
        paused = await self._switched(trigger, name)
        trigger.status.actual_trigger.CopyFrom(schedule)
        trigger.status.execution_workflow_id = name
        trigger.status.log_url = f"{self._platform.config.airflow_url}/dags/{name}"
        if ends and await self._ended(trigger, manifest, schedule):
            return None
        await self._report(trigger, wire.TRIGGER_RUN_STATE_PAUSED if paused else wire.TRIGGER_RUN_STATE_RUNNING)
        return PROGRESS_LOOK_S if ends else None

    async def _resumed(self, trigger: Any) -> Any:
        """Note when a pause ends: what was due in it is not made up for."""
        if trigger.status.state != wire.TRIGGER_RUN_STATE_PAUSED:
            return trigger
        trigger.metadata.annotations[ACTIVE_SINCE] = f"{self._platform.now():%Y-%m-%dT%H:%M:%SZ}"
        return await self._platform.resources.update(trigger)

    async def _switched(self, trigger: Any, name: str) -> bool:
        """Set Airflow's pause switch as asked; return how it stands."""
        paused = (await self._platform.airflow.dag(name)).is_paused
        asked = trigger.spec.action == wire.TRIGGER_RUN_ACTION_PAUSE
        # Without an action the switch is left as it is: it may have been set in Airflow's UI.
        if trigger.spec.action != wire.TRIGGER_RUN_ACTION_NO_ACTION and paused != asked:
            await self._platform.airflow.pause(name, asked)
            return bool(asked)
        return paused

    async def _ended(self, trigger: Any, manifest: dict[str, Any], schedule: Any) -> bool:
        """Report the end of a backfill or rerun once all its runs have ended; return whether they have."""
        name = self._dag(trigger)
        last, _ = await self._platform.airflow.newest_run(name)
        if last is None or last.state not in ("success", "failed") or not _is_last(last, trigger, schedule):
            return False
        if (await self._count(trigger, _unended(), limit=1))[0]:
            return False
        started, _ = await self._count(trigger, None)
        failed, example = await self._count(trigger, _badly_ended())
        _, unstarted = await self._platform.airflow.newest_run(name, "failed")
        told = []
        if unstarted:
            told.append(f"{unstarted} of its DAG runs could not start their runs: see {trigger.status.log_url}")
        if failed:
            told.append(f"{failed} of {started} runs failed, {example} the first")
        state = wire.TRIGGER_RUN_STATE_FAILED if told else wire.TRIGGER_RUN_STATE_SUCCEEDED
        await self._report(trigger, state, "; ".join(told))
        await self._remove(trigger)
        return True

    async def _count(self, trigger: Any, where: Criterion | None, limit: int = 0) -> tuple[int, str]:
        """Return how many of a trigger's runs there are, and the name of the first."""
        found = await self._runs(trigger, where, limit)
        return len(found), found[0].metadata.name if found else ""

    async def _runs(self, trigger: Any, where: Criterion | None, limit: int = 0) -> list[Any]:
        labels = (LabelRequirement(TRIGGER_LABEL, "in", (trigger.metadata.uid,)),)
        found: list[Any] = []
        start = ""
        while True:
            query = Query(pipeline_key(trigger).namespace, labels, where, limit=limit, start=start)
            page = await self._platform.resources.list("PipelineRun", query)
            found += page.items
            start = page.next
            if not start or limit:
                return found

    async def _kill(self, trigger: Any) -> float | None:
        """End a trigger for good; its runs go on unless they are to be killed too."""
        await self._remove(trigger)
        if trigger.metadata.annotations.get(KILL_RUNS, "") == "true":
            waiting = await self._runs(trigger, _unended())
            for run in waiting:
                if not run.spec.kill:
                    # What a list gives is light: large fields are elsewhere.
                    whole = await self._platform.resources.get("PipelineRun", run.metadata.namespace, run.metadata.name)
                    whole.spec.kill = True
                    await self._platform.resources.update(whole)
            if waiting:
                await self._report(trigger, wire.TRIGGER_RUN_STATE_PENDING_KILL, f"{len(waiting)} runs are killed")
                return PROGRESS_LOOK_S
        await self._report(trigger, wire.TRIGGER_RUN_STATE_KILLED)
        return None

    def _dag(self, trigger: Any) -> str:
        return f"{dag_id(pipeline_key(trigger).namespace, pipeline_key(trigger).name)}.{trigger.metadata.name}"

    async def _remove(self, trigger: Any) -> None:
        """Take the schedule away; what it was starting at this moment is stopped first."""
        pipeline, name = pipeline_key(trigger), self._dag(trigger)
        try:
            await self._platform.airflow.pause(name, True)
            for run in await self._platform.airflow.active_runs(name):
                await self._platform.airflow.fail_run(name, run.run_id)
        except NotFound:
            pass
        if self._platform.manifests.remove_trigger(pipeline.namespace, pipeline.name, trigger.metadata.name):
            await self._platform.reparse(pipeline.namespace)

    async def _report(self, trigger: Any, state: Any, message: str = "") -> None:
        trigger.status.state = state
        trigger.status.error_message = message
        await self._platform.resources.update_status(trigger)


def is_ready(pipeline: Any) -> bool:
    """Whether a pipeline's latest revision is what its spec says."""
    return bool(pipeline.status.state == pipeline_pb2.PIPELINE_STATE_READY and is_built(pipeline))


def _is_last(run: DagRun, trigger: Any, schedule: Any) -> bool:
    """Whether a DAG run is of the last instant of a backfill; a rerun has one only."""
    fires = instants_of(schedule)
    if fires is None:
        return True
    start, end = trigger.spec.start_timestamp.seconds, trigger.spec.end_timestamp.seconds
    (last,) = fires.latest(start - 1, end)
    return run.due == datetime.fromtimestamp(last, UTC)


def _unended() -> Criterion:
    return Criterion("state", Operator.NOT_IN, tuple(sorted(TERMINAL)))


def _badly_ended() -> Criterion:
    return Criterion("state", Operator.IN, (runs.PIPELINE_RUN_STATE_FAILED, runs.PIPELINE_RUN_STATE_KILLED))
