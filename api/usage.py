"""What may not be deleted because something that serves or runs depends on it.  Reads resources; writes nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from api.errors import FailedPrecondition, FieldViolation
from api.gen.michelangelo.api.v2 import pipeline_run_pb2, trigger_run_pb2
from api.store.base import Criterion, Group, Key, Operator, Page, Query, Unchanged

MOST_TOLD = 20
# Where a trigger notes the revision that was current when it began.
NOTED = "michelangelo.airflow/revision"
RUN_ENDED = (
    pipeline_run_pb2.PIPELINE_RUN_STATE_SUCCEEDED,
    pipeline_run_pb2.PIPELINE_RUN_STATE_KILLED,
    pipeline_run_pb2.PIPELINE_RUN_STATE_FAILED,
    pipeline_run_pb2.PIPELINE_RUN_STATE_SKIPPED,
)
TRIGGER_ENDED = (
    trigger_run_pb2.TRIGGER_RUN_STATE_KILLED,
    trigger_run_pb2.TRIGGER_RUN_STATE_FAILED,
    trigger_run_pb2.TRIGGER_RUN_STATE_SUCCEEDED,
)

Look = Callable[..., Awaitable[Sequence[Any]]]


class Lists(Protocol):
    """Lists objects."""

    async def list(self, kind: str, query: Query | None = None) -> Page:
        """Return a page of objects."""
        ...


async def refuse_used(resources: Lists, key: Key) -> Unchanged | None:
    """Raise FailedPrecondition for a model or a revision that a Deployment serves or is asked to serve.

    A revision is in use too while it is the current one of its pipeline, or what a run or trigger that goes on starts.
    Deployments of other projects count when they serve it; they are not named.  Returns what must be unchanged when it
    is deleted, so that it is still unused; None for what nothing uses.
    """
    looks: list[Page] = []

    async def look(kind: str, **query: Any) -> Sequence[Any]:
        looks.append(await resources.list(kind, Query(**query)))
        return looks[-1].items

    if key.kind == "Model":
        revisions = [
            Key("Revision", item.metadata.namespace, item.metadata.name)
            for item in await look("Revision", namespace=key.namespace, where=_named("base_resource", key))
            if item.spec.base_type.kind in ("", "Model")
        ]
    elif key.kind == "Revision":
        revisions = [key]
        if runs := await _runs_it(look, key):
            raise _wanted(key, runs)
    else:
        return None
    users = sorted({user for revision in revisions for user in await _users(look, revision)})
    if users:
        raise in_use(key, users)
    users_kinds = {"Revision", "Deployment"} if key.kind == "Model" else {"Deployment"}
    return Unchanged(frozenset(users_kinds), min(page.revision for page in looks))


def in_use(key: Key, users: Sequence[tuple[str, str]]) -> FailedPrecondition:
    """Return the refusal of a delete.  `users`: namespace and name of Deployments."""
    own = [name for namespace, name in users if namespace == key.namespace]
    told = [f"Deployment {name!r}" for name in own[:MOST_TOLD]]
    if len(users) > len(told):
        told.append(f"{len(users) - len(told)} more" if told else f"{len(users)} of another project")
    return FailedPrecondition(
        f"{key.kind} {key.name!r} is in use by {', '.join(told)}: give them another revision, or delete them first",
        reason="IN_USE",
        violations=[FieldViolation("name", f"is used by Deployment {name!r}") for name in own[:MOST_TOLD]],
    )


async def _runs_it(look: Look, revision: Key) -> list[str]:
    """Return what runs a pipeline's revision or would start it: the pipeline, runs, triggers."""
    own = Criterion("metadata.name", Operator.EQUAL, (revision.name,))
    kept = await look("Revision", namespace=revision.namespace, where=own)
    if not kept or kept[0].spec.base_type.kind != "Pipeline":
        return []
    of, here = kept[0].spec.base_resource.name, revision.namespace
    its = Criterion("metadata.name", Operator.EQUAL, (of,))
    found = [
        f"Pipeline {of!r}"
        for pipeline in await look("Pipeline", namespace=here, where=its)
        if pipeline.status.latest_revision.name == revision.name
    ]
    named = Criterion("revision.name", Operator.EQUAL, (revision.name,))
    for run in await look("PipelineRun", where=named):
        if run.status.state not in RUN_ENDED and (run.spec.revision.namespace or run.metadata.namespace) == here:
            found.append(f"PipelineRun {run.metadata.name!r}")
    for trigger in await look("TriggerRun", namespace=here, where=Criterion("pipeline.name", Operator.EQUAL, (of,))):
        noted = trigger.metadata.annotations.get(NOTED, "") if not trigger.spec.auto_flip else ""
        if trigger.status.state not in TRIGGER_ENDED and revision.name in (trigger.spec.revision.name, noted):
            found.append(f"TriggerRun {trigger.metadata.name!r}")
    return found


def _wanted(key: Key, users: Sequence[str]) -> FailedPrecondition:
    told = ", ".join(users[:MOST_TOLD]) + (f" and {len(users) - MOST_TOLD} more" if len(users) > MOST_TOLD else "")
    return FailedPrecondition(
        f"Revision {key.name!r} is in use by {told}: it can go when they have another one or have ended",
        reason="IN_USE",
        violations=[FieldViolation("name", f"is used by {user}") for user in users[:MOST_TOLD]],
    )


async def _users(look: Look, revision: Key) -> list[tuple[str, str]]:
    serving = await look("Deployment", where=_named("current_revision", revision))
    # What is desired has no index: a project has few deployments.
    near = await look("Deployment", namespace=revision.namespace)
    found = [*serving, *(item for item in near if _desires(item, revision))]
    return [(item.metadata.namespace, item.metadata.name) for item in found]


def _desires(deployment: Any, revision: Key) -> bool:
    wanted = deployment.spec.desired_revision
    return bool(
        wanted.name == revision.name and (wanted.namespace or deployment.metadata.namespace) == revision.namespace
    )


def _named(index: str, key: Key) -> Group:
    return Group(
        (
            Criterion(f"{index}.namespace", Operator.EQUAL, (key.namespace,)),
            Criterion(f"{index}.name", Operator.EQUAL, (key.name,)),
        )
    )
