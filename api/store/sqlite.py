"""SQLite adapter of the store: WAL, `synchronous=FULL`, one writer thread.  For one machine; never a network disk.

A write returns after its fsync, which it shares with all that waited beside it.  Readers have connections of their own:
in WAL mode a read sees every commit before it began.  What is read by key is read in the caller's thread: it takes less
time than a hop to another.  Source of the settings: `guarantees.md` finding 2, sqlite.org/wal.html.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from api.errors import DataLoss, FailedPrecondition, ResourceExhausted, Unavailable
from api.store import opening, sql
from api.store.base import Key
from api.store.bell import Place
from api.store.database import SQLITE, Bound, Database, Dialect, Rows
from api.store.filesystem import refuse_network
from api.store.sqlstore import WINDOW, WINDOW_S, Read, SqlStore
from api.store.wal_index import Kept, WalIndex
from api.store.writer import LostError, Work, Writer, closed

T = TypeVar("T")

BALLAST_BYTES = 16 * 1024 * 1024
WRITES_AT_ONCE = 128
READERS = 4
BUSY_S = 5.0
# A larger file is checked while the store already works: a check takes 2 seconds for each GiB.
CHECKED_BYTES = 64 * 1024 * 1024
# After so many transactions what is in the log is copied into the file, when their writes are answered: a commit that
# does it lets its write wait for 10 ms more.  One that finds so many pages there, of large objects, still does.
COPIED_AFTER = 48
MOST_LOGGED_PAGES = 4000
# How soon a watcher hears of what another process wrote; to ask costs a few microseconds.
POLL_S = 0.25
NO_MORE_SPACE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

log = logging.getLogger(__name__)


class SqliteDatabase:
    """A connection to the file."""

    url = "sqlite://"

    def __init__(self, path: Path, busy_s: float = BUSY_S) -> None:
        self.driver = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=busy_s)
        self.driver.create_function("monotonic", 0, lambda: time.monotonic())
        try:
            for setting in ("synchronous=FULL", "foreign_keys=ON", "case_sensitive_like=ON"):
                self.driver.execute(f"PRAGMA {setting}")
        except sqlite3.Error:
            self.driver.close()
            raise

    @property
    def dialect(self) -> Dialect:
        """SQLite's."""
        return SQLITE

    def execute(self, statement: str, values: Sequence[Bound] = ()) -> Rows:
        """Run one statement."""
        return self.driver.execute(statement, values)

    def begin(self) -> Database:
        """Begin a transaction that no other process comes between."""
        self.driver.execute("BEGIN IMMEDIATE")
        return self

    def commit(self) -> None:
        """Commit it."""
        self.driver.execute("COMMIT")

    def rollback(self) -> None:
        """Leave it, whatever its state."""
        with contextlib.suppress(sqlite3.Error):
            self.driver.execute("ROLLBACK")

    def has_tables(self, db: Database) -> bool:
        """Whether there is a store."""
        return db.execute("SELECT 1 FROM sqlite_master WHERE name = 'schema_version'").fetchone() is not None

    def close(self) -> None:
        """Disconnect."""
        self.driver.close()


class Session:
    """The connection on which is written."""

    def __init__(self, path: Path, window: int, window_s: float) -> None:
        self._path, self._window, self._window_s = path, window, window_s
        self.db = _open(path)
        self.db.execute(f"PRAGMA wal_autocheckpoint={MOST_LOGGED_PAGES}")
        self._logged = 0

    def begin(self) -> Database:
        """Begin a transaction."""
        try:
            return self.db.begin()
        except sqlite3.Error as error:
            raise LostError(refusal(self._path, error), alone=False) from error

    def commit(self, *, changed: bool) -> None:
        """Commit; return when it is on the disk."""
        self._logged += 1
        try:
            self.db.commit()
        except sqlite3.Error as error:
            raise LostError(refusal(self._path, error), alone=True) from error

    def rollback(self) -> None:
        """Leave the transaction."""
        self.db.rollback()

    def refused(self, error: BaseException) -> BaseException:
        """Return what a write is answered; SQLite gives some transactions up by itself."""
        told = refusal(self._path, error)
        if not self.db.driver.in_transaction:
            raise LostError(told, alone=True) from error
        return told

    def tidy(self, db: Database) -> bool:
        """Forget old changes and answers."""
        try:
            return sql.tidy(db, self._window, self._window_s)
        except sqlite3.Error as error:
            raise LostError(refusal(self._path, error), alone=False) from error

    def rest(self) -> None:
        """Copy the log into the file, now and then."""
        if self._logged >= COPIED_AFTER:
            self._logged = 0
            # On a full disk it stays in the log, where every reader finds it.
            with contextlib.suppress(sqlite3.Error):
                self.db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    def close(self) -> None:
        """Disconnect."""
        self.db.close()


