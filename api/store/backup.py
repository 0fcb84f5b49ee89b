"""Copies of a store that is in use, and a store put back from a copy, as it was at any revision the copy keeps.

A copy is a file of SQLite whatever the store is in, so it also leads from one kind of store to another.  What is
restored goes on far above every revision that was ever handed out, so that no client mistakes a new state for one that
it knew: watches and pages from before end with Expired.  Source: etcd's restore with bumped revisions.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.audit import Entry, canonical
from api.errors import ApiError, DataLoss, FailedPrecondition, InvalidArgument, ResourceExhausted
from api.store import backup_file, opening, schema, sql
from api.store.backup_place import Former, Place
from api.store.base import ChangeType, Key
from api.store.database import Database
from api.store.open import FORMS
from api.store.records import parse
from api.store.sqlite import NO_MORE_SPACE, SqliteDatabase
from api.store.values import indexed

# More than a store hands out between a copy and the loss of what it was a copy of.
JUMP = 10**9
# The same for the terms of leaders: one of before must not be taken for one of after.
EPOCH_JUMP = 10**6

# What is done with the database of a copy, before it is sealed and before it is put in place.
Also = Callable[[SqliteDatabase], None]


@dataclass(frozen=True)
class Restored:
    """What was put back.  revision: whose state it is; newest: from where the store goes on; objects: how many."""

    revision: int
    newest: int
    objects: int


def backup(url: str, copy: Path, also: Also | None = None) -> int:
    """Write a copy of one state of a store that may be in use; return its revision.  `copy` must not exist.

    url: as in MA_STORE_URL; also: adds to the copy.  Raises NotFound, AlreadyExists, DataLoss, InvalidArgument, and
    FailedPrecondition for a store that this release or this command does not copy.
    """
    copy_out = _source(url)
    with backup_file.making(copy) as db:
        try:
            copy_out(db)
            db.execute("PRAGMA journal_mode=DELETE")
            if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise DataLoss("the store is damaged: its copy is no good", reason="STORE_CORRUPT")
            # One of a newer release is not understood.
            schema.version(db)
            db.begin()
            backup_file.describe(db)
            if also is not None:
                also(db)
            db.commit()
            revision = sql.revision(db)
        except sqlite3.DatabaseError as error:
            raise _meaning(error, "the store cannot be copied") from error
    return revision


def restore(
    copy: Path,
    url: str,
    entry: Entry,
    revision: int | None = None,
    *,
    replace: bool = False,
    also: Also | None = None,
) -> Restored:
    """Make a store from a copy: the state of its newest revision, or of an earlier one.  Nobody may use the store.

    url: as in MA_STORE_URL; entry: who restores, for the audit log; replace: in a database, whatever stood there goes,
    while what stood in a file is kept beside it; also: is done before anything is replaced.  Killed at any moment, it
    leaves what stood there or what is restored.  Raises DataLoss for a copy that is not as it was written,
    InvalidArgument for a revision that the copy does not reach, FailedPrecondition for one it no longer keeps, for a
    copy of a newer release, for a store in use and for one that is not empty.
    """
    place = _place(url, replace=replace)
    backup_file.check(copy)
    with place.taken() as former, backup_file.fresh(place.folder / f".{copy.name}.restored") as made:
        try:
            restored = _rewound(copy, made, former, entry, revision, also)
        except sqlite3.DatabaseError as error:
            raise _meaning(error, "the copy cannot be read") from error
        place.put(made)
    return restored


def _meaning(error: sqlite3.DatabaseError, what: str) -> ApiError:
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in NO_MORE_SPACE:
        return ResourceExhausted(f"{what}: the volume is full; nothing was changed", reason="DISK_FULL")
    return DataLoss(f"{what}: {error}", reason="STORE_CORRUPT")


def _source(url: str) -> Callable[[SqliteDatabase], None]:
    """Return what copies the store of a URL."""
    if (path := _sqlite(url)) is not None:
        from api.store import backup_sqlite

        return lambda db: backup_sqlite.copy_out(path, db)
    _only_postgres(url)
    from api.store import backup_postgres

    return lambda db: backup_postgres.copy_out(url, db)


def _place(url: str, *, replace: bool) -> Place:
    if (path := _sqlite(url)) is not None:
        from api.store.backup_sqlite import SqlitePlace

        return SqlitePlace(path)
    _only_postgres(url)
    from api.store.backup_postgres import PostgresPlace

    return PostgresPlace(url, replace=replace)


def _sqlite(url: str) -> Path | None:
    scheme, _, path = url.partition(":///")
    return Path(path) if scheme == "sqlite" and path else None


def _only_postgres(url: str) -> None:
    scheme = url.partition(":")[0]
    if scheme == "etcd":
        told = (
            "a store in etcd is copied by etcd: `etcdctl snapshot save`, and `etcdutl snapshot restore --bump-revision"
        )
        raise FailedPrecondition(
            f"{told} 1000000000 --mark-compacted` with the servers stopped", reason="STORE_IN_ETCD"
        )
    if scheme not in ("postgresql", "postgres"):
        raise InvalidArgument(f"{scheme[:16]!r} is no kind of store: write {FORMS}", reason="BAD_STORE_URL")


def _rewound(copy: Path, made: Path, former: Former, entry: Entry, revision: int | None, also: Also | None) -> Restored:
    """Copy a copy, and put the new one back to a revision."""
    with contextlib.closing(backup_file.reading(copy)) as source, contextlib.closing(sqlite3.connect(made)) as target:
        source.backup(target)
    with contextlib.closing(SqliteDatabase(made)) as db:
        if not db.has_tables(db) or db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise DataLoss("the copy is no store, or it is damaged: take another", reason="STORE_CORRUPT")
        opening.prepare(db)
        db.begin()
        restored = rewind(db, entry, revision, former)
        db.commit()
        if also is not None:
            also(db)
        for table in ("copied", "blob"):
            db.execute(f"DROP TABLE IF EXISTS {table}")
        # Whoever takes the file over has one file.
        db.execute("PRAGMA journal_mode=DELETE")
    return restored


def rewind(db: Database, entry: Entry, revision: int | None = None, former: Former | None = None) -> Restored:
    """Put a store back to a revision, and let it go on above all others.  Inside a transaction of the caller.

    former: the store that it replaces, which may have come further.
    """
    former = former or Former()
    newest, compacted = (int(n) for n in db.execute("SELECT revision, compacted FROM counter").fetchone())
    wanted = newest if revision is None else revision
    if not 0 <= wanted <= newest:
        raise InvalidArgument(f"the copy ends at revision {newest}: there is no {wanted} in it", reason="RV_IN_FUTURE")
    if wanted < compacted:
        told = f"the copy keeps the changes since revision {compacted}: take an older copy to restore {wanted}"
        raise FailedPrecondition(told, reason="EXPIRED")
    _undo(db, wanted)
    following = max(newest, former.revision) + JUMP
    db.execute("DELETE FROM change")
    db.execute("UPDATE counter SET revision = ?, compacted = ?", (following, following))
    for name, epoch in former.epochs.items():
        known = "ON CONFLICT (name) DO UPDATE SET epoch = max(lease.epoch, excluded.epoch)"
        db.execute(f"INSERT INTO lease VALUES (?, '', ?, 0, 0) {known}", (name, epoch))  # noqa: S608
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
