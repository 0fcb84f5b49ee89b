"""Admission and store in one: what the servicer and the controllers call.  The only way an object is written.

Clients write metadata and spec; `update_status` is for controllers alone.
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from api import apply_fields, external, finalizers, images, inline_secrets, masking, server_fields, unknown, versions
from api.admission import (
    check_owners,
    check_referees,
    check_shape,
    check_size,
    check_update,
    check_version,
    refuse,
)
from api.calls import Access, Call, Everybody
from api.dependents import is_held
from api.errors import (
    AlreadyExists,
    Conflict,
    FailedPrecondition,
    FieldViolation,
    NotFound,
    PermissionDenied,
    Unavailable,
)
from api.external import External
from api.hooks import NO_HOOKS, Event, Hooks
from api.kinds import Kind, Resource, kind_of, stamp
from api.outcomes import Outcome, entry_of
from api.reads import Reads
from api.store.base import (
    OVERTAKEN,
    REFERENCE_GONE,
    Key,
    Lease,
    Preconditions,
    Request,
    Store,
    Trail,
    Unchanged,
    Write,
)
from api.store.records import check
from api.store.values import key_of
from api.usage import refuse_used
from api.validation import shown

# Finalizers of the collector: wait for what the object owns, or let it go first.
FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
# How often a delete looks again who uses the object, when others write meanwhile.
MOST_LOOKS = 50
STATUS_IGNORED = "status was ignored: it is written by the platform alone"

Admitter = Callable[["Resources", Resource | None, Resource], Awaitable[Sequence[FieldViolation]]]
# Does what else belongs to a write, after it, as the platform itself: old or None, and what is stored now.
Follower = Callable[["Resources", Resource | None, Resource], Awaitable[None]]
# Notes in the second object, in place, who manages its fields; the first one is what was stored, None for a new object.
Manage = Callable[[Any | None, Any], None]


class Resources(Reads):
    """Every operation on resources.  `admitters`: further checks by kind, called with (resources, old or None, new).

    external: where large fields go; hooks: what runs before writes; followers: what follows a new spec, by kind;
    registries: from which images of containers may be, none is all.
    """

    def __init__(
        self,
        store: Store,
        admitters: Mapping[str, Sequence[Admitter]] | None = None,
        *,
        external: External | None = None,
        hooks: Hooks = NO_HOOKS,
        followers: Mapping[str, Follower] | None = None,
        registries: Sequence[str] = (),
    ) -> None:
        super().__init__(store, external)
        self._registries = registries
        self._followers = dict(followers or {})
        self._admitters = dict(admitters or {})
        self.hooks = hooks
        self.outcome = Outcome()
        self.request: Request | None = None
        self._fence: Lease | None = None
        self._manage: Manage | None = None
        self._policy = self._access.policy

    def of(self, call: Call, request: Request | None = None, access: Access | None = None) -> Resources:
        """Return the same resources, written in the name of a call: its rights, its audit records, its effects once."""
        bound = copy.copy(self)
        bound.call, bound.request, bound.outcome = call, request, Outcome()
        bound._access = access or self._access
        # That of the moment at which the call is let in: rights may change while it goes on.
        bound._policy = bound._access.policy
        return bound

    def managing(self, manage: Manage) -> Resources:
        """Return the same resources, whose writes note otherwise who manages their fields."""
        bound = copy.copy(self)
        bound._manage = manage
        return bound

    def _note_manager(self, old: Any | None, new: Any) -> None:
        if self._manage is not None:
            self._manage(old, new)
        elif old is None:
            del new.metadata.managedFields[:]
        else:
            apply_fields.after_update(old, new, self.call.principal.subject, time.time_ns())

    def fenced(self, lease: Lease) -> Resources:
        """Return the same resources, written only while nobody else leads.  Writes raise Conflict (DEPOSED)."""
        bound = copy.copy(self)
        bound._fence = lease
        return bound

    def _trail(self, verb: str, key: Key, *, part: str = "") -> Trail:
        """Return what is committed with an effect.  The platform's own status writes leave no audit record."""
        entry = None if self.call.principal.kind == "system" else entry_of(self.call, verb, key, self._policy)
        request = self.request
        if request is not None and part:
            request = replace(request, id=f"{request.id}/{part}")
        return Trail(entry, request, self._fence)

    async def _done(self, stored: Any, *, gone: bool = False) -> Any:
        """Return the whole object of what a write stored."""
        self.outcome.effects += 1
        self._access.wrote(stored, gone=gone)
        return await self._external.fill(stored)

    async def _followed(self, old: Any | None, made: Any) -> Any:
        """Return what was written, after what follows from it."""
        if (follower := self._followers.get(made.DESCRIPTOR.name)) is not None:
            await follower(self.of(Call(), access=Everybody()), old, made)
        return made

    async def create(self, resource: Any, *, dry_run: bool = False) -> Any:
        """Store a new object with server-set metadata.  Raises InvalidArgument, NotFound, AlreadyExists."""
        new = copy.deepcopy(resource)
        kind = kind_of(new)
        server_fields.prepare(kind, new)
        self._note_manager(None, new)
        if new.status.ListFields():
            self.call.warn(STATUS_IGNORED)
        external.restore(kind, None, new)
        masking.restore(kind, None, new)
        await self._before("create", key_of(new), None, new)
        await self._may(None, new)
        must_exist = await self._admit(kind, None, new, known=not dry_run)
        server_fields.begin(new)
        async with self._telling(new):
            if dry_run:
                await self._refuse_taken(new)
                return new
            write = Write(await self._external.move(new), must_exist=tuple(must_exist))
            made = await self._done(await self._store.create(write, self._trail("Create", key_of(new))))
        return await self._followed(None, made)

    @contextlib.asynccontextmanager
    async def _telling(self, new: Any) -> AsyncIterator[None]:
        """Say of a name that is taken by what is not the caller's to know that it is taken, and no more.

        Say of a project that is gone since it was known to stand what it is now.
        """
        key = key_of(new)
        try:
            yield
        except AlreadyExists as error:
            if error.reason != "ALREADY_EXISTS" or await self._sees(key):
                raise
            raise AlreadyExists(f"{key.kind} {shown(key.name)!r} cannot be made: choose another name") from None
        except FailedPrecondition as error:
            if error.reason == REFERENCE_GONE:
                await self._projects_of(new, known=False)
            raise

    async def _before(self, verb: str, key: Key, old: Any | None, new: Any | None) -> None:
        point = f"before_{verb}"
        if self.hooks.wanted(point, key.kind):
            await self.hooks.before(Event(point, self.call, key.kind, key.namespace, key.name, old, new))

    async def _may(self, old: Any | None, new: Any) -> None:
        """Ask access about a write, and about the finalizers that it takes away."""
        key = key_of(new)

        async def finalize() -> bool:
            try:
                await self._access.require(self.call, "Finalize", key.kind, key.namespace, key.name)
            except (NotFound, PermissionDenied):
                return False
            return True

        await self._access.admit(self.call, old, new)
        await finalizers.settle(self.call, old, new, finalize)

    async def _admit(self, kind: Kind, old: Any | None, new: Any, *, known: bool = True) -> Sequence[Key]:
        """Return what must exist when `new` is written.  Raises InvalidArgument with every fault, not the first."""
        check_size(new)
        # Alone: what is said of other faults may tell the value.
        refuse(inline_secrets.secret_faults(old, new) if self.call.principal.kind != "system" else ())
        found = [*check_shape(kind, new), *images.image_faults(old, new, self._registries)]
        if any(violation.field == "metadata.namespace" for violation in found):
            refuse(found)
        must_exist = await self._projects_of(new, known=known) if old is None else []
        for check_others in (check_owners, check_referees):
            checked = await check_others(new, old, self._look)
            found += checked.faults
            must_exist += checked.needed
        for admitter in self._admitters.get(kind.name, ()):
            found += await admitter(self, old, new)
        refuse(found)
        return must_exist

    async def update(self, resource: Any, *, dry_run: bool = False) -> Any:
        """Replace metadata and spec; the stored status stays.  Raises NotFound, Conflict, InvalidArgument.

        It must name the version that it changes, unless the call forces it over whatever is stored.
        """
        given = "" if self.call.force else resource.metadata.resourceVersion
        check_version(resource.metadata.resourceVersion, versions.FIELD)
        while True:
            try:
                return await self._update(resource, given, dry_run=dry_run)
            except Conflict as error:
                if error.reason == "DEPOSED":
                    raise
                if given:
                    stored = await self._store.get(key_of(resource))
                    if stored.metadata.resourceVersion == given:
                        raise
                    raise await versions.refusal(self._store, key_of(resource), given, stored) from None

    async def _update(self, resource: Any, given: str, *, dry_run: bool) -> Any:
        kind, new = kind_of(resource), copy.deepcopy(resource)
        stamp(new)
        new.spec.SetInParent()
        key = key_of(new)
        stored = await self._store.get(key)
        if not given and not self.call.force:
            raise versions.version_required()
        check(key, stored, Preconditions(resource_version=given))
        old = await self._external.fill(copy.deepcopy(stored))
        external.restore(kind, old, new)
        masking.restore(kind, old, new)
        if self.call.source == "http":
            # JSON cannot say what this release has no name for, so leaving it out means nothing.
            unknown.keep(old, new)
        if new.status.ListFields() and new.status != old.status:
            self.call.warn(STATUS_IGNORED)
        refuse(check_update(kind, old, new), "IMMUTABLE_FIELD")
        await self._before("update", key, old, new)
        server_fields.carry_over(old, new)
        self._note_manager(old, new)
        await self._may(old, new)
        if server_fields.same(old, new):
            self.outcome.answer = stored
            return old
        must_exist = await self._admit(kind, old, new)
        respecified = new.spec != old.spec
        if respecified:
            new.metadata.generation = old.metadata.generation + 1
        server_fields.touch(new, spec=respecified)
        if dry_run:
            return new
        trail = self._trail("Update", key)
        if old.metadata.HasField("deletionTimestamp") and not new.metadata.finalizers:
            gone = await self._store.delete(key, _unchanged(old), finalized=True, trail=trail)
            return await self._done(gone, gone=True)
        light = await self._external.move(new, stored)
        write = Write(light, stored.metadata.resourceVersion, tuple(must_exist))
        made = await self._done(await self._store.update(write, trail))
        return await self._followed(old, made) if respecified else made

    async def update_status(self, resource: Any) -> Any:
        """Store `resource.status` if it differs from what is stored; writes nothing otherwise.

        Raises NotFound, and Conflict when the object was replaced by another of the same name.
        """
        key = key_of(resource)
        while True:
            stored = await self._store.get(key)
            if stored.metadata.uid != resource.metadata.uid:
                raise Conflict(f"{key} was replaced: uid {stored.metadata.uid}, not {resource.metadata.uid}")
            new = copy.deepcopy(stored)
            new.status.CopyFrom(resource.status)
            new = await self._external.move(new, stored, part="status", lacking=external.refs_of(resource))
            if new == stored:
                return await self._external.fill(new)
            server_fields.touch(new, spec=False)
            try:
                write = Write(new, stored.metadata.resourceVersion)
                return await self._done(await self._store.update(write, self._trail("UpdateStatus", key)))
            except Conflict as error:
                if error.reason == "DEPOSED":
                    raise

    async def delete(
        self,
        kind: str,
        namespace: str,
        name: str,
        *,
        preconditions: Preconditions | None = None,
        orphan: bool = False,
        foreground: bool = False,
        dry_run: bool = False,
        part: bool = False,
        spare_used: bool = False,
    ) -> None:
        """Delete an object and, unless `orphan`, what it alone owns.  With finalizers it stays until they are gone.

        foreground: it also stays until the finalizers of all that it owns are gone.
        part: the call deletes others too, each an effect of its own.  Raises NotFound, Conflict, FailedPrecondition for
        what a Deployment uses, also one that is made at the same time; the platform asks for that with `spare_used`.
        """
        unused: Unchanged | None = None
        key, wanted = Key(kind, namespace, name), preconditions or Preconditions()
        check_version(wanted.resource_version, "delete_options.preconditions.resourceVersion")
        asked = self.call.principal.kind != "system"
        if asked or spare_used:
            stored = await self._look(key)
            if stored is not None:
                if asked:
                    await self._before("delete", key, stored, None)
                    await self._access.admit(self.call, stored, None)
                unused = await refuse_used(self, key)
        if dry_run:
            check(key, await self._store.get(key), wanted)
            return
        finalizer = FOREGROUND if foreground else ORPHAN if orphan else ""
        held = await self._hold(key, wanted, finalizer) if finalizer else None
        if held is not None and wanted.resource_version:
            wanted = _unchanged(held)
        trail = self._trail("DeleteCollection" if part else "Delete", key, part=f"{namespace}/{name}" * part)
        for _ in range(MOST_LOOKS):
            try:
                gone = await self._store.delete(key, replace(wanted, unchanged=unused), orphan=orphan, trail=trail)
                break
            except Conflict as error:
                if error.reason != OVERTAKEN:
                    raise
            try:
                unused = await refuse_used(self, key)
            except FailedPrecondition:
                if held is not None:
                    await self.set_finalizer(held, finalizer, present=False)
                raise
        else:
            raise Unavailable(f"others write all the time what may use {key}: try again", reason="STORE_BUSY")
        self.outcome.effects += 1
        self._access.wrote(gone, gone=not gone.metadata.finalizers)

    async def _hold(self, key: Key, wanted: Preconditions, finalizer: str) -> Any | None:
        """Keep an object until the collector has seen to what it owns, if that does not happen as it is removed.

        Returns it as it is now, None if there is no need.  Raises NotFound, Conflict.
        """
        stored = await self._store.get(key)
        check(key, stored, wanted)
        waits = await is_held(self, stored) if finalizer == FOREGROUND else bool(stored.metadata.finalizers)
        if stored.metadata.HasField("deletionTimestamp") or not waits:
            return None
        return await self.set_finalizer(stored, finalizer, present=True)

    async def set_finalizer(self, resource: Any, finalizer: str, *, present: bool) -> Any:
        """Add or remove a finalizer; removing the last one of a deleted object removes the object."""
        while True:
            stored = await self._store.get(key_of(resource))
            if (finalizer in stored.metadata.finalizers) == present:
                return await self._external.fill(stored)
            if present:
                stored.metadata.finalizers.append(finalizer)
            else:
                stored.metadata.finalizers.remove(finalizer)
            trail = Trail(fence=self._fence)
            try:
                if stored.metadata.HasField("deletionTimestamp") and not stored.metadata.finalizers:
                    gone = await self._store.delete(key_of(stored), _unchanged(stored), finalized=True, trail=trail)
                    return await self._done(gone, gone=True)
                write = Write(stored, stored.metadata.resourceVersion)
                return await self._done(await self._store.update(write, trail))
            except Conflict as error:
                if error.reason == "DEPOSED":
                    raise


def _unchanged(resource: Any) -> Preconditions:
    return Preconditions(resource.metadata.uid, resource.metadata.resourceVersion)
