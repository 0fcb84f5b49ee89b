"""A SQLite store that is copied while it is in use, and one that is filled from a copy in one transaction.

What stood there is kept beside it as `.before-restore`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from api.errors import FailedPrecondition, NotFound
from api.store.backup_file import BESIDE, fresh, put_in_place, remove
from api.store.backup_place import Former
from api.store.sqlite import BUSY, SqliteDatabase

ASIDE = ".before-restore"
# Of a file with more pages to spare the rest is written anew.
SPARE_PAGES = 1000


def copy_out(store: Path, db: SqliteDatabase) -> None:
    """Copy one state of a store page by page; whoever writes meanwhile does not wait."""
    if not store.exists():
        raise NotFound(f"there is no store at {store}")
    with contextlib.closing(sqlite3.connect(store)) as source:
        source.backup(db.driver)


class SqlitePlace:
    """The place of a store."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._aside = store.with_name(store.name + ASIDE)
        self._held: sqlite3.Connection | None = None
        self._new = False
        self.folder = store.parent

    @contextlib.contextmanager
    def taken(self) -> Iterator[Former]:
        """Keep others out and yield what stands here.  Raises FailedPrecondition while a process uses the store."""
        self._new = not self._store.exists()
        if self._new:
            os.close(os.open(self._store, os.O_CREAT | os.O_WRONLY, 0o600))
        filled = False
        try:
            self._held = _locked(self._store)
            yield Former() if self._held is None else _former(self._held)
            filled = True
        finally:
            if self._held is not None:
                self._held.close()
            if self._new and not filled:
                remove(self._store)

    def put(self, made: Path) -> None:
        """Put a store here.  Killed at any moment, one of both is here, whole."""
        with contextlib.closing(SqliteDatabase(made)) as db:
            (spare,) = db.execute("PRAGMA freelist_count").fetchone()
            if spare > SPARE_PAGES:
                db.execute("VACUUM")
            db.execute("PRAGMA journal_mode=DELETE")
        if self._held is None or _page_bytes(self._held) != _page_bytes(made):
            self._replace(made)
            return
        if not self._new:
            with fresh(self._aside.with_name(self._aside.name + ".unfinished")) as unfinished:
                _copy(self._held, unfinished)
                put_in_place(unfinished, self._aside)
        # Into the same file, in one transaction: who waits for it finds the new store, not one that nobody sees.
        with contextlib.closing(sqlite3.connect(made)) as source:
            source.backup(self._held)

    def _replace(self, made: Path) -> None:
        """Put a store in the place of a file that cannot be read as one."""
        if self._held is not None:
            self._held.close()
        remove(self._aside)
        for ending in BESIDE:
            there = self._store.with_name(self._store.name + ending)
            if there.exists():
                os.link(there, self._aside.with_name(self._aside.name + ending))
                if ending:
                    # A log beside the new store would be taken for its own.
                    there.unlink()
        put_in_place(made, self._store)


def _copy(source: sqlite3.Connection, path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as target:
        source.backup(target)
        target.execute("PRAGMA journal_mode=DELETE")


def _page_bytes(store: sqlite3.Connection | Path) -> int:
    if isinstance(store, Path):
        with contextlib.closing(sqlite3.connect(store)) as db:
            return _page_bytes(db)
    return int(store.execute("PRAGMA page_size").fetchone()[0])


def _locked(store: Path) -> sqlite3.Connection | None:
    """Return the only connection to a store, None if it cannot be read.  Raises FailedPrecondition."""
    db = sqlite3.connect(store, isolation_level=None, timeout=0.0)
    try:
        # Connections to a store with a log hold the file as long as they are open: this finds each of them.
        for statement in ("PRAGMA locking_mode=EXCLUSIVE", "PRAGMA synchronous=FULL", "BEGIN EXCLUSIVE", "COMMIT"):
            db.execute(statement)
        if db.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok":
            return db
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in BUSY:
            db.close()
            told = f"a process uses {store}: stop the API servers, then restore"
            raise FailedPrecondition(told, reason="STORE_IN_USE") from error
    db.close()
    return None


def _former(db: sqlite3.Connection) -> Former:
    """Return how far a store came; nothing of an empty file."""
    with contextlib.suppress(sqlite3.Error):
        (revision,) = db.execute("SELECT revision FROM counter").fetchone()
        return Former(int(revision), dict(db.execute("SELECT name, epoch FROM lease").fetchall()))
    return Former()
