"""Collects what owners leave behind: dependents of what waits for them or lets them go, and objects without any owner.

The store removes an object with all it owns, and what is left to do here waits for finalizers; or the server stopped
while it removed more than etcd takes at once.  An owner is named by its uid: another object of its name owns nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from api.controllers.leadership import DEPOSED
from api.controllers.platform import Platform
from api.dependents import dependents
from api.errors import Conflict, NotFound
from api.kinds import Resource, kinds
from api.resources import FOREGROUND, ORPHAN
from api.store.base import Change, ChangeType, Criterion, Group, Key, Operator, Preconditions
from api.store.values import DELETING, is_going, key_of

WAITING_LOOK_S = 5.0
RECENT_S = 3600.0
# After this a removal that was begun is gone on with here, as its own server may have stopped.
REMOVAL_S = 60.0


class Collector:
    """Looks at objects of every kind that have owners, or that wait for what they own."""

    kind = "*"

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    @property
    def unsettled(self) -> Group:
        """What is being deleted, and what was made lately: an owner is missed only if nobody led at that moment."""
        since_us = int((self._platform.now().timestamp() - RECENT_S) * 1_000_000)
        recent = Criterion("metadata.creation_timestamp", Operator.GREATER_THAN, (since_us,))
        return Group((Criterion(DELETING, Operator.IS_NOT_NULL), recent), any=True)

    def settled(self, resource: Resource) -> bool:
        """Whether it neither has owners nor waits for what it owns, nor is half removed."""
        waits = _waits(resource, FOREGROUND) or _waits(resource, ORPHAN)
        return not (resource.metadata.ownerReferences or waits or is_going(resource))

    async def related(self, change: Change) -> Sequence[Key]:
        """An owner that waits goes on when the last of its dependents is gone."""
        if change.type is not ChangeType.DELETED:
            return ()
        metadata = change.resource.metadata
        return [Key(owner.kind, metadata.namespace, owner.name) for owner in metadata.ownerReferences]

    async def reconcile(self, key: Key) -> float | None:
        """Delete what it owns, then let it go; or delete it, if its owners are gone."""
        if key.kind not in kinds():
            return None
        resource = await self._platform.resources.find(key)
        if resource is None:
            return None
        if is_going(resource):
            return await self._remove(resource)
        if _waits(resource, ORPHAN):
            await self._let_go(resource)
        if _waits(resource, FOREGROUND):
            return await self._wait(resource)
        if resource.metadata.ownerReferences and not await self._owners(resource):
            await self._delete(resource)
        return None

    async def _remove(self, resource: Any) -> float | None:
        began: int = resource.metadata.deletionTimestamp.seconds
        left_s = began + REMOVAL_S - self._platform.now().timestamp()
        if left_s > 0:
            return left_s
        await self._delete(resource)
        return None

    async def _wait(self, resource: Any) -> float | None:
        left = 0
        for dependent in await dependents(self._platform.resources, resource):
            if [uid for uid in await self._owners(dependent) if uid != resource.metadata.uid]:
                continue
            left += 1
            if not dependent.metadata.HasField("deletionTimestamp"):
                await self._delete(dependent, foreground=True)
        if left:
            return WAITING_LOOK_S
        await self._platform.resources.set_finalizer(resource, FOREGROUND, present=False)
        return None

    async def _let_go(self, resource: Any) -> None:
        """Have what it owns forget it, then forget that this was asked."""
        for dependent in await dependents(self._platform.resources, resource):
            kept = [owner for owner in dependent.metadata.ownerReferences if owner.uid != resource.metadata.uid]
            del dependent.metadata.ownerReferences[:]
            dependent.metadata.ownerReferences.extend(kept)
            await self._platform.resources.update(dependent)
        await self._platform.resources.set_finalizer(resource, ORPHAN, present=False)

    async def _owners(self, resource: Any) -> Sequence[str]:
        """Return the uids of the owners that exist."""
        found = []
        for owner in resource.metadata.ownerReferences:
            here = await self._platform.resources.find(Key(owner.kind, resource.metadata.namespace, owner.name))
            if here is not None and here.metadata.uid == owner.uid:
                found.append(owner.uid)
        return found

    async def _delete(self, resource: Any, *, foreground: bool = False) -> None:
        key, same = key_of(resource), Preconditions(uid=resource.metadata.uid)
        try:
            await self._platform.resources.delete(
                key.kind, key.namespace, key.name, preconditions=same, foreground=foreground
            )
        except NotFound:
            return
        except Conflict as error:
            if error.reason == DEPOSED:
                raise


def _waits(resource: Resource, finalizer: str) -> bool:
    return resource.metadata.HasField("deletionTimestamp") and finalizer in resource.metadata.finalizers
