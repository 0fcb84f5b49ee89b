"""Admission and store in one: what the servicer and the controllers call.  The only way an object is written.

Clients write metadata and spec; `update_status` is for controllers alone.
"""

from __future__ import annotations

import copy
import logging
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

from api.admission import (
    RULE,
    check_owners,
    check_project,
    check_referees,
    check_shape,
    check_update,
    is_name,
    refuse,
    suggestion,
)
from api.errors import Conflict, FieldViolation, NotFound
from api.kinds import Kind, Resource, kind_of, kinds, stamp
from api.store.base import Change, Key, Lease, Page, Preconditions, Query, Store, Write, already_exists
from api.store.values import UPDATED_LABEL, key_of
from api.validation import shown

SPEC_UPDATED_LABEL = "michelangelo/SpecUpdateTimestamp"
FOREGROUND = "foregroundDeletion"

Admitter = Callable[["Resources", Resource | None, Resource], Awaitable[Sequence[FieldViolation]]]

log = logging.getLogger(__name__)


class Resources:
    """Every operation on resources.  `admitters`: further checks by kind, called with (resources, old or None, new)."""

    def __init__(self, store: Store, admitters: Mapping[str, Sequence[Admitter]] | None = None) -> None:
        self._store = store
        self._admitters = dict(admitters or {})

    async def get(self, kind: str, namespace: str, name: str) -> Any:
        """Return one object.  Raises NotFound."""
        return await self._store.get(Key(kind, namespace, name))

    async def find(self, key: Key) -> Any | None:
        """Return one object, None if it does not exist."""
        try:
            return await self._store.get(key)
        except NotFound:
            return None

    async def list(self, kind: str, query: Query | None = None) -> Page:
        """Return a page of objects."""
        return await self._store.list(kind, query or Query())

    async def create(self, resource: Any, *, dry_run: bool = False) -> Any:
        """Store a new object with server-set metadata.  Raises InvalidArgument, NotFound, AlreadyExists."""
        new = copy.deepcopy(resource)
        kind = kind_of(new)
        _prepare(kind, new)
        must_exist = await self._admit(kind, None, new)
        metadata = new.metadata
        metadata.uid = str(uuid.uuid4())
        metadata.generation = 1
        metadata.creationTimestamp.GetCurrentTime()
        metadata.ClearField("deletionTimestamp")
        metadata.ClearField("resourceVersion")
        new.status.Clear()
        _touch(new, spec=True)
        if dry_run:
            await self._refuse_taken(new)
            return new
        return await self._store.create(Write(new, must_exist=tuple(must_exist)))

    async def _refuse_taken(self, new: Any) -> None:
        taken = await self.find(key_of(new))
        if taken is not None:
            raise already_exists(key_of(new), taken.metadata.uid)

    async def _admit(self, kind: Kind, old: Any | None, new: Any) -> Sequence[Key]:
        refuse(check_shape(kind, new))
        must_exist = list(await check_project(new, self.find)) if old is None else []
        await check_owners(new, self.find)
        must_exist += await check_referees(new, old, self.find)
        found: list[FieldViolation] = []
        for admitter in self._admitters.get(kind.name, ()):
            found += await admitter(self, old, new)
        refuse(found)
        return must_exist

    async def update(self, resource: Any, *, dry_run: bool = False) -> Any:
        """Replace metadata and spec; the stored status stays.  Raises NotFound, Conflict, InvalidArgument.

        Without metadata.resourceVersion the last write wins, as in Kubernetes' unconditional update.
        """
        kind = kind_of(resource)
        new = copy.deepcopy(resource)
        stamp(new)
        new.spec.SetInParent()
        old = await self._store.get(key_of(new))
        if new.metadata.resourceVersion and new.metadata.resourceVersion != old.metadata.resourceVersion:
            raise Conflict(
                f"{key_of(new)} is at resourceVersion {old.metadata.resourceVersion}, "
                f"not {new.metadata.resourceVersion[:64]}: read it again and retry"
            )
        refuse(check_update(kind, old, new), "IMMUTABLE_FIELD")
        _carry_over(old, new)
        if _same(old, new):
            return old
        must_exist = await self._admit(kind, old, new)
        if new.spec != old.spec:
            new.metadata.generation = old.metadata.generation + 1
        _touch(new, spec=new.spec != old.spec)
        if dry_run:
            return new
        if old.metadata.HasField("deletionTimestamp") and not new.metadata.finalizers:
            return await self._remove(new)
        return await self._store.update(Write(new, old.metadata.resourceVersion, tuple(must_exist)))

    async def update_status(self, resource: Any) -> Any:
        """Store `resource.status` if it differs from what is stored; writes nothing otherwise.

        Raises NotFound, and Conflict when the object was replaced by another of the same name.
        """
        key = key_of(resource)
        while True:
            stored = await self._store.get(key)
            if stored.metadata.uid != resource.metadata.uid:
                raise Conflict(f"{key} was replaced: uid {stored.metadata.uid}, not {resource.metadata.uid}")
            if stored.status == resource.status:
                return stored
            expect = stored.metadata.resourceVersion
            stored.status.CopyFrom(resource.status)
            _touch(stored, spec=False)
            try:
                return await self._store.update(Write(stored, expect))
            except Conflict:
                continue

    async def delete(
        self,
        kind: str,
        namespace: str,
        name: str,
        *,
        preconditions: Preconditions | None = None,
        orphan: bool = False,
        dry_run: bool = False,
    ) -> None:
        """Delete an object and, unless `orphan`, what it owns.  With finalizers it stays until the last is removed."""
        key = Key(kind, namespace, name)
        stored = await self._store.get(key)
        wanted = preconditions or Preconditions()
        if wanted.uid and wanted.uid != stored.metadata.uid:
            raise Conflict(f"{key} has uid {stored.metadata.uid}, not {wanted.uid}: read it again")
        if wanted.resource_version and wanted.resource_version != stored.metadata.resourceVersion:
            raise Conflict(f"{key} is at resourceVersion {stored.metadata.resourceVersion}: read it again and retry")
        if dry_run:
            return
        if stored.metadata.finalizers:
            await self._mark_deleted(key)
        else:
            await self._remove(stored, orphan=orphan)

    async def _mark_deleted(self, key: Key) -> None:
        while True:
            stored = await self._store.get(key)
            if stored.metadata.HasField("deletionTimestamp"):
                return
            stored.metadata.deletionTimestamp.seconds = int(time.time())
            try:
                await self._store.update(Write(stored, stored.metadata.resourceVersion))
            except Conflict:
                continue
            return

    async def _remove(self, resource: Any, *, orphan: bool = False) -> Any:
        owned = () if orphan else await self._store.dependents(resource.metadata.uid)
        gone = await self._store.delete(key_of(resource), Preconditions(uid=resource.metadata.uid))
        for key in owned:
            try:
                await self.delete(key.kind, key.namespace, key.name)
            except NotFound:
                log.debug("dependent %s was already gone", key)
        return gone

    async def set_finalizer(self, resource: Any, finalizer: str, *, present: bool) -> Any:
        """Add or remove a finalizer; removing the last one of a deleted object removes the object."""
        while True:
            stored = await self._store.get(key_of(resource))
            if (finalizer in stored.metadata.finalizers) == present:
                return stored
            if present:
                stored.metadata.finalizers.append(finalizer)
            else:
                stored.metadata.finalizers.remove(finalizer)
                if stored.metadata.HasField("deletionTimestamp") and not stored.metadata.finalizers:
                    return await self._remove(stored)
            try:
                return await self._store.update(Write(stored, stored.metadata.resourceVersion))
            except Conflict:
                continue

    async def revision(self) -> int:
        """Return the newest committed revision."""
        return await self._store.revision()

    def watch(self, names: Collection[str] | None = None, since: int = 0) -> AsyncIterator[Change]:
        """Yield the changes of some kinds (default: all) after a revision."""
        return self._store.watch(names or tuple(kinds()), since)

    async def acquire(self, name: str, holder: str, ttl_s: float) -> Lease | None:
        """Take or renew a lease."""
        return await self._store.acquire(name, holder, ttl_s)

    async def release(self, lease: Lease) -> None:
        """Give a lease back."""
        await self._store.release(lease)


