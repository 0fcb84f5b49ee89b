"""What a TriggerRun asks of Airflow: the schedule in force and the manifest of its DAG.  Pure; no Airflow, no store."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from google.protobuf import json_format

from api.gen.michelangelo.api.v2 import pipeline_pb2, trigger_run_pb2
from api.instants import Missed, Schedule, split_zone

# What a person says: the wire has no field for it.
MISSED = "michelangelo.airflow/missed-ticks"
BACKFILL = "michelangelo.airflow/backfill"
KILL_RUNS = "michelangelo.airflow/kill-runs"
BACKFILLS = ("all", "missing", "failed")
# What the platform notes: the revision that was current at the activation, and when the last pause ended.
REVISION = "michelangelo.airflow/revision"
ACTIVE_SINCE = "michelangelo.airflow/active-since"
BATCH_SIZE, BATCH_WAIT_S = 10, 600.0
TAG_LENGTH = 12


def is_backfill(trigger: Any) -> bool:
    """Whether a trigger starts the runs of a time that is over."""
    return bool(trigger.spec.HasField("start_timestamp") and trigger.spec.HasField("end_timestamp"))


def type_of(trigger: Any, schedule: Any) -> str:
    """Return cron, interval, backfill or rerun: the last two end by themselves."""
    which = schedule.WhichOneof("trigger_type")
    if which == "batch_rerun":
        return "rerun"
    if is_backfill(trigger):
        return "backfill"
    return "cron" if which == "cron_schedule" else "interval"


def schedule_of(trigger: Any, pipeline: Any | None) -> Any | None:
    """Return the trigger to carry out: its own, or the entry of the pipeline's map that it names; None without one."""
    if trigger.spec.trigger.WhichOneof("trigger_type") is not None:
        return trigger.spec.trigger
    entries = {} if pipeline is None else pipeline.spec.manifest.trigger_map
    return entries.get(trigger.spec.source_trigger_name)


def pinned_revision(trigger: Any) -> str:
    """Return the revision that a trigger's runs are of, empty for the latest one at each instant."""
    if trigger.spec.auto_flip:
        return ""
    return str(trigger.spec.revision.name or trigger.metadata.annotations.get(REVISION, ""))


def snapshot(revision: Any) -> Any | None:
    """Return the pipeline that a Revision keeps, None if it keeps none."""
    kept = pipeline_pb2.Pipeline()
    return kept if revision is not None and revision.spec.content.Unpack(kept) else None


def instants_of(schedule: Any) -> Schedule | None:
    """Return when a cron or interval trigger fires, None for one that repeats runs."""
    which = schedule.WhichOneof("trigger_type")
    if which == "cron_schedule":
        zone, cron = split_zone(schedule.cron_schedule.cron)
        return Schedule(cron, None, zone)
    return Schedule(None, schedule.interval_schedule.interval.seconds) if which == "interval_schedule" else None


def trigger_manifest(trigger: Any, schedule: Any) -> dict[str, Any]:
    """Return what the DAG of a trigger is built from."""
    kind, fires = type_of(trigger, schedule), instants_of(schedule)
    pipeline = trigger.spec.pipeline
    manifest = {
        "kind": "TriggerRun",
        "type": kind,
        "project": pipeline.namespace or trigger.metadata.namespace,
        "name": trigger.metadata.name,
        "uid": trigger.metadata.uid,
        "namespace": trigger.metadata.namespace,
        "source": trigger.spec.source_trigger_name or trigger.metadata.name,
        "pipeline": pipeline.name,
        "revision": pinned_revision(trigger),
        "cron": fires.cron if fires else None,
        "timezone": fires.zone if fires else "UTC",
        "interval_s": fires.interval_s if fires else None,
        "missed": str(Missed.parse(trigger.metadata.annotations.get(MISSED, ""))),
        "parameters": _parameters(schedule) or {"default": {}},
        "max_concurrency": schedule.max_concurrency,
        "batch": _batch(schedule),
        "rerun": _rerun(trigger, schedule),
        "only": trigger.metadata.annotations.get(BACKFILL, "") or BACKFILLS[0],
        **_bounds(trigger, kind),
    }
    text = json.dumps(manifest, sort_keys=True)
    return {**manifest, "tags": [f"spec:{hashlib.sha256(text.encode()).hexdigest()[:TAG_LENGTH]}"]}


def _parameters(schedule: Any) -> dict[str, Any]:
    return {
        entry: json_format.MessageToDict(value, preserving_proto_field_name=True)
        for entry, value in schedule.parameters_map.items()
    }


def _batch(schedule: Any) -> dict[str, Any] | None:
    if not schedule.HasField("batch_policy"):
        return None
    policy = schedule.batch_policy
    wait_s = policy.wait.ToNanoseconds() / 1e9 if policy.HasField("wait") else BATCH_WAIT_S
    return {"size": policy.batch_size or BATCH_SIZE, "wait_s": wait_s}


def _rerun(trigger: Any, schedule: Any) -> dict[str, Any] | None:
    if schedule.WhichOneof("trigger_type") != "batch_rerun":
        return None
    asked = schedule.batch_rerun
    return {
        "runs": [[run.namespace or trigger.metadata.namespace, run.name] for run in asked.pipeline_runs],
        "resume_from": list(asked.resume_from),
        "resume_up_to": list(asked.resume_up_to),
    }


def _bounds(trigger: Any, kind: str) -> dict[str, str | None]:
    """Return from when to when it fires.  The last instant counts, and for a backfill the first one too."""
    if kind == "backfill":
        spec = trigger.spec
        return {"start": spec.start_timestamp.ToJsonString(), "end": spec.end_timestamp.ToJsonString()}
    begun = trigger.metadata.creationTimestamp.ToJsonString()
    # Text of one form: the later one is also the greater one.
    return {"start": max(begun, trigger.metadata.annotations.get(ACTIVE_SINCE, "")), "end": None}


def is_ending(trigger: Any) -> bool:
    """Whether somebody ended it."""
    return bool(trigger.spec.kill or trigger.spec.action == trigger_run_pb2.TRIGGER_RUN_ACTION_KILL)
