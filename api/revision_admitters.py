"""Checks of revisions and drafts, and of runs that name one.  Reads resources; writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from api.errors import FailedPrecondition, FieldViolation
from api.kinds import Resource
from api.resources import Resources
from api.revisions import content_of, is_of
from api.store.base import Key
from api.validation import shown
from api.workflows import Workflow, is_built, parse


async def admit_revision(_: Resources, old: Resource | None, new: Resource) -> Sequence[FieldViolation]:
    """What a revision holds, and of what it is one, stays as it was written."""
    if old is None or old.spec == new.spec:
        return []
    told = "of a Revision never changes: apply the object again and it gets a new one"
    return [FieldViolation("spec", told, reason="IMMUTABLE_FIELD")]


async def pinned(resources: Resources, pipeline: Any, run: Any) -> tuple[list[FieldViolation], Workflow | None]:
    """Check a run that names a revision; the pipeline as it is may be broken, what runs is what it was.

    Returns the faults, and what the revision runs if the pipeline as it is says which parameters that has.
    """
    name = pipeline.metadata.name
    if pipeline.metadata.HasField("deletionTimestamp"):
        raise FailedPrecondition(f"Pipeline {name!r} is being deleted", reason="PIPELINE_DELETED")
    wanted, path = run.spec.revision, "spec.revision.name"
    revision = await resources.find(Key("Revision", wanted.namespace or run.metadata.namespace, wanted.name))
    if revision is None:
        # Admission says so of every reference.
        return [], None
    if not is_of(revision, pipeline.metadata):
        told = f"is no revision of Pipeline {name!r}: `ma revision list {name}` shows those"
        return [FieldViolation(path, told, shown(wanted.name), "WRONG_REVISION")], None
    was = content_of(revision)
    if was is None or parse(was.spec)[1]:
        told = "has no content that can be run: take another revision"
        return [FieldViolation(path, told, shown(wanted.name), "WRONG_REVISION")], None
    workflow = parse(was.spec)[0]
    # What the parameters of another template are, Airflow says when the run begins.
    known = is_built(pipeline) and parse(pipeline.spec)[0].template == workflow.template
    return [], workflow if known and not workflow.steps and not was.spec.manifest.uniflow_tar else None


async def take_draft(resources: Resources, old: Any | None, run: Any) -> list[FieldViolation]:
    """Give a run of a draft, in place, what the draft is now: what a run does is settled when it is made."""
    spec = run.spec
    if not spec.draft.name:
        return []
    if old is not None:
        if not spec.HasField("pipeline_spec") and old.spec.draft == spec.draft:
            spec.pipeline_spec.CopyFrom(old.spec.pipeline_spec)
        return []
    draft = await resources.find(Key("Draft", spec.draft.namespace or run.metadata.namespace, spec.draft.name))
    if draft is None:
        # Admission says so of every reference that leads nowhere.
        return []
    found = [
        FieldViolation(f"spec.{name}", "is not given beside spec.draft: leave one out")
        for name in ("pipeline", "revision", "pipeline_spec")
        if spec.HasField(name)
    ]
    if not found:
        spec.pipeline_spec.CopyFrom(draft.spec.content)
    return found
