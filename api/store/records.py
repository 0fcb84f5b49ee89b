"""Objects as rows: read, written with all that finds them, and deleted with all they own.  Inside one transaction.

Never begins or ends a transaction; takes the next revision from its caller, one for every change.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence

from api import audit
from api.errors import Conflict, NotFound
from api.kinds import Resource, kinds
from api.store import sql
from api.store.base import (
    ChangeType,
    Key,
    Preconditions,
    Request,
    Trail,
    Unchanged,
    deposed,
    overtaken,
    reference_gone,
    request_reused,
)
from api.store.database import Database
from api.store.values import indexed, key_of
from api.validation import shown

NextRevision = Callable[[], int]


def put(db: Database, resource: Resource, revision: int, change: ChangeType, before: Resource | None) -> Resource:
    """Write object, index values, labels, owners and change record.  `before`: its last state, None for a new one."""
    found = None if before is None else _found_by(before)
    previous = None if before is None else before.SerializeToString(deterministic=True)
    resource.metadata.resourceVersion = str(revision)
    body = resource.SerializeToString(deterministic=True)
    key = key_of(resource)
    if found is None:
        sql.insert(db, key, resource, body, indexed(resource))
    else:
        sql.replace(db, key, resource, body, indexed(resource), found)
    sql.log(db, revision, change, key, body, previous)
    return resource


def _found_by(resource: Resource) -> sql.Found:
    metadata = resource.metadata
    return indexed(resource), dict(metadata.labels), {owner.uid for owner in metadata.ownerReferences}


def find(db: Database, key: Key) -> Resource | None:
    """Return the object at `key`, None if there is none."""
    body = sql.body(db, key)
    return None if body is None else parse(key.kind, body)


def parse(kind: str, body: bytes) -> Resource:
    """Return the object of stored bytes."""
    resource: Resource = kinds()[kind].message.FromString(body)
    return resource


def not_found(key: Key) -> NotFound:
    """Return the refusal for a missing object."""
    return NotFound(f"there is no {key.kind} {shown(key.name)!r} in {shown(key.namespace)!r}")


def require(db: Database, keys: Sequence[Key]) -> None:
    """Check inside the transaction that referees are still there, and that none is being deleted."""
    for key in keys:
        if not (stands := sql.stands(db, key)):
            raise reference_gone(key, going=stands is not None)


def require_unchanged(db: Database, wanted: Unchanged | None) -> None:
    """Check inside the transaction that what was read is still so."""
    if wanted is not None and sql.changed_since(db, wanted.kinds, wanted.since):
        raise overtaken(wanted)


def check(key: Key, resource: Resource, wanted: Preconditions) -> None:
    """Compare and swap: refuse a change that was computed from another version or another object of the name."""
    metadata = resource.metadata
    if wanted.uid and wanted.uid != metadata.uid:
        raise Conflict(f"{key} has uid {metadata.uid}, not {shown(wanted.uid)}: read it again")
    if wanted.resource_version and wanted.resource_version != metadata.resourceVersion:
        raise Conflict(
            f"{key} is at resourceVersion {metadata.resourceVersion}, not {wanted.resource_version}: "
            "read it again and retry"
        )


def replayed(db: Database, trail: Trail, kind: str) -> Resource | None:
    """Return what a repeated request answered with, None for a new one.  Raises AlreadyExists, Conflict."""
    if trail.fence is not None and not sql.holds(db, trail.fence.name, trail.fence.epoch):
        raise deposed(trail.fence)
    return None if trail.request is None else remembered(db, trail.request, kind)


def remembered(db: Database, request: Request, kind: str) -> Resource | None:
    """Return what a repeated request answered with, None for a new one.  Raises AlreadyExists."""
    found = sql.request(db, request.scope, request.id)
    if found is None:
        return None
    digest, answer = found
    if digest != request.digest:
        raise request_reused(request)
    return parse(kind, answer)


def remember(db: Database, request: Request, answer: Resource) -> None:
    """Keep what a request is answered with, for when it is repeated."""
    body = answer.SerializeToString(deterministic=True)
    sql.remember(db, request.scope, request.id, request.digest, body)


def leave(db: Database, trail: Trail, before: Resource | None, after: Resource | None, also: int = 0) -> None:
    """Write the trail of an effect: its answer and its audit record."""
    if trail.request is not None:
        answer = after if after is not None else before
        assert answer is not None, "an effect has an object"
        remember(db, trail.request, answer)
    if trail.audit is not None:
        entry = audit.done(trail.audit, _uid(after or before), _version(before), _version(after), also)
        sql.append_audit(db, audit.canonical(entry))


def _uid(resource: Resource | None) -> str:
    return "" if resource is None else resource.metadata.uid


def _version(resource: Resource | None) -> tuple[str, bytes]:
    if resource is None:
        return "", b""
    return resource.metadata.resourceVersion, resource.SerializeToString(deterministic=True)


def delete(db: Database, resource: Resource, following: NextRevision, *, orphan: bool, finalized: bool) -> Resource:
    """Remove an object and what it alone owns; one with finalizers only gets its deletionTimestamp.

    orphan: what it owns stays and forgets it; finalized: the finalizers of `resource` have done their work.
    """
    if resource.metadata.finalizers and not finalized:
        return _mark(db, resource, following)
    gone = _remove(db, resource, following)
    waiting = [(gone, orphan)]
    while waiting:
        owner, left_alone = waiting.pop()
        for key in sql.dependents(db, owner.metadata.uid):
            child = find(db, key)
            assert child is not None, "a dependent is read in the transaction that found it"
            if left_alone or _has_other_owner(db, child, owner.metadata.uid):
                _forget(db, child, owner.metadata.uid, following)
            elif child.metadata.finalizers:
                _mark(db, child, following)
            else:
                waiting.append((_remove(db, child, following), False))
    return gone


def _mark(db: Database, resource: Resource, following: NextRevision) -> Resource:
    if resource.metadata.HasField("deletionTimestamp"):
        return resource
    before = copy.deepcopy(resource)
    resource.metadata.deletionTimestamp.seconds = int(time.time())
    return put(db, resource, following(), ChangeType.MODIFIED, before)


def _remove(db: Database, resource: Resource, following: NextRevision) -> Resource:
    revision, key = following(), key_of(resource)
    previous = resource.SerializeToString(deterministic=True)
    resource.metadata.resourceVersion = str(revision)
    sql.remove(db, key)
    sql.log(db, revision, ChangeType.DELETED, key, resource.SerializeToString(deterministic=True), previous)
    return resource


def _has_other_owner(db: Database, resource: Resource, uid: str) -> bool:
    for owner in resource.metadata.ownerReferences:
        if owner.uid != uid:
            found = find(db, Key(owner.kind, resource.metadata.namespace, owner.name))
            if found is not None and found.metadata.uid == owner.uid:
                return True
    return False


def _forget(db: Database, resource: Resource, uid: str, following: NextRevision) -> None:
    before = copy.deepcopy(resource)
    kept = [owner for owner in resource.metadata.ownerReferences if owner.uid != uid]
    del resource.metadata.ownerReferences[:]
    resource.metadata.ownerReferences.extend(kept)
    put(db, resource, following(), ChangeType.MODIFIED, before)
