"""What may not be deleted because something that serves depends on it.  Reads resources; writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from api.errors import FailedPrecondition, FieldViolation
from api.store.base import Criterion, Group, Key, Operator, Page, Query

MOST_TOLD = 20


class Lists(Protocol):
    """Lists objects."""

    async def list(self, kind: str, query: Query | None = None) -> Page:
        """Return a page of objects."""
        ...


async def refuse_used(resources: Lists, key: Key) -> None:
    """Raise FailedPrecondition for a model or a revision that a Deployment serves or is asked to serve.

    Deployments of other projects count when they serve it; they are not named.
    """
    if key.kind == "Model":
        base = _named("base_resource", key)
        revisions = [
            Key("Revision", item.metadata.namespace, item.metadata.name)
            for item in (await resources.list("Revision", Query(namespace=key.namespace, where=base))).items
            if item.spec.base_type.kind in ("", "Model")
        ]
    elif key.kind == "Revision":
        revisions = [key]
    else:
        return
    users = sorted({user for revision in revisions for user in await _users(resources, revision)})
    if users:
        raise in_use(key, users)


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


async def _users(resources: Lists, revision: Key) -> list[tuple[str, str]]:
    serving = await resources.list("Deployment", Query(where=_named("current_revision", revision)))
    # What is desired has no index: a project has few deployments.
    near = await resources.list("Deployment", Query(namespace=revision.namespace))
    found = [*serving.items, *(item for item in near.items if _desires(item, revision))]
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
