"""The store in a SQL database: every method of the port, whatever the database.  Adapters say how to connect."""

from __future__ import annotations

import abc
import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import TypeVar

from api.audit import Entry, Record
from api.errors import Expired, Unavailable
from api.kinds import Resource
from api.store import effects, pages, records, sql
from api.store.base import (
    NO_TRAIL,
    Change,
    ChangeType,
    Key,
    Lease,
    Page,
    Preconditions,
    Query,
    Request,
    Trail,
    Write,
)
from api.store.bell import Bell, Place, Row
from api.store.database import Database
from api.store.writer import Work

T = TypeVar("T")
Read = Callable[[Database], T]

WATCH_BATCH = 500
AWAY_S = 0.2
WINDOW = 100_000
WINDOW_S = 600.0


class SqlStore(abc.ABC):
    """What all adapters share.  `bell` is rung when something was committed, here or by another process."""

    def __init__(self) -> None:
        self._bell = Bell()

    @abc.abstractmethod
    async def _write(self, work: Work[T]) -> T:
        """Run `work` in a transaction of the one writer and return its result when it is committed."""

    @abc.abstractmethod
    async def _read(self, work: Read[T]) -> T:
        """Run `work` on one state of the store, not older than what was acknowledged."""

    @abc.abstractmethod
    async def _point(self, work: Read[T]) -> T:
        """Run `work` that reads by key: as `_read`, sooner."""

    @abc.abstractmethod
    async def _lease(self, work: Read[T]) -> T:
        """Run one statement that changes a lease."""

    @abc.abstractmethod
    async def _news(self, place: Place) -> None:
        """Return when there may be changes for a watcher that were not there when it looked."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Stop."""

    async def get(self, key: Key) -> Resource:
        """Return the object at `key`."""
        found = await self._point(functools.partial(records.find, key=key))
        if found is None:
            raise records.not_found(key)
        return found

    def peek(self, key: Key) -> bytes | None:
        """Say nothing: a database that is asked through a connection lets wait."""
        return None

    async def list(self, kind: str, query: Query) -> Page:
        """Return the objects of `kind` that match."""
        return await self._read(lambda db: pages.select(db, kind, query, records.parse))

    async def create(self, write: Write, trail: Trail = NO_TRAIL) -> Resource:
        """Store a new object."""
        return await self._write(lambda db, following: effects.create(db, following, write, trail))

    async def update(self, write: Write, trail: Trail = NO_TRAIL) -> Resource:
        """Replace an object if it is still the version that was read."""
        return await self._write(lambda db, following: effects.update(db, following, write, trail))

    async def delete(
        self,
        key: Key,
        preconditions: Preconditions,
        *,
        orphan: bool = False,
        finalized: bool = False,
        trail: Trail = NO_TRAIL,
    ) -> Resource:
        """Remove an object and what it alone owns, or mark it deleted while it has finalizers."""
        return await self._write(
            lambda db, following: effects.delete(
                db, following, key, preconditions, trail, orphan=orphan, finalized=finalized
            )
        )

    async def remembered(self, request: Request, kind: str) -> Resource | None:
        """Return what a repeated request answered with."""
        return await self._point(lambda db: records.remembered(db, request, kind))

    async def record(self, entry: Entry, request: Request | None = None, answer: Resource | None = None) -> None:
        """Append to the audit log what changed nothing."""
        await self._write(lambda db, _: effects.record(db, entry, request, answer))

    async def audit(self, after: int, limit: int) -> Sequence[Record]:
        """Return audit records, oldest first."""
        return await self._read(lambda db: sql.audit(db, after, limit))

    async def revision(self) -> int:
        """Return the newest committed revision."""
        return await self._point(sql.revision)

    async def watch(self, kinds: Collection[str], since: int) -> AsyncIterator[Change]:
        """Yield every change of `kinds` after revision `since`, for ever."""
        place, looked = Place(kinds, since), False
        while True:
            rows, more = self._bell.news(place), False
            if not (rows and looked):
                # Only the store knows which changes are still kept: whoever begins looks there first.
                try:
                    rows = await self._read(functools.partial(_changes, since=place.since))
                except Unavailable:
                    # Nothing is missed meanwhile: it goes on after the last change that was told.
                    await asyncio.sleep(AWAY_S)
                    continue
                looked, more = True, len(rows) == WATCH_BATCH
            for row in rows:
                place.since = row[0]
                if row[1] in place.wanted:
                    yield _change(row)
            if not more:
                await self._news(place)

    async def acquire(self, name: str, holder: str, ttl_s: float) -> Lease | None:
        """Take or renew a lease, by the one clock of all processes of the store."""
        epoch = await self._lease(lambda db: sql.take_lease(db, name, holder, ttl_s))
        return None if epoch is None else Lease(name, holder, epoch, ttl_s)

    async def release(self, lease: Lease) -> None:
        """Give a lease back early."""
        await self._lease(lambda db: sql.drop_lease(db, lease.name, lease.holder, lease.epoch))


def _changes(db: Database, since: int) -> Sequence[Row]:
    """Return the changes after a revision, some at a time.  Raises Expired."""
    oldest, rows = sql.changes(db, since, WATCH_BATCH)
    if since < oldest:
        raise Expired(f"changes up to revision {oldest} are no longer kept: list again and watch from there")
    return rows


def _change(row: Row) -> Change:
    revision, kind, namespace, name, change, body, before = row
    made = ChangeType(change)
    previous = records.parse(kind, bytes(before)) if made is ChangeType.MODIFIED and before else None
    return Change(revision, made, Key(kind, namespace, name), records.parse(kind, bytes(body)), previous)
