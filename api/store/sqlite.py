"""SQLite adapter of the store: WAL, `synchronous=FULL`, one writer thread.  For one machine; never a network disk.

A write returns after its fsync.  Reads go through the same thread: the queue keeps every reader behind the writes that
were acknowledged before it.  Source of the settings: `guarantees.md` finding 2, sqlite.org/wal.html.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from api.audit import Entry, Record, canonical
from api.errors import ApiError, DataLoss, Expired, FailedPrecondition, ResourceExhausted, Unavailable
from api.kinds import Resource
from api.store import records, sql
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
    already_exists,
)
from api.store.records import NextRevision
from api.store.values import key_of

T = TypeVar("T")

BALLAST_BYTES = 16 * 1024 * 1024
WATCH_BATCH = 500
COMPACT_EVERY = 1000
REQUESTS_KEPT_S = 48 * 3600.0


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
        except sqlite3.DatabaseError as error:
            # The low byte is the kind of the error, the rest says more of where it came from.
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
                self._free_ballast()
                raise ResourceExhausted(
                    "the volume of the resource store is full: nothing was written; free space or delete objects",
                    reason="DISK_FULL",
                ) from error
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise Unavailable("another process holds the resource store: try again", reason="STORE_BUSY") from error
            if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise DataLoss(
                    "the resource store is damaged: stop the server and restore it from a backup",
                    reason="STORE_CORRUPT",
                ) from error
            raise

    def _free_ballast(self) -> None:
        """Give back the reserved space, so that deletes and leases still work on a full disk (finding 8)."""
        with contextlib.suppress(OSError):
            os.unlink(ballast_path(self._path))

    def _write(self, db: sqlite3.Connection, work: Callable[[NextRevision], T]) -> T:
        db.execute("BEGIN IMMEDIATE")
        try:
            (before,) = db.execute("SELECT revision FROM counter").fetchone()
            result = work(lambda: sql.next_revision(db))
            (after,) = db.execute("SELECT revision FROM counter").fetchone()
            if before // COMPACT_EVERY < after // COMPACT_EVERY:
                sql.compact(db, after - self._window)
                sql.forget_requests(db, time.time() - REQUESTS_KEPT_S)
            db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise
        return result

    async def _commit(self, work: Callable[[sqlite3.Connection, NextRevision], T]) -> T:
        loop = asyncio.get_running_loop()

        def write(db: sqlite3.Connection) -> T:
            result = self._write(db, lambda following: work(db, following))
            # From here, not after the await: the caller may have left while this was on its way.
            loop.call_soon_threadsafe(self._wake)
            return result

        return await self._run(write)

    def _wake(self) -> None:
        self._committed.set()
        self._committed = asyncio.Event()

    async def get(self, key: Key) -> Resource:
        """Return the object at `key`."""
        found = await self._run(lambda db: records.find(db, key))
        if found is None:
            raise records.not_found(key)
        return found

    async def list(self, kind: str, query: Query) -> Page:
        """Return the objects of `kind` that match."""
        return await self._run(lambda db: sql.select(db, kind, query, records.parse))

    async def create(self, write: Write, trail: Trail = NO_TRAIL) -> Resource:
        """Store a new object."""
        key = key_of(write.resource)

        def work(db: sqlite3.Connection, following: NextRevision) -> Resource:
            if (answered := records.replayed(db, trail, key.kind)) is not None:
                return answered
            if (taken := records.find(db, key)) is not None:
                raise already_exists(key, taken.metadata.uid)
            records.require(db, write.must_exist)
            created = records.put(db, write.resource, following(), ChangeType.ADDED)
            records.leave(db, trail, None, created)
            return created

        return await self._commit(work)

    async def update(self, write: Write, trail: Trail = NO_TRAIL) -> Resource:
        """Replace an object if it is still the version that was read."""
        key = key_of(write.resource)

        def work(db: sqlite3.Connection, following: NextRevision) -> Resource:
            if (answered := records.replayed(db, trail, key.kind)) is not None:
                return answered
            stored = records.find(db, key)
            if stored is None:
                raise records.not_found(key)
            records.check(key, stored, Preconditions(resource_version=write.expect))
            records.require(db, write.must_exist)
            updated = records.put(db, write.resource, following(), ChangeType.MODIFIED)
            records.leave(db, trail, stored, updated)
            return updated

        return await self._commit(work)

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

        def work(db: sqlite3.Connection, following: NextRevision) -> Resource:
            if (answered := records.replayed(db, trail, key.kind)) is not None:
                return answered
            stored = records.find(db, key)
            if stored is None:
                raise records.not_found(key)
            records.check(key, stored, preconditions)
            before = copy.deepcopy(stored)
            gone = records.delete(db, stored, following, orphan=orphan, finalized=finalized)
            marked = bool(before.metadata.finalizers) and not finalized
            records.leave(db, trail, before, gone if marked else None)
            return gone

        return await self._commit(work)

    async def remembered(self, request: Request, kind: str) -> Resource | None:
        """Return what a repeated request answered with."""
        return await self._run(lambda db: records.remembered(db, request, kind))

    async def record(self, entry: Entry) -> None:
        """Append to the audit log what changed nothing."""
        await self._commit(lambda db, _: sql.append_audit(db, canonical(entry)))

    async def audit(self, after: int, limit: int) -> Sequence[Record]:
        """Return audit records, oldest first."""
        return await self._run(lambda db: sql.audit(db, after, limit))

    async def revision(self) -> int:
        """Return the newest committed revision."""
        return await self._run(lambda db: int(db.execute("SELECT revision FROM counter").fetchone()[0]))

    async def watch(self, kinds: Collection[str], since: int) -> AsyncIterator[Change]:
        """Yield every change of `kinds` after revision `since`, for ever."""
        wanted = frozenset(kinds)
        while True:
            news = self._committed
            oldest, rows = await self._run(functools.partial(sql.changes, since=since, limit=WATCH_BATCH))
            if since < oldest:
                raise Expired(f"changes up to revision {oldest} are no longer kept: list again and watch from there")
            for revision, kind, namespace, name, change, body in rows:
                since = revision
                if kind in wanted:
                    yield Change(revision, ChangeType(change), Key(kind, namespace, name), records.parse(kind, body))
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


def ballast_path(path: Path) -> Path:
    """Where the reserved space stands."""
    return path.with_name(path.name + ".ballast")


def _open(path: Path) -> sqlite3.Connection:
    if path.exists() and path.stat().st_mode & 0o022:
        raise FailedPrecondition(f"others may write {path.name}: run chmod 600 on it", reason="STORE_PERMISSIONS")
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise FailedPrecondition(
            f"{path.name} cannot be opened: {error.strerror}", reason="STORE_UNREADABLE"
        ) from error
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
