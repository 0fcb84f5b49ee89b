"""Tells coroutines what was committed: the newest changes, as the writer logged them, without a look at the store.

May be rung from any thread; a ring is never missed.  Whoever waits for other kinds than those that changed sleeps on.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Collection, Sequence
from typing import Any

# revision, kind, namespace, name, type, body, previous: what `sql.changes` reads.
Row = tuple[int, str, str, str, str, bytes, bytes | None]
# What is kept of the newest changes, for watchers that are a little late.
MOST = 1000
MOST_BYTES = 16 * 1024 * 1024


class Place:
    """How far a watcher of some kinds has come.  `since`: it knows every change of them up to this revision."""

    __slots__ = ("count", "since", "wanted", "woken")

    def __init__(self, wanted: Collection[str], since: int) -> None:
        self.wanted = frozenset(wanted)
        self.since = since
        # How often the bell had rung when it last looked.
        self.count = -1
        self.woken: tuple[asyncio.AbstractEventLoop, asyncio.Future[bool]] | None = None


class Bell:
    """Counts its rings, and keeps the newest changes.  `most`: how many of them."""

    def __init__(self, most: int = MOST) -> None:
        self._lock = threading.Lock()
        # In the order in which they came: who is woken first does not hang on addresses in memory.
        self._waiting: dict[Place, None] = {}
        self._most = most
        # All changes after `_start` up to `_head`.
        self._rows: list[Row] = []
        self._bytes = 0
        self._start = self._head = -1
        self.count = 0

    def news(self, place: Place) -> Sequence[Row]:
        """Return the changes after a place that are known here, at least those of its kinds.

        None may mean that it knows all, or that only the store can tell.
        """
        with self._lock:
            place.count = self.count
            if not self._start <= place.since < self._head:
                return ()
            at = len(self._rows)
            while at and self._rows[at - 1][0] > place.since:
                at -= 1
            return self._rows[at:]

    def publish(self, before: int, head: int, rows: Sequence[Row]) -> None:
        """Ring for all changes after revision `before` up to `head`, oldest first."""
        with self._lock:
            if before != self._head:
                # Another process wrote between: what it wrote is not known here.
                self._rows, self._bytes, self._start = [], 0, before
            self._head = head
            self._rows += rows
            self._bytes += sum(map(_size, rows))
            self._shorten()
            kinds = {row[1] for row in rows}
            self.count += 1
            called = []
            for place in [*self._waiting]:
                if place.since == before and kinds.isdisjoint(place.wanted):
                    place.since, place.count = head, self.count
                else:
                    del self._waiting[place]
                    called.append(place)
        _wake(called)

    def ring(self) -> None:
        """Wake everybody who waits: something was committed, and what it was stands in the store."""
        with self._lock:
            self.count += 1
            called, self._waiting = [*self._waiting], {}
        _wake(called)

    def _shorten(self) -> None:
        """Drop the oldest of what is too much."""
        many, size = len(self._rows), self._bytes
        dropped = 0
        while many - dropped > self._most or (size > MOST_BYTES and dropped < many):
            size -= _size(self._rows[dropped])
            dropped += 1
        if dropped:
            # Some more than must be: so that a long list is not moved for every change.
            self._drop(min(many, max(dropped, self._most // 4)))

    def _drop(self, many: int) -> None:
        if many:
            self._start = self._rows[many - 1][0]
            self._bytes -= sum(map(_size, self._rows[:many]))
            del self._rows[:many]

    async def after(self, place: Place, timeout_s: float) -> bool:
        """Return when it has rung for a place since it looked (true), or a time has passed (false)."""
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[bool] = loop.create_future()
        with self._lock:
            if self.count != place.count:
                return True
            place.woken = loop, woken
            self._waiting[place] = None
        timer = loop.call_later(timeout_s, _settle, woken, False)
        try:
            return await woken
        finally:
            timer.cancel()
            with self._lock:
                self._waiting.pop(place, None)


def _size(row: Row) -> int:
    return len(row[5]) + len(row[6] or b"")


def _wake(places: Collection[Place]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[Any]]] = {}
    for place in places:
        assert place.woken is not None, "who waits says how it is woken"
        by_loop.setdefault(place.woken[0], []).append(place.woken[1])
    for loop, futures in by_loop.items():
        # A loop that is closed has nobody who waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_settle_all, futures)


def _settle_all(futures: Sequence[asyncio.Future[bool]]) -> None:
    for future in futures:
        _settle(future, True)


def _settle(future: asyncio.Future[bool], rung: bool) -> None:
    if not future.done():
        future.set_result(rung)
