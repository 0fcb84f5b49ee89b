"""The public watch: one reader of the change log a process, a ring of the newest changes, any number of watchers.

    watch = await hub.watch(Selection.of({"Project": None}), since, bookmarks=True, principal=subject)
    async with watch:
        async for events in watch:          # tuples, never empty; an ApiError tells why it ended
            await watch.deliver(send(events))

Every change has a revision of its own.  A watcher gets each selected change after `since` once, in order, without a
gap, or is refused at once; a bookmark at r says that everything up to r was handed out.  Nothing is left out for a slow
watcher: it is cut.  Events are shared, and encoded once for each form in which any watcher wants them.
Never decides who may see what: the selection says it.  Source of the rules: etcd's guarantees of its watch.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType

from api.errors import ApiError, Expired, FieldViolation, InvalidArgument, ResourceExhausted, Unavailable
from api.events import Entry, Event, EventType, Limits, Log, Ring, told
from api.kinds import kinds
from api.pace import Flow
from api.selection import Selection
from api.store.base import Change

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
# How many changes are looked at before others have a turn.
SCANNED = 256
# A change that the log must have is there at once.
LOG_S = 5.0

log = logging.getLogger(__name__)


class Watch:
    """One watcher's events.  Made by `Hub.watch`; use as an async context manager, iterate once."""

    def __init__(self, hub: Hub, selection: Selection, position: int, *, bookmarks: bool, principal: str) -> None:
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


class Hub:
    """Reads the change log once for all watchers.  Reads nothing before the first watch; use as a context manager."""

    def __init__(self, changes: Log, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.ring: Ring = Ring(0, self.limits.ring_events, self.limits.ring_bytes)
        # A large event goes to one watcher after the other.
        self.flow = Flow()
        self._changes = changes
        self._live: dict[Selection, set[Watch]] = {}
        self._watches: set[Watch] = set()
        self._count: Counter[str] = Counter()
        self._starting = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._bookmark = Event(EventType.BOOKMARK, 0)
        self._closed = False

    async def __aenter__(self) -> Hub:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def watch(
        self, selection: Selection, since: int | None = None, *, bookmarks: bool = False, principal: str = ""
    ) -> Watch:
        """Open a watch of the changes after revision `since`; None: from now on.

        principal: whose watches are counted together, empty: not counted.
        Raises Expired, InvalidArgument (RV_IN_FUTURE), ResourceExhausted (TOO_MANY_WATCHES), Unavailable.
        """
        if self._closed:
            raise Unavailable("the server stops: watch again", reason="SERVER_STOPPING")
        full = len(self._watches) >= self.limits.watches_in_all
        if principal and (full or self._count[principal] >= self.limits.watches):
            most = self.limits.watches_in_all if full else self.limits.watches
            told = f"{most} watches are open: close one, or watch more kinds with one; then try again"
            raise ResourceExhausted(told, reason="TOO_MANY_WATCHES")
        watch = Watch(self, selection, since or 0, bookmarks=bookmarks, principal=principal)
        self._watches.add(watch)
        self._count[principal] += 1
        try:
            await self._start()
            if since is None or since > self.ring.head:
                watch.position = _checked(since, await self._changes.revision())
            await watch.prime()
        except BaseException:
            await watch.close()
            raise
        return watch

    async def close(self) -> None:
        """End every watch, so that watchers go on elsewhere from the version that they are told."""
        self._closed = True
        for watch in tuple(self._watches):
            watch.stop("the server stops", "SERVER_STOPPING")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def log(self, since: int) -> AsyncIterator[Change]:
        """Return the changes of all kinds after a revision, from the store."""
        return self._changes.watch(tuple(kinds()), since)

    def bookmark(self, revision: int) -> Event:
        """Return the bookmark of a revision, the same one for all."""
        if self._bookmark.revision != revision:
            self._bookmark = Event(EventType.BOOKMARK, revision)
        return self._bookmark

    def join(self, watch: Watch) -> None:
        """Hand every further change to a watch."""
        self._live.setdefault(watch.selection, set()).add(watch)

    def leave(self, watch: Watch) -> None:
        """Hand nothing more to a watch."""
        members = self._live.get(watch.selection, set())
        members.discard(watch)
        if not members:
            self._live.pop(watch.selection, None)

    def forget(self, watch: Watch) -> None:
        """Count a watch no longer."""
        if watch in self._watches:
            self._watches.discard(watch)
            self._count -= Counter([watch.principal])

    async def _start(self) -> None:
        async with self._starting:
            if not self._tasks and not self._closed:
                self.ring.clear(await self._changes.revision())
                self._tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._tick())]

    async def _follow(self) -> None:
        """Read the change log for ever.  What cannot be read now is read later: nothing is skipped."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                async for change in self.log(self.ring.head):
                    self._publish(change)
                    pause_s = FIRST_PAUSE_S
            except Expired:
                log.warning("changes were compacted before they were read: watchers begin anew")
                for watch in tuple(self._watches):
                    watch.stop("the server lost its place in the changes", "WATCH_ENDED")
                with contextlib.suppress(ApiError):
                    self.ring.clear(await self._changes.revision())
            except ApiError as error:
                log.warning("the change log cannot be read: %s", error.message)
            except Exception:
                log.exception("reading the change log failed")
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _publish(self, change: Change) -> None:
        entry = self.ring.append(change)
        for selection, members in tuple(self._live.items()):
            seen = selection.seen(change)
            if seen is not None:
                event = told(entry, seen)
                for watch in tuple(members):
                    watch.offer(event)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(min(1.0, self.limits.bookmark_s / 4))
            for watch in tuple(self._watches):
                if watch.due():
                    watch.wake()


def _checked(since: int | None, newest: int) -> int:
    if since is not None and since > newest:
        field, text = "resource_version", f"{since} was never given out: the newest is {newest}"
        raise InvalidArgument(f"{field} {text}", reason="RV_IN_FUTURE", violations=[FieldViolation(field, text)])
    return newest if since is None else since
