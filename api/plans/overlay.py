"""The store as it would be with some resources written.  Writes nothing."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from api.kinds import Resource
from api.store.base import Key, Page, Query, Store


class Overlay:
    """Reads a store; what was put stands before what it holds.  All but `get` and `list` is the store's own."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._put: dict[Key, Resource] = {}

    def put(self, key: Key, resource: Resource) -> None:
        """Have a resource stand at a key."""
        put = self._put[key] = copy.deepcopy(resource)
        # What is written again names a version.
        put.metadata.resourceVersion = put.metadata.resourceVersion or "1"

    @property
    def planned(self) -> Mapping[Key, Resource]:
        """What was put."""
        return self._put

    def as_store(self) -> Store:
        """Return this as what it is used as."""
        return cast("Store", self)

    async def get(self, key: Key) -> Resource:
        """Return the object at a key.  Raises NotFound."""
        if key in self._put:
            return copy.deepcopy(self._put[key])
        return await self._store.get(key)

    async def list(self, kind: str, query: Query) -> Page:
        """Return the objects of a kind.  What was put is not compared with the query's conditions on fields."""
        page = await self._store.list(kind, query)
        mine = {
            key: resource
            for key, resource in self._put.items()
            if key.kind == kind and query.namespace in ("", key.namespace)
        }
        kept = [item for item in page.items if Key(kind, item.metadata.namespace, item.metadata.name) not in mine]
        return replace(page, items=[*kept, *(copy.deepcopy(resource) for resource in mine.values())])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)
