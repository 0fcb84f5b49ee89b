"""The file of a copy: a SQLite store, what goes with it, and behind it a digest of every byte.  Knows no other store.

Any tool opens it as a SQLite database; what stands behind the last page is no concern of SQLite.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from api.errors import AlreadyExists, DataLoss, NotFound
from api.store.sqlite import SqliteDatabase

# `copied` says what the copy is; `blob` has the large values that its objects refer to (`api.blob_copies`).
TABLES = (
    "CREATE TABLE copied (time REAL NOT NULL, blobs TEXT NOT NULL)",
    "CREATE TABLE blob (name TEXT PRIMARY KEY, value BLOB NOT NULL)",
)
SEAL = b"\ncopy of a resource store, sha256 "
SEAL_BYTES = len(SEAL) + 64 + 1
READ_BYTES = 1 << 20
BESIDE = ("", "-wal", "-shm", "-journal")


@contextlib.contextmanager
def making(copy: Path) -> Iterator[SqliteDatabase]:
    """Yield the database of a copy in the making.  It appears under its name when it is whole and on the disk."""
    if copy.exists():
        raise AlreadyExists(f"{copy} exists: choose another name")
    unfinished = copy.with_name(copy.name + ".unfinished")
    with fresh(unfinished):
        with contextlib.closing(SqliteDatabase(unfinished)) as db:
            yield db
        _seal(unfinished)
        put_in_place(unfinished, copy)


def describe(db: SqliteDatabase) -> None:
    """Add the tables of a copy to those of its store."""
    for statement in TABLES:
        db.execute(statement)
    db.execute("INSERT INTO copied VALUES (?, '')", (time.time(),))


def is_copy(db: sqlite3.Connection | SqliteDatabase) -> bool:
    """Whether it has the tables of a copy; copies of an older release and plain stores have none."""
    return db.execute("SELECT 1 FROM sqlite_master WHERE name = 'copied'").fetchone() is not None


def check(copy: Path) -> None:
    """Raise NotFound, or DataLoss for a copy that is not what was written.

    The file of a store itself, which is no sealed copy, passes: it is checked as stores are.
    """
    if not copy.is_file():
        raise NotFound(f"there is no copy at {copy}")
    digest, left = hashlib.sha256(), copy.stat().st_size - SEAL_BYTES
    with copy.open("rb") as file:
        while left > 0 and (some := file.read(min(left, READ_BYTES))):
            digest.update(some)
            left -= len(some)
        seal = file.read()
    if seal.startswith(SEAL):
        damaged = seal != SEAL + digest.hexdigest().encode() + b"\n"
    else:
        try:
            with contextlib.closing(reading(copy)) as db:
                damaged = is_copy(db)
        except sqlite3.DatabaseError as error:
            raise DataLoss(f"{copy} is no copy of a store: {error}", reason="STORE_CORRUPT") from error
    if damaged:
        raise DataLoss(f"{copy} is not as it was written: take another copy", reason="COPY_DAMAGED")


def reading(copy: Path) -> sqlite3.Connection:
    """Return a connection that writes nothing.  A store's file may have a log beside it; a copy has none."""
    return sqlite3.connect(f"file:{quote(str(copy))}?mode=ro", uri=True, isolation_level=None)


@contextlib.contextmanager
def fresh(path: Path) -> Iterator[Path]:
    """Make an empty file for its owner alone; what is left of it at the end goes."""
    remove(path)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        yield path
    finally:
        remove(path)


def remove(path: Path) -> None:
    """Remove a database and what SQLite writes beside it."""
    for ending in BESIDE:
        path.with_name(path.name + ending).unlink(missing_ok=True)


def _seal(path: Path) -> None:
    digest = hashlib.sha256()
    with path.open("r+b") as file:
        while some := file.read(READ_BYTES):
            digest.update(some)
        file.write(SEAL + digest.hexdigest().encode() + b"\n")


def put_in_place(unfinished: Path, final: Path) -> None:
    """Rename a file that is whole, and keep its name over a power loss."""
    for path in (unfinished, final.parent):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            if path == final.parent:
                unfinished.rename(final)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
