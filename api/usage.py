"""What may not be deleted because something that serves depends on it.  Reads resources; writes nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from api.errors import FailedPrecondition, FieldViolation
from api.store.base import Criterion, Group, Key, Operator, Page, Query, Unchanged

MOST_TOLD = 20

Look = Callable[..., Awaitable[Sequence[Any]]]


class Lists(Protocol):
    """Lists objects."""

    async def list(self, kind: str, query: Query | None = None) -> Page:
        """Return a page of objects."""
        ...


async def refuse_used(resources: Lists, key: Key) -> Unchanged | None:
    """Raise FailedPrecondition for a model or a revision that a Deployment serves or is asked to serve.

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
