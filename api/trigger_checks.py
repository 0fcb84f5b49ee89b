"""Checks of a TriggerRun that need the store or the time of day: backfills, reruns, policies.  Writes nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from api.errors import FailedPrecondition, FieldViolation
from api.gen.michelangelo.api.v2 import trigger_run_pb2
from api.instants import Missed
from api.resources import Resources
from api.schedules import backfill_fault, notes, trigger_faults
from api.store.base import Criterion, Group, Key, Operator, Query
from api.trigger_dags import BACKFILL, BACKFILLS, MISSED, instants_of, is_backfill, is_ending
from api.validation import shown

# Who writes this annotation of a Pipeline lets none of its runs begin.
PAUSED = "michelangelo.airflow/paused"
RUNS_LOOKED_AT = 5
ENDED = (
    trigger_run_pb2.TRIGGER_RUN_STATE_KILLED,
    trigger_run_pb2.TRIGGER_RUN_STATE_SUCCEEDED,
    trigger_run_pb2.TRIGGER_RUN_STATE_FAILED,
)


def refuse_ended(old: Any | None, new: Any) -> None:
    """Raise FailedPrecondition for a trigger that is over and is asked for something; killed twice it is killed."""
    if old is None or old.status.state not in ENDED:
        return
    killed = old.status.state == trigger_run_pb2.TRIGGER_RUN_STATE_KILLED and is_ending(new)
    asked = old.spec.action != new.spec.action or old.spec.kill != new.spec.kill
    if (asked and not killed) or _respecified(old, new):
        told = f"TriggerRun {new.metadata.name!r} has ended: create one of another name, or delete it first"
        raise FailedPrecondition(told, reason="ALREADY_FINISHED")


def _respecified(old: Any, new: Any) -> bool:
    fields = ("trigger", "pipeline", "start_timestamp", "end_timestamp", "source_trigger_name")
    return any(getattr(old.spec, name) != getattr(new.spec, name) for name in fields)


def policy_faults(new: Any) -> Iterator[FieldViolation]:
    """Return the faults of what annotations say of missed ticks and backfills."""
    annotations = new.metadata.annotations
    try:
        Missed.parse(annotations.get(MISSED, ""))
    except ValueError as error:
        path = f"metadata.annotations[{MISSED}]"
        yield FieldViolation(path, shown(str(error)), shown(annotations[MISSED]), "BAD_MISSED_POLICY")
    only = annotations.get(BACKFILL, "")
    if only and only not in BACKFILLS:
        path = f"metadata.annotations[{BACKFILL}]"
        yield FieldViolation(path, f"is none of {', '.join(BACKFILLS)}", shown(only), "BAD_BACKFILL")


def bounds_faults(new: Any, schedule: Any | None, now: float) -> Iterator[FieldViolation]:
    """Return the faults of a backfill.  Raises FailedPrecondition for one of a time that is still to come."""
    spec = new.spec
    if not is_backfill(new):
        for name, other in (("start_timestamp", "end_timestamp"), ("end_timestamp", "start_timestamp")):
            if spec.HasField(name):
                yield FieldViolation(f"spec.{other}", f"is required with {name}: both make a backfill", "", "BAD_RANGE")
        return
    fires = None if schedule is None else instants_of(schedule)
    if fires is None:
        if schedule is not None and schedule.WhichOneof("trigger_type") == "batch_rerun":
            told = "has no meaning for batch_rerun: it repeats named runs"
            yield FieldViolation("spec.start_timestamp", told, "", "BAD_RANGE")
        return
    start, end = spec.start_timestamp.seconds, spec.end_timestamp.seconds
    entries = max(len(schedule.parameters_map), 1) if schedule is not None else 1
    try:
        fault, reason = backfill_fault(fires, start, end, entries)
    except (ValueError, OverflowError, OSError):
        fault, reason = "is no time of the calendar", "BAD_RANGE"
    if fault:
        yield FieldViolation("spec.end_timestamp", fault, "", reason)
    elif end > now:
        raise FailedPrecondition(
            "spec.end_timestamp is still to come: backfill what is over, and let the schedule start the rest",
            reason="BACKFILL_IN_FUTURE",
        )


async def rerun_faults(resources: Resources, new: Any) -> list[FieldViolation]:
    """Return the faults of the runs to repeat.  Raises FailedPrecondition while one of them has not ended."""
    found = []
    for position, named in enumerate(new.spec.trigger.batch_rerun.pipeline_runs):
        run = await resources.find(Key("PipelineRun", named.namespace or new.metadata.namespace, named.name))
        if run is None:
            continue
        path = f"spec.trigger.batch_rerun.pipeline_runs[{position}]"
        wanted = (new.spec.pipeline.namespace or new.metadata.namespace, new.spec.pipeline.name)
        if (run.spec.pipeline.namespace or run.metadata.namespace, run.spec.pipeline.name) != wanted:
            told = f"is a run of pipeline {shown(run.spec.pipeline.name)!r}, not of the trigger's"
            found.append(FieldViolation(path, told, shown(named.name)))
        elif not run.status.HasField("end_time"):
            raise FailedPrecondition(
                f"{path} {shown(named.name)!r} still runs: wait for its end, or kill it", reason="RUN_NOT_ENDED"
            )
    return found


def refuse_paused(pipeline: Any) -> None:
    """Raise FailedPrecondition for a pipeline that is paused."""
    if pipeline.metadata.annotations.get(PAUSED, "") == "true":
        raise FailedPrecondition(
            f"Pipeline {pipeline.metadata.name!r} is paused: remove its annotation {PAUSED}", reason="PIPELINE_PAUSED"
        )


async def warn(resources: Resources, new: Any, schedule: Any) -> None:
    """Tell the caller what is worth a word about an accepted schedule."""
    fires = instants_of(schedule)
    if fires is None or is_backfill(new):
        return
    longest_s = await _typical_s(resources, new.spec.pipeline.namespace or new.metadata.namespace, new.spec.pipeline)
    entries = max(len(schedule.parameters_map), 1)
    for note in notes(fires, int(time.time()), entries=entries, longest_s=longest_s):
        resources.call.warn(note)


async def _typical_s(resources: Resources, namespace: str, pipeline: Any) -> float:
    """Return how long the pipeline's last runs took, the median; 0 if none has ended."""
    ended = Criterion("end_time", Operator.IS_NOT_NULL), Criterion("pipeline.name", Operator.EQUAL, (pipeline.name,))
    order = (("metadata.creation_timestamp", True),)
    query = Query(namespace=namespace, where=Group(ended), order=order, limit=RUNS_LOOKED_AT)
    page = await resources.list("PipelineRun", query)
    took = [_seconds(run.status.end_time) - _seconds(run.metadata.creationTimestamp) for run in page.items]
    return median(took) if took else 0.0


def _seconds(stamp: Any) -> float:
    return float(stamp.seconds + stamp.nanos / 1e9)


async def trigger_run_faults(
    resources: Resources, old: Any | None, new: Any, schedule: Any | None
) -> Sequence[FieldViolation]:
    """Return the faults of a trigger whose pipeline is known.  schedule: the one in force, None if there is none."""
    found = list(policy_faults(new))
    if new.spec.trigger.WhichOneof("trigger_type") is not None:
        found += trigger_faults(new.spec.trigger, "spec.trigger")
    if found or (old is not None and not _respecified(old, new)):
        return found
    found += bounds_faults(new, schedule, time.time())
    if schedule is not None and schedule.WhichOneof("trigger_type") == "batch_rerun":
        found += await rerun_faults(resources, new)
    if schedule is not None and not found:
        await warn(resources, new, schedule)
    return found
