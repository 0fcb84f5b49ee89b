"""Copies of a SQLite store that is in use, and a store put back from a copy, as it was at any revision the copy keeps.

What is restored goes on far above every revision that was ever handed out, so that no client mistakes a new state for
one that it knew: watches and pages from before end with Expired.  Source: etcd's restore with bumped revisions.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.audit import Entry, canonical
from api.errors import AlreadyExists, DataLoss, FailedPrecondition, InvalidArgument, NotFound
from api.store import opening, sql
from api.store.base import ChangeType, Key
from api.store.database import Database
from api.store.records import parse
from api.store.sqlite import SqliteDatabase
from api.store.values import indexed

# More than a store hands out between a copy and the loss of what it was a copy of.
JUMP = 10**9
# The same for the terms of leaders: one of before must not be taken for one of after.
EPOCH_JUMP = 10**6
BESIDE = ("", "-wal", "-shm")
ASIDE = ".before-restore"


@dataclass(frozen=True)
class Restored:
    """What was put back.  revision: whose state it is; newest: from where the store goes on; objects: how many."""

    revision: int
    newest: int
    objects: int


def backup(store: Path, copy: Path) -> int:
    """Write a copy of one state of a store that may be in use; return its revision.  `copy` must not exist."""
    if not store.exists():
        raise NotFound(f"there is no store at {store}")
    if copy.exists():
        raise AlreadyExists(f"{copy} exists: choose another name")
    unfinished = copy.with_name(copy.name + ".unfinished")
    unfinished.unlink(missing_ok=True)
    os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with (
        contextlib.closing(sqlite3.connect(store)) as source,
        contextlib.closing(sqlite3.connect(unfinished)) as target,
    ):
        source.backup(target)
        # One file, without a log beside it.
        target.execute("PRAGMA journal_mode=DELETE")
        if target.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise DataLoss(f"the store at {store} is damaged: its copy is no good", reason="STORE_CORRUPT")
        revision = int(target.execute("SELECT revision FROM counter").fetchone()[0])
    _put_in_place(unfinished, copy)
    return revision


def restore(copy: Path, store: Path, entry: Entry, revision: int | None = None) -> Restored:
    """Make a store from a copy: the state of its newest revision, or of an earlier one.  Nobody may use `store`.

    entry: who restores, for the audit log.  What stood at `store` is kept beside it as `.before-restore`.
    Raises InvalidArgument for a revision that the copy does not reach, FailedPrecondition for one it no longer keeps.
    """
    if not copy.exists():
        raise NotFound(f"there is no copy at {copy}")
    unfinished = store.with_name(store.name + ".unfinished")
    try:
        _remove(unfinished)
        restored = _rewound(copy, unfinished, entry, revision)
        _remove(store.with_name(store.name + ASIDE))
        for ending in BESIDE:
            there = store.with_name(store.name + ending)
            if there.exists():
                there.rename(store.with_name(store.name + ASIDE + ending))
        _put_in_place(unfinished, store)
    except sqlite3.DatabaseError as error:
        raise DataLoss(f"the copy cannot be read: {error}", reason="STORE_CORRUPT") from error
    finally:
        _remove(unfinished)
    return restored


def _rewound(copy: Path, target: Path, entry: Entry, revision: int | None) -> Restored:
    """Copy a copy, and put the new one back to a revision."""
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with contextlib.closing(sqlite3.connect(copy)) as source, contextlib.closing(sqlite3.connect(target)) as written:
        source.backup(written)
    with contextlib.closing(SqliteDatabase(target)) as db:
        if not db.has_tables(db) or db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise DataLoss("the copy is no store, or it is damaged: take another", reason="STORE_CORRUPT")
        opening.prepare(db)
        db.begin()
        try:
            restored = rewind(db, entry, revision)
            db.commit()
        except BaseException:
            db.rollback()
            raise
        db.execute("PRAGMA journal_mode=DELETE")
    return restored


def _remove(path: Path) -> None:
    for ending in BESIDE:
        path.with_name(path.name + ending).unlink(missing_ok=True)


def rewind(db: Database, entry: Entry, revision: int | None = None) -> Restored:
    """Put a store back to a revision, and let it go on above all others.  Inside a transaction of the caller."""
    newest, compacted = (int(n) for n in db.execute("SELECT revision, compacted FROM counter").fetchone())
    wanted = newest if revision is None else revision
    if not 0 <= wanted <= newest:
        raise InvalidArgument(f"the copy ends at revision {newest}: there is no {wanted} in it", reason="RV_IN_FUTURE")
    if wanted < compacted:
        told = f"the copy keeps the changes since revision {compacted}: take an older copy to restore {wanted}"
        raise FailedPrecondition(told, reason="EXPIRED")
    _undo(db, wanted)
    following = newest + JUMP
    db.execute("DELETE FROM change")
    db.execute("UPDATE counter SET revision = ?, compacted = ?", (following, following))
    db.execute("UPDATE lease SET expires = 0, holder = '', epoch = epoch + ?", (EPOCH_JUMP,))
    sql.append_audit(db, canonical(entry))
    (objects,) = db.execute("SELECT count(*) FROM object").fetchone()
    return Restored(wanted, following, int(objects))


def _undo(db: Database, revision: int) -> None:
    """Give every object that changed after `revision` the state that it had then."""
    first: dict[Key, tuple[str, Any]] = {}
    since = None
    for kind, namespace, name, change, previous, time in db.execute(
        "SELECT kind, namespace, name, type, previous, time FROM change WHERE revision > ? ORDER BY revision",
        (revision,),
    ).fetchall():
        since = time if since is None else since
        first.setdefault(Key(kind, namespace, name), (change, previous))
    for key, (change, previous) in first.items():
        sql.remove(db, key)
        if change != ChangeType.ADDED.value:
            if previous is None:
                told = f"the copy does not keep what {key} was at revision {revision}: take an older copy"
                raise FailedPrecondition(told, reason="EXPIRED")
            raw = bytes(previous)
            stood = parse(key.kind, raw)
            sql.insert(db, key, stood, raw, indexed(stood))
    if since is not None:
        # What was answered then did not happen: asked again, it is carried out.
        db.execute("DELETE FROM request WHERE time >= ?", (since,))


def _put_in_place(unfinished: Path, final: Path) -> None:
    """Rename a file that is whole, and keep its name over a power loss."""
    for path in (unfinished, final.parent):
        descriptor = os.open(path, os.O_RDONLY)
        if path == final.parent:
            unfinished.rename(final)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
