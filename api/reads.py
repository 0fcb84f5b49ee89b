"""What is read of the store in the name of a call: objects, lists, changes, leases.  Writes no object."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Collection
from typing import Any, Self

from api.admission import check_project, project_of
from api.audit import Entry
from api.calls import Access, Call, Everybody
from api.errors import NotFound
from api.external import External
from api.kinds import Resource, kinds
from api.store.base import (
    Change,
    Criterion,
    Key,
    Lease,
    Operator,
    Page,
    Query,
    Request,
    Store,
    already_exists,
)
from api.store.values import key_of

# Objects that are looked at together where all of a project are.
PAGE = 500
# So many projects are known to stand; then it is forgotten of all.
MOST_STANDING = 10_000


class Reads:
    """Everything but writes.  `external`: where large fields are."""

    def __init__(self, store: Store, external: External | None = None) -> None:
        self._store = store
        self._external = external or External()
        self._access: Access = Everybody()
        self.call = Call()
        self._standing: set[Key] = set()

    @property
    def store(self) -> Store:
        """What is read."""
        return self._store

    def on(self, store: Store) -> Self:
        """Return the same, of another store."""
        bound = copy.copy(self)
        bound._store, bound._standing = store, set()
        return bound

    async def get(self, kind: str, namespace: str, name: str) -> Any:
        """Return one whole object.  Raises NotFound, and DataLoss when a part of it is gone."""
        return await self._external.fill(await self._store.get(Key(kind, namespace, name)))

    async def find(self, key: Key) -> Any | None:
        """Return one whole object, None if it does not exist or is not the caller's to know."""
        light = await self._look(key)
        return None if light is None else await self._external.fill(light)

    async def _look(self, key: Key) -> Any | None:
        """Return one object without its large values, None if it does not exist or is not the caller's to know."""
        if not await self._sees(key):
            return None
        try:
            return await self._store.get(key)
        except NotFound:
            return None

    async def _sees(self, key: Key) -> bool:
        seen = await self._access.visible(self.call, "Get", key.kind)
        return seen is None or key.namespace in seen

    async def _projects_of(self, new: Resource, *, known: bool = True) -> list[Key]:
        """Return the project that a new object lives in, if any.  Raises NotFound, FailedPrecondition.

        known: one that stood when it was looked for is not read again; the write itself asks for it in its transaction.
        """
        if (project := project_of(new)) is None:
            return []
        if not (known and project in self._standing and await self._sees(project)):
            self._standing.discard(project)
            await check_project(project, self._look)
            if len(self._standing) >= MOST_STANDING:
                self._standing.clear()
            self._standing.add(project)
        return [project]

    async def _refuse_taken(self, new: Resource) -> None:
        try:
            taken = await self._store.get(key_of(new))
        except NotFound:
            return
        raise already_exists(key_of(new), taken.metadata.uid)

    async def list(self, kind: str, query: Query | None = None) -> Page:
        """Return a page of objects, without their large values (`api.external`)."""
        return await self._store.list(kind, query or Query())

    async def each(self, kind: str, namespace: str) -> AsyncIterator[Any]:
        """Yield the objects of a project by name, some at a time; pages of one revision would expire meanwhile."""
        name = ""
        while True:
            after = Criterion("metadata.name", Operator.GREATER_THAN, (name,))
            query = Query(namespace, where=after if name else None, order=(("metadata.name", False),), limit=PAGE)
            items = (await self.list(kind, query)).items
            if not items:
                return
            for item in items:
                yield item
            name = items[-1].metadata.name

    async def remembered(self, request: Request, kind: str) -> Any | None:
        """Return the object that a repeated request answered with, None for a new one.  Raises AlreadyExists."""
        answered = await self._store.remembered(request, kind)
        return None if answered is None else await self._external.fill(answered)

    async def record(self, entry: Entry, request: Request | None = None, answer: Resource | None = None) -> None:
        """Append to the audit log what changed nothing; of a named request its answer is remembered."""
        await self._store.record(entry, request, answer)

    async def revision(self) -> int:
        """Return the newest committed revision."""
        return await self._store.revision()

    def watch(self, names: Collection[str] | None = None, since: int = 0) -> AsyncIterator[Change]:
        """Yield the changes of some kinds (default: all) after a revision, without large values."""
        return self._store.watch(names or tuple(kinds()), since)

    async def acquire(self, name: str, holder: str, ttl_s: float) -> Lease | None:
        """Take or renew a lease."""
        return await self._store.acquire(name, holder, ttl_s)

    async def release(self, lease: Lease) -> None:
        """Give a lease back."""
        await self._store.release(lease)
