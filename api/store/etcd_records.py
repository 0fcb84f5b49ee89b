"""Objects as keys of etcd: read, written with all that finds them, and deleted with all they own.  Within one draft.

Never commits; takes the next revision from the draft, one for every change.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence

from api import audit
from api.kinds import Resource
from api.store.base import (
    ChangeType,
    Key,
    Request,
    Trail,
    Unchanged,
    deposed,
    overtaken,
    reference_gone,
    request_reused,
)
from api.store.etcd_draft import Draft, FullError, Reads
from api.store.etcd_keys import Keys
from api.store.records import parse
from api.store.values import key_of

DIGEST_BYTES = 32
# What a transaction needs beside the changes of what a deleted object owns: its own change and the trail.
RESERVED = 16
# The largest change of one object: the object, its change record and its places in the owners' index.
ONE_CHANGE = 10
# How many owned objects are read together: about as many as one transaction deletes.
AHEAD = 40


async def find(draft: Draft, key: Key) -> Resource | None:
    """Return the object at `key`, None if there is none."""
    body = await draft.read(draft.keys.object(key))
    return None if body is None else parse(key.kind, body)


async def require(draft: Draft, keys: Sequence[Key]) -> None:
    """Check within the transaction that referees are still there, and that none is being deleted."""
    for key in keys:
        referee = await find(draft, key)
        if referee is None or referee.metadata.HasField("deletionTimestamp"):
            raise reference_gone(key, going=referee is not None)


async def require_unchanged(draft: Draft, wanted: Unchanged | None) -> None:
    """Check within the transaction that what was read is still so."""
    if wanted is not None and await draft.changed_since(wanted.kinds, wanted.since):
        raise overtaken(wanted)


def put(draft: Draft, resource: Resource, change: ChangeType, before: Resource | None = None) -> Resource:
    """Write object, owners and change record.  `before`: its last state, None for a new one."""
    revision, key, owners = draft.following(), key_of(resource), owners_of(resource)
    previous, owned_before = b"", frozenset[str]()
    if before is not None:
        previous, owned_before = before.SerializeToString(deterministic=True), owners_of(before)
    resource.metadata.resourceVersion = str(revision)
    body = resource.SerializeToString(deterministic=True)
    draft.put(draft.keys.object(key), body)
    for uid in owners - owned_before:
        draft.put(draft.keys.owned(uid, key), b"")
    for uid in owned_before - owners:
        draft.drop(draft.keys.owned(uid, key))
    draft.log(revision, change, key, body, previous)
    return resource


def owners_of(resource: Resource) -> frozenset[str]:
    """Return the uids that own an object."""
    return frozenset(owner.uid for owner in resource.metadata.ownerReferences)


def reads_of(keys: Keys, trail: Trail, *read: Key, new: Key | None = None) -> Reads:
    """Return what an effect reads: objects, one that is probably not there, and what its trail needs."""
    absent = [] if new is None else [keys.object(new)]
    if trail.request is not None:
        absent.append(keys.request(trail.request.scope, trail.request.id))
    now = () if trail.fence is None else (keys.lease(trail.fence.name),)
    return Reads(tuple(keys.object(key) for key in read), now, tuple(absent))


async def replayed(draft: Draft, trail: Trail, kind: str) -> Resource | None:
    """Return what a repeated request answered with, None for a new one.  Raises AlreadyExists, Conflict."""
    if trail.fence is not None:
        key = draft.keys.lease(trail.fence.name)
        if read_epoch(await draft.read(key))[0] != trail.fence.epoch:
            raise deposed(trail.fence)
        # The lease is taken without the head: its key is compared by itself.
        draft.compare(key)
    if trail.request is None:
        return None
    return answered(await draft.read(draft.keys.request(trail.request.scope, trail.request.id)), trail.request, kind)


def answered(value: bytes | None, request: Request, kind: str) -> Resource | None:
    """Return what a stored request answered with, None if there is none.  Raises AlreadyExists."""
    if value is None:
        return None
    if value[:DIGEST_BYTES] != request.digest:
        raise request_reused(request)
    return parse(kind, value[DIGEST_BYTES:])


def read_epoch(value: bytes | None) -> tuple[int, str]:
    """Return epoch and last holder of a lease, (0, "") of one that nobody held."""
    epoch, _, holder = (value or b"0 ").decode().partition(" ")
    return int(epoch), holder


def leave(draft: Draft, trail: Trail, before: Resource | None, after: Resource | None) -> None:
    """Write the trail of an effect: its answer and its audit record."""
    answer = after if after is not None else before
    assert answer is not None, "an effect has an object"
    if trail.request is not None:
        key = draft.keys.request(trail.request.scope, trail.request.id)
        draft.keep(key, trail.request.digest + answer.SerializeToString(deterministic=True))
    if trail.audit is not None:
        entry = audit.done(trail.audit, answer.metadata.uid, _version(before), _version(after))
        draft.append_audit(audit.canonical(entry))


def _version(resource: Resource | None) -> tuple[str, bytes]:
    if resource is None:
        return "", b""
    return resource.metadata.resourceVersion, resource.SerializeToString(deterministic=True)


def mark(draft: Draft, resource: Resource, *, finalized: bool = False) -> Resource:
    """Give an object its deletionTimestamp, unless it has one.  `finalized`: its finalizers have done their work."""
    if resource.metadata.HasField("deletionTimestamp") and not (finalized and resource.metadata.finalizers):
        return resource
    before = copy.deepcopy(resource)
    if finalized:
        del resource.metadata.finalizers[:]
    if not resource.metadata.HasField("deletionTimestamp"):
        resource.metadata.deletionTimestamp.seconds = int(time.time())
    return put(draft, resource, ChangeType.MODIFIED, before)


def remove(draft: Draft, resource: Resource) -> Resource:
    """Delete an object and record its last state."""
    revision, key = draft.following(), key_of(resource)
    resource.metadata.resourceVersion = str(revision)
    draft.drop(draft.keys.object(key))
    for uid in owners_of(resource):
        draft.drop(draft.keys.owned(uid, key))
    draft.log(revision, ChangeType.DELETED, key, resource.SerializeToString(deterministic=True))
    return resource


async def clear(draft: Draft, root: Resource, *, orphan: bool) -> bool:
    """Delete what `root` alone owns, the deepest first; what others own too, and with `orphan` all, forgets it.

    False when the transaction is full: what is written so far leaves no object without its owner, and more is to do.
    Raises FullError when others' effects are in the way.
    """
    alone = not draft.writes
    owners = [(root, iter(await _owned(draft, root)))]
    entered = {root.metadata.uid}
    while owners:
        owner, children = owners[-1]
        if not draft.room(RESERVED + ONE_CHANGE + len(root.metadata.ownerReferences)):
            if not alone:
                raise FullError
            return False
        key = next(children, None)
        if key is None:
            owners.pop()
            if owners:
                remove(draft, owner)
            continue
        child = await find(draft, key)
        if child is None or child.metadata.uid in entered:
            continue
        if (orphan and owner is root) or await _has_other_owner(draft, child, owner.metadata.uid):
            _forget(draft, child, owner.metadata.uid)
        elif child.metadata.finalizers:
            mark(draft, child)
        else:
            entered.add(child.metadata.uid)
            owners.append((child, iter(await _owned(draft, child))))
    return True


async def _owned(draft: Draft, owner: Resource) -> list[Key]:
    owned = await draft.owned_by(owner.metadata.uid)
    first = owned[:AHEAD]
    await draft.load([draft.keys.object(key) for key in first])
    children = [await find(draft, key) for key in first]
    await draft.load_owned([child.metadata.uid for child in children if child is not None])
    return owned


async def _has_other_owner(draft: Draft, resource: Resource, uid: str) -> bool:
    for owner in resource.metadata.ownerReferences:
        if owner.uid != uid:
            found = await find(draft, Key(owner.kind, resource.metadata.namespace, owner.name))
            if found is not None and found.metadata.uid == owner.uid:
                return True
    return False


def _forget(draft: Draft, resource: Resource, uid: str) -> None:
    before = copy.deepcopy(resource)
    kept = [owner for owner in resource.metadata.ownerReferences if owner.uid != uid]
    del resource.metadata.ownerReferences[:]
    resource.metadata.ownerReferences.extend(kept)
    put(draft, resource, ChangeType.MODIFIED, before)
