"""One watcher of the public watch: what waits for it, what it was told, and when it is cut.  Reads no log by itself.

Nothing is left out for a slow watcher: it is ended, with the version from which it can go on.  `api.hub` makes watchers
and hands them what is new.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Protocol

from api.errors import ApiError, Expired, ResourceExhausted, Unavailable
from api.events import Entry, Event, Limits, Ring, told
from api.pace import Flow
from api.selection import Selection
from api.store.base import Change

# How many changes are looked at before others have a turn.
SCANNED = 256
# A change that the log must have is there at once.
LOG_S = 5.0


class Source(Protocol):
    """Where a watcher's events come from.  flow: in which large events go, one watcher after the other."""

    limits: Limits
    ring: Ring
    flow: Flow

    def log(self, since: int) -> AsyncIterator[Change]:
        """Return the changes of all kinds after a revision, from the store."""
        ...

    def bookmark(self, revision: int) -> Event:
        """Return the bookmark of a revision."""
        ...

    def join(self, watch: Watch) -> None:
        """Hand every further change to a watch."""
        ...

    def leave(self, watch: Watch) -> None:
        """Hand nothing more to a watch."""
        ...

    def forget(self, watch: Watch) -> None:
        """Count a watch no longer."""
        ...


class Watch:
    """One watcher's events.  Made by `Hub.watch`; use as an async context manager, iterate once."""

    def __init__(self, hub: Source, selection: Selection, position: int, *, bookmarks: bool, principal: str) -> None:
        self.selection = selection
        self.principal = principal
        # Everything selected up to here was handed out.
        self.position = position
        self.bookmarks = bookmarks
        self._hub = hub
        self._limits = hub.limits
        self._queue: deque[Event] = deque()
        self._queued_bytes = 0
        self._flying = (0, 0)
        self._live = False
        self._log: AsyncIterator[Change] | None = None
        self._ahead: Change | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._writer: asyncio.Task[object] | None = None
        self._error: ApiError | None = None
        self._bookmark_at = 0.0
        self._closing: list[Callable[[], object]] = []

    async def __aenter__(self) -> Watch:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> tuple[Event, ...]:
        """Return the next events; asking again says that the last ones were taken.  Raises what ended the watch."""
        self._flying = (0, 0)
        sendable = False
        while True:
            if self._error is not None:
                raise self._error
            if self._live and self._queue and not sendable:
                sendable = await self._hub.flow.turn(self._queue[0].size)
                continue
            if self._live:
                events = self._drain()
                if not events:
                    await self._wait()
            elif self.position >= self._hub.ring.floor:
                events = self._recent()
                if not events:
                    await asyncio.sleep(0)
            else:
                events = await self._old()
            if events:
                return tuple(events)

    def _drain(self) -> list[Event]:
        """Take what waits, up to a batch, and the bookmark that is due behind it."""
        events: list[Event] = []
        size = 0
        while self._queue and len(events) < self._limits.batch_events and size < self._limits.batch_bytes:
            if events and size + self._queue[0].size > self._limits.batch_bytes:
                break
            event = self._queue.popleft()
            events.append(event)
            size += event.size
        if events:
            self._queued_bytes -= size
            self._flying = (len(events), size)
            self.position = events[-1].revision
        if not self._queue and self.due():
            self.position = max(self.position, self._hub.ring.head)
            self._bookmark_at = asyncio.get_running_loop().time() + self._limits.bookmark_s
            events.append(self._hub.bookmark(self.position))
        return events

    def due(self) -> bool:
        """Whether a bookmark should be sent."""
        return self._live and self.bookmarks and asyncio.get_running_loop().time() >= self._bookmark_at

    def _recent(self) -> list[Event]:
        """Take the next batch of the ring; at its end the watch is live, in the same step."""
        events: list[Event] = []
        size = 0
        for scanned, entry in enumerate(self._hub.ring.after(self.position)):
            if scanned == SCANNED or len(events) >= self._limits.batch_events:
                return events
            event = self._told(entry)
            if event is not None and events and size + event.size > self._limits.batch_bytes:
                return events
            self.position = entry.change.revision
            if event is not None:
                events.append(event)
                size += event.size
        self._live = True
        self._hub.join(self)
        return events

    def _told(self, entry: Entry) -> Event | None:
        seen = self.selection.seen(entry.change)
        return None if seen is None else told(entry, seen)

    async def _old(self) -> list[Event]:
        """Take the next batch of the change log, until the ring goes on.  Raises Expired."""
        events: list[Event] = []
        size = 0
        for _ in range(SCANNED):
            if self.position >= self._hub.ring.floor or size >= self._limits.batch_bytes:
                break
            change = await self._read()
            self.position = change.revision
            event = self._told(Entry(change))
            if event is not None:
                events.append(event)
                size += event.size
        if self.position >= self._hub.ring.floor:
            await self._close_log()
        return events

    async def _read(self) -> Change:
        if self._ahead is not None:
            change, self._ahead = self._ahead, None
            return change
        if self._log is None:
            self._log = self._hub.log(self.position)
        return await anext(self._log)

    async def prime(self) -> None:
        """Raise Expired now if it must be raised, not with the first event."""
        if self.position < self._hub.ring.floor:
            try:
                self._ahead = await asyncio.wait_for(self._read(), LOG_S)
            except TimeoutError:
                raise Expired("no change after this version is kept: list again and watch from there") from None

    def offer(self, event: Event) -> None:
        """Queue an event for this live watcher, or cut it if it has too many."""
        if event.revision <= self.position:
            return
        self._queue.append(event)
        self._queued_bytes += event.size
        flying, flying_bytes = self._flying
        count, size = len(self._queue) + flying, self._queued_bytes + flying_bytes
        if count > self._limits.queue_events or size > self._limits.queue_bytes:
            told = f"{count} events with {size} bytes wait to be read"
            self.end(ResourceExhausted(f"the watch is too slow: {told}; {self._resume()}", reason="SLOW_CONSUMER"))
        else:
            self.wake()

    def _resume(self) -> str:
        return f"the last version sent is {self.position}: watch again from there"

    def stop(self, why: str, reason: str) -> None:
        """End the watch for no fault of the watcher's: it can go on elsewhere."""
        self.end(Unavailable(f"{why}; {self._resume()}", reason=reason))

    def end(self, error: ApiError) -> None:
        """End the watch: its iterator, or the delivery that is under way, raises `error`."""
        if self._error is None:
            self._error = error
            self._leave()
            self.wake()
            if self._writer is not None:
                self._writer.cancel()

    async def deliver(self, writing: Awaitable[object]) -> None:
        """Await a transport's write.  Raises what ends the watch even if the other side never reads."""
        if self._error is not None:
            if asyncio.iscoroutine(writing):
                writing.close()
            raise self._error
        task = self._writer = asyncio.current_task()
        try:
            await writing
        except asyncio.CancelledError:
            error = self.error
            if error is None or task is None or task.uncancel() > 0:
                raise
            raise error from None
        finally:
            self._writer = None

    @property
    def error(self) -> ApiError | None:
        """What ended the watch, None while it goes on."""
        return self._error

    def on_close(self, work: Callable[[], object]) -> None:
        """Call `work` when the watch is closed."""
        self._closing.append(work)

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def wake(self) -> None:
        """Let the iterator look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _leave(self) -> None:
        self._queue.clear()
        self._queued_bytes = 0
        if self._live:
            self._live = False
            self._hub.leave(self)

    async def _close_log(self) -> None:
        closing, self._log = self._log, None
        if closing is not None and hasattr(closing, "aclose"):
            await closing.aclose()

    async def close(self) -> None:
        """Give back what the watch holds."""
        self._leave()
        self._hub.forget(self)
        for work in self._closing:
            work()
        self._closing.clear()
        await self._close_log()
