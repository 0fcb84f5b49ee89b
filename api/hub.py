"""The public watch: one reader of the change log a process, a ring of the newest changes, any number of watchers.

    watch = await hub.watch(Selection.of({"Project": None}), since, bookmarks=True, principal=subject)
    async with watch:
        async for events in watch:          # tuples, never empty; an ApiError tells why it ended
            await watch.deliver(send(events))

Every change has a revision of its own.  A watcher gets each selected change after `since` once, in order, without a
gap, or is refused at once; a bookmark at r says that everything up to r was handed out.  Events are shared, and encoded
once for each form in which any watcher wants them.  Never decides who may see what: the selection says it.
Source of the rules: etcd's guarantees of its watch.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator
from types import TracebackType

from api.errors import ApiError, Expired, FieldViolation, InvalidArgument, ResourceExhausted, Unavailable
from api.events import Event, EventType, Limits, Log, Ring, told
from api.kinds import kinds
from api.pace import Flow
from api.selection import Selection
from api.store.base import Change
from api.watch import Watch

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0

log = logging.getLogger(__name__)


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
            self._count[watch.principal] -= 1
            if not self._count[watch.principal]:
                del self._count[watch.principal]

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
