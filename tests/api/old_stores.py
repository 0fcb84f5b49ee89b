"""Stores as releases made them, written by their own statements.  Frozen: a release is never made again.

python -m tests.api.old_stores FOLDER: open a copy of an old store again and again, killed at its first statement, its
second, and so on, until one opening is done; prints how many were killed, and how many different stores came of it.
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from api.kinds import kinds
from api.store import opening
from api.store.sqlite import SqliteDatabase

FIRST = """
CREATE TABLE schema_version (version INTEGER NOT NULL);
CREATE TABLE counter (revision INTEGER NOT NULL, compacted INTEGER NOT NULL, page_key BLOB NOT NULL);
CREATE TABLE object (
  id INTEGER PRIMARY KEY, kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
  uid TEXT NOT NULL, revision INTEGER NOT NULL, body BLOB NOT NULL, UNIQUE (kind, namespace, name));
CREATE TABLE field (
  object INTEGER NOT NULL REFERENCES object(id) ON DELETE CASCADE, kind TEXT NOT NULL, key TEXT NOT NULL, value,
  PRIMARY KEY (object, key)) WITHOUT ROWID;
CREATE INDEX field_value ON field (kind, key, value, object);
CREATE TABLE label (
  object INTEGER NOT NULL REFERENCES object(id) ON DELETE CASCADE, kind TEXT NOT NULL, key TEXT NOT NULL,
  value TEXT NOT NULL, PRIMARY KEY (object, key)) WITHOUT ROWID;
CREATE INDEX label_value ON label (kind, key, value, object);
CREATE TABLE owner (
  uid TEXT NOT NULL, object INTEGER NOT NULL REFERENCES object(id) ON DELETE CASCADE, PRIMARY KEY (uid, object)
  ) WITHOUT ROWID;
CREATE TABLE change (
  revision INTEGER PRIMARY KEY, kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
  type TEXT NOT NULL, body BLOB NOT NULL);
CREATE TABLE lease (
  name TEXT PRIMARY KEY, holder TEXT NOT NULL, epoch INTEGER NOT NULL, expires REAL NOT NULL);
"""
TRAIL = """
CREATE TABLE request (
  scope TEXT NOT NULL, id TEXT NOT NULL, digest BLOB NOT NULL, answer BLOB NOT NULL, time REAL NOT NULL,
  PRIMARY KEY (scope, id)) WITHOUT ROWID;
CREATE TABLE audit (number INTEGER PRIMARY KEY, body BLOB NOT NULL, head BLOB NOT NULL);
"""


def first(path: Path, *, trail: bool, objects: int = 3) -> Sequence[Any]:
    """Make a store of the first release, with or without the tables it got later; return its objects."""
    made = []
    path.touch(0o600)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.executescript(FIRST + (TRAIL if trail else ""))
        db.execute("INSERT INTO schema_version VALUES (1)")
        db.execute("INSERT INTO counter VALUES (?, 0, ?)", (objects, b"k" * 32))
        for number in range(1, objects + 1):
            one = kinds()["Model"].new("shop", f"m-{number}")
            one.metadata.uid, one.metadata.resourceVersion = f"uid-{number}", str(number)
            one.metadata.creationTimestamp.seconds = number
            one.metadata.labels["team"] = f"t{number % 2}"
            one.spec.algorithm, one.spec.description = f"a{number % 2}", "x" * 300
            if number > 1:
                one.metadata.ownerReferences.add(kind="Model", name="m-1", uid="uid-1")
                db.execute("INSERT INTO owner VALUES ('uid-1', ?)", (number,))
            body = one.SerializeToString(deterministic=True)
            where = ("Model", "shop", one.metadata.name)
            db.execute(
                "INSERT INTO object VALUES (?, ?, ?, ?, ?, ?, ?)", (number, *where, f"uid-{number}", number, body)
            )
            db.execute("INSERT INTO field VALUES (?, 'Model', 'algorithm', ?)", (number, one.spec.algorithm))
            db.execute("INSERT INTO label VALUES (?, 'Model', 'team', ?)", (number, f"t{number % 2}"))
            db.execute("INSERT INTO change VALUES (?, ?, ?, ?, 'ADDED', ?)", (number, *where, body))
            made.append(one)
        db.execute("INSERT INTO lease VALUES ('leader', 'a', 7, 0)")
    return made


def killed_at_each_statement(folder: Path) -> tuple[int, set[str]]:
    """Open an old store, killed at one statement after the other, and again; return how many were, and what is left."""
    # Loaded here, not in each of the openings.
    importlib.import_module("api.store.migrations")
    old, path, left = folder / "old.db", folder / "store.db", set()
    first(old, trail=False)
    for number in range(1000):
        for ending in ("", "-wal", "-shm"):
            path.with_name(path.name + ending).unlink(missing_ok=True)
        shutil.copy(old, path)
        child = os.fork()
        if child == 0:
            _open(path, number)
            os._exit(0)
        killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
        _open(path, None)
        with closing(sqlite3.connect(path)) as db:
            left.add("\n".join(db.iterdump()))
        if not killed:
            return number, left
    raise AssertionError("it never opened")


def opened(path: Path) -> sqlite3.Connection:
    """Return a connection to a store that was opened and closed again."""
    _open(path, None)
    return sqlite3.connect(path)


def _open(path: Path, killed_at: int | None) -> None:
    db = SqliteDatabase(path)
    left = [killed_at]

    def count(_: str) -> None:
        if left[0] is not None:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1

    db.driver.set_trace_callback(count)
    opening.prepare(db)
    db.driver.set_trace_callback(None)
    db.close()


if __name__ == "__main__":
    killed, states = killed_at_each_statement(Path(sys.argv[1]))
    print(killed, len(states))
