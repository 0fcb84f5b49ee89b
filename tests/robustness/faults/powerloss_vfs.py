"""A disk that loses power: what was not synced may be on it or not, sector by sector.

A VFS below SQLite keeps what each 512-byte sector had at the last sync.  An image of the disk after a power loss takes
some of the newer sectors and leaves the others as they were.  The store's own code runs above it, on SQLite by APSW.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import apsw

SECTOR = 512
SHARES = (0.0, 0.1, 0.5, 0.9, 1.0)


@dataclass
class Unsynced:
    """What a file had at its last sync: its size, and the sectors that were written since."""

    size: int
    before: dict[int, bytes] = field(default_factory=dict)


class Disk(apsw.VFS):
    """Use `mounted`.  calls: writes and syncs so far; before_call: called ahead of each with its number."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "")
        self.name = name
        self.files: dict[str, Unsynced] = {}
        self.opened: dict[str, _File] = {}
        self.calls = 0
        self.before_call: Callable[[int], None] = lambda number: None

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        """Open a file and remember its state."""
        return _File(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        """Forget a deleted file: that a deletion is lost is not played."""
        self.files.pop(filename, None)
        self.opened.pop(filename, None)
        super().xDelete(filename, syncdir)

    def counted(self) -> None:
        """Count a write or a sync that is about to happen."""
        self.calls += 1
        self.before_call(self.calls)

    def image(self, folder: Path, pick: random.Random) -> None:
        """Write what the disk might show after power was lost now."""
        share = pick.choice(SHARES)
        for path, state in list(self.files.items()):
            if (open_file := self.opened.get(path)) is None:
                continue
            (folder / Path(path).name).write_bytes(_after_power_loss(open_file.content(), state, share, pick))


def _after_power_loss(now: bytes, state: Unsynced, share: float, pick: random.Random) -> bytes:
    kept = {number for number in state.before if pick.random() < share}
    longest = max(((number + 1) * SECTOR for number in kept), default=0)
    size = max(pick.choice((state.size, len(now))), min(longest, len(now)))
    content = bytearray(max(size, len(now)))
    content[: len(now)] = now
    for number, before in state.before.items():
        if number not in kept:
            start = number * SECTOR
            content[start : start + SECTOR] = before.ljust(SECTOR, b"\0")[: max(0, min(SECTOR, len(content) - start))]
    return bytes(content[:size])


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self._disk = disk
        self._path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        self._state = disk.files.setdefault(self._path, Unsynced(super().xFileSize()))
        disk.opened[self._path] = self

    def content(self) -> bytes:
        """Return all bytes, without another descriptor: closing one would drop SQLite's locks."""
        return super().xRead(super().xFileSize(), 0)

    def _remember(self, first: int, end: int) -> None:
        for number in range(first // SECTOR, (end + SECTOR - 1) // SECTOR):
            if number not in self._state.before:
                start = number * SECTOR
                known = super().xRead(SECTOR, start) if start < min(self._state.size, super().xFileSize()) else b""
                self._state.before[number] = known

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802
        """Write, and remember what stood there at the last sync."""
        self._disk.counted()
        self._remember(offset, offset + len(data))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        """Cut, and remember what was cut off."""
        self._disk.counted()
        self._remember(newsize, max(newsize, self._state.size))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802
        """Make everything so far safe."""
        self._disk.counted()
        super().xSync(flags)
        self._state.size = super().xFileSize()
        self._state.before.clear()


class Cursor:
    """What a statement gave, as `sqlite3.Cursor` shows it."""

    def __init__(self, rows: list[Any], lastrowid: int, rowcount: int) -> None:
        self._rows = iter(rows)
        self.lastrowid = lastrowid
        self.rowcount = rowcount

    def __iter__(self) -> Iterator[Any]:
        return self._rows

    def fetchone(self) -> Any:
        """Return the next row, None after the last."""
        return next(self._rows, None)

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""
        return list(self._rows)


class Connection:
    """The part of `sqlite3.Connection` that the store uses, on a disk of this module."""

    def __init__(self, path: str, disk: str, timeout_s: float) -> None:
        self._db = apsw.Connection(path, vfs=disk)
        self._db.set_busy_timeout(int(timeout_s * 1000))
        self.isolation_level = None

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._db.in_transaction

    def create_function(self, name: str, narg: int, func: Callable[..., Any], **_: Any) -> None:
        """Let SQL call a function."""
        self._db.create_scalar_function(name, func, narg)

    @property
    def total_changes(self) -> int:
        """Rows changed so far."""
        return self._db.total_changes()

    def execute(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> Cursor:
        """Run one statement to its end."""
        with _errors():
            rows = self._db.execute(sql, parameters or None).fetchall()
            return Cursor(rows, self._db.last_insert_rowid(), self._db.changes())

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]]) -> Cursor:
        """Run one statement with each of the parameters."""
        with _errors():
            self._db.executemany(sql, list(parameters)).fetchall()
            return Cursor([], self._db.last_insert_rowid(), self._db.changes())

    def executescript(self, sql: str) -> Cursor:
        """Run many statements."""
        return self.execute(sql)

    def commit(self) -> None:
        """End a transaction, if one is open."""
        if self._db.in_transaction:
            self.execute("COMMIT")

    def rollback(self) -> None:
        """Undo a transaction, if one is open."""
        if self._db.in_transaction:
            self.execute("ROLLBACK")

    def close(self) -> None:
        """Close."""
        self._db.close()


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except apsw.Error as error:
        made = sqlite3.IntegrityError if isinstance(error, apsw.ConstraintError) else sqlite3.OperationalError
        raised = made(str(error))
        raised.sqlite_errorcode = getattr(error, "extendedresult", 0)
        raise raised from error


@contextlib.contextmanager
def mounted(folder: Path) -> Iterator[Disk]:
    """Let every SQLite file that is opened in `folder` while the block runs stand on a disk that can lose power."""
    disk = Disk(f"disk-{os.getpid()}-{id(folder)}")
    real = sqlite3.connect

    def connect(path: Any, *args: Any, **kwargs: Any) -> Any:
        if not str(path).startswith(str(folder)):
            return real(path, *args, **kwargs)
        return Connection(str(path), disk.name, kwargs.get("timeout", 5.0))

    with mock.patch.object(sqlite3, "connect", connect):
        yield disk
    disk.unregister()
