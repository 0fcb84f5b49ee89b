"""What an object owns, by uid.  Reads resources; writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from api.kinds import kinds
from api.store.base import Criterion, Operator, Query
from api.store.values import owner_column

if TYPE_CHECKING:
    from api.usage import Lists


async def dependents(resources: Lists, owner: Any) -> Sequence[Any]:
    """Return the objects that name `owner` in their owner references."""
    owned = Criterion(owner_column(owner.metadata.uid), Operator.IS_NOT_NULL)
    query = Query(namespace=owner.metadata.namespace, where=owned)
    return [found for kind in kinds() for found in (await resources.list(kind, query)).items]


async def is_held(resources: Lists, owner: Any) -> bool:
    """Whether something that `owner` owns, or that this owns in turn, waits for finalizers before it can go."""
    waiting, seen = [owner], {owner.metadata.uid}
    while waiting:
        for found in await dependents(resources, waiting.pop()):
            if found.metadata.finalizers:
                return True
            if found.metadata.uid not in seen:
                seen.add(found.metadata.uid)
                waiting.append(found)
    return False
