"""Tells at once whether a SQLite file is as it was, whoever writes to it, and keeps what was read of it until then.

SQLite's writers, of all processes, note every commit in memory that they share: in the first 48 bytes of the `-shm`
file beside the store's, which stand there twice, so that a reader sees whether one is being written.  While they do not
change, all reads see the same; SQLite itself keeps its pages for as long (sqlite.org/walformat.html, section 2).

That file is opened here once for all stores of it in this process, and closed when the last of them has no connection
any more: POSIX ends all locks that a process has on a file when it closes any descriptor of it, SQLite's own ones too.
"""

from __future__ import annotations

import mmap
import os
import threading
from pathlib import Path

from api.store.base import Key

VERSION = 3007000
VERSIONS = (VERSION.to_bytes(4, "little"), VERSION.to_bytes(4, "big"))
NOTED = 48
INITIALIZED = 12
# What is kept: some megabytes.
MOST_KEPT = 1_000
LARGEST_KEPT = 8 * 1024

_lock = threading.Lock()
_open: dict[tuple[int, int], WalIndex] = {}


class WalIndex:
    """What is noted of one file."""

    def __init__(self, descriptor: int, place: tuple[int, int]) -> None:
        self.users = 0
        self._descriptor = descriptor
        self._place = place
        self._map = mmap.mmap(descriptor, 2 * NOTED, mmap.MAP_SHARED, mmap.PROT_READ)

    @staticmethod
    def of(store: Path) -> WalIndex | None:
        """Return what is noted of a store that has a connection in this process; None where there is nothing known."""
        path = f"{os.path.realpath(store)}-shm"
        with _lock:
            try:
                found = os.stat(path)
                place = (found.st_dev, found.st_ino)
                if place not in _open:
                    # From here on it is not closed, whatever comes.
                    _open[place] = WalIndex(os.open(path, os.O_RDONLY | os.O_CLOEXEC), place)
            except (OSError, ValueError):
                return None
            _open[place].users += 1
            return _open[place]

    def close(self) -> None:
        """Give it back, when the connections of whoever asked for it are closed."""
        with _lock:
            self.users -= 1
            if not self.users:
                del _open[self._place]
                self._map.close()
                os.close(self._descriptor)

    def noted(self) -> bytes:
        """Return what is another after each commit, as it stands: in the moment of one, it is nothing to go by."""
        return self._map[: 2 * NOTED]


class Kept:
    """The bytes of objects, for as long as the file is as it was when they were read."""

    def __init__(self, index: WalIndex) -> None:
        self._index = index
        # What was noted when they were read: whole, or nothing at all.
        self._noted = b""
        self._found: dict[Key, bytes] = {}

    def find(self, key: Key) -> bytes | None:
        """Return the bytes of an object, if they are known to be as they were."""
        return self._found.get(key) if self._index.noted() == self._noted else None

    def begin(self) -> None:
        """Forget what was read before, if another commit was noted since.  An object is read after it."""
        noted = self._index.noted()
        if noted != self._noted:
            self._found.clear()
            self._noted = noted if _is_whole(noted) else b""

    def keep(self, key: Key, found: bytes) -> None:
        """Keep the bytes of an object that was read after `begin`, if no commit was noted meanwhile."""
        if len(found) <= LARGEST_KEPT and self._index.noted() == self._noted:
            if len(self._found) >= MOST_KEPT:
                self._found.clear()
            self._found[key] = found


def _is_whole(noted: bytes) -> bool:
    """Whether no commit is being noted, and the format is known."""
    return noted.startswith(VERSIONS) and noted[INITIALIZED] != 0 and noted.endswith(noted[:NOTED])