def _prepare(kind: Kind, new: Any) -> None:
    stamp(new)
    # No spec and an empty one are the same object: both are found by the defaults of their fields.
    new.spec.SetInParent()
    metadata = new.metadata
    if not metadata.name and metadata.generateName:
        beginning = metadata.generateName
        if not is_name(beginning.rstrip("-.") or "-"):
            told = f"{RULE}; for example {suggestion(beginning) + '-'!r}"
            refuse([FieldViolation("metadata.generateName", told, shown(beginning), "BAD_NAME")])
        metadata.name = metadata.generateName + secrets.token_hex(4)
    if kind.name == "Project" and not metadata.namespace:
        metadata.namespace = metadata.name


def _carry_over(old: Any, new: Any) -> None:
    """Keep what the server owns, whatever the caller sent."""
    new.status.CopyFrom(old.status)
    metadata = new.metadata
    metadata.uid = old.metadata.uid
    metadata.generation = old.metadata.generation
    metadata.creationTimestamp.CopyFrom(old.metadata.creationTimestamp)
    metadata.resourceVersion = old.metadata.resourceVersion
    metadata.ClearField("deletionTimestamp")
    if old.metadata.HasField("deletionTimestamp"):
        metadata.deletionTimestamp.CopyFrom(old.metadata.deletionTimestamp)
    for label in (UPDATED_LABEL, SPEC_UPDATED_LABEL):
        if label in old.metadata.labels:
            metadata.labels[label] = old.metadata.labels[label]


def _same(old: Any, new: Any) -> bool:
    return bool(old.spec == new.spec and old.metadata == new.metadata)


def _touch(resource: Any, *, spec: bool) -> None:
    now = str(time.time_ns() // 1000)
    resource.metadata.labels[UPDATED_LABEL] = now
    if spec:
        resource.metadata.labels[SPEC_UPDATED_LABEL] = now
