"""Opens an old store and dies at its n-th statement, for every n-th until it lives.  One process that forks.

python -m tests.robustness.migration_loop GOLDEN FOLDER EVERY  prints what was found as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from api.store import migrations
from api.store.sqlite import SqliteStore
from tests.robustness.crash_loop import in_child

TABLES = ("object", "label", "owner", "change", "audit", "request")


def golden(script: Path, path: Path) -> None:
    """Make the store of a released version."""
    with closing(sqlite3.connect(path)) as db:
        db.executescript(script.read_text())
        db.execute("PRAGMA journal_mode=WAL")
    path.chmod(0o600)


def open_and_die(path: Path, at: int) -> bool:
    """Open the store in a child that is killed before its `at`-th statement; return whether it lived."""
    child = os.fork()
    if child == 0:
        sqlite3.connect = _counting(at)  # type: ignore[assignment]
        try:
            asyncio.run(SqliteStore(path).close())
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        raise RuntimeError(f"opening failed, though nobody killed it at statement {at}")
    return not os.WIFSIGNALED(status)


def _counting(at: int) -> Callable[..., sqlite3.Connection]:
    real, count = sqlite3.connect, 0

    def counted(_: str) -> None:
        nonlocal count
        count += 1
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def connect(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        db: sqlite3.Connection = real(*args, **kwargs)
        db.set_trace_callback(counted)
        return db

    return connect


def content(path: Path) -> dict[str, list[list[str]]]:
    """Return what a store holds, opened by the present code in a child."""

    def work() -> object:
        asyncio.run(SqliteStore(path).close())
        with closing(sqlite3.connect(path)) as db:
            found = {"check": [list(db.execute("PRAGMA integrity_check").fetchone())]}
            found["schema"] = [[str(sorted(row[0] or "" for row in db.execute("SELECT sql FROM sqlite_master")))]]
            for table in (*TABLES, "field", "indexed"):
                rows = db.execute(f"SELECT * FROM {table}").fetchall()
                found[table] = sorted([repr(value) for value in row] for row in rows)
            return found

    answer: Any = in_child(work)
    return answer  # type: ignore[no-any-return]


def main() -> int:
    """Run as a program."""
    script, folder, every = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    # Loaded once, not in every child.
    migrations.scripts(1)
    golden(script, folder / "whole.db")
    due, faults, at = content(folder / "whole.db"), [], 1 - every
    kills, lived = -1, False
    while not lived:
        at += every
        kills += 1
        path = folder / f"killed-{at}.db"
        golden(script, path)
        lived = open_and_die(path, at)
        found = content(path)
        faults += [f"killed at statement {at}: {name} is another" for name in due if found[name] != due[name]]
        for left in folder.glob(f"{path.name}*"):
            left.unlink()
    print(json.dumps({"kills": kills, "faults": faults}))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
