"""SQLite adapter of the store: WAL, `synchronous=FULL`, one writer thread.  For one machine; never a network disk.

A write returns after its fsync.  Reads go through the same thread: the queue keeps every reader behind the writes that
were acknowledged before it.  Source of the settings: `guarantees.md` finding 2, sqlite.org/wal.html.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from api.errors import (
    ApiError,
    Conflict,
    DataLoss,
    Expired,
    FailedPrecondition,
    NotFound,
    ResourceExhausted,
)
from api.kinds import Resource, kinds
from api.store import sql
from api.store.base import Change, ChangeType, Key, Lease, Page, Preconditions, Query, Write, already_exists
from api.store.values import indexed, key_of
from api.validation import shown

T = TypeVar("T")

BALLAST_BYTES = 16 * 1024 * 1024
WATCH_BATCH = 500


class SqliteStore:
    """The store in one SQLite file.  `window`: how many changes are kept for watchers."""

    def __init__(self, path: Path, *, window: int = 100_000) -> None:
        self._path = path
        self._window = window
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._committed = asyncio.Event()
        self._closed = False
        self._db = self._executor.submit(_open, path).result()

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._closed:
            raise FailedPrecondition("the store is closed", reason="STORE_CLOSED")
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._guarded, work)

    def _guarded(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return work(self._db)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
                raise
            self._free_ballast()
            raise ResourceExhausted(
                "the volume of the resource store is full: nothing was written; free space or delete objects",
                reason="DISK_FULL",
            ) from error

    def _free_ballast(self) -> None:
        """Give back the reserved space, so that deletes and leases still work on a full disk (finding 8)."""
        with contextlib.suppress(OSError):
            os.unlink(ballast_path(self._path))

    def _write(self, db: sqlite3.Connection, work: Callable[[int], T]) -> T:
        db.execute("BEGIN IMMEDIATE")
        try:
            (revision,) = db.execute("UPDATE counter SET revision = revision + 1 RETURNING revision").fetchone()
            result = work(revision)
            if revision % 1000 == 0:
                sql.compact(db, revision - self._window)
            db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise
        return result

    async def _commit(self, work: Callable[[sqlite3.Connection, int], T]) -> T:
        result = await self._run(lambda db: self._write(db, lambda revision: work(db, revision)))
        self._committed.set()
        self._committed = asyncio.Event()
        return result

    async def get(self, key: Key) -> Resource:
        """Return the object at `key`."""
        body = await self._run(lambda db: sql.body(db, key))
        if body is None:
            raise not_found(key)
        return parse(key.kind, body)

    async def list(self, kind: str, query: Query) -> Page:
        """Return the objects of `kind` that match."""
        return await self._run(lambda db: sql.select(db, kind, query, parse))

    async def create(self, write: Write) -> Resource:
        """Store a new object."""
        key = key_of(write.resource)

        def work(db: sqlite3.Connection, revision: int) -> Resource:
            if (taken := sql.body(db, key)) is not None:
                raise already_exists(key, parse(key.kind, taken).metadata.uid)
            require(db, write.must_exist)
            return put(db, write.resource, revision, ChangeType.ADDED)

        return await self._commit(work)

    async def update(self, write: Write) -> Resource:
        """Replace an object if it is still the version that was read."""
        key = key_of(write.resource)

        def work(db: sqlite3.Connection, revision: int) -> Resource:
            stored = sql.body(db, key)
            if stored is None:
                raise not_found(key)
            check_version(key, parse(key.kind, stored).metadata.resourceVersion, write.expect)
            require(db, write.must_exist)
            return put(db, write.resource, revision, ChangeType.MODIFIED)

        return await self._commit(work)

    async def delete(self, key: Key, preconditions: Preconditions) -> Resource:
        """Remove an object for good."""

        def work(db: sqlite3.Connection, revision: int) -> Resource:
            stored = sql.body(db, key)
            if stored is None:
                raise not_found(key)
            resource = parse(key.kind, stored)
            if preconditions.uid and preconditions.uid != resource.metadata.uid:
                raise Conflict(f"{key} has uid {resource.metadata.uid}, not {preconditions.uid}: read it again")
            check_version(key, resource.metadata.resourceVersion, preconditions.resource_version)
            sql.remove(db, key)
            resource.metadata.resourceVersion = str(revision)
            sql.log(db, revision, ChangeType.DELETED, key, resource.SerializeToString())
            return resource

        return await self._commit(work)

    async def dependents(self, uid: str) -> Sequence[Key]:
        """Return the objects whose ownerReferences name `uid`."""
        return await self._run(lambda db: sql.dependents(db, uid))

    async def revision(self) -> int:
        """Return the newest committed revision."""
        return await self._run(lambda db: int(db.execute("SELECT revision FROM counter").fetchone()[0]))

    async def watch(self, kinds: Collection[str], since: int) -> AsyncIterator[Change]:
        """Yield every change of `kinds` after revision `since`, for ever."""
        wanted = frozenset(kinds)
        while True:
            news = self._committed
            oldest, rows = await self._run(lambda db: sql.changes(db, since, WATCH_BATCH))
            if since < oldest:
                raise Expired(f"changes up to revision {oldest} are no longer kept: list again and watch from there")
            for revision, kind, namespace, name, change, body in rows:
                since = revision
                if kind in wanted:
                    yield Change(revision, ChangeType(change), Key(kind, namespace, name), parse(kind, body))
            if len(rows) < WATCH_BATCH:
                await news.wait()

    async def acquire(self, name: str, holder: str, ttl_s: float) -> Lease | None:
        """Take or renew a lease.  Its clock is the machine's monotonic one: processes of one machine share it."""

        def work(db: sqlite3.Connection) -> Lease | None:
            db.execute("BEGIN IMMEDIATE")
            try:
                epoch = sql.take_lease(db, name, holder, time.monotonic(), ttl_s)
                db.execute("COMMIT")
            except BaseException:
                db.execute("ROLLBACK")
                raise
            return None if epoch is None else Lease(name, holder, epoch, ttl_s)

        return await self._run(work)

    async def release(self, lease: Lease) -> None:
        """Give a lease back early."""
        await self._run(lambda db: sql.drop_lease(db, lease.name, lease.holder, lease.epoch))

    async def close(self) -> None:
        """Stop."""
        if not self._closed:
            await self._run(lambda db: db.close())
            self._closed = True
            self._executor.shutdown()


