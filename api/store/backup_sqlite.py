"""A SQLite store that is copied while it is in use, and one that is put in the place of another.  One rename decides.

What stood there is kept beside it as `.before-restore`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from api.errors import FailedPrecondition, NotFound
from api.store.backup_file import BESIDE, put_in_place, remove
from api.store.backup_place import Former
from api.store.sqlite import SqliteDatabase

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
        self.folder = store.parent

    @contextlib.contextmanager
    def taken(self) -> Iterator[Former]:
        """Keep others out and yield what stands here.  Raises FailedPrecondition while a process uses the store."""
        with contextlib.ExitStack() as held:
            self._held = held
            yield _former(held, self._store) if self._store.exists() else Former()

    def put(self, made: Path) -> None:
        """Put a store here.  Killed at any moment, one of both is here, whole."""
        with contextlib.closing(SqliteDatabase(made)) as db:
            (spare,) = db.execute("PRAGMA freelist_count").fetchone()
            if spare > SPARE_PAGES:
                db.execute("VACUUM")
            db.execute("PRAGMA journal_mode=DELETE")
        # A connection that closes later would take the log of the new store for its own.
        self._held.close()
        aside = self._store.with_name(self._store.name + ASIDE)
        remove(aside)
        for ending in BESIDE:
            there = self._store.with_name(self._store.name + ending)
            if there.exists():
                _keep(there, aside.with_name(aside.name + ending))
                if ending:
                    # The log of a store that cannot be read; beside the new one it would be taken for that one's.
                    there.unlink()
        put_in_place(made, self._store)


def _keep(path: Path, beside: Path) -> None:
    try:
        os.link(path, beside)
    except OSError:
        shutil.copy2(path, beside)


def _former(held: contextlib.ExitStack, store: Path) -> Former:
    """Lock the store that stands here, and read how far it came; nothing of one that is damaged."""
    try:
        db = held.enter_context(contextlib.closing(sqlite3.connect(store, isolation_level=None, timeout=0.0)))
        # Connections to a store with a log hold the file as long as they are open: this finds each of them.
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        db.execute("BEGIN EXCLUSIVE")
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (revision,) = db.execute("SELECT revision FROM counter").fetchone()
        return Former(int(revision), dict(db.execute("SELECT name, epoch FROM lease").fetchall()))
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            told = f"a process uses {store}: stop the API servers, then restore"
            raise FailedPrecondition(told, reason="STORE_IN_USE") from error
        return Former()
