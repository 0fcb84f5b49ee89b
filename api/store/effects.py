"""What a write does to a SQL store: its checks, its changes and its trail.  Inside one transaction of the caller."""

from __future__ import annotations

import copy

from api.audit import Entry, canonical
from api.kinds import Resource
from api.store import records, sql
from api.store.base import ChangeType, Key, Preconditions, Request, Trail, Write, already_exists
from api.store.database import Database
from api.store.records import NextRevision
from api.store.values import key_of


def create(db: Database, following: NextRevision, write: Write, trail: Trail) -> Resource:
    """Store a new object.  Raises AlreadyExists, FailedPrecondition."""
    key = key_of(write.resource)
    if (answered := records.replayed(db, trail, key.kind)) is not None:
        return answered
    if (taken := records.find(db, key)) is not None:
        raise already_exists(key, taken.metadata.uid)
    records.require(db, write.must_exist)
    created = records.put(db, write.resource, following(), ChangeType.ADDED, None)
    records.leave(db, trail, None, created)
    return created


def update(db: Database, following: NextRevision, write: Write, trail: Trail) -> Resource:
    """Replace an object if it is still the version that was read.  Raises NotFound, Conflict, FailedPrecondition."""
    key = key_of(write.resource)
    if (answered := records.replayed(db, trail, key.kind)) is not None:
        return answered
    stored = records.find(db, key)
    if stored is None:
        raise records.not_found(key)
    records.check(key, stored, Preconditions(resource_version=write.expect))
    records.require(db, write.must_exist)
    updated = records.put(db, write.resource, following(), ChangeType.MODIFIED, stored)
    records.leave(db, trail, stored, updated)
    return updated


def delete(
    db: Database,
    following: NextRevision,
    key: Key,
    preconditions: Preconditions,
    trail: Trail,
    *,
    orphan: bool,
    finalized: bool,
) -> Resource:
    """Remove an object and what it alone owns, or mark it deleted with finalizers.  Raises NotFound, Conflict."""
    if (answered := records.replayed(db, trail, key.kind)) is not None:
        return answered
    stored = records.find(db, key)
    if stored is None:
        raise records.not_found(key)
    records.check(key, stored, preconditions)
    records.require_unchanged(db, preconditions.unchanged)
    before = copy.deepcopy(stored)
    gone = records.delete(db, stored, following, orphan=orphan, finalized=finalized)
    marked = bool(before.metadata.finalizers) and not finalized
    records.leave(db, trail, before, gone if marked else None)
    return gone


def record(db: Database, entry: Entry, request: Request | None, answer: Resource | None) -> None:
    """Append to the audit log what changed nothing, and remember its answer; nothing for a request that is known."""
    if request is not None and answer is not None:
        if records.remembered(db, request, answer.DESCRIPTOR.name) is not None:
            return
        records.leave(db, Trail(request=request), None, answer)
    sql.append_audit(db, canonical(entry))