def put(db: sqlite3.Connection, resource: Resource, revision: int, change: ChangeType) -> Resource:
    """Write object, index values, labels, owners and change record."""
    resource.metadata.resourceVersion = str(revision)
    body = resource.SerializeToString(deterministic=True)
    key = key_of(resource)
    sql.remove(db, key)
    sql.insert(db, key, resource, body, indexed(resource))
    sql.log(db, revision, change, key, body)
    return resource


def parse(kind: str, body: bytes) -> Resource:
    """Return the object of stored bytes."""
    resource: Resource = kinds()[kind].message.FromString(body)
    return resource


def not_found(key: Key) -> NotFound:
    """Return the refusal for a missing object."""
    return NotFound(f"there is no {key.kind} {shown(key.name)!r} in {shown(key.namespace)!r}")


def require(db: sqlite3.Connection, keys: Sequence[Key]) -> None:
    """Check inside the transaction that referees are still there."""
    for key in keys:
        if sql.body(db, key) is None:
            raise FailedPrecondition(f"{key.kind} {key.name!r} in {key.namespace!r} is gone", reason="REFERENCE_GONE")


def check_version(key: Key, current: str, expected: str) -> None:
    """Compare and swap: refuse a write that was computed from another version."""
    if expected and expected != current:
        raise Conflict(f"{key} is at resourceVersion {current}, not {expected}: read it again and retry")


def ballast_path(path: Path) -> Path:
    """Where the reserved space stands."""
    return path.with_name(path.name + ".ballast")


def _open(path: Path) -> sqlite3.Connection:
    if path.exists() and path.stat().st_mode & 0o022:
        raise FailedPrecondition(f"others may write {path.name}: run chmod 600 on it", reason="STORE_PERMISSIONS")
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600)):
        pass
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise DataLoss("the resource store is damaged: restore it from a backup", reason="STORE_CORRUPT")
        sql.migrate(db)
    except sqlite3.DatabaseError as error:
        db.close()
        raise DataLoss(f"the resource store cannot be read: {error}", reason="STORE_CORRUPT") from error
    except ApiError:
        db.close()
        raise
    _reserve(ballast_path(path))
    return db


def _reserve(path: Path) -> None:
    if path.exists():
        return
    with contextlib.suppress(OSError), path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, BALLAST_BYTES)