class SqliteStore(SqlStore):
    """The store in one SQLite file.  `window`, `window_s`: how many changes are kept for watchers, and for how long."""

    def __init__(self, path: Path, *, window: int = WINDOW, window_s: float = WINDOW_S) -> None:
        super().__init__()
        self._path = path
        self._closed = False
        session = Session(path, window, window_s)
        self._here, self._lock = SqliteDatabase(path, busy_s=0.0), threading.Lock()
        self._heard = self._newest()
        # That read made the file of it, if there was none.
        self._index = WalIndex.of(path)
        self._kept = Kept(self._index) if self._index is not None else None
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
        self._thread, self._connections = threading.local(), list[SqliteDatabase]()
        self._writer = Writer(session, self._bell, WRITES_AT_ONCE)
        self._damage: DataLoss | None = None
        self._checking: tuple[SqliteDatabase, threading.Thread] | None = None
        if path.stat().st_size > CHECKED_BYTES:
            checked = SqliteDatabase(path)
            self._checking = (
                checked,
                threading.Thread(target=self._check, args=(checked,), name="store-check", daemon=True),
            )
            self._checking[1].start()

    def _check(self, db: SqliteDatabase) -> None:
        try:
            check(db)
        except DataLoss as damage:
            if not self._closed:
                self._damage = damage

    def _usable(self) -> None:
        if self._closed:
            raise closed()
        if self._damage is not None:
            raise DataLoss(self._damage.message, reason=self._damage.reason)

    def _mine(self) -> SqliteDatabase:
        """Return the connection of this thread."""
        if not hasattr(self._thread, "db"):
            self._thread.db = SqliteDatabase(self._path)
            self._connections.append(self._thread.db)
        db: SqliteDatabase = self._thread.db
        return db

    async def _write(self, work: Work[T]) -> T:
        self._usable()
        return await self._writer.carry_out(work)

    async def _lease(self, work: Read[T]) -> T:
        return await self._writer.carry_out(lambda db, _: work(db))

    async def _read(self, work: Read[T]) -> T:
        self._usable()
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._snapshot, work)

    def _snapshot(self, work: Read[T]) -> T:
        db = self._mine()
        try:
            db.execute("BEGIN")
            return work(db)
        except sqlite3.Error as error:
            raise refusal(self._path, error) from error
        finally:
            db.rollback()

    async def _point(self, work: Read[T]) -> T:
        self._usable()
        try:
            with self._lock:
                return work(self._here)
        except sqlite3.Error as error:
            if _kind_of(error) in BUSY:
                return await self._read(work)
            raise refusal(self._path, error) from error

    def peek(self, key: Key) -> bytes | None:
        """Return the bytes of an object; None if there is none, or it cannot be read now."""
        if self._closed or self._damage is not None:
            return None
        if self._kept is not None and (found := self._kept.find(key)) is not None:
            return found
        try:
            with self._lock:
                if self._kept is not None:
                    self._kept.begin()
                found = sql.body(self._here, key)
                if self._kept is not None and found is not None:
                    self._kept.keep(key, found)
                return found
        except sqlite3.Error:
            return None

    async def _news(self, place: Place) -> None:
        while not self._closed and not await self._bell.after(place, POLL_S):
            if not self._closed and (found := self._newest()) > max(self._heard, self._writer.revision):
                self._heard = found
                self._bell.ring()

    def _newest(self) -> int:
        """Return the newest revision of all processes, read here; 0 when it cannot be read now."""
        with self._lock, contextlib.suppress(sqlite3.Error):
            return sql.revision(self._here)
        return 0

    async def close(self) -> None:
        """Stop."""
        if not self._closed:
            self._closed = True
            await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        if self._checking is not None:
            db, thread = self._checking
            db.driver.interrupt()
            thread.join()
            db.close()
        self._readers.shutdown()
        for db in [*self._connections, self._here]:
            db.close()
        # Last of all: the connection that closes last empties the log into the file.
        self._writer.close()
        if self._index is not None:
            self._index.close()
        self._bell.ring()


def _kind_of(error: BaseException) -> int:
    # The low byte is the kind of the error, the rest says more of where it came from.
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def refusal(path: Path, error: BaseException) -> BaseException:
    """Return what is answered when the database fails; what is no failure of it stays what it is."""
    code = _kind_of(error)
    if code in NO_MORE_SPACE:
        # The reserved space: deletes and leases still work on a full disk (finding 8).
        with contextlib.suppress(OSError):
            os.unlink(ballast_path(path))
        return ResourceExhausted(
            "the volume of the resource store is full: nothing was written; free space or delete objects",
            reason="DISK_FULL",
        )
    if code in BUSY:
        return Unavailable("another process holds the resource store: try again", reason="STORE_BUSY")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return DataLoss(
            "the resource store is damaged: stop the server and restore it from a backup", reason="STORE_CORRUPT"
        )
    return error


def ballast_path(path: Path) -> Path:
    """Where the reserved space stands."""
    return path.with_name(path.name + ".ballast")


def _open(path: Path) -> SqliteDatabase:
    refuse_network(path)
    if path.exists() and path.stat().st_mode & 0o022:
        raise FailedPrecondition(f"others may write {path.name}: run chmod 600 on it", reason="STORE_PERMISSIONS")
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise FailedPrecondition(
            f"{path.name} cannot be opened: {error.strerror}", reason="STORE_UNREADABLE"
        ) from error
    try:
        db = SqliteDatabase(path)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            if path.stat().st_size <= CHECKED_BYTES:
                check(db)
            opening.prepare(db)
        except BaseException:
            db.close()
            raise
    except sqlite3.DatabaseError as error:
        raise DataLoss(f"the resource store cannot be read: {error}", reason="STORE_CORRUPT") from error
    _reserve(ballast_path(path))
    return db


def check(db: SqliteDatabase) -> None:
    """Read every page.  Raises DataLoss when one is damaged.  Takes 2 seconds for each GiB."""
    try:
        found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.DatabaseError as error:
        if _kind_of(error) == sqlite3.SQLITE_INTERRUPT:
            return
        found = str(error)
    if found != "ok":
        log.error("the resource store is damaged: %s", found)
        raise DataLoss("the resource store is damaged: restore it from a backup", reason="STORE_CORRUPT")


def _reserve(path: Path) -> None:
    if path.exists():
        return
    with contextlib.suppress(OSError), path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, BALLAST_BYTES)
