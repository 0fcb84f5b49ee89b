"""What may be wished of runs: to stop, to do a task again, to go on from an earlier run.  Writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from api.errors import FailedPrecondition, FieldViolation, NotFound
from api.kinds import Resource
from api.lost_runs import attempts_fault
from api.resources import Resources
from api.revisions import content_of
from api.store.base import Key
from api.ttl import ttl_fault
from api.validation import nearest, shown
from api.workflows import parse

MOST_STEPS = 1000
FIXED = ("resume",)


def _update_faults(old: Any, new: Any) -> Sequence[FieldViolation]:
    """Check what is newly wished of a run.  Raises FailedPrecondition where it is too late, or too early."""
    name, ended = new.metadata.name, old.status.HasField("end_time")
    if new.spec.kill and not old.spec.kill and ended:
        raise FailedPrecondition(f"PipelineRun {name!r} has ended", reason="ALREADY_FINISHED")
    found = [
        FieldViolation(f"spec.{field}", "of a run never changes")
        for field in FIXED
        if getattr(old.spec, field) != getattr(new.spec, field)
    ]
    if not new.spec.HasField("retry_info") or new.spec.retry_info == old.spec.retry_info:
        return [*found, *ttl_fault(new)]
    if not ended or old.spec.HasField("retry_info"):
        raise FailedPrecondition(
            f"PipelineRun {name!r} has not ended: wait until it has, or kill it, before a task is done again",
            reason="STILL_RUNNING",
        )
    # Who wishes that a killed run goes on takes the kill back.
    new.spec.kill = False
    if not new.spec.retry_info.activity_id:
        found.append(FieldViolation("spec.retry_info.activity_id", "is required: the step to do again"))
    return [*found, *ttl_fault(new)]


async def admit_wishes(resources: Resources, old: Resource | None, new: Resource) -> Sequence[FieldViolation]:
    """Check what is wished of a run, new or not."""
    return _update_faults(old, new) if old is not None else await _create_faults(resources, new)


async def admit_ttl(_: Resources, old: Resource | None, new: Resource) -> Sequence[FieldViolation]:
    """Check for how long runs are to be kept."""
    return ttl_fault(new)


async def admit_attempts(_: Resources, old: Resource | None, new: Resource) -> Sequence[FieldViolation]:
    """Check how often runs are begun that Airflow loses."""
    return attempts_fault(new)


async def _create_faults(resources: Resources, new: Any) -> Sequence[FieldViolation]:
    """Check what a new run wants of an earlier one.  Raises NotFound, FailedPrecondition."""
    found = list(ttl_fault(new))
    if new.spec.HasField("retry_info"):
        text = "is for a run that has ended: update that one, or resume from it"
        found.append(FieldViolation("spec.retry_info", text))
    if not new.spec.HasField("resume") or not new.spec.resume.pipeline_run.name:
        return found
    resume, path = new.spec.resume, "spec.resume"
    source = resume.pipeline_run
    key = Key("PipelineRun", source.namespace or new.metadata.namespace, source.name)
    earlier = await resources.find(key)
    if earlier is None:
        raise NotFound(
            f"{path}.pipeline_run: there is no PipelineRun {shown(source.name)!r} in {shown(key.namespace)!r}",
            reason="UNKNOWN_RUN",
        )
    if not earlier.status.HasField("end_time"):
        raise FailedPrecondition(
            f"PipelineRun {key.name!r} has not ended: wait until it has, or kill it, before another goes on from it",
            reason="STILL_RUNNING",
        )
    if _pipeline(earlier) != _pipeline(new):
        text = f"ran pipeline {_pipeline(earlier)[1]!r}, not {_pipeline(new)[1]!r}"
        found.append(FieldViolation(f"{path}.pipeline_run", text, shown(source.name)))
        return found
    pipeline = await _source(resources, new)
    _refuse_unknown_steps(resume, earlier, pipeline)
    if not resume.force_resume:
        _refuse_changes(earlier, new, pipeline)
    return found


async def _source(resources: Resources, new: Any) -> Any | None:
    """Return the pipeline that a run is to run, as it is or as it was; None where there is none."""
    namespace = new.spec.pipeline.namespace or new.metadata.namespace
    if not new.spec.revision.name:
        return await resources.find(Key("Pipeline", namespace, new.spec.pipeline.name))
    revision = await resources.find(Key("Revision", new.spec.revision.namespace or namespace, new.spec.revision.name))
    return None if revision is None else content_of(revision)


def _refuse_unknown_steps(resume: Any, earlier: Any, pipeline: Any | None) -> None:
    """Raise NotFound if a step is named that neither the earlier run nor the pipeline has."""
    known = set(_names(earlier.status.steps))
    if pipeline is not None:
        known |= set(_explicit(pipeline))
    for field in ("resume_from", "resume_up_to"):
        for place, name in enumerate(getattr(resume, field)):
            if name not in known:
                hint = nearest(name[:250], sorted(known)[:MOST_STEPS])
                raise NotFound(
                    f"spec.resume.{field}[{place}]: {earlier.metadata.name} has no step {shown(name)!r}{hint}",
                    reason="UNKNOWN_STEP",
                )


def _refuse_changes(earlier: Any, new: Any, pipeline: Any | None) -> None:
    """Raise FailedPrecondition if the results of the earlier run may be of something else."""
    force = "set spec.resume.force_resume to take its results all the same"
    before = earlier.status.source_pipeline.pipeline
    if pipeline is not None and before.metadata.name and _what_runs(before) != _what_runs(pipeline):
        raise FailedPrecondition(
            f"Pipeline {pipeline.metadata.name!r} changed since {earlier.metadata.name} ran: start it anew, or {force}",
            reason="PIPELINE_CHANGED",
        )
    if new.spec.HasField("input") and new.spec.input != earlier.spec.input:
        raise FailedPrecondition(
            f"spec.input is not that of {earlier.metadata.name}: leave it out to go on with the same, or {force}",
            reason="INPUT_CHANGED",
        )


def _what_runs(pipeline: Any) -> Any:
    """Return the manifest without what starts it."""
    manifest = type(pipeline.spec.manifest)()
    manifest.CopyFrom(pipeline.spec.manifest)
    for field in ("trigger_map", "params_map"):
        manifest.ClearField(field)
    return manifest


def _pipeline(run: Any) -> tuple[str, str]:
    return run.spec.pipeline.namespace or run.metadata.namespace, run.spec.pipeline.name


def _names(steps: Any) -> Iterator[str]:
    for step in steps:
        yield step.name
        if step.activity_id:
            yield step.activity_id
        yield from _names(step.sub_steps)


def _explicit(pipeline: Any) -> Iterator[str]:
    """Yield the names of the steps that a manifest lists."""
    for step in parse(pipeline.spec)[0].steps:
        name = step.get("name")
        if isinstance(name, str):
            yield name
