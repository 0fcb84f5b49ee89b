"""Feast's SQLite online store, read in place: key bytes, values, event times.  Never writes to it, never imports Feast.

A table is `{project}_{view}` with a row for each entity and feature; keys are Feast's entity keys of version 3, values
its ValueProto.  Event times are seconds since 1970 UTC.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import struct
import time
from collections.abc import Sequence
from pathlib import Path

from serving import instants

STRING, INT64, UNIX_TIMESTAMP = 2, 4, 8
SECOND_US = 1_000_000
BUSY_S = 0.02
LOOK_S = 0.5
REST_S = 0.1

Value = str | float | int | bool | None

log = logging.getLogger(__name__)


class OnlineStore:
    """The store's file, which may appear, change and be replaced at any time."""

    def __init__(self, path: Path) -> None:
        self.errors = 0
        self._told = ""
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._file = (0, 0)
        self._openings = 0
        self._version = (0, -1)
        self._look_at_s = 0.0
        self._rest_until_s = 0.0

    def version(self) -> tuple[int, int]:
        """Return what changes with every commit of anybody and with every other file."""
        if time.monotonic() >= self._look_at_s:
            self._look()
        if self._connection is not None and not self._resting():
            try:
                found = self._connection.execute("PRAGMA data_version").fetchone()[0]
            except sqlite3.Error as error:
                self._failed(error)
            else:
                self._version = (self._openings, found)
        return self._version

    def read(self, table: str, key: bytes, features: Sequence[str]) -> tuple[int, dict[str, Value]] | None:
        """Return the event time (microseconds) and values of an entity, None if there are none.

        Raises sqlite3.Error when the store cannot say.
        """
        if self._connection is None:
            return None
        if self._resting():
            raise sqlite3.OperationalError("the online store could not be read a moment ago")
        try:
            return self._read(self._connection, table, key, features)
        except sqlite3.Error as error:
            if "no such table" in str(error):
                return None
            self._failed(error)
            raise
        except (ValueError, TypeError, IndexError, struct.error) as error:
            self._count(f"{table} holds what Feast does not write: {error}")
            return None

    def _read(
        self, connection: sqlite3.Connection, table: str, key: bytes, features: Sequence[str]
    ) -> tuple[int, dict[str, Value]] | None:
        marks = ",".join("?" * len(features))
        columns = "feature_name, value, event_ts"
        sql = f"SELECT {columns} FROM {quoted(table)} WHERE entity_key = ? AND feature_name IN ({marks})"  # noqa: S608
        rows = connection.execute(sql, (key, *features)).fetchall()
        if not rows:
            return None
        at_us = instants.checked(max(int(row[2]) for row in rows) * SECOND_US)
        return at_us, {row[0]: decode(row[1]) for row in rows}

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _resting(self) -> bool:
        return bool(self._rest_until_s) and time.monotonic() < self._rest_until_s

    def _failed(self, error: sqlite3.Error) -> None:
        """Leave the store alone for a moment, so that a locked or damaged one does not slow every request down."""
        self._rest_until_s = time.monotonic() + REST_S
        self._count(f"the online store cannot be read: {error}")

    def _count(self, text: str) -> None:
        """Count a fault; the same one again is not told again."""
        self.errors += 1
        if self._told != text:
            self._told = text
            log.warning("%s", text)

    def _look(self) -> None:
        self._look_at_s = time.monotonic() + LOOK_S
        try:
            found = os.stat(self._path)
        except OSError:
            self.close()
            self._file = (0, 0)
            self._version = (self._openings, -1)
            return
        if self._connection is None or self._file != (found.st_dev, found.st_ino):
            self.close()
            self._file = (found.st_dev, found.st_ino)
            self._open()

    def _open(self) -> None:
        """Open read-write, as a reader of a write-ahead log has to, and refuse to write."""
        self._openings += 1
        self._version = (self._openings, -1)
        try:
            uri = f"{self._path.absolute().as_uri()}?mode=rw"
            self._connection = sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None)
            self._connection.execute("PRAGMA query_only = ON")
        except sqlite3.Error as error:
            self._failed(error)
            self.close()


def quoted(name: str) -> str:
    """Return an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


class KeyCodec:
    """Entity key bytes of a view.  `names` and `dtypes` of its join keys; values are given in the same order."""

    def __init__(self, names: Sequence[str], dtypes: Sequence[str]) -> None:
        unknown = sorted(set(dtypes) - WRITERS.keys())
        if unknown:
            raise ValueError(f"a join key cannot be of dtype {', '.join(unknown)}")
        self._order = sorted(range(len(names)), key=lambda place: names[place])
        self._writers = [WRITERS[dtype] for dtype in dtypes]
        encoded = [names[place].encode() for place in self._order]
        head = [struct.pack("<I", len(names))]
        head += [struct.pack("<II", STRING, len(name)) + name for name in encoded]
        self._head = b"".join(head)

    def key(self, values: Sequence[Value]) -> bytes:
        """Return the bytes."""
        return self._head + b"".join([self._writers[place](values[place]) for place in self._order])


def _text(value: Value) -> bytes:
    content = str(value).encode()
    return struct.pack("<II", STRING, len(content)) + content


def _long(value: Value) -> bytes:
    return struct.pack("<IIq", INT64, 8, value)


def _instant(value: Value) -> bytes:
    return struct.pack("<IIq", UNIX_TIMESTAMP, 8, int(value or 0) // SECOND_US)


WRITERS = {"string": _text, "long": _long, "timestamp": _instant}


def decode(content: bytes) -> Value:
    """Return the value of a ValueProto: text, a number, a boolean, an instant in microseconds; None for any other."""
    if not content:
        return None
    tag = content[0]
    if tag == 0x29:
        return float(struct.unpack_from("<d", content, 1)[0])
    if tag == 0x12:
        size, at = _varint(content, 1)
        return content[at : at + size].decode()
    if tag in (0x18, 0x20):
        return _signed(_varint(content, 1)[0])
    if tag == 0x35:
        return float(struct.unpack_from("<f", content, 1)[0])
    if tag == 0x38:
        return content[1] != 0
    if tag == 0x40:
        return _signed(_varint(content, 1)[0]) * SECOND_US
    return None


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
