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
from dataclasses import replace
from typing import Any

from api.admission import (
    RULE,
    check_owners,
    check_project,
    check_referees,
    check_shape,
    check_size,
    check_update,
    check_version,
    is_name,
    refuse,
    suggestion,
)
from api.audit import Entry
from api.calls import Call
from api.errors import Conflict, FieldViolation, NotFound
from api.kinds import Kind, Resource, kind_of, kinds, stamp
from api.store.base import (
    Change,
    Key,
    Lease,
    Page,
    Preconditions,
    Query,
    Request,
    Store,
    Trail,
    Write,
    already_exists,
)
from api.store.records import check
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
        self._call = Call()
        self._request: Request | None = None
        self._fence: Lease | None = None

    def of(self, call: Call, request: Request | None = None) -> Resources:
        """Return the same resources, written in the name of a call: its audit records, its effects once."""
        bound = copy.copy(self)
        bound._call, bound._request = call, request
        return bound

    def fenced(self, lease: Lease) -> Resources:
        """Return the same resources, written only while nobody else leads.  Writes raise Conflict (DEPOSED)."""
        bound = copy.copy(self)
        bound._fence = lease
        return bound

    def _trail(self, verb: str, key: Key, *, part: str = "") -> Trail:
        """Return what is committed with an effect.  The platform's own status writes leave no audit record."""
        entry = None if self._call.principal.kind == "system" else entry_of(self._call, verb, key)
        request = self._request
        if request is not None and part:
            request = replace(request, id=f"{request.id}/{part}")
        return Trail(entry, request, self._fence)

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
        write = Write(new, must_exist=tuple(must_exist))
        return await self._store.create(write, self._trail("Create", key_of(new)))

    async def _refuse_taken(self, new: Any) -> None:
        taken = await self.find(key_of(new))
        if taken is not None:
            raise already_exists(key_of(new), taken.metadata.uid)

    async def _admit(self, kind: Kind, old: Any | None, new: Any) -> Sequence[Key]:
        """Return what must exist when `new` is written.  Raises InvalidArgument with every fault, not the first."""
        check_size(new)
        found = check_shape(kind, new)
        if any(violation.field == "metadata.namespace" for violation in found):
            refuse(found)
        must_exist = list(await check_project(new, self.find)) if old is None else []
        for check_others in (check_owners, check_referees):
            checked = await check_others(new, old, self.find)
            found += checked.faults
            must_exist += checked.needed
        for admitter in self._admitters.get(kind.name, ()):
            found += await admitter(self, old, new)
        refuse(found)
        return must_exist

    async def update(self, resource: Any, *, dry_run: bool = False) -> Any:
        """Replace metadata and spec; the stored status stays.  Raises NotFound, Conflict, InvalidArgument.

        Without metadata.resourceVersion the last write wins, as in Kubernetes' unconditional update.
        """
        check_version(resource.metadata.resourceVersion, "metadata.resourceVersion")
        while True:
            try:
                return await self._update(resource, dry_run=dry_run)
            except Conflict:
                if resource.metadata.resourceVersion:
                    raise

    async def _update(self, resource: Any, *, dry_run: bool) -> Any:
        kind, new = kind_of(resource), copy.deepcopy(resource)
        stamp(new)
        new.spec.SetInParent()
        old = await self._store.get(key_of(new))
        check(key_of(new), old, Preconditions(resource_version=new.metadata.resourceVersion))
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
            trail = self._trail("Update", key_of(old))
            return await self._store.delete(key_of(old), _unchanged(old), finalized=True, trail=trail)
        write = Write(new, old.metadata.resourceVersion, tuple(must_exist))
        return await self._store.update(write, self._trail("Update", key_of(old)))

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
                return await self._store.update(Write(stored, expect), Trail(fence=self._fence))
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
        part: bool = False,
    ) -> None:
        """Delete an object and, unless `orphan`, what it alone owns.  With finalizers it stays until they are gone.

        part: the call deletes others too, each an effect of its own.  Raises NotFound, Conflict.
        """
        key, wanted = Key(kind, namespace, name), preconditions or Preconditions()
        check_version(wanted.resource_version, "delete_options.preconditions.resourceVersion")
        if dry_run:
            check(key, await self._store.get(key), wanted)
        else:
            trail = self._trail("Delete", key, part=f"{namespace}/{name}" if part else "")
            await self._store.delete(key, wanted, orphan=orphan, trail=trail)

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
            try:
                if stored.metadata.HasField("deletionTimestamp") and not stored.metadata.finalizers:
                    return await self._store.delete(
                        key_of(stored), _unchanged(stored), finalized=True, trail=Trail(fence=self._fence)
                    )
                return await self._store.update(
                    Write(stored, stored.metadata.resourceVersion), Trail(fence=self._fence)
                )
            except Conflict:
                continue

    async def remembered(self, request: Request, kind: str) -> Any | None:
        """Return the object that a repeated request answered with, None for a new one.  Raises AlreadyExists."""
        return await self._store.remembered(request, kind)

    async def record(self, entry: Entry) -> None:
        """Append to the audit log what changed nothing."""
        await self._store.record(entry)

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


def entry_of(call: Call, verb: str, key: Key) -> Entry:
    """Return the audit record of a call on one object, before its outcome is known."""
    principal = call.principal
    return Entry(
        time_us=time.time_ns() // 1000,
        subject=principal.subject,
        groups=tuple(sorted(principal.groups)),
        via=principal.via,
        source=call.source,
        verb=verb,
        kind=key.kind,
        namespace=key.namespace,
        name=key.name,
        request_id=call.request_id,
    )


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


def _unchanged(resource: Any) -> Preconditions:
    return Preconditions(resource.metadata.uid, resource.metadata.resourceVersion)


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
